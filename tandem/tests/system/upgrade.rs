//! The upgrade from the data of an earlier release, which `tandem/tests/releases` keeps: what its services answered, this version answers.
//!
//! A release adds a folder, which is never changed afterwards: `TANDEM_TEST_NEW_RELEASE=VERSION cargo test -p tandem --test system -- --ignored
//! upgrade`, once without servers and once with PostgreSQL.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use test_harness::{Http, POSTGRES_URL, database_url, wait_until, with_postgres};

use crate::place::Place;
use crate::requests::{card_of, create_account, create_card, delete_account, john_doe, set_status};

/// The data folder of the all-in-one on SQLite.
const SQLITE: &str = "sqlite";

/// The database of both services, as `pg_dump` writes it.
const POSTGRES: &str = "postgres.sql";

/// What each path answered, on each database: paths of both services differ.
const ANSWERS: &str = "answers.json";

type Answers = BTreeMap<String, Value>;

fn releases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/releases")
}

#[test]
fn the_data_of_every_release_is_upgraded() {
    let folders: Vec<_> =
        fs::read_dir(releases()).expect("kept releases").map(|entry| entry.expect("a folder").path()).collect();
    assert!(!folders.is_empty(), "no release is kept");
    for folder in folders {
        let place = Place::durable();
        restore(&folder, &place);
        let mut tandem = place.start_all_in_one();
        let (accounts, cards) = (tandem.ready_service(account_service::NAME), tandem.ready_service(card_service::NAME));
        let before: Answers =
            serde_json::from_slice(&fs::read(answers_file(&folder)).expect("its answers")).expect("JSON");
        for (path, answer) in &before {
            assert_includes(&service_of(path, &accounts, &cards).get(path).expect(200), answer, path);
        }
        check_statuses(&before, &cards);
        // The numbers go on where they were.
        let created = accounts.post("/account", &john_doe()).expect(201);
        assert!(before.values().all(|old| old["account_number"] != created["account_number"]), "{created}");
        wait_until("the view knows the new account", || {
            (create_card(&cards, created["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")).status == 201)
                .then_some(())
        });
        let errors: Vec<_> = tandem.logged().into_iter().filter(|line| line["level"] == "ERROR").collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", folder.display());
        assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    }
}

/// Cards can be created for active accounts, and for no others.
fn check_statuses(answers: &Answers, cards: &Http) {
    for account in answers.values().filter(|answer| answer.get("account_number").is_some()) {
        let answer = create_card(cards, account["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"));
        let expected = if account["status"] == "ACTIVE" { 201 } else { 403 };
        assert_eq!(answer.status, expected, "{account}: {}", answer.raw);
    }
}

/// Whether `answer` has everything that `before` has: later versions add fields.
#[track_caller]
fn assert_includes(answer: &Value, before: &Value, path: &str) {
    match (answer, before) {
        (Value::Object(answer), Value::Object(before)) => {
            for (name, value) in before {
                assert_includes(answer.get(name).unwrap_or(&Value::Null), value, &format!("{path}: {name}"));
            }
        }
        (Value::Array(answer), Value::Array(before)) => {
            assert_eq!(answer.len(), before.len(), "{path}");
            answer.iter().zip(before).for_each(|(answer, before)| assert_includes(answer, before, path));
        }
        _ => assert_eq!(answer, before, "{path}"),
    }
}

fn service_of<'a>(path: &str, accounts: &'a Http, cards: &'a Http) -> &'a Http {
    if path.starts_with("/account") { accounts } else { cards }
}

fn is_on_postgres() -> bool {
    std::env::var_os(POSTGRES_URL).is_some()
}

fn answers_file(folder: &Path) -> PathBuf {
    let database = if is_on_postgres() { "postgres" } else { SQLITE };
    folder.join(format!("{database}-{ANSWERS}"))
}

/// Brings the kept data to where the services of `place` look for it.
fn restore(folder: &Path, place: &Place) {
    if is_on_postgres() {
        let script = fs::read_to_string(folder.join(POSTGRES)).expect("a dump");
        // Lines with a backslash are commands to psql.
        let script: String =
            script.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
        with_postgres(&database_url(place.folder(), "tandem"), async |client| client.batch_execute(&script).await);
        return;
    }
    for entry in fs::read_dir(folder.join(SQLITE)).expect("a data folder") {
        let file = entry.expect("a file").path();
        fs::copy(&file, place.folder().join("data").join(file.file_name().expect("a name"))).expect("a copy");
    }
}

#[test]
#[ignore = "adds the data of a new release"]
fn keep_the_data_of_a_new_release() {
    let version = std::env::var("TANDEM_TEST_NEW_RELEASE").expect("TANDEM_TEST_NEW_RELEASE, the version");
    let (folder, place) = (releases().join(version), Place::durable());
    let mut tandem = place.start_all_in_one();
    let (accounts, cards) = (tandem.ready_service(account_service::NAME), tandem.ready_service(card_service::NAME));
    let answers = use_services(&accounts, &cards);
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    fs::create_dir_all(folder.join(SQLITE)).expect("a folder");
    fs::write(answers_file(&folder), serde_json::to_vec_pretty(&answers).expect("JSON")).expect("a file");
    if is_on_postgres() {
        let url = database_url(place.folder(), "tandem");
        let dump =
            Command::new("pg_dump").args(["--inserts", "--no-owner", "--no-privileges", "--dbname", &url]).output();
        fs::write(folder.join(POSTGRES), dump.expect("pg_dump").stdout).expect("a file");
        return;
    }
    for entry in fs::read_dir(place.folder().join("data")).expect("a data folder") {
        let file = entry.expect("a file").path();
        fs::copy(&file, folder.join(SQLITE).join(file.file_name().expect("a name"))).expect("a copy");
    }
}

/// Writes everything that is stored, and returns what the reads answer.
fn use_services(accounts: &Http, cards: &Http) -> Answers {
    let [active, blocked, deleted] = [(); 3].map(|()| create_account(accounts));
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "release")];
    accounts.send("POST", "/account", &headers, john_doe().to_string().into_bytes()).expect(201);
    let name = json!({ "beholder_name": "Jane Müller", "country_code": "DE" });
    accounts.send_json("PATCH", &format!("/account?id={active}"), &name).expect(200);
    let card_ids = [active, active, blocked, deleted].map(|account| {
        let headers = [("Content-Type", "application/json"), ("Prefer", "wait=30")];
        let card = cards.send("POST", "/card", &headers, card_of(account).to_string().into_bytes()).expect(201);
        card["id"].as_str().expect("an id").to_owned()
    });
    cards.delete(&format!("/card?id={}", card_ids[1])).expect(200);
    set_status(accounts, blocked, "BLOCKED");
    delete_account(accounts, deleted);
    wait_until("the card of the deleted account is deleted", || {
        (cards.get(&format!("/card?id={}", card_ids[3])).expect(200)["deleted"] == true).then_some(())
    });
    wait_until("the view knows that one is blocked", || (create_card(cards, blocked).status == 403).then_some(()));
    let of_accounts = [active, blocked, deleted].into_iter().flat_map(|id| {
        [format!("/account?id={id}"), format!("/account/history?id={id}"), format!("/cards/by-account?account_id={id}")]
    });
    let of_cards = card_ids.iter().flat_map(|id| [format!("/card?id={id}"), format!("/card/history?id={id}")]);
    let paths = of_accounts.chain(of_cards).chain(["/accounts", "/cards"].map(str::to_owned));
    paths.map(|path| (path.clone(), service_of(&path, accounts, cards).get(&path).expect(200))).collect()
}
