//! `GET /admin/digest`, `GET /admin/position`, `POST /admin/states` and `POST /admin/republish`, which `tandem verify` uses.

use account_events::digest::{Digest, MAX_BUCKETS, MAX_REPUBLISHED, StateLine, bucket_of};
use account_events::{AccountId, MAX_VERSION};
use serde_json::{Value, json};
use test_harness::wait_until;

use crate::history::assert_history;
use crate::lost_log::last_of_each;
use crate::service::{TestService, UNKNOWN_ID, account};

fn states(service: &TestService, selection: &Value) -> (Vec<StateLine>, Value) {
    let mut lines = service.post("/admin/states", selection).expect(200);
    let lines = lines.as_array_mut().expect("lines");
    let last = lines.pop().expect("a last line");
    (lines.drain(..).map(|line| serde_json::from_value(line).expect("a state")).collect(), last)
}

fn digest(service: &TestService, buckets: u32) -> Digest {
    let mut answer = service.get(&format!("/admin/digest?buckets={buckets}")).expect(200);
    serde_json::from_value(answer["buckets"].take()).expect("a digest")
}

fn id(text: &str) -> AccountId {
    text.parse().expect("an id")
}

#[test]
fn a_digest_is_that_of_the_states_and_counts_events_only() {
    let service = TestService::start();
    assert_eq!(digest(&service, 16), Digest::new(16));
    let ids: Vec<_> = (0..30).map(|_| service.new_id()).collect();
    service.patch(&ids[0], &json!({"status": "BLOCKED"})).expect(200);
    service.delete(&account(&ids[1])).expect(200);
    service.patch(&ids[2], &json!({"beholder_name": "Jane Doe"})).expect(200);
    let (all, _) = states(&service, &json!({"buckets": 3, "numbers": [0, 1, 2]}));
    assert_eq!(all.len(), 30);
    let mut expected = Digest::new(16);
    all.iter().for_each(|line| expected.add(*line));
    assert_eq!(digest(&service, 16), expected);
    assert_eq!(digest(&service, MAX_BUCKETS).accounts(), 30);

    let (named, last) = states(&service, &json!({"accounts": [ids[0], ids[1], ids[2], ids[3], UNKNOWN_ID]}));
    let state = |at: usize| named.iter().find(|line| line.0 == id(&ids[at])).map(|line| (line.1, line.2.as_str()));
    let found = [0, 1, 2, 3].map(|at| state(at).expect("a state"));
    assert_eq!(found, [(2, "BLOCKED"), (2, "DELETED"), (1, "ACTIVE"), (1, "ACTIVE")]);
    assert_eq!(named.len(), 4, "nothing of an account that does not exist");
    assert!(last["position"].as_u64() > Some(0), "{last}");
    let own = bucket_of(id(&ids[4]), MAX_BUCKETS);
    let (bucket, _) = states(&service, &json!({"buckets": MAX_BUCKETS, "numbers": [own]}));
    assert!(
        bucket.iter().any(|line| line.0 == id(&ids[4]))
            && bucket.iter().all(|line| bucket_of(line.0, MAX_BUCKETS) == own)
    );
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let service = TestService::start();
    let text = "buckets must be a number from 1 to 65536";
    for buckets in ["0", "65537", "-1", "x", ""] {
        let answer = service.get(&format!("/admin/digest?buckets={buckets}"));
        answer.expect_error(400, "invalid_buckets", text, Some("buckets"));
    }
    let answer = service.post("/admin/states", &json!({}));
    answer.expect_error(400, "invalid_selection", text, Some("buckets"));
    let republication = json!({ "id": UNKNOWN_ID });
    let text = "accounts must be at most 500, each above a version below 1073741823";
    for accounts in [vec![republication; MAX_REPUBLISHED + 1], vec![json!({ "id": UNKNOWN_ID, "above": MAX_VERSION })]]
    {
        let answer = service.post("/admin/republish", &json!({ "accounts": accounts }));
        answer.expect_error(400, "invalid_accounts", text, Some("accounts"));
    }
}

#[test]
fn the_position_says_what_the_log_has() {
    let service = TestService::start();
    let position = || {
        let position = service.get("/admin/position").expect(200);
        [&position["position"], &position["published"]].map(|sequence| sequence.as_u64().expect("a sequence"))
    };
    service.new_id();
    wait_until("the event is published", || (position()[0] == position()[1]).then_some(()));
    service.set_log_away(true);
    let before = position()[0];
    service.new_id();
    let [committed, published] = position();
    assert!(committed > before && (before..committed).contains(&published), "{before} {committed} {published}");
    service.set_log_away(false);
    wait_until("the event is published", || (position()[1] >= committed).then_some(()));
}

#[test]
fn an_account_is_published_again_as_it_is_above_a_version_or_deleted() {
    let service = TestService::start();
    let ids: Vec<_> = (0..4).map(|_| service.new_id()).collect();
    service.log_of(4);
    let accounts = json!([
        { "id": ids[0] },
        { "id": ids[1], "above": 6 },
        { "id": ids[2], "above": 6, "delete": true },
        { "id": UNKNOWN_ID },
    ]);
    let answer = service.post("/admin/republish", &json!({ "accounts": accounts })).expect(200);
    assert_eq!(answer, json!({ "republished": 3 }));
    let last = last_of_each(&service.log_of(7));
    assert_eq!(ids.iter().map(|id| last[id].0).collect::<Vec<_>>(), [1, 7, 7, 1]);
    assert!(last[&ids[2]].1.contains("DELETED"), "{last:?}");
    let row = |id: &str| {
        let account = service.get(&account(id)).expect(200);
        (account["version"].clone(), account["status"].clone())
    };
    let expected = [(1, "ACTIVE"), (7, "ACTIVE"), (7, "DELETED"), (1, "ACTIVE")];
    for (id, (version, status)) in ids.iter().zip(expected) {
        assert_eq!(row(id), (version.into(), status.into()));
    }
    assert_eq!(service.list("?status=DELETED")["total"], 1);
    let created = (1, "created", "ACTIVE");
    assert_history(&service, &ids[0], &[created]); // the row did not change
    assert_history(&service, &ids[1], &[(7, "recovered", "ACTIVE"), created]);
    assert_history(&service, &ids[2], &[(7, "recovered", "DELETED"), created]);
    // And from there on as ever.
    service.patch(&ids[1], &json!({"status": "BLOCKED"})).expect(200);
    assert_eq!(last_of_each(&service.log_of(8))[&ids[1]].0, 8);
}
