//! The account view: the status of every account, in memory (the seed's AccountCache).
//!
//! The view is a pure function of the event log (ARCHITECTURE.md C2): the same events in any order, repeated any number of
//! times, give the same view. An account's status and version are packed into one integer whose order is the order of
//! precedence, with `DELETED` above all, so applying an event takes the maximum. Events without a version, as the seed's
//! producer writes them, take effect in the order of arrival, and never revive a deleted account.
//!
//! Accounts are never removed. The table consists of shards of 20-byte slots that grow by 10 % at 92 % load, which gives less
//! than 24 bytes an account (docs/decisions/0007). There is one writer; readers never wait.

pub(crate) mod format;
mod gathered;
mod shard;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use account_events::{AccountEvent, AccountId, AccountStatus, Version};
use arc_swap::ArcSwap;

use self::gathered::Gathered;
use self::shard::{IdWords, Shard, from_words, words};

/// The number of shards: while a shard grows, a 256th of the table is in memory twice.
const SHARD_COUNT: usize = 256;

/// The state of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// The account's status.
    pub status: AccountStatus,
    /// The version that set the status; `None` if no event of the account had a version.
    pub version: Option<Version>,
}

/// The view, for readers. Clones share the same accounts.
#[derive(Clone)]
pub struct AccountView(Arc<Table>);

/// The only writer of the view.
pub struct ViewWriter {
    table: Arc<Table>,
    /// For each shard, the states that [`gather`](ViewWriter::gather) collected.
    gathered: Box<[Gathered]>,
}

struct Table {
    shards: Box<[ArcSwap<Shard>]>,
    /// Random seeds of the hash, so that nobody can choose ids that collide. They change only together with all shards, when
    /// a checkpoint is loaded.
    seeds: [AtomicU64; 2],
    counts: Counts,
}

/// Changes with every account. The alignment keeps the counters out of the cache lines that each look-up reads.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    accounts: AtomicU64,
    /// How many accounts have each status, in the order of [`AccountStatus::ALL`].
    by_status: [AtomicU64; AccountStatus::ALL.len()],
}

/// Returns an empty view as its writer and its readers hold it.
pub fn account_view() -> (ViewWriter, AccountView) {
    let random = RandomState::new();
    let table = Arc::new(Table {
        shards: (0..SHARD_COUNT).map(|_| ArcSwap::from_pointee(Shard::with_capacity(0))).collect(),
        seeds: [1, 2].map(|number| AtomicU64::new(random.hash_one(number))),
        counts: Counts::default(),
    });
    let gathered = (0..SHARD_COUNT).map(|_| Gathered::default()).collect();
    (ViewWriter { table: Arc::clone(&table), gathered }, AccountView(table))
}

impl AccountView {
    /// The account's state; `None` if the view has no event of the account.
    pub fn get(&self, id: AccountId) -> Option<AccountState> {
        let (shard, place) = self.0.place(id);
        let shard = self.0.shards[shard].load();
        let slot = shard.find(words(id), place).ok()?;
        Some(unpack(shard.state(slot).load(Ordering::Acquire)))
    }

    /// Calls `each` with every account until it breaks. Accounts that change meanwhile are in either state.
    pub fn try_for_each(&self, mut each: impl FnMut(AccountId, AccountState) -> ControlFlow<()>) -> ControlFlow<()> {
        for shard in &self.0.shards {
            // A shard that grows is replaced; the old one has everything that was applied before.
            shard.load_full().accounts().try_for_each(|(id, state)| each(from_words(id), unpack(state)))?;
        }
        ControlFlow::Continue(())
    }

    /// The number of accounts.
    pub fn len(&self) -> u64 {
        self.0.counts.accounts.load(Ordering::Relaxed)
    }

    /// The number of accounts with this status.
    pub fn count(&self, status: AccountStatus) -> u64 {
        self.0.counts.by_status[status as usize].load(Ordering::Relaxed)
    }

    /// Whether the view has no accounts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ViewWriter {
    /// Applies `event`. Returns false if it is repeated or stale, and changes nothing.
    pub fn apply(&mut self, event: &AccountEvent) -> bool {
        self.apply_state(self.table.place(event.account_id), words(event.account_id), incoming_state(event))
    }

    fn apply_state(&mut self, (shard_number, place): (usize, u32), id: IdWords, incoming: u32) -> bool {
        let Table { shards, counts, .. } = &*self.table;
        let shard = shards[shard_number].load();
        match shard.find(id, place) {
            Ok(slot) => {
                let state = shard.state(slot);
                let current = state.load(Ordering::Relaxed);
                let merged = merge(current, incoming);
                if merged == current {
                    return false;
                }
                state.store(merged, Ordering::Release);
                counts.change(Some(unpack(current).status), unpack(merged).status);
            }
            Err(slot) => {
                if shard.is_full() {
                    let grown = shard.grown(|id| self.table.place(id).1);
                    grown.insert(grown.free_slot(place), id, incoming);
                    shards[shard_number].store(Arc::new(grown));
                } else {
                    shard.insert(slot, id, incoming);
                }
                counts.change(None, unpack(incoming).status);
            }
        }
        true
    }
}

impl Counts {
    /// Counts an account that is new (`before` is `None`) or has another status. Only the writer calls it.
    fn change(&self, before: Option<AccountStatus>, now: AccountStatus) {
        match before {
            Some(before) => _ = self.by_status[before as usize].fetch_sub(1, Ordering::Relaxed),
            None => _ = self.accounts.fetch_add(1, Ordering::Relaxed),
        }
        self.by_status[now as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Table {
    fn seeds(&self) -> [u64; 2] {
        self.seeds.each_ref().map(|seed| seed.load(Ordering::Relaxed))
    }

    /// The number of the id's shard, and the place of the id in the shard as a fraction of 2^32.
    fn place(&self, id: AccountId) -> (usize, u32) {
        place(self.seeds(), id)
    }
}

fn place(seeds: [u64; 2], id: AccountId) -> (usize, u32) {
    let (high, low) = id.0.as_u64_pair();
    let product = u128::from(high ^ seeds[0]) * u128::from(low ^ seeds[1]);
    let hash = (product >> 64) as u64 ^ product as u64;
    // A second round, since the low half of a product depends on few bits of its factors.
    let product = u128::from(hash) * u128::from(seeds[0] | 1);
    let hash = (product >> 64) as u64 ^ product as u64;
    ((hash >> 32) as usize % SHARD_COUNT, hash as u32)
}

/// Packs a state into an integer: `deleted` in the highest bit, then 30 bits of version (0 if there is none), then `blocked`.
/// 1 is added, so that no state is 0. The greater of two states takes precedence.
fn pack(status: AccountStatus, version: Option<Version>) -> u32 {
    let version = version.unwrap_or(0) << 1;
    1 + match status {
        AccountStatus::Active => version,
        AccountStatus::Blocked => version | 1,
        AccountStatus::Deleted => 1 << 31 | version,
    }
}

fn unpack(state: u32) -> AccountState {
    let bits = state - 1;
    let version = bits << 1 >> 2;
    let status = match (bits >> 31, bits & 1) {
        (1, _) => AccountStatus::Deleted,
        (_, 1) => AccountStatus::Blocked,
        _ => AccountStatus::Active,
    };
    AccountState { status, version: (version > 0).then_some(version) }
}

/// The state that an event reports.
fn incoming_state(event: &AccountEvent) -> u32 {
    pack(event.status, event.version)
}

/// The state of an account after an event. A state without a version replaces one without a version, and the creation, which is
/// version 1 whether its event says so or not. Otherwise the greater state wins.
fn merge(current: u32, incoming: u32) -> u32 {
    let known = unpack(current);
    let is_by_arrival = unpack(incoming).version.is_none() && known.version <= Some(1);
    if is_by_arrival && known.status != AccountStatus::Deleted { incoming } else { current.max(incoming) }
}

#[cfg(test)]
mod tests;
