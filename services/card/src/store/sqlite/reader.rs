//! Reads single cards and pages on the connections of a pool.

use group_commit::StoreError;
use http_server::Page;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use sqlite_file::ReadPool;
use uuid::Uuid;

use super::{CARDS, COLUMNS, card_by_id, card_from_row};
use crate::card::Card;
use crate::card_number::CardNumbering;
use crate::store::PageRequest;

pub(in crate::store) struct Reader {
    pub(in crate::store) pool: ReadPool,
    pub(in crate::store) numbering: CardNumbering,
}

impl Reader {
    pub(in crate::store) async fn card(&self, id: Uuid) -> Result<Option<Card>, StoreError> {
        let numbering = self.numbering.clone();
        let found = self.pool.read(move |connection| card_by_id(connection, &numbering, id)).await?;
        Ok(found.map(|(_, card)| card))
    }

    pub(in crate::store) async fn card_by_sequence(&self, sequence: u64) -> Result<Option<Card>, StoreError> {
        let numbering = self.numbering.clone();
        let card = self.pool.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM cards WHERE sequence = ?"))?;
            statement.query_row([sequence as i64], |row| card_from_row(row, &numbering)).optional()
        });
        card.await
    }

    /// A page, newest first. `None` if no card has the id `after`.
    pub(in crate::store) async fn page(&self, request: PageRequest) -> Result<Option<Page<Card>>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

pub(super) fn page(
    connection: &Connection,
    numbering: &CardNumbering,
    request: PageRequest,
) -> rusqlite::Result<Option<Page<Card>>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => match card_by_id(connection, numbering, id)? {
            None => return Ok(None),
            Some((sequence, _)) => sequence,
        },
    };
    let last = "sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
    let sql = match request.account_id {
        None => format!("SELECT {COLUMNS} FROM cards WHERE ?3 IS NULL AND {last}"),
        Some(_) => format!(
            "SELECT {COLUMNS} FROM cards WHERE sequence IN
                 (SELECT sequence FROM cards_by_account WHERE account_id = ?3 AND sequence > 0 AND {last})
             ORDER BY sequence DESC"
        ),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let account = request.account_id.map(|id| id.0.into_bytes());
    // One more than requested shows whether more follow.
    let parameters = params![before, request.limit as i64 + 1, account];
    let rows = statement.query_map(parameters, |row| card_from_row(row, numbering))?;
    let cards = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut total = connection.prepare_cached(match account {
        None => CARDS,
        Some(_) => "SELECT cards FROM cards_by_account WHERE account_id = ? AND sequence = 0",
    })?;
    let total = total.query_row(params_from_iter(account), |row| row.get::<_, i64>(0)).optional()?;
    Ok(Some(Page::new(cards, request.limit, total.unwrap_or(0) as u64)))
}
