//! The card database in PostgreSQL, shared by the instances of the service.

mod history;
mod keys;
mod quarantine;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use account_events::AccountId;
use clock::Clock;
use group_commit::{GroupCommit, KeyExpiry, StoreError};
use http_server::Page;
use jiff::Timestamp;
use numbering::Numbering;
use postgres::{OpenError, Parameter, Postgres, PostgresSchema, SYNCED};
use tokio_postgres::Row;
use uuid::Uuid;

use self::writer::Writer;
use super::{PageRequest, Store};
use crate::accounts::quarantine::Dropped;
use crate::accounts::view::format::CardDatabase;
use crate::card::Card;
use crate::card_number::CardNumbering;

const SCHEMA: PostgresSchema =
    PostgresSchema { name: "card", migrations: &[include_str!("../../migrations/postgres-1.sql")] };

/// The columns of [`card_from_row`].
const COLUMNS: &str = "sequence, id, country, account_id, deleted, created_at";

pub(super) async fn open(
    url: &str,
    clock: Clock,
    keys: KeyExpiry,
    checkpoint: Option<CardDatabase>,
) -> Result<(Store, JoinHandle<()>), OpenError> {
    let database = Postgres::open(url, &SCHEMA).await?;
    let row = database
        .read(async |client| {
            // A sequence that was never drawn from has the last value 1.
            let sql = "SELECT number_key, CASE WHEN is_called THEN last_value ELSE 0 END FROM card.ledger, card.card_sequence";
            client.query_one(sql, &[]).await
        })
        .await
        .map_err(|error| OpenError(error.to_string()))?;
    let key = <[u8; 16]>::try_from(row.get::<_, &[u8]>(0))
        .map_err(|_| OpenError("the number key in the database has not 16 bytes".to_owned()))?;
    let numbering = CardNumbering(Numbering::hexadecimal(key));
    let mut last_card = row.get::<_, i64>(1) as u64;
    if let Some(floor) = super::floor(checkpoint, &numbering, last_card) {
        let sql =
            format!("SELECT setval('card.card_sequence', greatest(last_value, $1)), {SYNCED} FROM card.card_sequence");
        let raised = database.read(async |client| client.query_one(&sql, &[&(floor as i64)]).await).await;
        last_card = raised.map_err(|error| OpenError(error.to_string()))?.get::<_, i64>(0) as u64;
    }
    let last_card = Arc::new(AtomicU64::new(last_card));
    let dropped = Dropped::default();
    let times = (clock.clone(), keys.clone());
    let writer = Writer::new(&database, numbering.clone(), times, (Arc::clone(&last_card), dropped.clone()));
    let (writer, writer_thread) =
        GroupCommit::start("card-writer", writer).map_err(|error| OpenError(error.to_string()))?;
    let reader = Reader { database, numbering: numbering.clone() };
    let reader = Arc::new(super::Reader::Postgres(reader));
    Ok((Store { writer, reader, numbering, last_card, dropped, clock, keys }, writer_thread))
}

pub(super) struct Reader {
    pub(super) database: Postgres,
    numbering: CardNumbering,
}

impl Reader {
    pub(super) async fn card(&self, id: Uuid) -> Result<Option<Card>, StoreError> {
        self.one("id", &id).await
    }

    pub(super) async fn card_by_sequence(&self, sequence: u64) -> Result<Option<Card>, StoreError> {
        self.one("sequence", &(sequence as i64)).await
    }

    async fn one(&self, column: &str, value: Parameter<'_>) -> Result<Option<Card>, StoreError> {
        let row = self.database.read(async |client| {
            let statement =
                client.prepare_cached(&format!("SELECT {COLUMNS} FROM card.cards WHERE {column} = $1")).await?;
            client.query_opt(&statement, &[value]).await
        });
        row.await?.map(|row| card_from_row(&row, &self.numbering)).transpose()
    }

    /// `None` if `after` is no card.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Option<Page<Card>>, StoreError> {
        let found = self.database.read(async |client| {
            let before = match request.after {
                None => i64::MAX,
                Some(id) => {
                    let statement = client.prepare_cached("SELECT sequence FROM card.cards WHERE id = $1").await?;
                    match client.query_opt(&statement, &[&id]).await? {
                        None => return Ok(None),
                        Some(row) => row.get(0),
                    }
                }
            };
            let filter = if request.account_id.is_some() { "account_id = $3 AND" } else { "$3::uuid IS NULL AND" };
            let sql = format!(
                "SELECT {COLUMNS} FROM card.cards WHERE {filter} sequence < $1 ORDER BY sequence DESC LIMIT $2"
            );
            let total = match request.account_id {
                None => "SELECT cards FROM card.ledger WHERE $1::uuid IS NULL",
                Some(_) => "SELECT cards FROM card.card_accounts WHERE account_id = $1",
            };
            let (statement, total) = (client.prepare_cached(&sql).await?, client.prepare_cached(total).await?);
            // One more than requested shows whether more follow.
            let (limit, account) = (request.limit as i64 + 1, request.account_id.map(|id| id.0));
            let parameters: [Parameter<'_>; 3] = [&before, &limit, &account];
            let of_account: [Parameter<'_>; 1] = [&account];
            let (rows, total) =
                tokio::try_join!(client.query(&statement, &parameters), client.query_opt(&total, &of_account))?;
            Ok(Some((rows, total.map_or(0, |row| row.get::<_, i64>(0)))))
        });
        let Some((rows, total)) = found.await? else { return Ok(None) };
        let cards = rows.iter().map(|row| card_from_row(row, &self.numbering)).collect::<Result<_, _>>()?;
        Ok(Some(Page::new(cards, request.limit, total as u64)))
    }
}

fn card_from_row(row: &Row, numbering: &CardNumbering) -> Result<Card, StoreError> {
    let country = row.get::<_, &str>(2);
    let country =
        country.parse().map_err(|_| StoreError::Unavailable(format!("unexpected country {country:?} in a row")))?;
    Ok(Card {
        id: row.get(1),
        card_number: numbering.number(country, row.get::<_, i64>(0) as u64),
        country,
        account_id: AccountId(row.get(3)),
        deleted: row.get(4),
        creation_timestamp: Timestamp::from_microsecond(row.get(5))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?,
    })
}
