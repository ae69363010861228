//! The outbox that instances share. One of them publishes at a time: the one that holds the lease.

use std::time::{Duration, Instant};

use database::StoreError;
use database::postgres::{Postgres, Session, within_deadline};
use event_log::{LogError, Record};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{COLUMNS, account_from_row, event_from_row};
use crate::account_number::AccountNumbering;
use crate::ledger::OutboxEvent;
use crate::outbox::{Outbox, OutboxSignal, PAGE_ACCOUNTS, RelayError};

/// How long an instance may publish without asking again. Another one takes over so long after it has gone silent.
const LEASE: Duration = Duration::from_secs(3);

/// How often the lease is asked for and renewed.
const LEASE_RENEWAL: Duration = Duration::from_millis(500);

/// How often published events are removed. Each time is a transaction, and makes room that vacuum has to clear.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(200);

/// The outbox that instances share. One of them publishes at a time: the one that holds the lease. The lease keeps them
/// out of each other's way; that no two ever publish is the event log's to ensure, which fences the earlier publisher.
pub(super) struct PostgresOutbox {
    database: Postgres,
    numbering: AccountNumbering,
    runtime: Handle,
    holder: Uuid,
    session: Session<OutboxSession>,
    signal: OutboxSignal,
    /// When the lease was granted last.
    leased: Option<Instant>,
    removal: Removal,
}

#[derive(Default)]
struct Removal {
    published: u64,
    removed: u64,
    at: Option<Instant>,
}

/// A connection that hears of commits, with its statements.
struct OutboxSession {
    client: Client,
    lease: Statement,
    release: Statement,
    read: Statement,
    remove: Statement,
}

impl PostgresOutbox {
    pub(super) fn new(database: &Postgres, numbering: AccountNumbering, signal: OutboxSignal) -> Self {
        PostgresOutbox {
            database: database.clone(),
            numbering,
            runtime: Handle::current(),
            holder: Uuid::new_v4(),
            session: Session::new(database.clone()),
            signal,
            leased: None,
            removal: Removal::default(),
        }
    }

    fn with_session<T>(
        &mut self,
        work: impl AsyncFnOnce(&OutboxSession) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let PostgresOutbox { session, signal, .. } = self;
        session
            .run(async |database| OutboxSession::open(database, signal).await, async |session| Ok(work(session).await?))
    }
}

impl Outbox for PostgresOutbox {
    fn may_publish(&mut self) -> Result<bool, StoreError> {
        let asked = Instant::now();
        if self.leased.is_some_and(|leased| asked - leased < LEASE_RENEWAL) {
            return Ok(true);
        }
        let (holder, seconds) = (self.holder, LEASE.as_secs_f64());
        let granted =
            self.with_session(async |session| session.client.execute(&session.lease, &[&holder, &seconds]).await)?;
        // From before the question was asked: the lease is never thought to last longer than the server thinks.
        self.leased = (granted == 1).then_some(asked);
        Ok(granted == 1)
    }

    fn read_after(&mut self, position: u64, limit: usize) -> Result<(Vec<Record>, u64), StoreError> {
        let rows = self.with_session(async |session| {
            session.client.query(&session.read, &[&(position as i64), &(limit as i64)]).await
        })?;
        let last = rows.last().map_or(position, |row| row.get::<_, i64>(0) as u64);
        let records = rows.iter().map(|row| Ok(event_from_row(row)?.record())).collect::<Result<_, StoreError>>()?;
        Ok((records, last))
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        let removed = self.with_session(async |session| {
            let row = session.client.query_one("SELECT removed_outbox_sequence FROM relay_lease", &[]).await?;
            Ok(row.get::<_, i64>(0))
        })?;
        Ok(removed as u64)
    }

    fn every_account(
        &mut self,
        publish: &mut dyn FnMut(Vec<Record>, Option<u64>) -> Result<(), LogError>,
    ) -> Result<(), RelayError> {
        let runtime = self.runtime.clone();
        let client = runtime.block_on(self.database.connect())?;
        // One snapshot: everything is of the moment of its first query. The log may take its time with a page.
        let begin =
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0";
        let head = "SELECT last_outbox_sequence FROM ledger";
        let page = format!("SELECT {COLUMNS} FROM accounts WHERE sequence > $1 ORDER BY sequence LIMIT $2");
        let (head, page) = runtime.block_on(within_deadline(async {
            client.batch_execute(begin).await?;
            let head = client.query_one(head, &[]).await?.get::<_, i64>(0) as u64;
            Ok((head, client.prepare(&page).await?))
        }))?;
        let (mut behind, limit) = (0_i64, PAGE_ACCOUNTS as i64);
        loop {
            let rows =
                runtime.block_on(within_deadline(async { Ok(client.query(&page, &[&behind, &limit]).await?) }))?;
            behind = rows.last().map_or(behind, |row| row.get(0));
            let record = |row| Ok(OutboxEvent::of_state(&account_from_row(row, &self.numbering)?).record());
            let records = rows.iter().map(record).collect::<Result<Vec<_>, StoreError>>()?;
            let is_last = rows.len() < PAGE_ACCOUNTS;
            publish(records, is_last.then_some(head))?;
            if is_last {
                return Ok(());
            }
            // Keeps the lease while this goes on.
            self.may_publish()?;
        }
    }

    fn waiting(&mut self) -> Result<u64, StoreError> {
        let waiting = self.with_session(async |session| {
            let row = session.client.query_one("SELECT count(*) FROM outbox", &[]).await?;
            Ok(row.get::<_, i64>(0))
        })?;
        Ok(waiting as u64)
    }

    fn remove_published(&mut self, position: u64) -> Result<(), StoreError> {
        self.removal.published = self.removal.published.max(position);
        self.tidy()
    }

    fn release(&mut self) -> Result<(), StoreError> {
        let holder = self.holder;
        self.leased = None;
        self.with_session(async |session| session.client.execute(&session.release, &[&holder]).await).map(drop)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        let Removal { published, removed, at } = self.removal;
        if published == removed || at.is_some_and(|at| at.elapsed() < REMOVAL_INTERVAL) {
            return Ok(());
        }
        self.with_session(async |session| session.client.execute(&session.remove, &[&(published as i64)]).await)?;
        self.removal = Removal { published, removed: published, at: Some(Instant::now()) };
        Ok(())
    }
}

impl AsRef<Client> for OutboxSession {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}

impl OutboxSession {
    async fn open(database: &Postgres, signal: &OutboxSignal) -> Result<Self, StoreError> {
        let (notified, mut notifications) = unbounded_channel();
        let client = database.connect_listening(notified).await?;
        let signal = signal.clone();
        tokio::spawn(async move {
            while notifications.recv().await.is_some() {
                signal.notify();
            }
        });
        client.batch_execute("LISTEN account_outbox").await?;
        // Losing a removal or a lease to a crash does no harm, so nobody waits for their sync.
        client.batch_execute("SET synchronous_commit = off").await?;
        let lease = client
            .prepare(
                "UPDATE relay_lease SET holder = $1, expires_at = clock_timestamp() + make_interval(secs => $2)
                 WHERE holder = $1 OR expires_at < clock_timestamp()",
            )
            .await?;
        let read = client
            .prepare(
                "SELECT sequence, account_id, event_type, status, version, occurred_at, traceparent
                 FROM outbox WHERE sequence > $1 ORDER BY sequence LIMIT $2",
            )
            .await?;
        let release = client.prepare("UPDATE relay_lease SET expires_at = clock_timestamp() WHERE holder = $1").await?;
        let remove = client
            .prepare(
                "WITH removed AS (DELETE FROM outbox WHERE sequence <= $1)
                 UPDATE relay_lease SET removed_outbox_sequence = greatest(removed_outbox_sequence, $1)",
            )
            .await?;
        Ok(OutboxSession { client, lease, release, read, remove })
    }
}
