//! The outbox in PostgreSQL, which instances share. The instance with the lease publishes from it.

use std::time::{Duration, Instant};

use account_events::{AccountId, LastEvent, Owner};
use group_commit::StoreError;
use postgres::{Postgres, SYNCED, Session};
use tokio::runtime::Handle;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::commit_history::CommitHistory;
use super::handover::Handover;
use super::{COLUMNS, account_from_row, event_from_row, version};
use crate::account_number::AccountNumbering;
use crate::decide::{OutboxEvent, RecordBuffer, new_page_id};
use crate::lineage::Lineage;
use crate::outbox::{AccountPage, NO_END, NextEvents, Outbox, ResyncRequest, ResyncRequests};

/// How long a lease lasts without renewal, and so when another instance takes over. A failover may take five seconds, of which
/// opening a publisher takes one to two on a busy machine. A lease that expires too early does no harm.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// How often the lease is renewed: four times in [`LEASE`], and twice while there is nothing to publish.
const LEASE_RENEWAL: Duration = Duration::from_millis(500);

/// The minimum interval between two reads without a notification. An idle relay reads the outbox every second, and so finds the
/// events of instances that could not notify it.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// How often published events are removed. Each removal is a transaction and leaves dead rows for vacuum.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(200);

/// The sessions that are kept. A log that names an older one is taken for another copy's.
const MAX_SESSIONS: i64 = 1_000;

/// The outbox as one instance uses it. The lease only avoids contention; safety comes from fencing in the event log.
pub(super) struct PostgresOutbox {
    database: Postgres,
    numbering: AccountNumbering,
    runtime: Handle,
    holder: Uuid,
    session: Session<OutboxSession>,
    handover: Handover,
    history: CommitHistory,
    /// The position where the last read ended.
    read_to: u64,
    /// When the outbox was last read to its end.
    read_at: Option<Instant>,
    /// The resync request that was open when the lease was granted last.
    resync: Option<ResyncRequest>,
    /// The highest sequence of an account when the lease was granted last.
    account_sequence_high: u64,
    /// Why the database takes no writes, as of the last refusal of the lease.
    superseded: Option<String>,
    /// Whether the log names the session that this instance added last.
    is_confirmed: bool,
    removal: Removal,
    records: RecordBuffer,
}

#[derive(Default)]
struct Removal {
    published: u64,
    removed: u64,
    at: Option<Instant>,
}

/// A connection that listens for notifications, with its statements.
struct OutboxSession {
    client: Client,
    lease: Statement,
    release: Statement,
    read: Statement,
    page: Statement,
    remove: Statement,
}

impl PostgresOutbox {
    pub(super) fn new(
        database: &Postgres,
        numbering: AccountNumbering,
        handover: Handover,
        history: CommitHistory,
    ) -> Self {
        PostgresOutbox {
            database: database.clone(),
            numbering,
            runtime: Handle::current(),
            holder: Uuid::new_v4(),
            session: Session::driven_by(Handle::current(), database.clone()),
            handover,
            history,
            read_to: 0,
            read_at: None,
            resync: None,
            account_sequence_high: 0,
            superseded: None,
            is_confirmed: false,
            removal: Removal::default(),
            records: RecordBuffer::default(),
        }
    }

    /// Whether the outbox may have events after `after` that were not handed over.
    fn may_find_more(&self, after: u64) -> bool {
        let is_known = self.read_at.is_some_and(|at| at.elapsed() < READ_INTERVAL) && self.read_to == after;
        !is_known || self.handover.is_more_expected() || !self.handover.recent.is_empty()
    }

    fn with_session<T>(
        &mut self,
        work: impl AsyncFnOnce(&OutboxSession) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        self.run(async |session, _| Ok(work(session).await?))
    }

    fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&OutboxSession, &CommitHistory) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let PostgresOutbox { session, handover, history, is_confirmed, .. } = self;
        let open = async |database: &Postgres| match is_confirmed {
            // The server behind a new connection may lack commits that the publisher has published.
            true => Err(StoreError::Unavailable("the connection ended while events were published".to_owned())),
            false => OutboxSession::open(database, handover, history).await,
        };
        session.run(open, async |session| work(session, history).await)
    }
}

impl Outbox for PostgresOutbox {
    fn acquire_lease(&mut self) -> Result<bool, StoreError> {
        let asked = Instant::now();
        if self.handover.leased().is_some_and(|leased| asked - leased < LEASE_RENEWAL) {
            return Ok(true);
        }
        let (holder, seconds, confirmed) = (self.holder, LEASE.as_secs_f64(), self.is_confirmed);
        let row = self.with_session(async |session| {
            session.client.query_one(&session.lease, &[&holder, &seconds, &confirmed]).await
        })?;
        self.superseded = row.get(3);
        let granted = row.get::<_, Option<i64>>(0).is_some().then_some(row);
        // The lease counts from before the request, so it never seems longer here than on the server.
        let was_granted = self.handover.set_leased(granted.is_some().then_some(asked));
        if was_granted && granted.is_none() {
            // The events that were handed over here were not notified to the instance that publishes now.
            self.with_session(async |session| session.client.batch_execute("NOTIFY account_outbox").await)?;
        }
        self.resync = granted.as_ref().and_then(|row| requests_from_row(row).open());
        if let Some(row) = &granted {
            self.account_sequence_high = row.get::<_, i64>(2) as u64;
        }
        Ok(granted.is_some())
    }

    fn lineage(&mut self, owner: Option<&Owner>, position: u64) -> Result<Lineage, StoreError> {
        let (session, last) = (owner.map(|owner| &owner.session), owner.and_then(|owner| owner.last_event));
        let parameters = (session, position as i64, last.map(|event| event.account_id.0));
        let sql = "SELECT database_id, encode(number_key, 'hex'),
                       EXISTS (SELECT FROM account.publisher_sessions WHERE session = $1),
                       EXISTS (SELECT FROM account.accounts), coalesce(outbox_anchor, last_outbox_sequence),
                       removed_outbox_sequence, set_back, event.account_id, event.version, event.occurred_at,
                       (SELECT event_version FROM account.accounts WHERE id = $3 AND removed_outbox_sequence >= $2)
                   FROM account.ledger CROSS JOIN account.relay_lease LEFT JOIN account.outbox AS event ON event.sequence = $2";
        let row = self.run(async |session, history| {
            history.check(&session.client).await?;
            let (session_id, position, account) = &parameters;
            Ok(session.client.query_one(sql, &[session_id, position, account]).await?)
        })?;
        let event_at_position = match row.get::<_, Option<Uuid>>(7).map(AccountId) {
            Some(account_id) => Some(LastEvent { account_id, version: version(row.get(8))?, occurred_at: row.get(9) }),
            None => None,
        };
        Ok(Lineage {
            database_id: row.get(0),
            number_key: row.get(1),
            knows_session: row.get(2),
            has_accounts: row.get(3),
            anchor: row.get::<_, i64>(4) as u64,
            removed: self.removal.published.max(row.get::<_, i64>(5) as u64),
            event_at_position,
            row_version: row.get::<_, Option<i64>>(10).map(version).transpose()?,
            set_back: row.get(6),
        })
    }

    fn add_session(&mut self, session: &str) -> Result<(), StoreError> {
        let sql = format!("INSERT INTO account.publisher_sessions (session) VALUES ($1) RETURNING {SYNCED}");
        self.with_session(async |connection| connection.client.query_one(&sql, &[&session]).await).map(drop)
    }

    fn session_confirmed(&mut self) -> Result<(), StoreError> {
        self.is_confirmed = true;
        // Not before: until now the log named an earlier session, however many attempts there were since.
        let sql = format!(
            "WITH old AS (
                 DELETE FROM account.publisher_sessions
                 WHERE number <= (SELECT max(number) FROM account.publisher_sessions) - {MAX_SESSIONS}
             )
             UPDATE account.relay_lease SET outbox_anchor = NULL RETURNING {SYNCED}"
        );
        let confirmed = self.with_session(async |session| session.client.query_one(&sql, &[]).await).map(drop);
        // After a failure the next session opens a connection.
        self.is_confirmed = confirmed.is_ok();
        confirmed
    }

    fn session_ended(&mut self) {
        // Before the session counts as ended: behind a new connection other events may have these numbers.
        self.removal.at = None;
        // After a failure the next session removes the events.
        let _ = self.tidy();
        self.removal = Removal::default();
        self.is_confirmed = false;
    }

    fn account_sequence_high(&self) -> u64 {
        self.account_sequence_high
    }

    fn set_superseded(&mut self, reason: Option<&str>) -> Result<(), StoreError> {
        // What was handed over is published from the table, once an operator has recovered it.
        self.handover.recent.clear();
        let sql = format!("UPDATE account.relay_lease SET superseded = $1 RETURNING {SYNCED}");
        self.with_session(async |session| session.client.query_one(&sql, &[&reason]).await).map(drop)
    }

    fn superseded(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.superseded.clone())
    }

    fn read(&mut self, after: u64, up_to: u64, limit: usize) -> Result<Option<NextEvents<'_>>, StoreError> {
        let batches = self.handover.recent.take(after, up_to, limit);
        if let Some(last) = batches.last() {
            self.read_to = last.last_sequence;
            return Ok(self.records.encode(batches.iter().flat_map(|batch| &batch.events), last.last_sequence));
        }
        if up_to == NO_END && !self.may_find_more(after) {
            return Ok(None);
        }
        let (asked, parameters) = (Instant::now(), [after as i64, up_to as i64, limit as i64]);
        self.read_at = None;
        self.handover.clear_more();
        let rows = self.with_session(async |session| {
            let [after, up_to, limit] = &parameters;
            session.client.query(&session.read, &[after, up_to, limit]).await
        })?;
        let last = rows.last().map_or(after, |row| row.get::<_, i64>(0) as u64);
        self.read_to = last;
        self.read_at = (up_to == NO_END && rows.len() < limit).then_some(asked);
        let events = rows.iter().map(event_from_row).collect::<Result<Vec<_>, _>>()?;
        Ok(self.records.encode(&events, last))
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        let removed = self.with_session(async |session| {
            let row = session.client.query_one("SELECT removed_outbox_sequence FROM account.relay_lease", &[]).await?;
            Ok(row.get::<_, i64>(0))
        })?;
        // Published events count as removed: they are removed later.
        Ok(self.removal.published.max(removed as u64))
    }

    fn last(&mut self) -> Result<u64, StoreError> {
        let last = self.with_session(async |session| {
            let row = session.client.query_one("SELECT last_outbox_sequence FROM account.ledger", &[]).await?;
            Ok(row.get::<_, i64>(0))
        })?;
        Ok(last as u64)
    }

    fn waiting(&mut self, after: u64) -> Result<u64, StoreError> {
        let waiting = self.with_session(async |session| {
            let sql = "SELECT count(*) FROM account.outbox WHERE sequence > $1";
            let row = session.client.query_one(sql, &[&(after as i64)]).await?;
            Ok(row.get::<_, i64>(0))
        })?;
        Ok(waiting as u64)
    }

    fn remove_published(&mut self, position: u64) -> Result<(), StoreError> {
        self.removal.published = self.removal.published.max(position);
        self.tidy()
    }

    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError> {
        Ok(self.resync)
    }

    fn request_resync(&mut self) -> Result<(), StoreError> {
        // Not the relay's own connection, which does not sync: the request must survive a crash.
        let database = self.database.clone();
        self.resync = Some(self.runtime.block_on(request_resync(&database))?);
        Ok(())
    }

    fn accounts_after(&mut self, sequence: u64, limit: usize) -> Result<AccountPage, StoreError> {
        let (after, limit) = (sequence as i64, limit as i64);
        let rows = self.with_session(async |session| session.client.query(&session.page, &[&after, &limit]).await)?;
        let numbering = &self.numbering;
        let page_id = new_page_id();
        let record = |row| Ok(OutboxEvent::of_state(&account_from_row(row, numbering)?, page_id).record());
        let number = |column| rows.last().map_or(0, |row: &Row| row.get::<_, i64>(column) as u64);
        Ok(AccountPage {
            last: number(0),
            head: number(9),
            records: rows.iter().map(record).collect::<Result<_, StoreError>>()?,
        })
    }

    fn resync_done(&mut self, request: ResyncRequest) -> Result<(), StoreError> {
        self.with_session(async |session| {
            session
                .client
                .execute("UPDATE account.relay_lease SET resync_done = greatest(resync_done, $1)", &[&request.0])
                .await
        })?;
        self.resync = self.resync.filter(|latest| *latest > request);
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreError> {
        let holder = self.holder;
        self.handover.set_leased(None);
        self.with_session(async |session| session.client.execute(&session.release, &[&holder]).await).map(drop)
    }

    fn refresh(&mut self) {
        self.read_at = None;
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
    async fn open(database: &Postgres, handover: &Handover, history: &CommitHistory) -> Result<Self, StoreError> {
        let notified = handover.clone();
        let client = database.connect_listening(move |_| notified.expect_more()).await?;
        history.check(&client).await?;
        client.batch_execute("LISTEN account_outbox").await?;
        // Earlier notifications were missed.
        handover.expect_more();
        // A removal or a lease that is lost in a crash does no harm, so neither waits for a sync.
        client.batch_execute("SET synchronous_commit = off").await?;
        // Statistics say that the outbox is nearly empty, so the planner would scan the table with all its dead rows. Under load
        // that took half of the server's time.
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await?;
        let lease = client
            .prepare(
                "WITH granted AS (
                     UPDATE account.relay_lease SET holder = $1, expires_at = clock_timestamp() + make_interval(secs => $2),
                         outbox_anchor = CASE WHEN $3 THEN NULL ELSE outbox_anchor END
                     WHERE holder = $1 OR expires_at < clock_timestamp()
                     RETURNING resync_requested, resync_done
                 )
                 SELECT granted.resync_requested, granted.resync_done, (SELECT last_value FROM account.account_sequence),
                     superseded
                 FROM account.relay_lease LEFT JOIN granted ON true",
            )
            .await?;
        let read = client
            .prepare(
                "SELECT sequence, account_id, event_type, status, version, occurred_at, traceparent
                 FROM account.outbox WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence LIMIT $3",
            )
            .await?;
        // One statement reads one snapshot.
        let page = format!(
            "SELECT {COLUMNS}, (SELECT last_outbox_sequence FROM account.ledger) FROM account.accounts WHERE sequence > $1
             ORDER BY sequence LIMIT $2"
        );
        let page = client.prepare(&page).await?;
        let release =
            client.prepare("UPDATE account.relay_lease SET expires_at = clock_timestamp() WHERE holder = $1").await?;
        let remove = client
            .prepare(
                "WITH removed AS (DELETE FROM account.outbox WHERE sequence <= $1)
                 UPDATE account.relay_lease SET removed_outbox_sequence = greatest(removed_outbox_sequence, $1)",
            )
            .await?;
        Ok(OutboxSession { client, lease, release, read, page, remove })
    }
}

/// Adds a resync request.
pub(crate) async fn request_resync(database: &Postgres) -> Result<ResyncRequest, StoreError> {
    let sql = format!(
        "UPDATE account.relay_lease SET resync_requested = resync_requested + 1 RETURNING resync_requested, {SYNCED}"
    );
    database.read(async |client| Ok(ResyncRequest(client.query_one(&sql, &[]).await?.get(0)))).await
}

/// The numbers of resync requests, and whether an instance holds the lease.
pub(crate) async fn resync_requests(database: &Postgres) -> Result<(ResyncRequests, bool), StoreError> {
    let sql = "SELECT resync_requested, resync_done, expires_at > clock_timestamp() FROM account.relay_lease";
    let row = database.read(async |client| client.query_one(sql, &[]).await).await?;
    Ok((requests_from_row(&row), row.get(2)))
}

fn requests_from_row(row: &Row) -> ResyncRequests {
    ResyncRequests { requested: row.get(0), done: row.get(1) }
}
