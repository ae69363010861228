//! What the databases hold, whichever they are, read past the services.

use std::collections::BTreeMap;
use std::path::PathBuf;

use account_events::{AccountId, AccountStatus, Version};
use postgres::DatabaseUrl;
use rusqlite::Connection;
use test_harness::{DEADLINE, with_postgres};
use uuid::Uuid;

/// Where the rows of both services are. The services may be running.
pub(crate) enum Databases {
    Sqlite { accounts: PathBuf, cards: PathBuf },
    Postgres(String),
}

/// All accounts and cards.
pub(crate) struct Tables {
    pub(crate) accounts: BTreeMap<AccountId, (AccountStatus, Version)>,
    /// The account of each, and whether it is deleted.
    pub(crate) cards: BTreeMap<Uuid, (AccountId, bool)>,
}

impl Databases {
    pub(crate) fn at(accounts: &str, cards: &str) -> Self {
        match (accounts.parse().expect("a URL"), cards.parse().expect("a URL")) {
            (DatabaseUrl::Sqlite(accounts), DatabaseUrl::Sqlite(cards)) => Databases::Sqlite { accounts, cards },
            (DatabaseUrl::Postgres(url), DatabaseUrl::Postgres(other)) if url == other => Databases::Postgres(url),
            other => panic!("no test has its rows in {other:?}"),
        }
    }

    pub(crate) fn tables(&self) -> Tables {
        let (accounts, cards) =
            ("SELECT id, status, version FROM account.accounts", "SELECT id, account_id, deleted FROM card.cards");
        let status = |text: &str| AccountStatus::parse(text).expect("one of the three");
        match self {
            Databases::Sqlite { .. } => {
                let database = self.open();
                Tables {
                    accounts: rows(&database, accounts, |row| {
                        let text: String = row.get(1)?;
                        Ok((AccountId(Uuid::from_bytes(row.get(0)?)), (status(&text), row.get(2)?)))
                    }),
                    cards: rows(&database, cards, |row| {
                        let id = |place| row.get(place).map(Uuid::from_bytes);
                        Ok((id(0)?, (AccountId(id(1)?), row.get(2)?)))
                    }),
                }
            }
            Databases::Postgres(url) => with_postgres(url, async |client| {
                let (accounts, cards) = (client.query(accounts, &[]).await?, client.query(cards, &[]).await?);
                let version = |version: i64| Version::try_from(version).expect("a version");
                Ok(Tables {
                    accounts: accounts
                        .iter()
                        .map(|row| (AccountId(row.get(0)), (status(row.get(1)), version(row.get(2)))))
                        .collect(),
                    cards: cards.iter().map(|row| (row.get(0), (AccountId(row.get(1)), row.get(2)))).collect(),
                })
            }),
        }
    }

    /// How many events wait in the outbox.
    pub(crate) fn outbox_events(&self) -> i64 {
        self.number("SELECT count(*) FROM account.outbox")
    }

    /// How many cards of deleted accounts are not deleted.
    pub(crate) fn live_cards_of_deleted(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM card.cards JOIN account.accounts ON cards.account_id = accounts.id
             WHERE NOT cards.deleted AND accounts.status = 'DELETED'",
        )
    }

    /// How many accounts lack a history entry of one of their versions, or have one too many. A recovery skips versions.
    pub(crate) fn accounts_with_another_history(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM account.accounts WHERE version - 1 <>
                 (SELECT count(*) FROM account.account_history WHERE account_sequence = sequence)",
        )
    }

    /// How many cards are deleted and have no record of that, or the other way round.
    pub(crate) fn cards_with_another_history(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM card.cards LEFT JOIN card.card_deletions ON card_sequence = sequence
             WHERE deleted <> (card_sequence IS NOT NULL)",
        )
    }

    /// Loses the events in the outbox.
    pub(crate) fn lose_outbox(&self) {
        match self {
            Databases::Sqlite { .. } => self.open().execute_batch("DELETE FROM account.outbox").expect("a change"),
            // The ledger's sequence would have the relay wait for the event.
            Databases::Postgres(url) => with_postgres(url, async |client| {
                let sql = "DELETE FROM account.outbox; UPDATE account.ledger SET last_outbox_sequence = 0";
                client.batch_execute(sql).await
            }),
        }
    }

    /// Changes rows behind the services' back. `$id` in `sql` stands for the account.
    pub(crate) fn execute(&self, sql: &str, id: AccountId) {
        match self {
            Databases::Sqlite { .. } => {
                let sql = sql.replace("$id", &format!("x'{}'", id.0.simple()));
                self.open().execute_batch(&sql).expect("a change");
            }
            Databases::Postgres(url) => {
                let sql = sql.replace("$id", &format!("'{id}'"));
                with_postgres(url, async |client| client.batch_execute(&sql).await);
            }
        }
    }

    fn number(&self, sql: &str) -> i64 {
        match self {
            Databases::Sqlite { .. } => self.open().query_row(sql, [], |row| row.get(0)).expect("a number"),
            Databases::Postgres(url) => with_postgres(url, async |client| Ok(client.query_one(sql, &[]).await?.get(0))),
        }
    }

    /// Both files under one connection, by the names of PostgreSQL's schemas.
    fn open(&self) -> Connection {
        let Databases::Sqlite { accounts, cards } = self else { panic!("PostgreSQL is no file") };
        let connection = Connection::open_in_memory().expect("a connection");
        connection.busy_timeout(DEADLINE).expect("a timeout");
        connection.execute("ATTACH ? AS account", [accounts.to_str()]).expect("the account database");
        connection.execute("ATTACH ? AS card", [cards.to_str()]).expect("the card database");
        connection
    }
}

fn rows<K: Ord, V>(
    connection: &Connection,
    sql: &str,
    row: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<(K, V)>,
) -> BTreeMap<K, V> {
    let mut statement = connection.prepare(sql).expect("a statement");
    let rows = statement.query_map([], row).expect("rows");
    rows.collect::<rusqlite::Result<_>>().expect("rows")
}
