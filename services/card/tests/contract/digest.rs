//! `GET /admin/digest`, `GET /admin/position`, `POST /admin/states` and `GET /admin/log`, which `tandem verify` uses.

use account_events::AccountStatus::{Active, Blocked, Deleted};
use account_events::digest::{Digest, LogLine, StateLine};
use event_log::Record;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::service::{Settings, TestService, UNKNOWN_ID, changed, created, new_id};

/// The lines of an answer, and its last line.
fn lines<T: DeserializeOwned>(mut answer: Value) -> (Vec<T>, Value) {
    let lines = answer.as_array_mut().expect("lines");
    let last = lines.pop().expect("a last line");
    (lines.drain(..).map(|line| serde_json::from_value(line).expect("a line")).collect(), last)
}

#[test]
fn the_digest_and_the_states_are_those_of_the_view() {
    let service = TestService::start();
    let ids: Vec<_> = (0..30).map(|_| new_id()).collect();
    let records: Vec<_> = ids.iter().map(|id| created(id)).collect();
    service.tell(&records);
    // The view keeps the highest state, whatever comes last.
    service.tell(&[changed(&ids[0], Blocked, 5), changed(&ids[0], Active, 3), changed(&ids[1], Deleted, 2)]);
    let (all, last) =
        lines::<StateLine>(service.post("/admin/states", &json!({"buckets": 1, "numbers": [0]})).expect(200));
    assert_eq!(all.len(), 30);
    let mut expected = Digest::new(8);
    all.iter().for_each(|line| expected.add(*line));
    let mut digest = service.get("/admin/digest?buckets=8").expect(200);
    assert_eq!(serde_json::from_value::<Digest>(digest["buckets"].take()).expect("a digest"), expected);
    let position = service.get("/admin/position").expect(200);
    assert_eq!((&last["positions"], &digest["positions"]), (&position["positions"], &position["positions"]));

    let selection = json!({"accounts": [ids[0], ids[1], ids[2], UNKNOWN_ID]});
    let (named, _) = lines::<StateLine>(service.post("/admin/states", &selection).expect(200));
    let named: Vec<_> = named.iter().map(|line| (line.0.to_string(), line.1, line.2)).collect();
    let expected = [(0, 5, Blocked), (1, 2, Deleted), (2, 1, Active)];
    assert_eq!(named, expected.map(|(at, version, status)| (ids[at].clone(), version, status)));
}

#[test]
fn the_log_is_listed_from_any_position_on_with_what_cannot_be_decoded() {
    let service = TestService::start();
    let id = new_id();
    let unreadable = Record { key: Some(id.clone().into_bytes()), value: Some(b"{}".to_vec()), ..Record::default() };
    service.tell(&[created(&id), changed(&id, Blocked, 2), unreadable]);
    let (all, last) = lines::<LogLine>(service.get("/admin/log").expect(200));
    let of = |line: &LogLine| (line.1.map(|key| key.to_string()), line.2.map(|line| (line.1, line.2)));
    let key = Some(id);
    let expected = [(key.clone(), Some((1, Active))), (key.clone(), Some((2, Blocked))), (key, None)];
    assert_eq!(all.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!(last["positions"], last["ends"]);
    let ends = last["ends"].as_object().expect("offsets");
    let from: Vec<_> = ends.iter().map(|(partition, end)| format!("{partition}:{end}")).collect();
    let (rest, _) = lines::<LogLine>(service.get(&format!("/admin/log?from={}", from.join(","))).expect(200));
    assert_eq!(rest, []);
    let text = "from must be a list such as 0:17,1:4 of partitions with offsets";
    service.get("/admin/log?from=7").expect_error(400, "invalid_from", text, Some("from"));
}

#[test]
fn a_view_that_catches_up_is_not_compared() {
    let id = new_id();
    let service = TestService::start_behind(Settings::default(), |log, switches| {
        log.publish(&[created(&id)]);
        switches.hold_feed(true);
    });
    for answer in [
        service.get("/admin/digest"),
        service.get("/admin/position"),
        service.post("/admin/states", &json!({"accounts": [id]})),
    ] {
        answer.expect_error(503, "catching_up", "account view is catching up", None);
    }
    service.switches.hold_feed(false);
    service.wait_until_ready();
    let digest = service.get("/admin/digest?buckets=1").expect(200);
    assert_eq!(digest["buckets"][0][0], 1, "{digest}");
}
