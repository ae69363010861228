//! The rows that the services write, and that `pgbench` writes in their place.

use std::sync::Arc;

use database::DatabaseUrl;
use database::postgres::Parameter;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog};
use process::Clock;
use test_harness::{InProcess, with_postgres};
use tokio_postgres::Row;

/// A batch of new accounts as one statement. `:size` is how many.
const ACCOUNTS: &str = "\
WITH moment AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
), drawn AS MATERIALIZED (
    SELECT nextval('account.account_sequence') AS sequence FROM generate_series(1, :size)
), created AS (
    INSERT INTO account.accounts
    SELECT sequence, lpad(to_hex(sequence), 32, '0')::uuid, 'John Doe', 'US', 'ACTIVE', 1, now, now FROM drawn, moment
    RETURNING sequence, id, created_at
), head AS (
    UPDATE account.ledger SET active = active + :size,
        last_outbox_sequence = greatest(last_outbox_sequence, (SELECT now FROM moment)) + :size
    RETURNING last_outbox_sequence - :size AS before
)
INSERT INTO account.outbox
SELECT head.before + row_number() OVER (), id, 'account.created', 'ACTIVE', 1, created_at,
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
FROM created, head;
";

/// The account of all cards that pgbench makes.
const HOLDER: &str = "INSERT INTO card.card_accounts VALUES ('00000000-0000-7000-8000-000000000000', 0, false)";

/// A batch of new cards, all of that account.
const CARDS: &str = "\
WITH moment AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
), drawn AS MATERIALIZED (
    SELECT nextval('card.card_sequence') AS sequence FROM generate_series(1, :size)
), holder AS (
    UPDATE card.card_accounts SET cards = cards + :size
    WHERE account_id = '00000000-0000-7000-8000-000000000000' AND NOT closed RETURNING account_id
), head AS (
    UPDATE card.ledger SET cards = cards + :size
)
INSERT INTO card.cards
SELECT sequence, lpad(to_hex(sequence), 32, '0')::uuid, 'US', account_id, false, now FROM drawn, moment, holder;
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Accounts,
    Cards,
}

impl Rows {
    pub(super) fn script(self) -> &'static str {
        match self {
            Rows::Accounts => ACCOUNTS,
            Rows::Cards => CARDS,
        }
    }

    /// The last sequence that was drawn.
    pub(crate) fn last(self, database: &str) -> i64 {
        let sql = match self {
            Rows::Accounts => "SELECT last_value FROM account.account_sequence",
            Rows::Cards => "SELECT last_value FROM card.card_sequence",
        };
        one_row(database, sql, &[]).get(0)
    }

    /// How many a transaction had, of those behind a sequence. All rows of a transaction carry its one time, which is how they are
    /// told apart.
    pub(crate) fn a_transaction(self, database: &str, behind: i64) -> f64 {
        let sql = match self {
            Rows::Accounts => "SELECT count(*), count(DISTINCT created_at) FROM account.accounts WHERE sequence > $1",
            Rows::Cards => "SELECT count(*), count(DISTINCT created_at) FROM card.cards WHERE sequence > $1",
        };
        let row = one_row(database, sql, &[&behind]);
        row.get::<_, i64>(0) as f64 / row.get::<_, i64>(1).max(1) as f64
    }
}

pub(crate) fn one_row(database: &str, sql: &str, parameters: &[Parameter<'_>]) -> Row {
    with_postgres(database, async |client| client.query_one(sql, parameters).await)
}

/// Has both services make their tables in an empty database.
pub(super) fn make_tables(url: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("event-log.db")))?);
    let database = DatabaseUrl::Postgres(url.to_owned());
    let account = account_service::Config {
        database: database.clone(),
        cors: None,
        clock: Clock::system(),
        backlog_published: Default::default(),
    };
    let account_log = Arc::clone(&log);
    InProcess::start(|listener, shutdown| account_service::run(account, listener, account_log, shutdown)).stop()?;
    let card = card_service::Config {
        database,
        data_dir: folder.path().to_owned(),
        group: card_service::DEFAULT_GROUP.to_owned(),
        backlog_published: None,
        view_max_age: None,
        cors: None,
        clock: Clock::system(),
    };
    InProcess::start(|listener, shutdown| card_service::run(card, listener, log, shutdown)).stop()?;
    with_postgres(url, async |client| client.batch_execute(HOLDER).await);
    Ok(())
}
