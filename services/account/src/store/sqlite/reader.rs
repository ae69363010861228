//! Look-ups and pages, on connections of their own.

use account_events::{AccountId, AccountStatus};
use database::StoreError;
use database::sqlite::{ReadPool, SqliteFile};
use rusqlite::{Connection, OptionalExtension, params};

use super::{COLUMNS, account_by_id, account_from_row};
use crate::account::Account;
use crate::account_number::AccountNumbering;
use crate::store::{Page, PageRequest};

#[derive(Clone)]
pub(in crate::store) struct Reader {
    pool: ReadPool,
    numbering: AccountNumbering,
    /// Keeps the file locked for this process.
    _file: SqliteFile,
}

impl Reader {
    pub(super) fn new(pool: ReadPool, numbering: AccountNumbering, file: SqliteFile) -> Self {
        Reader { pool, numbering, _file: file }
    }

    pub(in crate::store) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| account_by_id(connection, &numbering, id)).await
    }

    pub(in crate::store) async fn account_by_sequence(&self, sequence: u64) -> Result<Option<Account>, StoreError> {
        let numbering = self.numbering.clone();
        let account = self.pool.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE sequence = ?"))?;
            statement.query_row([sequence as i64], |row| account_from_row(row, &numbering)).optional()
        });
        account.await
    }

    /// `None` if `after` is no account.
    pub(in crate::store) async fn page(&self, request: PageRequest) -> Result<Option<Page>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

fn page(connection: &Connection, numbering: &AccountNumbering, request: PageRequest) -> rusqlite::Result<Option<Page>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => {
            let mut statement = connection.prepare_cached("SELECT sequence FROM accounts WHERE id = ?")?;
            match statement.query_row([id.0.as_bytes()], |row| row.get(0)).optional()? {
                None => return Ok(None),
                Some(sequence) => sequence,
            }
        }
    };
    let filter = if request.status.is_some() { "status = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    // One more than asked for tells whether there are more.
    let parameters = params![before, request.limit as i64 + 1, request.status.map(AccountStatus::as_str)];
    let rows = statement.query_map(parameters, |row| account_from_row(row, numbering))?;
    let accounts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let total = match request.status {
        None => "active + blocked + deleted",
        Some(AccountStatus::Active) => "active",
        Some(AccountStatus::Blocked) => "blocked",
        Some(AccountStatus::Deleted) => "deleted",
    };
    let mut statement = connection.prepare_cached(&format!("SELECT {total} FROM ledger"))?;
    let total = statement.query_row([], |row| row.get::<_, i64>(0))? as u64;
    Ok(Some(request.page(accounts, total)))
}
