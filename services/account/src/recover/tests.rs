use std::path::Path;

use event_log::{EmbeddedLog, EmbeddedSettings, Record};
use rusqlite::Connection;

use super::*;

const ACCOUNTS: u64 = 2_500;

/// A store that fails after so many writes, as a process that is killed between two transactions.
struct Killed {
    store: Box<dyn RecoveryStore>,
    writes_left: usize,
}

impl Killed {
    fn write_or_die(&mut self) -> anyhow::Result<&mut dyn RecoveryStore> {
        match self.writes_left.checked_sub(1) {
            Some(left) => {
                self.writes_left = left;
                Ok(self.store.as_mut())
            }
            None => bail!("killed"),
        }
    }
}

impl RecoveryStore for Killed {
    fn facts(&mut self) -> anyhow::Result<Facts> {
        self.store.facts()
    }

    fn rows(&mut self, after: u64, limit: usize) -> anyhow::Result<Vec<(u64, Row)>> {
        self.store.rows(after, limit)
    }

    fn clear_outbox(&mut self, position: u64) -> anyhow::Result<()> {
        self.write_or_die()?.clear_outbox(position)
    }

    fn write(&mut self, step: &Step) -> anyhow::Result<()> {
        self.write_or_die()?.write(step)
    }

    fn finish(&mut self, position: u64, session: Option<&str>, floor: u64) -> anyhow::Result<()> {
        self.write_or_die()?.finish(position, session, floor)
    }
}

fn record(id: AccountId, state: EventState) -> Record {
    event(id, state, Timestamp::UNIX_EPOCH).record()
}

/// A database of accounts in version 1, and the log of one that went on: a third of them is blocked there, and a third is missing.
fn restored(folder: &Path) -> EmbeddedLog {
    let path = folder.join("account.db");
    let file = sqlite_file::SqliteFile::open(&path, &sqlite_store::SCHEMA).unwrap();
    let (connection, id) = (file.writer().unwrap(), |n: u64| AccountId(uuid::Uuid::from_u128(u128::from(n))));
    let insert = "INSERT INTO accounts VALUES (?1, ?2, 'John Doe', 'US', 'ACTIVE', 1, 1, 0, 0, NULL)";
    let transaction = connection.unchecked_transaction().unwrap();
    let mut records = Vec::new();
    for n in 1..=ACCOUNTS {
        transaction.execute(insert, rusqlite::params![n as i64, id(n).0.as_bytes()]).unwrap();
        if n % 3 > 0 {
            records.push(record(id(n), EventState { version: 1, status: AccountStatus::Active }));
        }
        if n % 3 > 1 {
            records.push(record(id(n), EventState { version: 2, status: AccountStatus::Blocked }));
        }
    }
    // The copy was taken in the session that the log still names.
    transaction.execute("INSERT INTO publisher_sessions (session) VALUES ('of the one that went on')", []).unwrap();
    transaction.commit().unwrap();
    let owner = Owner {
        database_id: connection.query_row("SELECT database_id FROM ledger", [], |row| row.get(0)).unwrap(),
        session: "of the one that went on".to_owned(),
        account_sequence_high: ACCOUNTS,
        number_key: String::new(),
        log_id: String::new(),
        is_resync_open: false,
        last_event: None,
    };
    drop(connection);
    file.close().unwrap();
    let log = EmbeddedLog::open(EmbeddedSettings::at(folder.join("event-log.db"))).unwrap();
    let mut publisher = log.publisher(PUBLISHER).unwrap();
    publisher.set_note(owner.to_note());
    publisher.publish(&records, 9_000).unwrap();
    drop(publisher);
    log
}

#[test]
fn a_recovery_that_is_killed_between_any_two_transactions_is_run_again_with_the_same_result() {
    // The clearing, three batches, the end.
    for writes in 0..=5 {
        let folder = tempfile::tempdir().unwrap();
        let log = restored(folder.path());
        let path = folder.path().join("account.db");
        let recover = |writes_left| {
            let store = Box::new(sqlite_store::recover::SqliteRecovery::open(&path)?);
            run(Box::new(Killed { store, writes_left }), &log, false, Lost::Keep, |_, _| ())
        };
        assert_eq!(recover(writes).is_ok(), writes == 5, "{writes}");
        let connection = Connection::open(&path).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
        if writes < 5 {
            // The log's position lies beyond it, so the service takes no writes, although it knows the session.
            assert_eq!(number("SELECT coalesce(outbox_anchor, 0) FROM ledger"), 0, "{writes}");
            recover(5).unwrap();
        }
        assert_eq!(number("SELECT outbox_anchor FROM ledger"), 9_000);
        let third = (ACCOUNTS + 1) / 3;
        assert_eq!(number("SELECT count(*) FROM accounts WHERE status = 'BLOCKED' AND version = 2"), third);
        let recovered = "SELECT count(*) FROM account_history
            WHERE version = 2 AND type = 'recovered' AND status = 'BLOCKED' AND account_sequence % 3 = 2";
        assert_eq!((number(recovered), number("SELECT count(*) FROM account_history")), (third, third), "{writes}");
        assert_eq!(number("SELECT blocked FROM ledger"), third);
        assert_eq!(number("SELECT sum(event_count) FROM outbox"), ACCOUNTS / 3, "{writes}");
        // A sequence of a run that was killed is not used again.
        assert!(number("SELECT min(last_sequence - event_count) FROM outbox") >= 9_000);
        assert_eq!(number("SELECT removed_outbox_sequence FROM ledger"), 9_000);
        assert_eq!(number("SELECT account_sequence_floor - unused_sequences FROM ledger"), ACCOUNTS);
    }
}
