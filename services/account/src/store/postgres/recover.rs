//! The PostgreSQL database as `tandem recover` uses it.

use account_events::digest::EventState;
use account_events::{AccountId, AccountStatus};
use postgres::{BEGIN, Parameter, Postgres};
use tokio::runtime::Handle;
use tokio_postgres::Client;

use super::writer::EventColumns;
use super::{SCHEMA, parsed, version};
use crate::recover::join::Row;
use crate::recover::{Facts, RecoveryStore, Step};

pub(crate) struct PostgresRecovery {
    client: Client,
    runtime: Handle,
}

impl PostgresRecovery {
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        let database = Postgres::open_as_it_is(url, &SCHEMA).await?;
        Ok(PostgresRecovery { client: database.connect().await?, runtime: Handle::current() })
    }

    /// Runs `work` in one durable transaction. An error ends the connection, and with it the transaction.
    fn transaction<T>(
        &mut self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> anyhow::Result<T> {
        let client = &self.client;
        self.runtime.block_on(async {
            client.batch_execute(BEGIN).await?;
            let result = work(client).await?;
            client.batch_execute("COMMIT").await?;
            Ok(result)
        })
    }
}

impl RecoveryStore for PostgresRecovery {
    fn facts(&mut self) -> anyhow::Result<Facts> {
        let sql = "SELECT database_id, expires_at > clock_timestamp() AND superseded IS NULL FROM account.ledger, account.relay_lease";
        let row = self.transaction(async |client| client.query_one(sql, &[]).await)?;
        Ok(Facts { database_id: row.get(0), is_in_use: row.get(1) })
    }

    fn rows(&mut self, after: u64, limit: usize) -> anyhow::Result<Vec<(u64, Row)>> {
        let sql = "SELECT sequence, id, version, event_version, status FROM account.accounts WHERE sequence > $1
                   ORDER BY sequence LIMIT $2";
        let parameters = (after as i64, limit as i64);
        let rows = self.transaction(async |client| client.query(sql, &[&parameters.0, &parameters.1]).await)?;
        let row = |row: &tokio_postgres::Row| {
            let state = EventState { version: version(row.get(3))?, status: parsed(row.get(4), AccountStatus::parse)? };
            let id = AccountId(row.get(1));
            Ok((row.get::<_, i64>(0) as u64, Row { id, version: version(row.get(2))?, state }))
        };
        rows.iter().map(row).collect()
    }

    fn clear_outbox(&mut self, position: u64) -> anyhow::Result<()> {
        let position = position as i64;
        self.transaction(async |client| {
            let sql = "UPDATE account.ledger SET last_outbox_sequence = greatest(last_outbox_sequence, $1)";
            client.execute(sql, &[&position]).await?;
            // No position is at or before this anchor, so the database stays superseded until the end.
            let sql =
                "UPDATE account.relay_lease SET outbox_anchor = 0, superseded = 'tandem recover has not finished',
                           removed_outbox_sequence = (SELECT last_outbox_sequence FROM account.ledger)";
            client.execute(sql, &[]).await?;
            client.execute("DELETE FROM account.outbox", &[]).await
        })
        .map(drop)
    }

    fn write(&mut self, step: &Step) -> anyhow::Result<()> {
        let sequences: Vec<_> = step.updates.iter().map(|update| update.sequence as i64).collect();
        let statuses: Vec<_> = step.updates.iter().map(|update| update.status.as_str()).collect();
        let versions: Vec<_> = step.updates.iter().map(|update| i64::from(update.version)).collect();
        let event_versions: Vec<_> = step.updates.iter().map(|update| i64::from(update.event_version)).collect();
        let previous: Vec<_> = step.updates.iter().map(|update| i64::from(update.previous_version)).collect();
        let mut totals = [0_i64; 3];
        for update in &step.updates {
            totals[update.previous_status as usize] -= 1;
            totals[update.status as usize] += 1;
        }
        let [active, blocked, deleted] = totals;
        let (events, count) = (EventColumns::of(&step.events), step.events.len() as i64);
        let at = step.at.as_microsecond();
        let updated = self.transaction(async |client| {
            let sql = "WITH updated AS (
                           UPDATE account.accounts
                           SET status = new.status, version = new.version, event_version = new.event_version
                           FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                               AS new (sequence, status, version, event_version, previous_version)
                           WHERE accounts.sequence = new.sequence AND accounts.version = new.previous_version
                           RETURNING new.*
                       ), recorded AS (
                           INSERT INTO account.account_history
                           SELECT sequence, version, $6::bigint, 'recovered', status, '' FROM updated
                           WHERE version > previous_version
                       )
                       SELECT count(*) FROM updated";
            let parameters: [Parameter<'_>; 6] = [&sequences, &statuses, &versions, &event_versions, &previous, &at];
            let updated = client.query_one(sql, &parameters).await?.get::<_, i64>(0) as usize;
            let sql = "UPDATE account.ledger SET active = active + $1, blocked = blocked + $2, deleted = deleted + $3,
                           previous_outbox_sequence = last_outbox_sequence, last_outbox_sequence = last_outbox_sequence + $4
                       RETURNING previous_outbox_sequence";
            let last: i64 = client.query_one(sql, &[&active, &blocked, &deleted, &count]).await?.get(0);
            let sql = "INSERT INTO account.outbox
                       SELECT $1 + place, account_id, event_type, status, version, occurred_at, traceparent
                       FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
                           WITH ORDINALITY AS event (account_id, event_type, status, version, occurred_at, traceparent, place)";
            let e = &events;
            client.execute(sql, &[&last, &e.ids, &e.types, &e.statuses, &e.versions, &e.times, &e.traces]).await?;
            Ok(updated)
        })?;
        // The transaction is committed, and the next run starts from the rows as they are.
        anyhow::ensure!(updated == sequences.len(), "an account service has changed accounts meanwhile: stop it");
        Ok(())
    }

    fn finish(&mut self, position: u64, session: Option<&str>, account_sequence_floor: u64) -> anyhow::Result<()> {
        let (position, floor) = (position as i64, account_sequence_floor as i64);
        self.transaction(async |client| {
            let sql = "INSERT INTO account.publisher_sessions (session) SELECT $1 WHERE $1::text IS NOT NULL
                       ON CONFLICT DO NOTHING";
            client.execute(sql, &[&session]).await?;
            let sql =
                "SELECT setval('account.account_sequence', greatest(last_value, $1)) FROM account.account_sequence";
            client.query_one(sql, &[&floor]).await?;
            let sql =
                "UPDATE account.relay_lease SET removed_outbox_sequence = $1, outbox_anchor = $1, superseded = NULL,
                           set_back = NULL";
            client.execute(sql, &[&position]).await
        })
        .map(drop)
    }
}
