//! Notices a database that was replaced under a running instance: by a point-in-time recovery, or by a standby that lacks the last
//! commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use group_commit::StoreError;
use postgres::SYNCED;
use sqlite_file::FailStop;
use tokio_postgres::Client;

/// The last event that this instance has committed. Each new connection is compared with it.
#[derive(Clone, Default)]
pub(super) struct CommitHistory {
    last: Arc<AtomicU64>,
    fail_stop: FailStop,
}

impl CommitHistory {
    /// What stops the process when the database was replaced.
    pub(super) fn fail_stop(&self) -> &FailStop {
        &self.fail_stop
    }

    pub(super) fn record_commit(&self, last_sequence: u64) {
        self.last.fetch_max(last_sequence, Ordering::Relaxed);
    }

    /// Stops the process if the database lacks events that this instance has committed, and marks the database as superseded: later
    /// starts accept no writes until an operator has compared it with the log.
    pub(super) async fn check(&self, client: &Client) -> Result<(), StoreError> {
        let row = client.query_one("SELECT last_outbox_sequence FROM account.ledger", &[]).await?;
        let (found, known) = (row.get::<_, i64>(0) as u64, self.last.load(Ordering::Relaxed));
        if found >= known {
            return Ok(());
        }
        let notice = format!(
            "this account database was set back under a running service, to event {found} after event {known} was committed"
        );
        let sql = format!(
            "UPDATE account.relay_lease SET set_back = $1::text, superseded = $1::text || ': run tandem recover' RETURNING {SYNCED}"
        );
        client.query_one(&sql, &[&notice]).await?;
        self.fail_stop.stop(format!("{notice}: the process stops"));
        Err(StoreError::Unavailable(notice))
    }
}
