//! The history of cards in the SQLite file.

use group_commit::StoreError;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::{Reader, where_card_is};
use crate::card::{CardChange, DeletionReason};

const HISTORY: &str = "SELECT created_at, cards.caller, deleted_at, reason, card_deletions.caller
    FROM cards LEFT JOIN card_deletions ON card_sequence = sequence WHERE sequence = ?1 AND id = ?2";

impl Reader {
    /// What happened to the card with this id, newest first.
    pub(in crate::store) async fn history(&self, id: Uuid) -> Result<Option<Vec<CardChange>>, StoreError> {
        let numbering = self.numbering.clone();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(HISTORY)?;
            statement.query_row(where_card_is(&numbering, &id), changes_from_row).optional()
        };
        self.pool.read(read).await
    }
}

fn changes_from_row(row: &Row<'_>) -> rusqlite::Result<Vec<CardChange>> {
    let unexpected = |column, reason| rusqlite::Error::FromSqlConversionFailure(column, Type::Null, reason);
    let time = |column, microseconds| {
        Timestamp::from_microsecond(microseconds).map_err(|error| unexpected(column, Box::new(error)))
    };
    let mut changes = Vec::new();
    if let Some(deleted_at) = row.get(2)? {
        let text = row.get_ref(3)?.as_str()?;
        let reason = DeletionReason::parse(text).ok_or_else(|| unexpected(3, format!("unexpected {text:?}").into()))?;
        changes.push(CardChange::Deleted { at: time(2, deleted_at)?, caller: row.get(4)?, reason });
    }
    changes.push(CardChange::Created { at: time(0, row.get(0)?)?, caller: row.get(1)? });
    Ok(changes)
}
