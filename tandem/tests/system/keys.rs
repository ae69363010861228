//! Authentication, with the real binaries: the settings, `tandem keys`, revocation, and the operator's commands.

mod command;
mod streams;
mod tokens;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{Answer, DEADLINE, Http, KeysFile, Process, binary, output_of, wait_until};

use crate::requests::john_doe;
use crate::settings::refusal;

/// The time within which a revoked key must be refused, and the noise of a machine that runs other tests: a file is read every second.
const REVOCATION: Duration = Duration::from_secs(5 + 5);

/// Instances that share a keys file.
const INSTANCES: usize = 3;

/// Sends `method path` with the credentials `token` and, for a POST, `body`.
fn ask(service: &Http, method: &str, path: &str, token: &str, body: &Value) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let body = if method == "POST" { body.to_string().into_bytes() } else { Vec::new() };
    service.send(method, path, &headers, body)
}

fn get(service: &Http, path: &str, token: &str) -> Answer {
    ask(service, "GET", path, token, &Value::Null)
}

/// The all-in-one with `settings` in `folder`, and clients of both services.
fn start(folder: &TempDir, settings: &[(&str, &str)]) -> (Process, Http, Http) {
    let mut tandem = Process::start(&binary("tandem"), folder.path(), settings);
    let (accounts, cards) = (tandem.ready_service(account_service::NAME), tandem.ready_service(card_service::NAME));
    (tandem, accounts, cards)
}

#[test]
fn a_start_that_does_not_say_who_may_call_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let kafka = ("KAFKA_BROKERS", "127.0.0.1:1");
    let (malformed, missing) = (folder.path().join("malformed.json"), folder.path().join("missing.json"));
    std::fs::write(&malformed, "{\"keys\": [{\"id\": \"a1\", \"hash\": \"s3cret\"}]}").unwrap();
    let (malformed, missing) = (malformed.to_str().unwrap(), missing.to_str().unwrap());
    for name in ["tandem", account_service::NAME, card_service::NAME] {
        for (settings, words) in [
            (&[("BIND_ADDR", "0.0.0.0")][..], &["AUTH is not set", "BIND_ADDR 0.0.0.0", "AUTH=off"][..]),
            (&[("API_KEYS_FILE", missing)], &["API_KEYS_FILE is set, but AUTH=keys is not"]),
            (&[("JWT_ISSUER", "i"), ("AUTH", "off")], &["JWT_ISSUER is set, but AUTH=jwt is not"]),
            (&[("AUTH", "keys")], &["AUTH=keys needs API_KEYS_FILE"]),
            (&[("AUTH", "keys"), ("API_KEYS_FILE", missing)], &["API_KEYS_FILE: ", missing, "cannot be read"]),
            (&[("AUTH", "keys"), ("API_KEYS_FILE", malformed)], &["API_KEYS_FILE: ", malformed, "entry 1 (id a1)"]),
            (
                &[("AUTH", "jwt"), ("JWT_JWKS_URL", "http://u:s3cret@login.example/")],
                &["invalid value for JWT_JWKS_URL"],
            ),
            (&[("AUTH", "jwt"), ("JWT_ISSUER", "i")], &["AUTH=jwt needs JWT_AUDIENCE"]),
        ] {
            let line = refusal(name, folder.path(), &[], &[&[kafka], settings].concat());
            assert!(words.iter().all(|word| line.contains(word)) && !line.contains("s3cret"), "{name}: {line}");
        }
    }
}

#[test]
fn both_services_know_the_keys_and_readyz_shows_a_file_that_cannot_be_used() {
    let folder = TempDir::new().unwrap();
    let file = KeysFile::new(folder.path());
    let ((shop, _), (admin, _)) = (file.add("shop", "accounts:write,accounts:read"), file.add("ops", "admin"));
    let (tandem, accounts, cards) = start(&folder, &file.settings());
    let account = ask(&accounts, "POST", "/account", &shop, &john_doe()).expect(201);
    assert_eq!(accounts.post("/account", &john_doe()).status, 401);
    let card = json!({ "country": "US", "account_id": account["id"] });
    assert_eq!(ask(&cards, "POST", "/card", &shop, &card).status, 403);
    wait_until("the card is created", || (ask(&cards, "POST", "/card", &admin, &card).status == 201).then_some(()));

    std::fs::write(file.path(), "{").unwrap();
    let warnings = wait_until("the warning", || {
        let warnings = get(&cards, "/readyz", &admin).expect(200)["warnings"].clone();
        warnings.is_array().then_some(warnings)
    });
    let expected = "API_KEYS_FILE is not JSON (line 1, column 1); the keys known until now stay valid";
    assert_eq!(warnings, json!([expected]));
    assert_eq!(cards.get("/readyz").expect(200), json!({ "status": "ready" }));
    let logged = wait_until("the error is logged", || {
        let logged: Vec<_> = tandem.logged().into_iter().filter(|line| line["message"] == expected).collect();
        (!logged.is_empty()).then_some(logged)
    });
    assert_eq!((logged.len(), &logged[0]["level"]), (1, &"ERROR".into()), "{logged:?}");
    assert!(!tandem.lines().iter().any(|line| line.contains(&shop) || line.contains(&admin)));
}

#[test]
fn a_revoked_key_is_refused_by_all_instances_under_load() {
    let shared = TempDir::new().unwrap();
    let file = KeysFile::new(shared.path());
    let ((revoked, entry), (kept, _)) = (file.add("shop", "admin"), file.add("bank", "admin"));
    let folders: Vec<_> = (0..INSTANCES).map(|_| TempDir::new().unwrap()).collect();
    let instances: Vec<_> = folders.iter().map(|folder| start(folder, &file.settings())).collect();
    let services = instances.iter().flat_map(|(_, accounts, cards)| [(accounts, "/accounts"), (cards, "/cards")]);
    let status = |(service, path): (&Http, &str)| get(service, path, &revoked).status;
    let (is_revoked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let slowest = std::thread::scope(|scope| {
        let begun = Instant::now();
        for (_, accounts, _) in &instances {
            let (is_revoked, is_over, kept, revoked) = (&is_revoked, &is_over, &kept, &revoked);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) && begun.elapsed() < DEADLINE {
                    ask(accounts, "POST", "/account", kept, &john_doe()).expect(201);
                    let status = ask(accounts, "POST", "/account", revoked, &john_doe()).status;
                    assert!(status == 201 || (status == 401 && is_revoked.load(Ordering::SeqCst)), "{status}");
                }
            });
        }
        services.clone().for_each(|service| assert_eq!(status(service), 200));
        is_revoked.store(true, Ordering::SeqCst);
        let started = Instant::now();
        file.revoke(&entry.id);
        for service in services {
            wait_until("the revoked key is refused", || (status(service) == 401).then_some(()));
        }
        is_over.store(true, Ordering::Relaxed);
        started.elapsed()
    });
    println!("{INSTANCES} instances refused a revoked key {slowest:.2?} after the command began");
    assert!(slowest < REVOCATION, "{slowest:?}");
}

#[test]
fn the_operators_commands_work_with_authentication() {
    let folder = TempDir::new().unwrap();
    let file = KeysFile::new(folder.path());
    let (admin, _) = file.add("ops", "admin");
    let (mut tandem, accounts, cards) = start(&folder, &file.settings());
    ask(&accounts, "POST", "/account", &admin, &john_doe()).expect(201);
    let urls = [&accounts, &cards].map(|http| format!("http://{}", http.address()));
    let run = |arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = Command::new(binary("tandem"));
        let output = output_of(command.current_dir(folder.path()).env_clear().envs(settings.to_vec()).args(arguments));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let verify = ["verify", "--account-url", &urls[0], "--card-url", &urls[1], "--wait-seconds", "5"];
    let (status, _, error) = run(&verify, &[]);
    assert_eq!(status, Some(2));
    assert!(error.contains("401 for /") && error.contains("credentials are required"), "{error}");
    let (status, report, error) = run(&verify, &[("TANDEM_TOKEN", &admin)]);
    assert_eq!(status, Some(0), "{report}{error}");
    let (status, _, error) = run(&[&verify[..], &["--token", &admin, "--repair"]].concat(), &[]);
    assert_eq!(status, Some(0), "{error}");
    // A service's environment has AUTH and the rest too. These commands use the database.
    let (status, output, error) = run(&["resync"], &file.settings());
    assert_eq!((status, output.contains("Done")), (Some(0), true), "{output}{error}");
    assert!(tandem.terminate().success());
    let (status, output, error) = run(&["recover", "--dry-run"], &file.settings());
    assert_eq!((status, output.contains("1 accounts in the table")), (Some(0), true), "{output}{error}");
}
