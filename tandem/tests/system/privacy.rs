//! What the processes write and answer has no names, keys, tokens, passwords or connection strings, however much they log and whatever goes
//! wrong.

use std::fmt::Write as _;

use serde_json::json;
use tempfile::TempDir;
use test_harness::{Answer, Http, Issuer, KeysFile, Process, binary, database_url, wait_until};

const NAME: &str = "Wilhelmina Distinctive";
const KEY: &str = "idempotency-4711-secret";
const TOKEN: &str = "tdm_someone_secret0815";

/// The password of a PostgreSQL that is not there.
const PASSWORD: &str = "pass-word-0816";

/// What the all-in-one with the settings `auth` writes and refuses, for a caller with `token` who does everything that may fail.
fn written_by(auth: &[(&str, &str)], token: &str) -> String {
    let folder = TempDir::new().expect("a folder");
    let database = database_url(folder.path(), "account");
    let settings = [("ACCOUNT_DATABASE_URL", &*database), ("LOG_LEVEL", "trace"), ("AUDIT_FILE", "audit.jsonl")];
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[&settings[..], auth].concat());
    let [accounts, cards] = [account_service::NAME, card_service::NAME]
        .map(|name| tandem.ready_service(name).with_authorization(format!("Bearer {token}")));
    let mut written = String::new();
    let mut refused = |answer: Answer| {
        assert!(answer.status >= 400, "{}", answer.raw);
        let _ = writeln!(written, "{}", answer.raw);
    };
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", KEY)];
    if !auth.is_empty() {
        for wrong in [format!("Bearer {token}x"), format!("Basic {token}"), format!("Bearer {token} {token}")] {
            refused(Http::new(accounts.address()).with_authorization(wrong).get("/accounts"));
        }
    }
    let body = json!({ "beholder_name": NAME, "country_code": "US" }).to_string();
    let send = |method: &str, path: &str, body: &str| accounts.send(method, path, &headers, body.as_bytes().to_vec());
    let id = send("POST", "/account", &body).text("id").to_owned();
    let path = format!("/account?id={id}");
    // Each part of a request that may fail, with a secret near it.
    refused(send("PATCH", &path, &body));
    for wrong in [
        json!({ "beholder_name": format!("{NAME}\u{202E}"), "country_code": "US" }).to_string(),
        json!({ "beholder_name": NAME.repeat(20), "country_code": "US" }).to_string(),
        json!({ "beholder_name": NAME, "country_code": NAME }).to_string(),
        json!({ "beholder_name": [NAME], "country_code": "US" }).to_string(),
        format!("{{\"beholder_name\": \"{NAME}"),
        format!("{{\"beholder_name\": {NAME}}}"),
    ] {
        refused(send("POST", "/account", &wrong));
    }
    refused(send("PATCH", &path, &json!({ "status": NAME }).to_string()));
    refused(accounts.send("POST", "/account", &[("Idempotency-Key", &format!("{KEY} {KEY}"))], body.clone().into()));
    refused(cards.send("POST", "/card", &headers, json!({ "country": NAME, "account_id": id }).to_string().into()));
    cards.send("POST", "/card", &headers, json!({ "country": "US", "account_id": id }).to_string().into());
    accounts.delete(&path).expect(200);
    refused(accounts.send("PUT", &path, &headers[..1], body.clone().into()));
    accounts.post(&format!("/admin/erase?id={id}"), &json!({})).expect(200);
    for service in [&accounts, &cards] {
        let _ = writeln!(written, "{} {}", service.get("/readyz").raw, service.get("/health").raw);
    }
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    let audit = std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("an audit file");
    assert!(audit.lines().count() > 10, "{audit}");
    assert!(tandem.lines().len() > 20, "it logs at trace: {:#?}", tandem.lines());
    written.extend(tandem.lines().into_iter().chain([audit]).flat_map(|text| [text, "\n".to_owned()]));
    written
}

#[test]
fn nothing_that_is_written_or_refused_has_a_secret() {
    let folder = TempDir::new().unwrap();
    let (keys, issuer) = (KeysFile::new(folder.path()), Issuer::start());
    let (key, token) = (keys.add("shop", "admin").0, issuer.token("admin"));
    let of_issuer = issuer.settings();
    let of_issuer: Vec<_> = of_issuer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut written = String::new();
    for (auth, token) in [(&[][..], TOKEN), (&keys.settings(), &key), (&of_issuer, &token)] {
        written += &written_by(auth, token);
    }

    let url = format!("postgres://someone:{PASSWORD}@127.0.0.1:1/accounts");
    let settings = [("ACCOUNT_DATABASE_URL", url.as_str()), ("LOG_LEVEL", "trace")];
    let mut without = Process::start(&binary("tandem"), folder.path(), &settings);
    wait_until("it says that PostgreSQL is away", || {
        without.lines().iter().any(|line| line.contains("waiting for the database")).then_some(())
    });
    without.kill();
    written.extend(without.lines());

    let secret_of = |text: &str, separator| text.rsplit(separator).next().unwrap_or_default().to_owned();
    let (key, signature) = (secret_of(&key, '_'), secret_of(&token, '.'));
    for secret in [NAME, KEY, TOKEN, PASSWORD, "Distinctive", "secret0815", "someone:", &key, &signature] {
        let found = written.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret}");
    }
}
