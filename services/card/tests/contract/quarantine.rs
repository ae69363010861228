//! Records that cannot be decoded are stored and counted, and the feed continues.

use account_events::AccountStatus::{Active, Deleted};
use event_log::{HeaderList, Record, partition_of_key};
use serde_json::json;

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
