//! The account database in PostgreSQL, shared by the instances of the service.

mod commit_history;
mod handover;
mod history;
mod keys;
pub(crate) mod outbox;
pub(crate) mod recover;
mod states;
mod writer;

use account_events::{AccountEvent, AccountId, AccountStatus, EventType, TraceParent, Version};
use clock::Clock;
use group_commit::{GroupCommit, KeyExpiry, StoreError};
use http_server::Page;
use jiff::Timestamp;
use numbering::Numbering;
use postgres::{BEGIN, OpenError, Parameter, Postgres, PostgresSchema, SYNCED};
use sqlite_file::FailStop;
use tokio_postgres::Row;

use self::commit_history::CommitHistory;
use self::handover::Handover;
use self::writer::Writer;
use super::{Opened, PageRequest, Store};
use crate::account::{Account, BeholderName};
use crate::account_number::AccountNumbering;
use crate::decide::OutboxEvent;
use crate::lineage::{Inheritance, Predecessor, SupersededState};
use crate::outbox::OutboxSignal;

pub(crate) const SCHEMA: PostgresSchema =
    PostgresSchema { name: "account", migrations: &[include_str!("../../migrations/postgres-1.sql")] };

/// The columns of [`account_from_row`].
const COLUMNS: &str =
    "sequence, id, beholder_name, country_code, status, version, event_version, created_at, updated_at";

pub(super) async fn open(
    url: &str,
    clock: Clock,
    keys: KeyExpiry,
    signal: OutboxSignal,
    predecessor: &Predecessor<'_>,
) -> Result<Opened, OpenError> {
    let database = Postgres::open(url, &SCHEMA).await?;
    let (key, superseded) =
        begin_lineage(&database, predecessor).await.map_err(|error| OpenError(error.to_string()))?;
    let key = <[u8; 16]>::try_from(key)
        .map_err(|_| OpenError("the number key in the database has not 16 bytes".to_owned()))?;
    let numbering = AccountNumbering(Numbering::decimal(key));
    let handover = Handover::new(signal);
    let history = CommitHistory::new(key);
    let fail_stop = history.fail_stop().clone();
    let writer =
        Writer::new(&database, numbering.clone(), (clock.clone(), keys.clone()), handover.clone(), history.clone());
    let (writer, writer_thread) =
        GroupCommit::start("account-writer", writer).map_err(|error| OpenError(error.to_string()))?;
    let outbox = Box::new(outbox::PostgresOutbox::new(&database, numbering.clone(), handover, history));
    let reader = super::Reader::Postgres(Reader { database, numbering: numbering.clone(), fail_stop });
    let store = Store { writer, reader, numbering, superseded: SupersededState::new(superseded), clock, keys };
    Ok(Opened { store, writer_thread, outbox })
}

/// Anchors the outbox at its last event, unless an instance holds the lease: that instance then vouches for the database. An empty
/// database takes over the topic of its predecessor, if the log names one. Returns the key of the numbers, and why the database takes
/// no writes.
async fn begin_lineage(
    database: &Postgres,
    predecessor: &Predecessor<'_>,
) -> Result<(Vec<u8>, Option<String>), StoreError> {
    let sql =
        "SELECT NOT EXISTS (SELECT FROM account.accounts) AND NOT EXISTS (SELECT FROM account.publisher_sessions)";
    let is_empty = database.read(async |client| Ok(client.query_one(sql, &[]).await?.get::<_, bool>(0))).await?;
    if is_empty && let Some(inheritance) = predecessor() {
        inherit(database, inheritance).await?;
    }
    let anchor = format!(
        "UPDATE account.relay_lease
         SET outbox_anchor = coalesce(outbox_anchor, (SELECT last_outbox_sequence FROM account.ledger))
         WHERE expires_at < clock_timestamp() RETURNING {SYNCED}"
    );
    let lineage = "SELECT number_key, superseded FROM account.ledger, account.relay_lease";
    database
        .read(async |client| {
            client.query_opt(&anchor, &[]).await?;
            let row = client.query_one(lineage, &[]).await?;
            Ok((row.get(0), row.get(1)))
        })
        .await
}

/// Gives an empty database the identity of its predecessor. Several instances may do so at once, with the same result.
async fn inherit(database: &Postgres, inheritance: Inheritance) -> Result<(), StoreError> {
    let Inheritance { owner, number_key, position, account_sequence_floor } = inheritance;
    let (position, floor) = (position as i64, account_sequence_floor as i64);
    let sql = format!(
        "WITH empty AS (
             UPDATE account.ledger SET database_id = $1, number_key = $2, last_outbox_sequence = $3,
                 previous_outbox_sequence = $3
             WHERE NOT EXISTS (SELECT FROM account.accounts) RETURNING 1
         ), lease AS (
             UPDATE account.relay_lease SET removed_outbox_sequence = $3, outbox_anchor = $3 FROM empty
         ), session AS (
             INSERT INTO account.publisher_sessions (session) SELECT $4 FROM empty ON CONFLICT DO NOTHING
         )
         SELECT setval('account.account_sequence', $5), {SYNCED} FROM empty"
    );
    let parameters: [Parameter<'_>; 5] =
        [&owner.database_id, &number_key.as_slice(), &position, &owner.session, &floor];
    // A connection of its own: an error ends it, and with it the transaction.
    let client = database.connect().await?;
    client.batch_execute(BEGIN).await?;
    // The first account may be committed while this waits for the row, so the next statement checks again.
    client.batch_execute("SELECT FROM account.ledger FOR UPDATE").await?;
    client.query_opt(&sql, &parameters).await?;
    Ok(client.batch_execute("COMMIT").await?)
}

#[derive(Clone)]
pub(super) struct Reader {
    database: Postgres,
    numbering: AccountNumbering,
    fail_stop: FailStop,
}

impl Reader {
    pub(super) fn fail_stop(&self) -> &FailStop {
        &self.fail_stop
    }

    pub(super) fn database(&self) -> &Postgres {
        &self.database
    }

    pub(super) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row = self.database.read(async |client| {
            let statement =
                client.prepare_cached(&format!("SELECT {COLUMNS} FROM account.accounts WHERE id = $1")).await?;
            client.query_opt(&statement, &[&id.0]).await
        });
        row.await?.map(|row| account_from_row(&row, &self.numbering)).transpose()
    }

    pub(super) async fn account_by_sequence(&self, sequence: u64) -> Result<Option<Account>, StoreError> {
        let row = self.database.read(async |client| {
            let sql = format!("SELECT {COLUMNS} FROM account.accounts WHERE sequence = $1");
            let statement = client.prepare_cached(&sql).await?;
            client.query_opt(&statement, &[&(sequence as i64)]).await
        });
        row.await?.map(|row| account_from_row(&row, &self.numbering)).transpose()
    }

    /// Returns `None` if no account has the id `after`.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Option<Page<Account>>, StoreError> {
        let found = self.database.read(async |client| {
            let before = match request.after {
                None => i64::MAX,
                Some(id) => {
                    let statement =
                        client.prepare_cached("SELECT sequence FROM account.accounts WHERE id = $1").await?;
                    match client.query_opt(&statement, &[&id.0]).await? {
                        None => return Ok(None),
                        Some(row) => row.get(0),
                    }
                }
            };
            let filter = if request.status.is_some() { "status = $3 AND" } else { "$3::text IS NULL AND" };
            let sql = format!(
                "SELECT {COLUMNS} FROM account.accounts WHERE {filter} sequence < $1 ORDER BY sequence DESC LIMIT $2"
            );
            // One more than requested shows whether more follow.
            let (limit, status) = (request.limit as i64 + 1, request.status.map(AccountStatus::as_str));
            let statement = client.prepare_cached(&sql).await?;
            let totals = client.prepare_cached("SELECT active, blocked, deleted FROM account.ledger").await?;
            let parameters: [Parameter<'_>; 3] = [&before, &limit, &status];
            let (rows, totals) =
                tokio::try_join!(client.query(&statement, &parameters), client.query_one(&totals, &[]),)?;
            Ok(Some((rows, [totals.get(0), totals.get(1), totals.get(2)])))
        });
        let Some((rows, totals)) = found.await? else { return Ok(None) };
        let accounts = rows.iter().map(|row| account_from_row(row, &self.numbering)).collect::<Result<_, _>>()?;
        let total: i64 = request.status.map_or(totals.iter().sum(), |status| totals[status as usize]);
        Ok(Some(Page::new(accounts, request.limit, total as u64)))
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
        event_version: version(row.get(6))?,
        created_at: timestamp(row.get(7))?,
        updated_at: timestamp(row.get(8))?,
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
    let trace = parsed(row.get(6), TraceParent::parse)?;
    Ok(OutboxEvent { event, version, occurred_at: timestamp(row.get(5))?, trace })
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
