//! The writer of one instance. It commits each batch of commands in one transaction.
//!
//! A batch takes two round trips: the first draws sequences and locks the accounts to change; the second writes all rows by UNNEST
//! and commits. The second is sent at once, so an instance that is paused or killed does not keep the ledger locked. A batch that
//! only creates accounts, without idempotency keys, is one statement and one round trip.
//!
//! **Order.** A transaction updates the one row of `ledger` last before its commit, and numbers its events from there. The next
//! transaction gets the row when this one has committed. So the order of the outbox is the order of commit, and a reader that
//! has seen an event has seen all events before it.

use std::collections::HashMap;

use clock::Clock;
use group_commit::{Committer, KeyExpiry, StoreError};
use http_server::IdempotencyKey;
use numbering::TimeOrderedIds;
use postgres::{BEGIN, KeyColumns, Parameter, Postgres, SYNCED, Session, query_if};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::commit_history::CommitHistory;
use super::handover::Handover;
use super::history::{EntryColumns, INSERT_ENTRIES};
use super::keys::{KeyStatements, stored_keys};
use super::{COLUMNS, account_from_row};
use crate::account::Account;
use crate::account_number::AccountNumbering;
use crate::decide::{self, Batch, Changes, Command, OutboxEvent, Outcome};
use crate::idempotency::Done;
use crate::outbox::recent_events::EventBatch;

pub(super) struct Writer {
    session: Session<WriteSession>,
    numbering: AccountNumbering,
    clock: Clock,
    keys: KeyExpiry,
    ids: TimeOrderedIds,
    handover: Handover,
    history: CommitHistory,
}

impl Writer {
    pub(super) fn new(
        database: &Postgres,
        numbering: AccountNumbering,
        (clock, keys): (Clock, KeyExpiry),
        handover: Handover,
        history: CommitHistory,
    ) -> Self {
        let (session, ids) = (Session::new(database.clone()), TimeOrderedIds::new());
        Writer { session, numbering, clock, keys, ids, handover, history }
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, _is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let Writer { session, numbering, clock, keys, ids, handover, history } = self;
        let (now, accounts) = (clock.now(), HashMap::new());
        let id_of = |_sequence| ids.next(now);
        let batch = Batch { numbering, id_of: &id_of, now, accounts, keys: HashMap::new() };
        let hands_over = handover.is_publishing();
        let work = async |session: &WriteSession| session.commit(batch, commands, !hands_over, keys).await;
        let (outcomes, events) = session.run(async |database| WriteSession::open(database, history).await, work)?;
        if let Some(batch) = events {
            history.record_commit(&batch);
            if hands_over {
                handover.hand_over(batch);
            }
        }
        Ok(outcomes)
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        let Writer { session, clock, keys, history, .. } = self;
        let now = clock.now().as_microsecond();
        let limit = keys.idle_limit(now);
        if limit == 0 {
            return session.check(async |database| WriteSession::open(database, history).await);
        }
        let remove = async |session: &WriteSession| {
            Ok(session.keys.claims.remove(&session.client, keys.expired(now), limit).await?)
        };
        let removed = session.run(async |database| WriteSession::open(database, history).await, remove)?;
        keys.record(now, limit, removed);
        Ok(())
    }
}

/// Updates the totals and reserves the sequences of the events: `previous` is the last sequence before them, `last` the last of
/// them. $10 says whether to notify other instances.
const HEAD: &str = "
    head AS (
        UPDATE account.ledger SET
            active = active + $1, blocked = blocked + $2, deleted = deleted + $3,
            previous_outbox_sequence = last_outbox_sequence,
            last_outbox_sequence = last_outbox_sequence + cardinality($4::uuid[])
        RETURNING previous_outbox_sequence AS previous, last_outbox_sequence AS last,
            CASE WHEN $10 THEN pg_notify('account_outbox', '') IS NULL END
    )";

/// Writes the events with the sequences that [`HEAD`] reserved.
const INSERT_EVENTS: &str = "
    INSERT INTO account.outbox
    SELECT head.last - cardinality($4::uuid[]) + event.place, event.account_id, event.event_type, event.status,
        event.version, event.occurred_at, event.traceparent
    FROM head, unnest($4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[])
        WITH ORDINALITY AS event (account_id, event_type, status, version, occurred_at, traceparent, place)";

/// A connection with its statements.
struct WriteSession {
    client: Client,
    create: Statement,
    draw: Statement,
    lock: Statement,
    insert: Statement,
    update: Statement,
    insert_entries: Statement,
    insert_events: Statement,
    keys: KeyStatements,
}

impl AsRef<Client> for WriteSession {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}

impl WriteSession {
    async fn open(database: &Postgres, history: &CommitHistory) -> Result<Self, StoreError> {
        let client = database.connect().await?;
        history.check(&client).await?;
        let draw =
            client.prepare("SELECT nextval('account.account_sequence') FROM generate_series(1, $1::bigint)").await?;
        let lock = format!("SELECT {COLUMNS} FROM account.accounts WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE");
        let lock = client.prepare(&lock).await?;
        let insert = client
            .prepare(
                "INSERT INTO account.accounts SELECT * FROM unnest(
                     $1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                     $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])",
            )
            .await?;
        let update = client
            .prepare(
                "UPDATE account.accounts SET beholder_name = new.beholder_name, country_code = new.country_code,
                     status = new.status, version = new.version, event_version = new.event_version,
                     updated_at = new.updated_at
                 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
                     AS new (id, beholder_name, country_code, status, version, event_version, updated_at)
                 WHERE accounts.id = new.id",
            )
            .await?;
        let insert_entries = client.prepare(INSERT_ENTRIES).await?;
        let insert_events = client
            .prepare(&format!("WITH {HEAD}, inserted AS ({INSERT_EVENTS}) SELECT previous, last FROM head"))
            .await?;
        // PostgreSQL runs what the answer selects in its order: the accounts first, and the row of the ledger last.
        let create = format!(
            "WITH created AS (
                 INSERT INTO account.accounts SELECT nextval('account.account_sequence'), new.* FROM unnest(
                     $11::uuid[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bigint[],
                     $17::bigint[], $18::bigint[], $19::text[]) AS new
                 RETURNING id, sequence
             ), {HEAD}, inserted AS ({INSERT_EVENTS})
             SELECT array_agg(id), array_agg(sequence), (SELECT previous FROM head), (SELECT last FROM head), {SYNCED}
             FROM created"
        );
        let create = client.prepare(&create).await?;
        let keys = KeyStatements::prepare(&client).await?;
        Ok(WriteSession { client, create, draw, lock, insert, update, insert_entries, insert_events, keys })
    }

    /// Commits `commands`, and returns their outcomes and events.
    async fn commit(
        &self,
        mut batch: Batch<'_>,
        commands: Vec<Command>,
        notifies: bool,
        expiry: &mut KeyExpiry,
    ) -> Result<(Vec<Outcome>, Option<EventBatch>), StoreError> {
        if commands.is_empty() {
            // The locks that every transaction needs.
            let locks = "LOCK TABLE account.accounts, account.outbox IN ROW EXCLUSIVE MODE; SELECT FROM account.ledger FOR UPDATE";
            self.client.batch_execute(&format!("{BEGIN}; {locks}; COMMIT")).await?;
            return Ok((Vec::new(), None));
        }
        let named: Vec<Uuid> = decide::named_accounts(&commands).into_iter().map(|id| id.0).collect();
        let named_keys = decide::named_keys(&commands);
        let keys: KeyColumns<'_> = named_keys.iter().map(IdempotencyKey::columns).collect();
        if named.is_empty() && named_keys.is_empty() {
            return self.create(batch, commands, notifies).await;
        }
        let creations = decide::creations(&commands) as i64;
        let (now, numbering) = (batch.now.as_microsecond(), batch.numbering);
        let expired = expiry.expired(now);
        let (draw, lock): ([Parameter<'_>; 1], [Parameter<'_>; 1]) = ([&creations], [&named]);
        // The statements are sent together, in one round trip. `biased` polls them in their order, so the error is that of the
        // first statement that failed.
        let ((), _, stored, drawn, locked) = tokio::try_join!(
            biased;
            self.client.batch_execute(BEGIN),
            self.keys.claims.claim(&self.client, &keys, now, expired),
            self.keys.stored(&self.client, &keys),
            self.client.query(&self.draw, &draw),
            self.client.query(&self.lock, &lock),
        )?;
        batch.keys = stored_keys(&stored, numbering)?;
        for row in &locked {
            let account = account_from_row(row, numbering);
            let account = account.map_err(|error| StoreError::Damaged(error.to_string()))?;
            batch.accounts.insert(account.id, (row.get::<_, i64>(0) as u64, account));
        }
        let (outcomes, changes) = batch.decide(commands, drawn.iter().map(|row| row.get::<_, i64>(0) as u64));
        let limit = expiry.limit(now, changes.keys.len());
        let store_keys = self.keys.store(&self.client, &keys, &changes.keys, numbering, (expired, limit));
        let (removed, events) = self.write(&changes, notifies, store_keys).await?;
        expiry.record(now, limit, removed);
        Ok((outcomes, events.map(|row| event_batch(&row, 0, changes.events))))
    }

    /// Commits a batch that only creates accounts. The statement draws the sequences, and the account numbers are filled in afterwards.
    async fn create(
        &self,
        batch: Batch<'_>,
        commands: Vec<Command>,
        notifies: bool,
    ) -> Result<(Vec<Outcome>, Option<EventBatch>), StoreError> {
        let numbering = batch.numbering;
        let (mut outcomes, changes) = batch.decide(commands, std::iter::empty());
        let c = Columns::of(changes.created.iter().map(|(_, account, _)| account));
        let callers = callers(&changes);
        let e = EventColumns::of(&changes.events);
        let [active, blocked, deleted] = &changes.totals;
        let parameters: [Parameter<'_>; 19] = [
            active,
            blocked,
            deleted,
            &e.ids,
            &e.types,
            &e.statuses,
            &e.versions,
            &e.times,
            &e.traces,
            &notifies,
            &c.ids,
            &c.names,
            &c.countries,
            &c.statuses,
            &c.versions,
            &c.event_versions,
            &c.created,
            &c.updated,
            &callers,
        ];
        // The statement is a transaction of its own: the answer comes after its commit.
        let row = self.client.query_one(&self.create, &parameters).await?;
        let (ids, drawn) = (row.get::<_, Vec<Uuid>>(0), row.get::<_, Vec<i64>>(1));
        let sequences: HashMap<Uuid, i64> = ids.into_iter().zip(drawn).collect();
        for Done { account, .. } in outcomes.iter_mut().flatten() {
            let sequence = sequences
                .get(&account.id.0)
                .ok_or_else(|| StoreError::Unavailable("an account that was written has no sequence".to_owned()))?;
            account.account_number = numbering.number(*sequence as u64);
        }
        Ok((outcomes, Some(event_batch(&row, 2, changes.events))))
    }

    /// Writes and commits in one round trip. If a statement fails, the following ones fail too, and the commit becomes a rollback.
    /// Returns what `store_keys` returns, and the row with the sequences of the events, if there are events.
    async fn write(
        &self,
        changes: &Changes,
        notifies: bool,
        store_keys: impl Future<Output = Result<usize, tokio_postgres::Error>>,
    ) -> Result<(usize, Option<Row>), StoreError> {
        let created = Columns::of(changes.created.iter().map(|(_, account, _)| account));
        let sequences: Vec<i64> = changes.created.iter().map(|(sequence, ..)| *sequence as i64).collect();
        let callers = callers(changes);
        let updated = Columns::of(changes.updated.iter().map(|(_, account)| account));
        let entries = EntryColumns::of(&changes.history);
        let events = EventColumns::of(&changes.events);
        let [active, blocked, deleted] = &changes.totals;
        let (c, u, h, e) = (&created, &updated, &entries, &events);
        let (removed, _, _, _, rows, ()) = tokio::try_join!(
            biased;
            store_keys,
            query_if(
                !sequences.is_empty(),
                &self.client,
                &self.insert,
                [
                    &sequences, &c.ids, &c.names, &c.countries, &c.statuses, &c.versions, &c.event_versions, &c.created,
                    &c.updated, &callers,
                ],
            ),
            query_if(
                !u.ids.is_empty(),
                &self.client,
                &self.update,
                [&u.ids, &u.names, &u.countries, &u.statuses, &u.versions, &u.event_versions, &u.updated],
            ),
            query_if(
                !h.sequences.is_empty(),
                &self.client,
                &self.insert_entries,
                [&h.sequences, &h.versions, &h.times, &h.types, &h.statuses, &h.fields, &h.callers],
            ),
            query_if(
                !e.ids.is_empty(),
                &self.client,
                &self.insert_events,
                [
                    active, blocked, deleted, &e.ids, &e.types, &e.statuses, &e.versions, &e.times, &e.traces,
                    &notifies,
                ],
            ),
            self.client.batch_execute("COMMIT"),
        )?;
        Ok((removed, rows.into_iter().next()))
    }
}

/// The committed events, with the sequences that [`HEAD`] returned in the columns `at` and `at + 1`.
fn event_batch(row: &Row, at: usize, events: Vec<OutboxEvent>) -> EventBatch {
    let sequence = |column| row.get::<_, i64>(column) as u64;
    EventBatch { previous_sequence: sequence(at), last_sequence: sequence(at + 1), events }
}

/// The callers of the new accounts.
fn callers(changes: &Changes) -> Vec<Option<&str>> {
    changes.created.iter().map(|(.., caller)| caller.as_deref()).collect()
}

/// Accounts by column, for UNNEST.
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) names: Vec<&'a str>,
    pub(super) countries: Vec<&'a str>,
    pub(super) statuses: Vec<&'a str>,
    pub(super) versions: Vec<i64>,
    pub(super) event_versions: Vec<i64>,
    pub(super) created: Vec<i64>,
    pub(super) updated: Vec<i64>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(accounts: impl Iterator<Item = &'a Account> + Clone) -> Self {
        Columns {
            ids: accounts.clone().map(|account| account.id.0).collect(),
            names: accounts.clone().map(|account| account.beholder_name.as_str()).collect(),
            countries: accounts.clone().map(|account| account.country_code.as_str()).collect(),
            statuses: accounts.clone().map(|account| account.status.as_str()).collect(),
            versions: accounts.clone().map(|account| i64::from(account.version)).collect(),
            event_versions: accounts.clone().map(|account| i64::from(account.event_version)).collect(),
            created: accounts.clone().map(|account| account.created_at.as_microsecond()).collect(),
            updated: accounts.map(|account| account.updated_at.as_microsecond()).collect(),
        }
    }
}

/// Events by column, for UNNEST.
pub(super) struct EventColumns {
    pub(super) ids: Vec<Uuid>,
    pub(super) types: Vec<&'static str>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) versions: Vec<i64>,
    pub(super) times: Vec<i64>,
    pub(super) traces: Vec<String>,
}

impl EventColumns {
    pub(super) fn of(events: &[OutboxEvent]) -> Self {
        EventColumns {
            ids: events.iter().map(|event| event.event.account_id.0).collect(),
            types: events.iter().map(|event| event.event.event_type.as_str()).collect(),
            statuses: events.iter().map(|event| event.event.status.as_str()).collect(),
            versions: events.iter().map(|event| i64::from(event.version)).collect(),
            times: events.iter().map(|event| event.occurred_at.as_microsecond()).collect(),
            traces: events.iter().map(|event| event.trace.to_string()).collect(),
        }
    }
}
