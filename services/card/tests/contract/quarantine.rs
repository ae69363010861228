//! Records that cannot be decoded are stored and counted, and the feed continues.

use account_events::AccountStatus::{Active, Deleted};
use event_log::{HeaderList, Record, partition_of_key};
use serde_json::{Value, json};
use test_harness::{at_once, wait_until};

use crate::idempotency::{assert_replay, assert_reused, keyed};
use crate::service::{TestService, by_account, changed, created, new_id};

/// A record of each kind with its code. All have the key of account `id`, so they are in the partition of its events.
fn poison(id: &str) -> Vec<(&'static str, Record)> {
    let value = |kind: &str, id: &str, status: &str| {
        Some(format!(r#"{{"type":"{kind}","account_id":"{id}","status":"{status}"}}"#).into_bytes())
    };
    let good = value("account.created", id, "DELETED");
    let sequence = HeaderList::from_iter([("ce_sequence", "seven")]);
    let none = HeaderList::default;
    let kinds = [
        ("no_value", None, none()),
        ("too_large", Some(vec![b' '; 70_000]), none()),
        ("not_utf8", Some(vec![0xff, 0xfe, b'{']), none()),
        ("not_json", good.as_ref().map(|value| value[..40].to_vec()), none()),
        ("not_an_event", Some(format!(r#"{{"type":"account.created","account_id":"{id}"}}"#).into()), none()),
        ("unknown_type", value("account.renamed", id, "DELETED"), none()),
        ("unknown_status", value("account.status_changed", id, "deleted"), none()),
        ("invalid_account_id", value("account.status_changed", "42", "DELETED"), none()),
        ("invalid_sequence", good, sequence),
    ];
    kinds.into_iter().map(|(code, value, headers)| (code, Record { key: Some(id.into()), value, headers })).collect()
}

#[test]
fn each_kind_of_poison_is_counted_and_kept_and_the_next_event_is_applied() {
    let mut service = TestService::start();
    let id = new_id();
    let poison = poison(&id);
    service.tell(&[created(&id)]);
    for (count, (code, record)) in (1..).zip(&poison) {
        // Each is followed by valid events, which take effect.
        let other = new_id();
        service.tell(&[record.clone(), created(&other), changed(&id, Active, count + 1)]);
        let view = service.view();
        assert_eq!((&view["quarantined"], &view["failure"]), (&json!(count), &json!(null)), "{code}");
        assert_eq!(view["accounts"], count + 1, "{code}");
        service.card("US", &other);
        service.card("US", &id);
    }
    service.get("/readyz").expect(200);

    let partition = i64::from(partition_of_key(id.as_bytes(), 3));
    let kept = service.stop_and_read_quarantine();
    assert_eq!(kept.len(), poison.len());
    for ((row, (code, record)), place) in kept.iter().zip(&poison).zip(0..) {
        let (in_partition, _, reason, key, value, headers) = row;
        assert_eq!((*in_partition, &**reason, key), (partition, *code, &record.key), "{place}");
        let expected = record.value.as_ref().map(|value| value[..value.len().min(4_096)].to_vec());
        assert_eq!((value, value.is_none()), (&expected, *code == "no_value"), "{code}");
        let expected = if record.headers.is_empty() { "[]" } else { r#"[["ce_sequence","seven"]]"# };
        assert_eq!(headers, expected);
    }

    // A restart reads and counts them again, and does not store them twice.
    let mut service = service.restart();
    assert_eq!(service.view()["quarantined"], poison.len());
    assert_eq!(service.stop_and_read_quarantine(), kept);
}

#[test]
fn poison_does_not_keep_the_closer_from_closing() {
    let service = TestService::start();
    let id = new_id();
    service.tell(&[created(&id)]);
    service.card("US", &id);
    let mut records: Vec<_> = poison(&id).into_iter().map(|(_, record)| record).collect();
    records.push(changed(&id, Deleted, 2));
    service.tell(&records);
    service.wait_until_all_deleted(&by_account(&id));
    service.post_card("US", &id).expect(403);
}

#[test]
fn a_flood_of_poison_is_counted_in_full() {
    let service = TestService::start();
    let flood: Vec<_> = (0..2_000).map(|_| Record { value: Some(b"{".to_vec()), ..Record::default() }).collect();
    service.tell(&flood);
    let account = service.account();
    service.card("US", &account);
    assert_eq!(service.view()["quarantined"], 2_000);
}

/// A record with the key `id` that cannot be decoded.
fn undecodable(id: &str, value: &[u8]) -> Record {
    Record { key: Some(id.into()), value: Some(value.into()), headers: HeaderList::default() }
}

fn place(record: &Value) -> String {
    format!("/quarantine?partition={}&offset={}", record["partition"], record["offset"])
}

/// `GET path`, once the quarantine has `total` records and has dropped `dropped`.
fn quarantine(service: &TestService, path: &str, total: u64, dropped: u64) -> Value {
    wait_until("the records are in quarantine", || {
        let page = service.get(path).expect(200);
        (page["total"] == total && page["dropped"] == dropped).then_some(page)
    })
}

#[test]
fn the_quarantine_is_listed_in_pages_and_its_records_are_acknowledged() {
    let service = TestService::start();
    let id = new_id();
    let empty = json!({"records": [], "total": 0, "dropped": 0, "next": null});
    assert_eq!(service.get("/quarantine").expect(200), empty);
    let long = "é".repeat(3_000);
    let records = [
        undecodable(&id, b"{"),
        undecodable(&id, &[0xff, 0xfe]),
        undecodable(&id, format!("x{long}").as_bytes()),
        Record { key: Some(id.clone().into()), value: None, headers: HeaderList::default() },
    ];
    service.tell(&records);
    let partition = partition_of_key(id.as_bytes(), 3);
    let page = quarantine(&service, "/quarantine?limit=3", 4, 0);
    assert_eq!(page["next"], format!("{partition}:2"));
    let [first, second, third] = page["records"].as_array().expect("records").as_slice() else { panic!("{page}") };
    assert_eq!(first["value"], "{");
    assert_eq!((&first["key"], &first["partition"], &first["offset"]), (&json!(id), &json!(partition), &json!(0)));
    assert_eq!(first["reason"], "not_json");
    assert!(first["detail"].as_str().expect("a text").starts_with("its value is not JSON"), "{first}");
    assert!(first["timestamp"].as_str().expect("a time").ends_with('Z'), "{first}");
    assert_eq!((&second["value_base64"], second.get("value")), (&json!("//4="), None));
    // 4 KiB end within a character.
    assert_eq!(third["value"].as_str().map(str::len), Some(4_095));
    let rest = service.get(&format!("/quarantine?limit=3&after={partition}:2")).expect(200);
    assert_eq!((&rest["records"][0]["value"], &rest["total"], &rest["next"]), (&json!(null), &json!(4), &json!(null)));

    let acknowledged = json!({"message": "Record acknowledged"});
    assert_eq!(service.delete(&place(second)).expect(200), acknowledged);
    service.delete(&place(second)).expect_error(404, "record_not_found", "the quarantine has no such record", None);
    let offsets = |service: &TestService| -> Vec<Value> {
        let page = service.get("/quarantine").expect(200);
        page["records"].as_array().expect("records").iter().map(|record| record["offset"].clone()).collect()
    };
    assert_eq!(offsets(&service), [0, 2, 3]);
    // The page after an acknowledged record is still there.
    assert_eq!(service.get(&format!("/quarantine?after={partition}:1")).expect(200)["records"][0]["offset"], 2);
    // The checkpoint includes the record, so a restart does not store it again.
    assert_eq!(offsets(&service.restart()), [0, 2, 3]);
}

#[test]
fn an_acknowledgement_with_a_key_is_done_once() {
    let service = TestService::start();
    let id = new_id();
    service.tell(&[undecodable(&id, b"{"), undecodable(&id, b"[")]);
    let page = quarantine(&service, "/quarantine", 2, 0);
    let [first, second] = [0, 1].map(|record| place(&page["records"][record]));
    let acknowledge = |path: &str, key: &str| keyed(&service, "DELETE", path, key, "");
    let partition = partition_of_key(id.as_bytes(), 3);
    let unknown = format!("/quarantine?partition={partition}&offset=7");
    // A refusal stores no key.
    acknowledge(&unknown, "k").expect(404);
    let answers = at_once(4, &service, |_, http| keyed(http, "DELETE", &first, "k", ""));
    let (replays, done): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.header("idempotent-replayed") == "true");
    assert_eq!((replays.len(), done.len()), (3, 1));
    for replay in [&acknowledge(&first, "k"), &acknowledge(&first, "\"k\"")].iter().chain(&replays) {
        assert_replay(done[0], replay);
    }
    // The key precedes the look-up of the record.
    assert_reused(&acknowledge(&second, "k"));
    assert_reused(&acknowledge(&unknown, "k"));
    acknowledge(&first, "other").expect(404);
    quarantine(&service, "/quarantine", 1, 0);
    let service = service.restart();
    assert_replay(done[0], &keyed(&service, "DELETE", &first, "k", ""));
}

#[test]
fn requests_about_the_quarantine_are_checked() {
    let service = TestService::start();
    for after in ["x", "1", "1:-2", ""] {
        let text = "after must be the next of an earlier page";
        service.get(&format!("/quarantine?after={after}")).expect_error(400, "invalid_after", text, Some("after"));
    }
    service.get("/quarantine?limit=201").expect(400);
    for (query, field) in [("offset=1", "partition"), ("partition=-1&offset=1", "partition"), ("partition=1", "offset")]
    {
        let (code, text) = (format!("invalid_{field}"), format!("{field} must be a whole number"));
        service.delete(&format!("/quarantine?{query}")).expect_error(400, &code, &text, Some(field));
    }
    service.delete("/quarantine?partition=0&offset=7").expect(404);
    assert_eq!(service.post("/quarantine", &json!({})).status, 405);
}

#[test]
fn the_quarantine_is_bounded_and_what_it_drops_is_counted() {
    let service = TestService::start();
    let flood = |count| vec![undecodable("1", b"{"); count];
    service.tell(&flood(10_020));
    quarantine(&service, "/quarantine?limit=1", 10_000, 20);
    // After a restart the database refuses what does not fit.
    let service = service.restart();
    service.publish(&flood(5));
    let page = quarantine(&service, "/quarantine?limit=1", 10_000, 5);
    // An acknowledged record makes room.
    service.delete(&place(&page["records"][0])).expect(200);
    service.publish(&flood(2));
    quarantine(&service, "/quarantine?limit=1", 10_000, 6);
}
