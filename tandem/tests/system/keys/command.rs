//! `tandem keys`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use test_harness::{KeysFile, binary, output_of};

use super::{get, start};

/// Creations at once.
const CALLERS: usize = 8;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("tandem"));
    output_of(command.current_dir(folder).env_clear().arg("keys").args(arguments))
}

/// What a command prints that succeeds.
#[track_caller]
fn output(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn a_key_is_created_listed_used_and_revoked() {
    let folder = TempDir::new().unwrap();
    let create = ["create", "--file", "keys.json", "--name", "shop", "--scopes"];
    let created = run(folder.path(), &[&create[..], &["accounts:read,cards:write", "--expires", "90d"]].concat());
    let key = String::from_utf8(created.stdout).expect("text");
    let key = key.strip_suffix('\n').expect("one line");
    let [tdm, id, secret] = key.split('_').collect::<Vec<_>>()[..] else { panic!("no key") };
    assert_eq!((tdm, secret.len()), ("tdm", 43));
    let note = String::from_utf8(created.stderr).expect("text");
    assert!(note.contains("shop") && note.contains(id) && !note.contains(secret), "{note}");
    let path = folder.path().join("keys.json");
    let content = std::fs::read_to_string(&path).unwrap();
    assert!(!content.contains(secret), "the secret is kept nowhere");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let entry = &content.parse::<Value>().unwrap()["keys"][0];
    assert_eq!((&entry["id"], &entry["hash"].as_str().map(str::len)), (&id.into(), &Some(64)));

    let admin = output(folder.path(), &[&create[..], &["admin"]].concat());
    let list = output(folder.path(), &["list", "--file", "keys.json"]);
    let [head, of_shop, of_admin] = list.lines().collect::<Vec<_>>()[..] else { panic!("{list}") };
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["ID", "NAME", "SCOPES", "EXPIRES"]);
    assert!(of_shop.starts_with(&format!("{id}  shop  accounts:read,cards:write  20")), "{list}");
    assert!(of_admin.ends_with("  shop  admin                      never"), "{list}");

    let path = path.to_str().unwrap();
    let (_tandem, accounts, _) = start(&folder, &[("AUTH", "keys"), ("API_KEYS_FILE", path)]);
    assert_eq!(get(&accounts, "/accounts", key).status, 200);
    // The whole key is as good as its id, and is not repeated.
    let revoked = run(folder.path(), &["revoke", "--file", "keys.json", key]);
    let note = String::from_utf8(revoked.stderr).expect("text");
    assert!(revoked.status.success() && revoked.stdout.is_empty() && !note.contains(secret), "{note}");
    assert!(refusal(folder.path(), &["revoke", "--file", "keys.json", id]).contains("no key has the id"));
    test_harness::wait_until("the key is refused", || (get(&accounts, "/accounts", key).status == 401).then_some(()));
    assert_eq!(get(&accounts, "/accounts", admin.trim()).status, 200);
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let create = |name, scopes, rest: &[&str]| {
        let arguments = ["create", "--file", "keys.json", "--name", name, "--scopes", scopes];
        refusal(folder.path(), &[&arguments[..], rest].concat())
    };
    assert!(create("shop", "cards", &[]).contains("`cards` is no scope: expected accounts:read"));
    assert!(create("shop", "", &[]).contains("--scopes"));
    assert!(create(" ", "admin", &[]).contains("`name` is not 1 to 100 characters"));
    for time in ["0d", "-1d", "1y", "90", "soon", "9999999d"] {
        assert!(create("shop", "admin", &[&format!("--expires={time}")]).contains("error: "), "{time}");
    }
    assert!(refusal(folder.path(), &["list", "--file", "keys.json"]).contains("keys.json"));
    assert!(refusal(folder.path(), &["revoke", "--file", "keys.json", "a"]).contains("keys.json"));
    assert!(refusal(folder.path(), &["create", "--file", "no/keys.json", "--name=a", "--scopes=admin"]).contains("no"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is made");
    std::fs::write(folder.path().join("keys.json"), "{\"keys\": [7]}").unwrap();
    assert!(create("shop", "admin", &[]).contains("keys.json has an error in entry 1"));
}

#[test]
fn keys_created_at_once_are_all_kept() {
    let folder = TempDir::new().unwrap();
    let file = KeysFile::new(folder.path());
    let mut keys: Vec<_> = std::thread::scope(|scope| {
        let create = |caller: usize| {
            let (folder, name) = (folder.path(), format!("caller {caller}"));
            scope.spawn(move || output(folder, &["create", "--file", "keys.json", "--name", &name, "--scopes=admin"]))
        };
        let creations: Vec<_> = (0..CALLERS).map(create).collect();
        creations.into_iter().map(|creation| creation.join().expect("a key")).collect()
    });
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), access::list_keys(file.path()).unwrap().len()), (CALLERS, CALLERS));
}
