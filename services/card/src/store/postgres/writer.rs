//! The writer of one instance. It commits each batch of commands in one transaction.
//!
//! A batch takes two round trips. The first draws sequences and locks the named accounts, then the named cards, sorted in all
//! instances, so no two wait for each other. The second writes all rows by UNNEST and commits; it is sent at once, so an instance
//! that is paused or killed does not keep locks. A batch that only creates cards, without idempotency keys, is one round trip: the server finds the closed
//! accounts. Both add the rows of unknown accounts before they lock any.
//!
//! **Closed accounts.** Creating a card and closing an account lock the account's row until the commit. So a card is created before
//! the closing, which deletes it, or after the closing, and is refused (ARCHITECTURE.md C4).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use account_events::AccountId;
use clock::Clock;
use group_commit::{Committer, KeyExpiry, StoreError};
use http_server::IdempotencyKey;
use jiff::Timestamp;
use numbering::TimeOrderedIds;
use postgres::{BEGIN, KeyColumns, Parameter, Postgres, Session, query_if};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::history::{DELETE, DELETE_CLOSED};
use super::keys::{KeyStatements, stored_keys};
use super::quarantine;
use crate::accounts::quarantine::Dropped;
use crate::card_number::CardNumbering;
use crate::decide::{self, Batch, Changes, Command, Named, Outcome};
use crate::error::CardError;
use crate::idempotency::Done;

/// How long a transaction that closes accounts waits for a lock, in milliseconds: card creations wait behind it, and accounts that
/// are locked are closed later.
const CLOSING_LOCK_TIMEOUT_MS: u32 = 20;

pub(super) struct Writer {
    session: Session<WriteSession>,
    numbering: CardNumbering,
    clock: Clock,
    keys: KeyExpiry,
    ids: TimeOrderedIds,
    /// The sequence of the last card that this instance created.
    last_card: Arc<AtomicU64>,
    dropped: Dropped,
}

impl Writer {
    pub(super) fn new(
        database: &Postgres,
        numbering: CardNumbering,
        (clock, keys): (Clock, KeyExpiry),
        (last_card, dropped): (Arc<AtomicU64>, Dropped),
    ) -> Self {
        let (session, ids) = (Session::new(database.clone()), TimeOrderedIds::new());
        Writer { session, numbering, clock, keys, ids, last_card, dropped }
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, _is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let Writer { session, numbering, clock, keys, ids, last_card, dropped } = self;
        let (now, closed, cards) = (clock.now(), BTreeSet::new(), HashMap::new());
        let id_of = |_sequence| ids.next(now);
        let batch = Batch { numbering, id_of: &id_of, now, closed, cards, keys: HashMap::new() };
        let work = async |session: &WriteSession| session.commit(batch, commands, (last_card, dropped), keys).await;
        session.run(WriteSession::open, work)
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now().as_microsecond();
        let (limit, expired) = (self.keys.idle_limit(now), self.keys.expired(now));
        if limit == 0 {
            return self.session.check(WriteSession::open);
        }
        let remove =
            async |session: &WriteSession| Ok(session.keys.claims.remove(&session.client, expired, limit).await?);
        let removed = self.session.run(WriteSession::open, remove)?;
        self.keys.record(now, limit, removed);
        Ok(())
    }
}

/// A connection with its statements.
struct WriteSession {
    client: Client,
    create: Statement,
    draw: Statement,
    add_accounts: Statement,
    lock_accounts: Statement,
    lock_cards: Statement,
    insert: Statement,
    count: Statement,
    delete: Statement,
    close: Statement,
    delete_closed: Statement,
    acknowledge: Statement,
    quarantine: Statement,
    total: Statement,
    keys: KeyStatements,
}

impl AsRef<Client> for WriteSession {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}

impl WriteSession {
    async fn open(database: &Postgres) -> Result<Self, StoreError> {
        let client = database.connect().await?;
        let prepare = async |sql: &str| client.prepare(sql).await;
        Ok(WriteSession {
            // PostgreSQL runs what the answer does not select last: the update of the one row of the ledger.
            create: prepare(
                "WITH locked AS (
                     INSERT INTO card.card_accounts
                     SELECT account_id, cards, false FROM unnest($1::uuid[], $2::bigint[]) AS new (account_id, cards)
                     ON CONFLICT (account_id) DO UPDATE SET cards = card_accounts.cards + excluded.cards
                     WHERE NOT card_accounts.closed
                     RETURNING account_id
                 ), created AS (
                     INSERT INTO card.cards
                     SELECT nextval('card.card_sequence'), id, country, account_id, false, $6::bigint, caller
                     FROM (
                         SELECT * FROM unnest($3::uuid[], $4::text[], $5::uuid[], $7::text[])
                             AS new (id, country, account_id, caller)
                         WHERE account_id IN (SELECT account_id FROM locked) ORDER BY id
                     ) AS ordered
                     RETURNING id, sequence
                 ), counted AS (
                     UPDATE card.ledger SET cards = cards + (SELECT count(*) FROM created)
                 )
                 SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(sequence), '{}') FROM created",
            )
            .await?,
            draw: prepare("SELECT nextval('card.card_sequence') FROM generate_series(1, $1::bigint)").await?,
            add_accounts: prepare(
                "INSERT INTO card.card_accounts SELECT account_id, 0, false FROM unnest($1::uuid[]) AS new (account_id)
                 ON CONFLICT (account_id) DO NOTHING",
            )
            .await?,
            lock_accounts: prepare(
                "SELECT account_id, closed FROM card.card_accounts WHERE account_id = ANY($1::uuid[])
                 ORDER BY account_id FOR UPDATE",
            )
            .await?,
            lock_cards: prepare(
                "SELECT id, deleted FROM card.cards
                 WHERE id = ANY($1::uuid[]) OR (account_id = ANY($2::uuid[]) AND NOT deleted) ORDER BY id FOR UPDATE",
            )
            .await?,
            insert: prepare(
                "INSERT INTO card.cards SELECT sequence, id, country, account_id, false, created_at, caller
                 FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[])
                     AS new (sequence, id, country, account_id, created_at, caller)",
            )
            .await?,
            count: prepare(
                "UPDATE card.card_accounts SET cards = card_accounts.cards + new.cards
                 FROM unnest($1::uuid[], $2::bigint[]) AS new (account_id, cards)
                 WHERE card_accounts.account_id = new.account_id",
            )
            .await?,
            delete: prepare(DELETE).await?,
            close: prepare("UPDATE card.card_accounts SET closed = true WHERE account_id = ANY($1::uuid[])").await?,
            delete_closed: prepare(DELETE_CLOSED).await?,
            acknowledge: prepare(quarantine::ACKNOWLEDGE).await?,
            quarantine: prepare(&quarantine::insert()).await?,
            total: prepare("UPDATE card.ledger SET cards = cards + $1").await?,
            keys: KeyStatements::prepare(&client).await?,
            client,
        })
    }

    async fn commit(
        &self,
        mut batch: Batch<'_>,
        commands: Vec<Command>,
        (last_card, dropped): (&AtomicU64, &Dropped),
        expiry: &mut KeyExpiry,
    ) -> Result<Vec<Outcome>, StoreError> {
        if commands.is_empty() {
            // The locks that every transaction needs.
            let locks =
                "LOCK TABLE card.cards, card.card_accounts IN ROW EXCLUSIVE MODE; SELECT FROM card.ledger FOR UPDATE";
            self.client.batch_execute(&format!("{BEGIN}; {locks}; COMMIT")).await?;
            return Ok(Vec::new());
        }
        if commands.iter().all(|command| matches!(command, Command::Create { key: None, .. })) {
            return self.create(batch, commands, last_card).await;
        }
        let named = Named::by(&commands);
        let accounts: Vec<Uuid> = named.accounts.iter().map(|id| id.0).collect();
        let closing: Vec<Uuid> = named.closing.iter().map(|id| id.0).collect();
        let cards: Vec<Uuid> = named.cards.iter().copied().collect();
        let creations = named.creations as i64;
        let named_keys = decide::named_keys(&commands);
        let keys: KeyColumns<'_> = named_keys.iter().map(IdempotencyKey::columns).collect();
        let (now, expired) = (batch.now.as_microsecond(), expiry.expired(batch.now.as_microsecond()));
        let begin = match closing.is_empty() {
            true => BEGIN,
            false => &format!("{BEGIN}; SET LOCAL lock_timeout = {CLOSING_LOCK_TIMEOUT_MS}"),
        };
        // The statements are sent together, in one round trip. `biased` polls them in their order, so the error is that of the
        // first statement that failed.
        let ((), _, stored, drawn, _, accounts, cards) = tokio::try_join!(
            biased;
            self.client.batch_execute(begin),
            self.keys.claims.claim(&self.client, &keys, now, expired),
            self.keys.stored(&self.client, &keys),
            query_if(creations > 0, &self.client, &self.draw, [&creations]),
            query_if(!accounts.is_empty(), &self.client, &self.add_accounts, [&accounts]),
            query_if(!accounts.is_empty(), &self.client, &self.lock_accounts, [&accounts]),
            query_if(!cards.is_empty() || !closing.is_empty(), &self.client, &self.lock_cards, [&cards, &closing]),
        )?;
        let closed = accounts.iter().filter(|row| row.get(1)).map(|row| AccountId(row.get(0)));
        batch.closed = closed.collect();
        batch.cards = cards.iter().map(|row| (row.get(0), row.get(1))).collect();
        batch.keys = stored_keys(&stored, batch.numbering)?;
        let now = batch.now;
        let (outcomes, changes) = batch.decide(commands, drawn.iter().map(|row| row.get::<_, i64>(0) as u64));
        let limit = expiry.limit(now.as_microsecond(), changes.keys.len());
        let store_keys = self.keys.store(&self.client, &keys, &changes.keys, (expired, limit));
        let (removed, left_out) = self.write(&changes, now, store_keys).await?;
        dropped.add(left_out);
        expiry.record(now.as_microsecond(), limit, removed);
        record_last(last_card, changes.created.iter().map(|(sequence, ..)| *sequence as i64));
        Ok(outcomes)
    }

    /// Commits a batch that only creates cards. The server draws the sequences and skips closed accounts; card numbers and refusals are
    /// filled in afterwards.
    async fn create(
        &self,
        batch: Batch<'_>,
        commands: Vec<Command>,
        last_card: &AtomicU64,
    ) -> Result<Vec<Outcome>, StoreError> {
        let (now, numbering) = (batch.now.as_microsecond(), batch.numbering);
        let (mut outcomes, changes) = batch.decide(commands, std::iter::empty());
        let Columns { ids, countries, accounts, callers } = Columns::of(&changes);
        let counted: Vec<Uuid> = changes.counts.keys().map(|id| id.0).collect();
        let counts: Vec<i64> = changes.counts.values().copied().collect();
        let parameters: [Parameter<'_>; 7] = [&counted, &counts, &ids, &countries, &accounts, &now, &callers];
        let missing: [Parameter<'_>; 1] = [&counted];
        let ((), _, row, ()) = tokio::try_join!(
            biased;
            self.client.batch_execute(BEGIN),
            self.client.execute(&self.add_accounts, &missing),
            self.client.query_one(&self.create, &parameters),
            self.client.batch_execute("COMMIT"),
        )?;
        let (created, drawn) = (row.get::<_, Vec<Uuid>>(0), row.get::<_, Vec<i64>>(1));
        record_last(last_card, drawn.iter().copied());
        let sequences: HashMap<Uuid, i64> = created.into_iter().zip(drawn).collect();
        for outcome in &mut outcomes {
            if let Ok(Done { card: Some(card), .. }) = outcome {
                match sequences.get(&card.id) {
                    Some(sequence) => card.card_number = numbering.number(card.country, *sequence as u64),
                    None => *outcome = Err(CardError::AccountDeleted),
                }
            }
        }
        Ok(outcomes)
    }

    /// Writes and commits in one round trip. If a statement fails, the following ones fail too, and the commit becomes a rollback.
    /// Returns what `store_keys` returns, and the number of records that the quarantine has no room for.
    async fn write(
        &self,
        changes: &Changes,
        now: Timestamp,
        store_keys: impl Future<Output = Result<usize, tokio_postgres::Error>>,
    ) -> Result<(usize, u64), StoreError> {
        let Columns { ids, countries, accounts, callers } = Columns::of(changes);
        let Changes { created, counts, deleted, closed, acknowledged, quarantined, .. } = changes;
        let sequences: Vec<i64> = created.iter().map(|(sequence, ..)| *sequence as i64).collect();
        let times: Vec<i64> = created.iter().map(|(_, card, _)| card.creation_timestamp.as_microsecond()).collect();
        let counted: Vec<Uuid> = counts.keys().map(|id| id.0).collect();
        let counts: Vec<i64> = counts.values().copied().collect();
        let deleted_ids: Vec<Uuid> = deleted.iter().map(|(id, _)| *id).collect();
        let deleters: Vec<Option<&str>> = deleted.iter().map(|(_, caller)| caller.as_deref()).collect();
        let closed: Vec<Uuid> = closed.iter().map(|id| id.0).collect();
        let total = created.len() as i64;

        let left_partitions: Vec<i64> = acknowledged.iter().map(|(partition, _)| i64::from(*partition)).collect();
        let left_offsets: Vec<i64> = acknowledged.iter().map(|(_, offset)| *offset as i64).collect();
        let partitions: Vec<i64> = quarantined.iter().map(|record| i64::from(record.partition)).collect();
        let offsets: Vec<i64> = quarantined.iter().map(|record| record.offset as i64).collect();
        let reasons: Vec<&str> = quarantined.iter().map(|record| record.code).collect();
        let details: Vec<&str> = quarantined.iter().map(|record| record.detail.as_str()).collect();
        let keys: Vec<Option<&[u8]>> = quarantined.iter().map(|record| record.key.as_deref()).collect();
        let values: Vec<Option<&[u8]>> = quarantined.iter().map(|record| record.value.as_deref()).collect();
        let headers: Vec<&str> = quarantined.iter().map(|record| record.headers.as_str()).collect();
        let now = now.as_microsecond();
        let seen = vec![now; quarantined.len()];

        let has_cards = !created.is_empty();
        let (removed, _, _, _, _, _, _, left_out, ..) = tokio::try_join!(
            biased;
            store_keys,
            query_if(has_cards, &self.client, &self.insert, [&sequences, &ids, &countries, &accounts, &times, &callers]),
            query_if(has_cards, &self.client, &self.count, [&counted, &counts]),
            query_if(!deleted.is_empty(), &self.client, &self.delete, [&deleted_ids, &now, &deleters]),
            query_if(!closed.is_empty(), &self.client, &self.close, [&closed]),
            query_if(!closed.is_empty(), &self.client, &self.delete_closed, [&closed, &now]),
            query_if(
                !acknowledged.is_empty(),
                &self.client,
                &self.acknowledge,
                [&left_partitions, &left_offsets],
            ),
            query_if(
                !quarantined.is_empty(),
                &self.client,
                &self.quarantine,
                [&partitions, &offsets, &reasons, &details, &keys, &values, &headers, &seen],
            ),
            query_if(has_cards, &self.client, &self.total, [&total]),
            self.client.batch_execute("COMMIT"),
        )?;
        let left_out = left_out.first().map_or(0, |row| row.get::<_, i64>(0) as u64);
        Ok((removed, left_out))
    }
}

fn record_last(last_card: &AtomicU64, sequences: impl Iterator<Item = i64>) {
    if let Some(last) = sequences.max() {
        last_card.fetch_max(last as u64, Ordering::Relaxed);
    }
}

/// The new cards by column, for UNNEST.
struct Columns<'a> {
    ids: Vec<Uuid>,
    countries: Vec<&'a str>,
    accounts: Vec<Uuid>,
    callers: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn of(changes: &'a Changes) -> Self {
        let cards = || changes.created.iter().map(|(_, card, _)| card);
        Columns {
            ids: cards().map(|card| card.id).collect(),
            countries: cards().map(|card| card.country.as_str()).collect(),
            accounts: cards().map(|card| card.account_id.0).collect(),
            callers: changes.created.iter().map(|(.., caller)| caller.as_deref()).collect(),
        }
    }
}
