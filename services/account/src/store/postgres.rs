//! The accounts in PostgreSQL, shared by the instances of the service.
//!
//! A batch is one transaction in two round trips: the first draws sequences and locks the accounts that are to change, the
//! second writes all rows by UNNEST and commits. Everything of the second is sent at once, so an instance that is paused or
//! killed between two statements holds no lock that others wait for.
//!
//! **Order.** A transaction takes the one row of `ledger` as its last step but one, and numbers its events from there. The
//! next transaction gets the row when this one has committed. So the order of the outbox is the order of commit, and a
//! reader that has seen an event has seen all before it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountId, AccountStatus, EventType, Version};
use database::postgres::{Parameter, Postgres, PostgresSchema, Session, within_deadline};
use database::{Committer, GroupCommit, OpenError, StoreError};
use event_log::{LogError, Record};
use jiff::Timestamp;
use numbering::{Numbering, TimeOrderedIds};
use process::Clock;
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::{Database, Opened, Page, PageRequest, Store};
use crate::account::{Account, BeholderName};
use crate::account_number::AccountNumbering;
use crate::ledger::{self, Batch, Changes, Command, OutboxEvent, Outcome};
use crate::outbox::{Outbox, OutboxSignal, PAGE_ACCOUNTS, RelayError};

const SCHEMA: PostgresSchema = PostgresSchema { name: "account", migrations: &[include_str!("postgres.sql")] };

/// The columns of [`account_from_row`].
const COLUMNS: &str = "sequence, id, beholder_name, country_code, status, version, created_at, updated_at";

/// How long an instance may publish without asking again. Another one takes over so long after it has gone silent.
const LEASE: Duration = Duration::from_secs(3);

/// How often the lease is asked for and renewed.
const LEASE_RENEWAL: Duration = Duration::from_millis(500);

/// How often published events are removed. Each time is a transaction, and makes room that vacuum has to clear.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn open(url: &str, clock: Clock, signal: OutboxSignal) -> Result<Opened, OpenError> {
    let database = Postgres::open(url, &SCHEMA).await?;
    let row = database
        .read(async |client| client.query_one("SELECT database_id, number_key FROM ledger", &[]).await)
        .await
        .map_err(|error| OpenError::Refused(error.to_string()))?;
    let key = <[u8; 16]>::try_from(row.get::<_, &[u8]>(1))
        .map_err(|_| OpenError::Refused("the number key in the database has not 16 bytes".to_owned()))?;
    let numbering = AccountNumbering(Numbering::decimal(key));
    let writer = Writer {
        session: Session::new(database.clone()),
        numbering: numbering.clone(),
        clock,
        ids: TimeOrderedIds::new(),
    };
    let (writer, writer_thread) =
        GroupCommit::start("account-writer", writer).map_err(|error| OpenError::Refused(error.to_string()))?;
    let outbox = Box::new(PostgresOutbox {
        database: database.clone(),
        numbering: numbering.clone(),
        runtime: Handle::current(),
        holder: Uuid::new_v4(),
        session: Session::new(database.clone()),
        signal,
        leased: None,
        removal: Removal::default(),
    });
    let reader = Reader { database, numbering: numbering.clone() };
    let store = Store { database: Database::Postgres { writer, reader }, numbering };
    Ok(Opened { store, writer_thread, outbox, database_id: row.get(0) })
}

pub(crate) struct Writer {
    session: Session<WriteSession>,
    numbering: AccountNumbering,
    clock: Clock,
    ids: TimeOrderedIds,
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>) -> Result<Vec<Outcome>, StoreError> {
        let (now, accounts) = (self.clock.now(), HashMap::new());
        let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, accounts };
        self.session.run(WriteSession::open, async |session| session.commit(batch, commands).await)
    }
}

/// A connection with its statements.
struct WriteSession {
    client: Client,
    draw: Statement,
    lock: Statement,
    insert: Statement,
    update: Statement,
    tell: Statement,
}

impl AsRef<Client> for WriteSession {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}

impl WriteSession {
    async fn open(database: &Postgres) -> Result<Self, StoreError> {
        let client = database.connect().await?;
        let draw = client.prepare("SELECT nextval('account_sequence') FROM generate_series(1, $1::bigint)").await?;
        let lock = format!("SELECT {COLUMNS} FROM accounts WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE");
        let lock = client.prepare(&lock).await?;
        let insert = client
            .prepare(
                "INSERT INTO accounts SELECT * FROM unnest(
                     $1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])",
            )
            .await?;
        let update = client
            .prepare(
                "UPDATE accounts SET beholder_name = new.beholder_name, country_code = new.country_code,
                     status = new.status, version = new.version, updated_at = new.updated_at
                 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
                     AS new (id, beholder_name, country_code, status, version, updated_at)
                 WHERE accounts.id = new.id",
            )
            .await?;
        let tell = client
            .prepare(
                "WITH head AS (
                     UPDATE ledger SET
                         active = active + $1, blocked = blocked + $2, deleted = deleted + $3,
                         last_outbox_sequence = greatest(last_outbox_sequence, $4) + cardinality($5::uuid[])
                     RETURNING last_outbox_sequence - cardinality($5::uuid[]) AS before
                 ), notified AS (SELECT pg_notify('account_outbox', ''))
                 INSERT INTO outbox
                 SELECT head.before + event.place, event.account_id, event.event_type, event.status, event.version,
                     event.occurred_at, event.traceparent
                 FROM head, notified, unnest($5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[])
                     WITH ORDINALITY AS event (account_id, event_type, status, version, occurred_at, traceparent, place)",
            )
            .await?;
        Ok(WriteSession { client, draw, lock, insert, update, tell })
    }

    async fn commit(&self, mut batch: Batch<'_>, commands: Vec<Command>) -> Result<Vec<Outcome>, StoreError> {
        let named: Vec<Uuid> = ledger::named_accounts(&commands).into_iter().map(|id| id.0).collect();
        let creations = ledger::creations(&commands) as i64;
        let (draw, lock): ([Parameter<'_>; 1], [Parameter<'_>; 1]) = ([&creations], [&named]);
        // Futures that are polled together go out together: this is one round trip.
        let ((), drawn, locked) = tokio::try_join!(
            self.client.batch_execute("BEGIN"),
            self.client.query(&self.draw, &draw),
            self.client.query(&self.lock, &lock),
        )?;
        for row in &locked {
            let account = account_from_row(row, batch.numbering)?;
            batch.accounts.insert(account.id, account);
        }
        let now = batch.now;
        let (outcomes, changes) = batch.decide(commands, drawn.iter().map(|row| row.get::<_, i64>(0) as u64));
        self.write(&changes, now).await?;
        Ok(outcomes)
    }

    /// Writes and commits in one round trip. If a statement fails, those behind it do too, and the server makes a rollback
    /// of the commit.
    async fn write(&self, changes: &Changes, now: Timestamp) -> Result<(), StoreError> {
        let created = Columns::of(changes.created.iter().map(|(_, account)| account));
        let sequences: Vec<i64> = changes.created.iter().map(|(sequence, _)| *sequence as i64).collect();
        let updated = Columns::of(changes.updated.iter());
        let events = EventColumns::of(&changes.events);
        let [active, blocked, deleted] = &changes.totals;
        let now = now.as_microsecond();
        let insert = async {
            match sequences.is_empty() {
                true => Ok(0),
                false => {
                    let c = &created;
                    let parameters: [Parameter<'_>; 8] =
                        [&sequences, &c.ids, &c.names, &c.countries, &c.statuses, &c.versions, &c.created, &c.updated];
                    self.client.execute(&self.insert, &parameters).await
                }
            }
        };
        let update = async {
            match updated.ids.is_empty() {
                true => Ok(0),
                false => {
                    let u = &updated;
                    let parameters: [Parameter<'_>; 6] =
                        [&u.ids, &u.names, &u.countries, &u.statuses, &u.versions, &u.updated];
                    self.client.execute(&self.update, &parameters).await
                }
            }
        };
        let tell = async {
            match events.ids.is_empty() {
                true => Ok(0),
                false => {
                    let e = &events;
                    let parameters: [Parameter<'_>; 10] = [
                        active,
                        blocked,
                        deleted,
                        &now,
                        &e.ids,
                        &e.types,
                        &e.statuses,
                        &e.versions,
                        &e.times,
                        &e.traces,
                    ];
                    self.client.execute(&self.tell, &parameters).await
                }
            }
        };
        tokio::try_join!(insert, update, tell, async { self.client.batch_execute("COMMIT").await.map(|()| 0) })?;
        Ok(())
    }
}

/// Accounts by column, for UNNEST.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    names: Vec<&'a str>,
    countries: Vec<&'a str>,
    statuses: Vec<&'a str>,
    versions: Vec<i64>,
    created: Vec<i64>,
    updated: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(accounts: impl Iterator<Item = &'a Account>) -> Self {
        let mut columns = Columns::default();
        for account in accounts {
            columns.ids.push(account.id.0);
            columns.names.push(account.beholder_name.as_str());
            columns.countries.push(account.country_code.as_str());
            columns.statuses.push(account.status.as_str());
            columns.versions.push(i64::from(account.version));
            columns.created.push(account.created_at.as_microsecond());
            columns.updated.push(account.updated_at.as_microsecond());
        }
        columns
    }
}

/// Events by column, for UNNEST.
#[derive(Default)]
struct EventColumns<'a> {
    ids: Vec<Uuid>,
    types: Vec<&'a str>,
    statuses: Vec<&'a str>,
    versions: Vec<i64>,
    times: Vec<i64>,
    traces: Vec<&'a str>,
}

impl<'a> EventColumns<'a> {
    fn of(events: &'a [OutboxEvent]) -> Self {
        let mut columns = EventColumns::default();
        for OutboxEvent { event, version, occurred_at, traceparent } in events {
            columns.ids.push(event.account_id.0);
            columns.types.push(event.event_type.as_str());
            columns.statuses.push(event.status.as_str());
            columns.versions.push(i64::from(*version));
            columns.times.push(occurred_at.as_microsecond());
            columns.traces.push(traceparent);
        }
        columns
    }
}

/// The outbox that instances share. One of them publishes at a time: the one that holds the lease. The lease keeps them
/// out of each other's way; that no two ever publish is the event log's to ensure, which fences the earlier publisher.
struct PostgresOutbox {
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

#[derive(Clone)]
pub(crate) struct Reader {
    database: Postgres,
    numbering: AccountNumbering,
}

impl Reader {
    pub(super) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE id = $1")).await?;
            client.query_opt(&statement, &[&id.0]).await
        });
        row.await?.map(|row| account_from_row(&row, &self.numbering)).transpose()
    }

    pub(super) async fn account_by_sequence(&self, sequence: u64) -> Result<Option<Account>, StoreError> {
        let row = self.database.read(async |client| {
            let sql = format!("SELECT {COLUMNS} FROM accounts WHERE sequence = $1");
            let statement = client.prepare_cached(&sql).await?;
            client.query_opt(&statement, &[&(sequence as i64)]).await
        });
        row.await?.map(|row| account_from_row(&row, &self.numbering)).transpose()
    }

    /// `None` if `after` is no account.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Option<Page>, StoreError> {
        let found = self.database.read(async |client| {
            let before = match request.after {
                None => i64::MAX,
                Some(id) => {
                    let statement = client.prepare_cached("SELECT sequence FROM accounts WHERE id = $1").await?;
                    match client.query_opt(&statement, &[&id.0]).await? {
                        None => return Ok(None),
                        Some(row) => row.get(0),
                    }
                }
            };
            let filter = if request.status.is_some() { "status = $3 AND" } else { "$3::text IS NULL AND" };
            let sql =
                format!("SELECT {COLUMNS} FROM accounts WHERE {filter} sequence < $1 ORDER BY sequence DESC LIMIT $2");
            // One more than asked for tells whether there are more.
            let (limit, status) = (request.limit as i64 + 1, request.status.map(AccountStatus::as_str));
            let statement = client.prepare_cached(&sql).await?;
            let totals = client.prepare_cached("SELECT active, blocked, deleted FROM ledger").await?;
            let parameters: [Parameter<'_>; 3] = [&before, &limit, &status];
            let (rows, totals) =
                tokio::try_join!(client.query(&statement, &parameters), client.query_one(&totals, &[]),)?;
            Ok(Some((rows, [totals.get(0), totals.get(1), totals.get(2)])))
        });
        let Some((rows, totals)) = found.await? else { return Ok(None) };
        let accounts = rows.iter().map(|row| account_from_row(row, &self.numbering)).collect::<Result<_, _>>()?;
        let total: i64 = request.status.map_or(totals.iter().sum(), |status| totals[status as usize]);
        Ok(Some(request.page(accounts, total as u64)))
    }
}

fn account_from_row(row: &Row, numbering: &AccountNumbering) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(row.get(1)),
        account_number: numbering.number(row.get::<_, i64>(0) as u64),
        beholder_name: BeholderName::stored(row.get(2)),
        country_code: parsed(row.get(3), |text| text.parse().ok())?,
        status: parsed(row.get(4), AccountStatus::parse)?,
        version: version(row.get(5))?,
        created_at: timestamp(row.get(6))?,
        updated_at: timestamp(row.get(7))?,
    })
}

fn event_from_row(row: &Row) -> Result<OutboxEvent, StoreError> {
    let version = version(row.get(4))?;
    let event = AccountEvent {
        account_id: AccountId(row.get(1)),
        event_type: parsed(row.get(2), EventType::parse)?,
        status: parsed(row.get(3), AccountStatus::parse)?,
        version: Some(version),
    };
    Ok(OutboxEvent { event, version, occurred_at: timestamp(row.get(5))?, traceparent: row.get(6) })
}

fn parsed<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| StoreError::Unavailable(format!("unexpected value {text:?} in a row")))
}

fn version(number: i64) -> Result<Version, StoreError> {
    number.try_into().map_err(|_| StoreError::Unavailable(format!("unexpected version {number} in a row")))
}

fn timestamp(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(|error| StoreError::Unavailable(error.to_string()))
}
