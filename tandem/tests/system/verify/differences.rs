//! Each kind of difference is found and named, and a repair mends what it can.

use std::sync::Arc;
use std::time::Duration;

use account_events::{AccountId, AccountStatus};
use event_log::{Committed, EventLog, GroupReader, LogError, Positions, Publisher, Reader, Record};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Verified, places, verify};
use crate::events::record;
use crate::place::{Place, Services};
use crate::requests::{create_account, create_card, delete_account, error, set_status};

const ACTIVE: AccountStatus = AccountStatus::Active;
const BLOCKED: AccountStatus = AccountStatus::Blocked;
const DELETED: AccountStatus = AccountStatus::Deleted;

/// Makes some accounts, stops the services, does `damage` to the account that `prepare` prepared, and starts the services.
fn damaged(
    place: &Place,
    prepare: impl FnOnce(&Services, AccountId),
    damage: impl FnOnce(&Place, AccountId),
) -> (Services, AccountId) {
    let services = place.start_services();
    let id = create_account(&services.accounts);
    for _ in 0..3 {
        create_account(&services.accounts);
    }
    prepare(&services, id);
    verify(place, &services, &[]).expect_equal();
    services.stop();
    damage(place, id);
    (place.start_services(), id)
}

fn nothing(_: &Services, _: AccountId) {}

fn row(services: &Services, id: AccountId) -> (Value, Value) {
    let account = services.accounts.get(&format!("/account?id={id}")).expect(200);
    (account["version"].clone(), account["status"].clone())
}

fn repair(place: &Place, services: &Services) -> Verified {
    verify(place, services, &["--repair"])
}

#[track_caller]
fn expect_card(services: &Services, id: AccountId, status: AccountStatus) {
    let answer = create_card(&services.cards, id);
    let expected = match status {
        AccountStatus::Active => (201, ""),
        AccountStatus::Blocked => (403, "cannot create card for inactive account"),
        AccountStatus::Deleted => (403, "cannot create card for deleted account"),
    };
    assert_eq!((answer.status, error(&answer)), expected);
}

#[test]
fn what_is_as_it_should_be_is_equal() {
    for place in places() {
        let services = place.start_services();
        let ids: Vec<_> = (0..20).map(|_| create_account(&services.accounts)).collect();
        set_status(&services.accounts, ids[0], "BLOCKED");
        delete_account(&services.accounts, ids[1]);
        let name = json!({ "beholder_name": "Jane Doe" });
        services.accounts.send_json("PATCH", &format!("/account?id={}", ids[2]), &name).expect(200);
        let verified = verify(&place, &services, &[]);
        verified.expect_equal();
        let counts =
            ["/table/accounts", "/log/accounts", "/views/0/accounts"].map(|path| verified.report.pointer(path));
        assert_eq!(counts, [Some(&json!(20)); 3], "{:#}", verified.report);
        services.stop();
    }
}

#[test]
fn an_account_whose_event_was_lost_is_published() {
    for place in places() {
        let accounts = place.account_service_with(Arc::new(LogAway));
        let id = create_account(accounts.http());
        drop(accounts);
        place.databases().lose_outbox();
        let services = place.start_services();
        verify(&place, &services, &[]).expect_different(
            id,
            "the log has no readable last record of the account; view 1 does not have the account",
        );
        repair(&place, &services).expect_equal();
        expect_card(&services, id, ACTIVE);
        services.stop();
    }
}

#[test]
fn a_stale_last_record_is_found_although_no_view_shows_it() {
    for place in places() {
        let block = |services: &Services, id| set_status(&services.accounts, id, "BLOCKED");
        let (services, id) = damaged(&place, block, |place, id| place.publish(&[record(id, 1, ACTIVE)]));
        verify(&place, &services, &[]).expect_different(id, "the last record in the log is stale");
        repair(&place, &services).expect_equal();
        assert_eq!(row(&services, id), (2.into(), "BLOCKED".into()), "the row stays as it is");
        services.stop();
    }
}

#[test]
fn a_foreign_last_record_ahead_of_the_table_is_overtaken() {
    for place in places() {
        let (services, id) = damaged(&place, nothing, |place, id| place.publish(&[record(id, 9, BLOCKED)]));
        expect_card(&services, id, BLOCKED);
        verify(&place, &services, &[])
            .expect_different(id, "the log is ahead of the table; view 1 is ahead of the table");
        repair(&place, &services).expect_equal();
        assert_eq!(row(&services, id), (10.into(), "ACTIVE".into()));
        expect_card(&services, id, ACTIVE);
        services.stop();
    }
}

#[test]
fn a_last_record_that_nobody_can_decode_is_replaced() {
    for place in places() {
        let unreadable = |place: &Place, id: AccountId| {
            let (key, value) = (Some(id.to_string().into_bytes()), Some(b"{}".to_vec()));
            place.publish(&[Record { key, value, ..Record::default() }]);
        };
        let (services, id) = damaged(&place, nothing, unreadable);
        let verified = verify(&place, &services, &[]);
        verified.expect_different(id, "the log has no readable last record of the account");
        assert_eq!(verified.report["log"]["undecodable"], 1);
        repair(&place, &services).expect_equal();
        services.stop();
    }
}

#[test]
fn a_row_that_was_changed_behind_the_service_is_published_in_both_directions() {
    let change = |status: &'static str| {
        move |place: &Place, id| {
            let sql = format!("UPDATE account.accounts SET status = '{status}' WHERE id = $id");
            place.databases().execute(&sql, id);
        }
    };
    for place in places() {
        let (services, id) = damaged(&place, nothing, change("BLOCKED"));
        verify(&place, &services, &[])
            .expect_different(id, "the last record in the log is stale; view 1 is behind the table");
        repair(&place, &services).expect_equal();
        expect_card(&services, id, BLOCKED);
        assert_eq!(row(&services, id), (1.into(), "BLOCKED".into()));
        services.stop();
    }
    for place in places() {
        let block = |services: &Services, id| set_status(&services.accounts, id, "BLOCKED");
        let (services, id) = damaged(&place, block, change("ACTIVE"));
        verify(&place, &services, &[]).expect_different(id, "the log is ahead of the table");
        repair(&place, &services).expect_equal();
        expect_card(&services, id, ACTIVE);
        assert_eq!(
            row(&services, id),
            (3.into(), "ACTIVE".into()),
            "at the same version BLOCKED would win in every view"
        );
        services.stop();
    }
}

#[test]
fn an_account_that_the_log_deleted_is_deleted() {
    for place in places() {
        let (services, id) = damaged(&place, nothing, |place, id| place.publish(&[record(id, 5, DELETED)]));
        verify(&place, &services, &[]).expect_different(id, "the log is ahead of the table");
        repair(&place, &services).expect_equal();
        assert_eq!(row(&services, id), (6.into(), "DELETED".into()));
        let deleted = services.accounts.get("/accounts?status=DELETED").expect(200);
        assert_eq!(deleted["total"], 1, "it is counted too");
        services.stop();
    }
}

#[test]
fn a_view_that_is_ahead_follows_the_table_unless_it_has_the_account_deleted() {
    for place in places() {
        // The last record is right, and the view keeps the higher state that it has read before.
        let ahead = |place: &Place, id| place.publish(&[record(id, 9, BLOCKED), record(id, 1, ACTIVE)]);
        let (services, id) = damaged(&place, nothing, ahead);
        let verified = verify(&place, &services, &[]);
        verified.expect_different(id, "view 1 is ahead of the table");
        assert_eq!(verified.report["accounts"][0]["log"], json!({ "version": 1, "status": "ACTIVE" }));
        repair(&place, &services).expect_equal();
        expect_card(&services, id, ACTIVE);
        services.stop();
    }
    for place in places() {
        let ahead = |place: &Place, id| place.publish(&[record(id, 5, DELETED), record(id, 1, ACTIVE)]);
        let (services, id) = damaged(&place, nothing, ahead);
        let verified = repair(&place, &services);
        verified.expect_different(id, "a view alone has it as DELETED: rebuild that view");
        assert_eq!(verified.report["repaired"], 0);
        assert_eq!(row(&services, id), (1.into(), "ACTIVE".into()));
        services.stop();
    }
}

#[test]
fn an_account_that_only_the_log_knows_is_reported_and_left_alone() {
    for place in places() {
        let unknown = AccountId(Uuid::new_v4());
        let (services, _) = damaged(&place, nothing, |place, _| place.publish(&[record(unknown, 1, ACTIVE)]));
        let verified = repair(&place, &services);
        verified.expect_different(unknown, "the account table does not have the account");
        assert_eq!(verified.report["repaired"], 0);
        let text = super::text(&place, &services);
        assert!(
            text.contains(&format!("{unknown}: the account table")) && text.contains("Different: 1 accounts."),
            "{text}"
        );
        services.stop();
    }
}

/// A log that is away.
struct LogAway;

impl LogAway {
    fn error<T>() -> Result<T, LogError> {
        Err(LogError::Unavailable("away".to_owned()))
    }
}

impl EventLog for LogAway {
    fn describe(&self) -> String {
        "away".to_owned()
    }

    fn publisher(&self, _name: &str) -> Result<Box<dyn Publisher>, LogError> {
        Self::error()
    }

    fn committed(&self, _name: &str, _timeout: Duration) -> Result<Option<Committed>, LogError> {
        Self::error()
    }

    fn reader(&self, _from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Self::error()
    }

    fn group_reader(&self, _group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        Self::error()
    }

    fn end_offsets(&self, _timeout: Duration) -> Result<Positions, LogError> {
        Self::error()
    }
}
