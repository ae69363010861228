//! Notices a database that was replaced under a running instance: by a point-in-time recovery, by a standby that lacks the last commits,
//! or by another instance that gave an empty database the identity of its predecessor.

use std::sync::Arc;

use group_commit::StoreError;
use parking_lot::Mutex;
use postgres::SYNCED;
use sqlite_file::FailStop;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::outbox::recent_events::EventBatch;

/// What this instance knows of the database. Each new connection is compared with it.
#[derive(Clone)]
pub(super) struct CommitHistory {
    /// The key of the numbers that this instance issues.
    number_key: [u8; 16],
    last: Arc<Mutex<Option<LastCommit>>>,
    fail_stop: FailStop,
}

/// The last event that this instance has committed.
#[derive(Clone, Copy)]
struct LastCommit {
    sequence: u64,
    account_id: Uuid,
    version: u32,
}

impl CommitHistory {
    pub(super) fn new(number_key: [u8; 16]) -> Self {
        CommitHistory { number_key, last: Arc::default(), fail_stop: FailStop::default() }
    }

    /// What stops the process when the database was replaced.
    pub(super) fn fail_stop(&self) -> &FailStop {
        &self.fail_stop
    }

    pub(super) fn record_commit(&self, batch: &EventBatch) {
        if let Some(event) = batch.events.last() {
            let (account_id, version) = (event.event.account_id.0, event.version);
            *self.last.lock() = Some(LastCommit { sequence: batch.last_sequence, account_id, version });
        }
    }

    /// Stops the process if the database has other numbers than this instance issues, or lacks the last event that this instance has
    /// committed. The sequence alone does not tell: other instances may have numbered events since. A database that was set back is
    /// marked as superseded, so later starts accept no writes until an operator has compared it with the log.
    pub(super) async fn check(&self, client: &Client) -> Result<(), StoreError> {
        let last = *self.last.lock();
        let (sequence, account_id, version) = match last {
            Some(LastCommit { sequence, account_id, version }) => (sequence as i64, account_id, i64::from(version)),
            None => (0, Uuid::nil(), 0),
        };
        let sql = "SELECT number_key, last_outbox_sequence, last_outbox_sequence >= $1
                       AND ($1 = 0 OR EXISTS (SELECT FROM account.accounts WHERE id = $2 AND event_version >= $3))
                   FROM account.ledger";
        let row = client.query_one(sql, &[&sequence, &account_id, &version]).await?;
        if row.get::<_, &[u8]>(0) != self.number_key {
            let notice = "another instance has taken over the topic of an earlier database with this one";
            self.fail_stop
                .stop(format!("{notice}: the process stops, and its restart uses the numbers of that database"));
            return Err(StoreError::Unavailable(notice.to_owned()));
        }
        if row.get(2) {
            return Ok(());
        }
        let found: i64 = row.get(1);
        let notice = format!(
            "this account database was set back under a running service, to event {found} after event {sequence} was committed"
        );
        let sql = format!(
            "UPDATE account.relay_lease SET set_back = $1::text, superseded = $1::text || ': run tandem recover' RETURNING {SYNCED}"
        );
        client.query_one(&sql, &[&notice]).await?;
        self.fail_stop.stop(format!("{notice}: the process stops"));
        Err(StoreError::Unavailable(notice))
    }
}
