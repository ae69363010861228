//! Troubles with PostgreSQL's sessions.

use std::time::Duration;

use test_harness::with_postgres;

use super::{Operator, Trouble};
use crate::random::Random;

/// What an administrator may have set for all sessions of a database, and no answer may depend on.
const SESSION_DEFAULTS: [(&str, &str); 6] = [
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("lock_timeout", "1ms"),
    ("search_path", "nowhere"),
    (SYNCHRONOUS_COMMIT, "off"),
    (SYNCHRONOUS_COMMIT, "local"),
];

const SYNCHRONOUS_COMMIT: &str = "synchronous_commit";

impl Operator<'_> {
    /// Ends all connections to the database.
    pub(super) fn lose_connections(&self) {
        with_postgres(&self.cluster.database, async |client| {
            let others = "datname = current_database() AND pid <> pg_backend_pid()";
            let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}");
            client.batch_execute(&sql).await
        });
    }

    pub(super) fn change_session_defaults(&mut self, random: &mut Random) -> Duration {
        let (name, value) = SESSION_DEFAULTS[random.below(SESSION_DEFAULTS.len())];
        eprintln!("  {name} = {value}");
        self.alter_database(&format!("SET {name} = '{value}'"));
        let away = self.endure(random);
        if name == SYNCHRONOUS_COMMIT {
            // What was acknowledged must outlast the server.
            self.make(Trouble::KillDatabase, random);
        }
        self.alter_database(&format!("RESET {name}"));
        away
    }

    /// Takes effect for all: those that are connected have to connect again.
    fn alter_database(&self, change: &str) {
        with_postgres(&self.cluster.database, async |client| {
            let name: String = client.query_one("SELECT current_database()", &[]).await?.get(0);
            client.batch_execute(&format!("ALTER DATABASE {name} {change}")).await
        });
        self.lose_connections();
    }
}
