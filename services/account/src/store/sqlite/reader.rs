//! Reads single accounts and pages on the connections of a pool.

use account_events::{AccountId, AccountStatus};
use group_commit::StoreError;
use http_server::Page;
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::ReadPool;

use super::outbox::PublishedPosition;
use super::{COLUMNS, LAST_ACCOUNT, account_by_id, account_from_row};
use crate::account::Account;
use crate::account_number::AccountNumbering;
use crate::store::PageRequest;

pub(in crate::store) struct Reader {
    pub(super) pool: ReadPool,
    pub(super) numbering: AccountNumbering,
    pub(super) published: PublishedPosition,
}

impl Reader {
    pub(super) fn new(pool: ReadPool, numbering: AccountNumbering, published: PublishedPosition) -> Self {
        Reader { pool, numbering, published }
    }

    pub(in crate::store) fn pool(&self) -> &ReadPool {
        &self.pool
    }

    pub(in crate::store) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let numbering = self.numbering.clone();
        let found = self.pool.read(move |connection| account_by_id(connection, &numbering, id)).await?;
        Ok(found.map(|(_, account)| account))
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

    /// Returns `None` if no account has the id `after`.
    pub(in crate::store) async fn page(&self, request: PageRequest) -> Result<Option<Page<Account>>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

fn page(
    connection: &Connection,
    numbering: &AccountNumbering,
    request: PageRequest,
) -> rusqlite::Result<Option<Page<Account>>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => match account_by_id(connection, numbering, id)? {
            None => return Ok(None),
            Some((sequence, _)) => sequence,
        },
    };
    // One more than requested shows whether more follow.
    let limit = request.limit + 1;
    let filter = if request.status.is_some() { "status = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let parameters = params![before, limit as i64, request.status.map(AccountStatus::as_str)];
    let mut statement = connection.prepare_cached(&sql)?;
    let accounts: rusqlite::Result<Vec<_>> =
        statement.query_map(parameters, |row| account_from_row(row, numbering))?.collect();
    // Accounts that are neither blocked nor deleted are active.
    let all = format!("(({LAST_ACCOUNT}) - unused_sequences)");
    let total = match request.status {
        None => all,
        Some(AccountStatus::Active) => format!("{all} - blocked - deleted"),
        Some(AccountStatus::Blocked) => "blocked".to_owned(),
        Some(AccountStatus::Deleted) => "deleted".to_owned(),
    };
    let mut statement = connection.prepare_cached(&format!("SELECT {total} FROM ledger"))?;
    let total = statement.query_row([], |row| row.get::<_, i64>(0))? as u64;
    Ok(Some(Page::new(accounts?, request.limit, total)))
}

#[cfg(test)]
mod tests {
    use clock::Clock;
    use group_commit::Committer;
    use numbering::Numbering;
    use sqlite_file::SqliteFile;
    use uuid::Uuid;

    use super::super::SCHEMA;
    use super::super::writer::Writer;
    use super::*;
    use crate::account::{Change, Precondition};
    use crate::decide::Command;

    const TRACE: account_events::TraceParent = account_events::TraceParent { trace_id: 1, parent_id: 1, flags: 0 };

    /// The ids of so many new accounts.
    fn create(writer: &mut Writer, count: usize) -> Vec<AccountId> {
        let create = |_| Command::Create {
            beholder_name: "Jane Doe".parse().unwrap(),
            country_code: "DE".parse().unwrap(),
            trace: TRACE,
            caller: None,
            key: None,
        };
        let created = writer.commit((0..count).map(create).collect(), false).unwrap();
        created.into_iter().map(|done| done.unwrap().account.id).collect()
    }

    fn set_status(writer: &mut Writer, ids: impl IntoIterator<Item = AccountId>, status: AccountStatus) {
        let change = Change::Update { beholder_name: None, country_code: None, status: Some(status) };
        let change = |id| Command::Change {
            id,
            change: change.clone(),
            precondition: Precondition::default(),
            trace: TRACE,
            caller: None,
            key: None,
        };
        writer.commit(ids.into_iter().map(change).collect(), false).unwrap();
    }

    /// Every account there is, as pages of `limit` give them.
    fn all(
        connection: &Connection,
        numbering: &AccountNumbering,
        status: Option<AccountStatus>,
        limit: usize,
    ) -> Vec<Account> {
        let (mut found, mut after) = (Vec::<Account>::new(), None);
        loop {
            let page = page(connection, numbering, PageRequest { limit, after, status }).unwrap().unwrap();
            after = page.items.last().map(|account| account.id);
            found.extend(page.items);
            if !page.more {
                assert_eq!(found.len() as u64, page.total, "{status:?}");
                return found;
            }
        }
    }

    #[test]
    fn each_status_is_listed_in_pages_and_each_account_is_found_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("account.db"), &SCHEMA).unwrap();
        let numbering = AccountNumbering(Numbering::decimal([3; 16]));
        let mut writer = Writer::of(&file, &numbering, Clock::system());
        let ids = create(&mut writer, 400);
        set_status(&mut writer, ids.iter().copied().step_by(2), AccountStatus::Blocked);
        set_status(&mut writer, ids.iter().copied().step_by(3), AccountStatus::Deleted);
        // Deleted accounts refuse.
        set_status(&mut writer, ids.iter().copied().step_by(5), AccountStatus::Active);
        let connection = file.reader().unwrap();
        let accounts = all(&connection, &numbering, None, 7);
        assert!(accounts.iter().rev().map(|account| account.id).eq(ids));
        for status in AccountStatus::ALL {
            let of_status: Vec<_> = accounts.iter().filter(|account| account.status == status).cloned().collect();
            assert!(of_status.len() > 50, "{status:?}: {}", of_status.len());
            for limit in [1, 50, 200] {
                assert_eq!(all(&connection, &numbering, Some(status), limit), of_status, "{status:?}");
            }
        }
        for account in &accounts {
            assert_eq!(account_by_id(&connection, &numbering, account.id).unwrap().unwrap().1, *account);
        }
        assert!(account_by_id(&connection, &numbering, AccountId(Uuid::from_u128(1 << 100))).unwrap().is_none());
    }

    #[test]
    fn a_page_of_one_status_needs_no_scan() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("account.db"), &SCHEMA).unwrap();
        let sql = "EXPLAIN QUERY PLAN
                   SELECT * FROM accounts WHERE status = ?3 AND sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
        let connection = file.reader().unwrap();
        let plan: String = connection.query_row(sql, params![9, 9, "ACTIVE"], |row| row.get(3)).unwrap();
        assert!(plan.contains("USING INDEX accounts_by_status (status=? AND rowid<?)"), "{plan}");
    }
}
