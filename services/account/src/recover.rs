//! `tandem recover`: joins the account table with the event log after the database was restored to an older copy, or after a copy of it
//! has published (docs/decisions/0017).
//!
//! For each account the state that takes precedence in a view wins. What the log knows better is adopted into the table, and what the log
//! lacks is published when the service starts. Until the last step the database stays superseded, so a recovery that was interrupted is
//! run again, with the same result.

pub(crate) mod join;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use account_events::digest::EventState;
use account_events::{AccountEvent, AccountId, AccountStatus, Owner, PUBLISHER, TraceParent, Version};
use anyhow::{Context, bail, ensure};
use event_log::{Committed, EventLog, Positions};
use jiff::Timestamp;
use postgres::DatabaseUrl;

use self::join::{Joined, LogEntry, Row, join};
use crate::decide::OutboxEvent;
use crate::lineage::SEQUENCE_MARGIN;
use crate::store::{postgres as postgres_store, sqlite as sqlite_store};

/// Accounts in one transaction.
const BATCH: usize = 1_000;

/// How long the log may take to answer a request.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the log may bring no record before its end.
const LOG_PATIENCE: Duration = Duration::from_secs(60);

/// The accounts in [`Report::lost`].
const LISTED: usize = 100;

/// What becomes of accounts that only the log knows, because their rows are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// They stay as they are.
    Keep,
    /// They are blocked, so that they get no cards. An operator can undo that.
    Block,
}

/// What a recovery did, or what it would do.
#[derive(Debug, Default)]
pub struct Report {
    /// Accounts in the table.
    pub accounts: u64,
    /// Accounts in the log.
    pub in_log: u64,
    /// Accounts of which the log knew a newer state.
    pub adopted: u64,
    /// Accounts whose state is published when the service starts.
    pub published: u64,
    /// Accounts that only the log knows.
    pub only_in_log: u64,
    /// Of these, those that are blocked.
    pub blocked: u64,
    /// Some of the accounts that only the log knows.
    pub lost: Vec<AccountId>,
}

/// What the database says of itself.
pub(crate) struct Facts {
    pub(crate) database_id: String,
    /// Whether an instance publishes from the database now.
    pub(crate) is_in_use: bool,
}

/// What a step writes in one transaction.
#[derive(Default)]
pub(crate) struct Step {
    /// The time of the recovery, for the history.
    pub(crate) at: Timestamp,
    /// Accounts in their new state.
    pub(crate) updates: Vec<Update>,
    /// Events to publish.
    pub(crate) events: Vec<OutboxEvent>,
}

/// A row in its new state.
pub(crate) struct Update {
    pub(crate) sequence: u64,
    pub(crate) previous_status: AccountStatus,
    pub(crate) previous_version: Version,
    pub(crate) status: AccountStatus,
    pub(crate) version: Version,
    pub(crate) event_version: Version,
}

/// The account database, as a recovery uses it.
pub(crate) trait RecoveryStore: Send {
    fn facts(&mut self) -> anyhow::Result<Facts>;

    /// Rows after the account with this sequence, in the order of sequences, with their own sequences.
    fn rows(&mut self, after: u64, limit: usize) -> anyhow::Result<Vec<(u64, Row)>>;

    /// Removes all events from the outbox: the join publishes what the log lacks. New events get sequences above `position`.
    fn clear_outbox(&mut self, position: u64) -> anyhow::Result<()>;

    /// Commits a step, with an entry in the history of each account whose version rises.
    fn write(&mut self, step: &Step) -> anyhow::Result<()>;

    /// Makes the log's session one of this database's, moves the sequence of accounts above `account_sequence_floor`, and accepts writes
    /// again.
    fn finish(&mut self, position: u64, session: Option<&str>, account_sequence_floor: u64) -> anyhow::Result<()>;
}

/// Recovers the database at `url` against `log`. With `dry_run` nothing is written. `progress` gets the number of records or rows that
/// were handled, now and then. Blocks.
///
/// # Errors
/// If the database is in use, if the log belongs to another database, if somebody publishes meanwhile, or if either fails.
pub async fn recover(
    url: DatabaseUrl,
    log: Arc<dyn EventLog>,
    dry_run: bool,
    lost: Lost,
    progress: impl FnMut(&str, u64) + Send + 'static,
) -> anyhow::Result<Report> {
    let store: Box<dyn RecoveryStore> = match &url {
        DatabaseUrl::Sqlite(path) => Box::new(sqlite_store::recover::SqliteRecovery::open(path)?),
        DatabaseUrl::Postgres(url) => Box::new(postgres_store::recover::PostgresRecovery::open(url).await?),
    };
    tokio::task::spawn_blocking(move || run(store, log.as_ref(), dry_run, lost, progress)).await?
}

fn run(
    mut store: Box<dyn RecoveryStore>,
    log: &dyn EventLog,
    dry_run: bool,
    lost: Lost,
    mut progress: impl FnMut(&str, u64),
) -> anyhow::Result<Report> {
    let facts = store.facts()?;
    ensure!(
        !facts.is_in_use,
        "an account service uses this database, and it is not superseded: nothing is to be recovered"
    );
    log.prepare()?;
    let committed = log.committed(PUBLISHER, LOG_TIMEOUT)?;
    let owner = committed.as_ref().and_then(|committed| Owner::from_note(&committed.note));
    if let Some(owner) = &owner
        && owner.database_id != facts.database_id
    {
        bail!(
            "the event log belongs to the account database {}, and this is {}: check KAFKA_TOPIC and the database URL",
            owner.database_id,
            facts.database_id
        );
    }
    let position = committed.as_ref().map_or(0, |committed| committed.position);
    let mut entries = read_log(log, &mut progress)?;
    let mut report = Report { in_log: entries.len() as u64, ..Report::default() };
    let write = |store: &mut dyn RecoveryStore, step: Step| match dry_run || step.is_empty() {
        true => Ok(()),
        false => store.write(&step),
    };
    if !dry_run {
        store.clear_outbox(position)?;
    }
    let (now, mut after) = (Timestamp::now(), 0);
    loop {
        let rows = store.rows(after, BATCH)?;
        let Some((last, _)) = rows.last() else { break };
        after = *last;
        let mut step = Step { at: now, ..Step::default() };
        for (sequence, row) in rows {
            report.accounts += 1;
            step.add(sequence, &row, join(&row, entries.remove(&row.id)));
        }
        report.adopted += step.updates.len() as u64;
        report.published += step.events.len() as u64;
        write(store.as_mut(), step)?;
        progress("accounts compared", report.accounts);
    }
    report.only_in_log = entries.len() as u64;
    report.lost = entries.keys().take(LISTED).copied().collect();
    if lost == Lost::Block {
        let blocked = entries.into_iter().filter_map(|(id, entry)| entry.blocked().map(|state| event(id, state, now)));
        let mut events = blocked.peekable();
        while events.peek().is_some() {
            let step = Step { events: events.by_ref().take(BATCH).collect(), ..Step::default() };
            report.blocked += step.events.len() as u64;
            write(store.as_mut(), step)?;
        }
    }
    ensure!(
        is_unchanged(committed.as_ref(), log.committed(PUBLISHER, LOG_TIMEOUT)?.as_ref()),
        "somebody has published to the event log meanwhile: stop the other copy of this database, and run tandem recover again"
    );
    if !dry_run {
        let high = owner.as_ref().map_or(0, |owner| owner.account_sequence_high);
        let session = owner.as_ref().map(|owner| owner.session.as_str());
        store.finish(position, session, high + SEQUENCE_MARGIN)?;
    }
    Ok(report)
}

/// Whether nothing was published in between: a publisher that has nothing to publish renews what it committed.
fn is_unchanged(before: Option<&Committed>, after: Option<&Committed>) -> bool {
    before == after
}

impl Step {
    fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.events.is_empty()
    }

    fn add(&mut self, sequence: u64, row: &Row, joined: Joined) {
        if let Some((status, version, event_version)) = joined.row {
            let (previous_status, previous_version) = (row.state.status, row.version);
            self.updates.push(Update { sequence, previous_status, previous_version, status, version, event_version });
        }
        self.events.extend(joined.event.map(|state| event(row.id, state, self.at)));
    }
}

/// The event that reports this state.
fn event(id: AccountId, state: EventState, now: Timestamp) -> OutboxEvent {
    let trace = TraceParent { trace_id: id.0.as_u128().max(1), parent_id: 1, flags: 0 };
    OutboxEvent::new(id, state.version, state.status, now, trace)
}

/// Reads the whole log: for each account the state that takes precedence, and the last one. Some 30 bytes an account.
fn read_log(log: &dyn EventLog, progress: &mut dyn FnMut(&str, u64)) -> anyhow::Result<HashMap<AccountId, LogEntry>> {
    let ends = log.end_offsets(LOG_TIMEOUT)?;
    let mut reader = log.reader(&Positions::new())?;
    let (mut entries, mut records, mut moved_at) = (HashMap::new(), 0, std::time::Instant::now());
    let is_read = |positions: &Positions| ends.iter().all(|(partition, end)| positions.get(partition) >= Some(end));
    while !is_read(&reader.positions()) {
        let count = reader.poll(Duration::from_millis(250), &mut |record| {
            // A record that is no event has no effect on any view.
            let Ok(AccountEvent { account_id, status, version, .. }) = AccountEvent::decode(record) else { return };
            let state = EventState { version: version.unwrap_or(0), status };
            entries
                .entry(account_id)
                .and_modify(|entry: &mut LogEntry| entry.add(state))
                .or_insert(LogEntry::new(state));
        })?;
        if count > 0 {
            (records, moved_at) = (records + count as u64, std::time::Instant::now());
            progress("records read", records);
        }
        if moved_at.elapsed() > LOG_PATIENCE {
            return Err(anyhow::anyhow!(reader.trouble().unwrap_or_else(|| "it brings no records".to_owned())))
                .context("the event log cannot be read to its end");
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
