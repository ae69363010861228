//! `POST /admin/erase?id=`: the name of a deleted account is replaced wherever the service keeps it.

use clock::Clock;
use http_server::HttpConfig;
use postgres::DatabaseUrl;
use serde_json::{Value, json};
use test_harness::{Answer, Http, at_once, callers, with_postgres};

use crate::idempotency::keyed;
use crate::service::{TestService, UNKNOWN_ID, account};

const NAME: &str = "Wilhelmina Distinctive";

fn start() -> (TestService, Http) {
    let authenticator = Some(callers(&["dpo"]));
    let service = TestService::start_with_http(Clock::system(), HttpConfig { authenticator, ..HttpConfig::default() });
    let admin = service.of_caller("dpo");
    (service, admin)
}

fn body() -> String {
    json!({"beholder_name": NAME, "country_code": "US"}).to_string()
}

fn erase(http: &Http, id: &str) -> Answer {
    http.send("POST", &format!("/admin/erase?id={id}"), &[], Vec::new())
}

/// Checks that no row has `NAME`.
fn assert_not_stored(database: &DatabaseUrl) {
    let sql = |table| format!("SELECT count(*) FROM {table} WHERE beholder_name = $1");
    match database {
        DatabaseUrl::Sqlite(path) => {
            let connection = rusqlite::Connection::open(path).expect("a database");
            for table in ["accounts", "idempotency_keys"] {
                let found: i64 = connection.query_row(&sql(table), [NAME], |row| row.get(0)).expect("a number");
                assert_eq!(found, 0, "{table}");
            }
        }
        DatabaseUrl::Postgres(url) => with_postgres(url, async |client| {
            for table in ["account.accounts", "account.idempotency_keys"] {
                assert_eq!(client.query_one(&sql(table), &[&NAME]).await?.get::<_, i64>(0), 0, "{table}");
            }
            Ok(())
        }),
    }
}

/// Checks that a SQLite file has no bytes of `NAME`, not even in unused space. Small as it is, none of its pages was rearranged.
fn assert_overwritten(database: &DatabaseUrl) {
    if let DatabaseUrl::Sqlite(path) = database {
        let bytes = std::fs::read(path).expect("a database");
        assert!(!bytes.windows(NAME.len()).any(|window| window == NAME.as_bytes()), "the file has the name");
    }
}

#[test]
fn the_name_of_a_deleted_account_is_erased_in_answers_too_and_the_history_says_so() {
    let (service, admin) = start();
    let created = keyed(&admin, "POST", "/account", "create", &body()).expect(201);
    let id = created["id"].as_str().unwrap();
    keyed(&admin, "PATCH", &account(id), "block", r#"{"status":"BLOCKED"}"#).expect(200);
    keyed(&admin, "DELETE", &account(id), "delete", "").expect(200);
    let first = erase(&admin, id);
    assert_eq!((first.status, &*first.raw), (200, r#"{"message":"Account erased successfully"}"#));
    let erased = admin.get(&account(id));
    assert_eq!(
        (erased.text("beholder_name"), erased.header("etag"), &erased.body["version"]),
        ("erased", "\"4\"", &json!(4))
    );
    assert_eq!(erased.header("account-version"), "3");
    assert_eq!(first.header("account-version"), "3");
    let again = erase(&admin, id);
    assert_eq!((again.status, &again.raw, again.header("account-version")), (200, &first.raw, "3"));
    let history = format!("/account/history?id={id}");
    let entry = admin.get(&history).expect(200)["changes"][0].take();
    assert_eq!(
        [&entry["version"], &entry["type"], &entry["fields"], &entry["status"], &entry["caller"]],
        [&json!(4), &json!("erased"), &json!(["beholder_name"]), &json!("DELETED"), &json!("dpo")]
    );
    let replay = keyed(&admin, "POST", "/account", "create", &body());
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, "true"));
    assert_eq!(
        replay.body,
        Value::Object({
            let mut expected = created.as_object().unwrap().clone();
            expected["beholder_name"] = json!("erased");
            expected
        })
    );
    assert_eq!(
        keyed(&admin, "PATCH", &account(id), "block", r#"{"status":"BLOCKED"}"#).text("beholder_name"),
        "erased"
    );
    service.log_of(3);
    let service = service.restart_between(|database| {
        assert_not_stored(database);
        assert_overwritten(database);
    });
    let admin = service.of_caller("dpo");
    assert_eq!(admin.get(&account(id)).text("beholder_name"), "erased");
    assert_eq!(admin.get(&history).expect(200)["changes"].as_array().map(Vec::len), Some(4));
}

#[test]
fn only_a_deleted_account_is_erased() {
    let (service, admin) = start();
    let id = admin.post("/account", &serde_json::from_str(&body()).unwrap()).expect(201)["id"].clone();
    let id = id.as_str().unwrap();
    for status in ["ACTIVE", "BLOCKED"] {
        admin.send_json("PATCH", &account(id), &json!({"status": status})).expect(200);
        let text = "the account is not deleted: delete it, then erase its name";
        erase(&admin, id).expect_error(409, "account_not_deleted", text, None);
    }
    assert_eq!(admin.get(&account(id)).text("beholder_name"), NAME);
    assert_eq!(erase(&admin, UNKNOWN_ID).expect(404)["code"], "account_not_found");
    assert_eq!(erase(&admin, "").expect(400)["code"], "missing_id");
    assert_eq!(erase(&service, id).expect(401)["code"], "unauthenticated");
}

#[test]
fn an_account_with_more_answers_than_one_transaction_erases_keeps_none() {
    const THREADS: usize = 8;
    const EACH: usize = 130;
    let (service, admin) = start();
    let created = keyed(&admin, "POST", "/account", "create", &body()).expect(201);
    let path = account(created["id"].as_str().unwrap());
    at_once(THREADS, &admin, |thread, http| {
        let http = http.of_caller("dpo");
        let update = json!({"beholder_name": NAME}).to_string();
        (0..EACH)
            .for_each(|place| drop(keyed(&http, "PATCH", &path, &format!("{thread}-{place}"), &update).expect(200)));
    });
    admin.delete(&path).expect(200);
    erase(&admin, created["id"].as_str().unwrap()).expect(200);
    drop(service.restart_between(assert_not_stored));
}
