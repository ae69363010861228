//! Look-ups and pages, on connections of their own.

use account_events::{AccountId, AccountStatus};
use database::StoreError;
use database::sqlite::ReadPool;
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::{ACCOUNTS_A_BLOCK, COLUMNS, account_by_id, account_from_row};
use crate::account::Account;
use crate::account_number::AccountNumbering;
use crate::store::{Page, PageRequest};

pub(in crate::store) struct Reader {
    pool: ReadPool,
    numbering: AccountNumbering,
}

impl Reader {
    pub(super) fn new(pool: ReadPool, numbering: AccountNumbering) -> Self {
        Reader { pool, numbering }
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

    /// `None` if `after` is no account.
    pub(in crate::store) async fn page(&self, request: PageRequest) -> Result<Option<Page>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

fn page(connection: &Connection, numbering: &AccountNumbering, request: PageRequest) -> rusqlite::Result<Option<Page>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => match account_by_id(connection, numbering, id)? {
            None => return Ok(None),
            Some((sequence, _)) => sequence,
        },
    };
    // One more than asked for tells whether there are more.
    let limit = request.limit + 1;
    let all = "(SELECT coalesce(max(sequence), 0) FROM accounts)";
    let (accounts, total) = match request.status {
        None => {
            let sql = format!("SELECT {COLUMNS} FROM accounts WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
            (accounts(connection, numbering, &sql, params![before, limit as i64])?, all.to_owned())
        }
        Some(AccountStatus::Active) => {
            (active_accounts(connection, numbering, before, limit)?, format!("{all} - blocked - deleted"))
        }
        Some(status) => {
            let parameters = params![before, limit as i64, status.as_str()];
            let found = accounts(connection, numbering, &not_active_sql(), parameters)?;
            (found, if status == AccountStatus::Blocked { "blocked" } else { "deleted" }.to_owned())
        }
    };
    let mut statement = connection.prepare_cached(&format!("SELECT {total} FROM ledger"))?;
    let total = statement.query_row([], |row| row.get::<_, i64>(0))? as u64;
    Ok(Some(request.page(accounts, total)))
}

/// The last ?2 accounts before the sequence ?1 whose status is ?3, one that is not active. The last term makes it a case for the
/// index, which has all columns.
fn not_active_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM accounts WHERE sequence < ?1 AND status = ?3 AND status <> 'ACTIVE'
         ORDER BY sequence DESC LIMIT ?2"
    )
}

/// The last `limit` active accounts before this sequence, from block to block: each that is looked at has no more than
/// [`ACCOUNTS_A_BLOCK`] to pass over, and one at least unless it is the last one of all.
fn active_accounts(
    connection: &Connection,
    numbering: &AccountNumbering,
    mut before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Account>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM accounts WHERE sequence >= ?1 AND sequence < ?2 AND status = 'ACTIVE'
         ORDER BY sequence DESC LIMIT ?3"
    );
    let mut last_block = connection.prepare_cached("SELECT max(block) FROM active_blocks WHERE block <= ?")?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(block) =
            last_block.query_row([(before - 1).div_euclid(ACCOUNTS_A_BLOCK)], |row| row.get::<_, Option<i64>>(0))?
    {
        let first = block * ACCOUNTS_A_BLOCK;
        let end = before.min(first + ACCOUNTS_A_BLOCK);
        found.extend(accounts(connection, numbering, &sql, params![first, end, (limit - found.len()) as i64])?);
        before = first;
    }
    Ok(found)
}

fn accounts(
    connection: &Connection,
    numbering: &AccountNumbering,
    sql: &str,
    parameters: &[&dyn ToSql],
) -> rusqlite::Result<Vec<Account>> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(parameters, |row| account_from_row(row, numbering))?.collect()
}

#[cfg(test)]
mod tests {
    use database::Committer;
    use database::sqlite::{Schema, SqliteFile};
    use numbering::Numbering;
    use process::Clock;
    use uuid::Uuid;

    use super::super::writer::Writer;
    use super::super::{ACCOUNTS_A_BLOCK, SCHEMA};
    use super::*;
    use crate::account::Change;
    use crate::ledger::Command;

    const TRACE: http_server::TraceParent = http_server::TraceParent { trace_id: 1, parent_id: 1, flags: 0 };

    /// Accounts of the older file: a block of deleted ones and others among them.
    const OLDER: u128 = 5 * ACCOUNTS_A_BLOCK as u128;

    fn older_status(number: u128) -> AccountStatus {
        match number {
            70..=200 => AccountStatus::Deleted,
            _ if number.is_multiple_of(3) => AccountStatus::Blocked,
            _ => AccountStatus::Active,
        }
    }

    /// A file of version 2 with so many accounts.
    fn older_file(path: &std::path::Path, count: u128, status_of: impl Fn(u128) -> AccountStatus) {
        let older = SqliteFile::open(path, &Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA }).unwrap();
        let connection = older.writer().unwrap();
        let mut totals = [0; 3];
        for number in 1..=count {
            let status = status_of(number);
            totals[status as usize] += 1;
            let id = older_id(number).0;
            let row = params![number as i64, id.as_bytes(), "John Doe", "US", status.as_str(), 1, 0, 0];
            connection.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).unwrap();
        }
        connection.execute("UPDATE ledger SET active = ?, blocked = ?, deleted = ?", totals).unwrap();
    }

    /// In another order than that of their sequences.
    fn older_id(number: u128) -> AccountId {
        AccountId(Uuid::from_u128(number * 7_919 % 1_009))
    }

    /// The ids of so many new accounts.
    fn create(writer: &mut Writer, count: usize) -> Vec<AccountId> {
        let create = |_| Command::Create {
            beholder_name: "Jane Doe".parse().unwrap(),
            country_code: "DE".parse().unwrap(),
            trace: TRACE,
        };
        let created = writer.commit((0..count).map(create).collect(), false).unwrap();
        created.into_iter().map(|account| account.unwrap().id).collect()
    }

    fn set_status(writer: &mut Writer, ids: impl IntoIterator<Item = AccountId>, status: AccountStatus) {
        let change = Change::Update { beholder_name: None, country_code: None, status: Some(status) };
        let change = |id| Command::Change { id, change: change.clone(), if_match: None, trace: TRACE };
        writer.commit(ids.into_iter().map(change).collect(), false).unwrap();
    }

    /// Looks whether each status is listed as it is, and each block counted. Returns all accounts, the newest first.
    fn check(connection: &Connection, numbering: &AccountNumbering, limits: &[usize]) -> Vec<Account> {
        let accounts = all(connection, numbering, None, 7);
        for status in AccountStatus::ALL {
            let of_status: Vec<_> = accounts.iter().filter(|account| account.status == status).cloned().collect();
            for limit in limits {
                assert_eq!(all(connection, numbering, Some(status), *limit), of_status, "{status:?}");
            }
        }
        let blocks = |sql| -> Vec<(i64, i64)> {
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        let counted = "SELECT sequence / 64 AS block, sum(status <> 'ACTIVE') + (sequence / 64 = 0) AS inactive
                       FROM accounts GROUP BY block HAVING inactive < 64 ORDER BY block";
        assert_eq!(blocks("SELECT block, inactive FROM active_blocks ORDER BY block"), blocks(counted));
        accounts
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
            after = page.accounts.last().map(|account| account.id);
            found.extend(page.accounts);
            if !page.more {
                assert_eq!(found.len() as u64, page.total, "{status:?}");
                return found;
            }
        }
    }

    #[test]
    fn accounts_of_an_older_file_and_new_ones_are_found_changed_and_listed_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("account.db");
        older_file(&path, OLDER, older_status);
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let numbering = AccountNumbering(Numbering::decimal([3; 16]));
        let mut writer = Writer::of(&file, &numbering, Clock::system());
        let new = create(&mut writer, 100);
        // Old and new ones, some of which are what they are told to be.
        let older = (1..=OLDER).map(older_id);
        let changed = new.into_iter().step_by(3).chain(older.clone().take(64)).chain(older.step_by(5));
        for (turn, id) in changed.enumerate() {
            // Deleted ones refuse.
            set_status(&mut writer, [id], AccountStatus::ALL[turn % 2]);
        }
        let connection = file.reader().unwrap();
        let accounts = check(&connection, &numbering, &[1, 50, 200]);
        assert_eq!(accounts.len() as u128, OLDER + 100);
        for status in AccountStatus::ALL {
            let count = accounts.iter().filter(|account| account.status == status).count();
            assert!(count > 50, "{status:?}: {count}");
        }
        for account in &accounts {
            assert_eq!(account_by_id(&connection, &numbering, account.id).unwrap().unwrap().1, *account);
        }
        assert!(account_by_id(&connection, &numbering, AccountId(Uuid::from_u128(1 << 100))).unwrap().is_none());
        let plan = format!("EXPLAIN QUERY PLAN {}", not_active_sql());
        let plan: String = connection.query_row(&plan, params![9, 9, "BLOCKED"], |row| row.get(3)).unwrap();
        assert!(plan.contains("USING COVERING INDEX accounts_not_active (status=? AND sequence<?)"), "{plan}");
    }

    #[test]
    fn blocks_are_counted_where_accounts_end_in_an_older_file_and_where_none_or_all_of_them_are_active() {
        for (older, status) in [0, 1, 62, 63, 64, 100, 127, 128]
            .into_iter()
            .flat_map(|older| [AccountStatus::Active, AccountStatus::Blocked].map(|status| (older, status)))
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("account.db");
            older_file(&path, older, |_| status);
            let file = SqliteFile::open(&path, &SCHEMA).unwrap();
            let numbering = AccountNumbering(Numbering::decimal([3; 16]));
            let connection = file.reader().unwrap();
            assert_eq!(check(&connection, &numbering, &[50]).len() as u128, older);
            let mut writer = Writer::of(&file, &numbering, Clock::system());
            create(&mut writer, 200);
            let mut ids: Vec<_> = check(&connection, &numbering, &[50]).iter().map(|account| account.id).collect();
            ids.reverse();
            // From the first account on, all of blocks in one transaction, and the last of one by itself.
            for end in [62, 63, 127, 190, 191] {
                set_status(&mut writer, ids[..end].iter().copied(), AccountStatus::Blocked);
                check(&connection, &numbering, &[50]);
            }
            set_status(&mut writer, [ids[100]], AccountStatus::Active);
            check(&connection, &numbering, &[50]);
            set_status(&mut writer, ids, AccountStatus::Active);
            check(&connection, &numbering, &[50]);
        }
    }
}
