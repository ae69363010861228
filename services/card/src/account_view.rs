//! The account view: every account's status in memory (the seed's AccountCache).
//!
//! It is a pure function of the log (ARCHITECTURE.md C2): the same events in any order, repeated any number of times,
//! give the same view. Status and version of an account are packed into one integer such that the greater integer is
//! the newer truth, with `DELETED` above all; applying an event is taking the maximum. Only events without a version,
//! as the seed's producer writes them, take effect in the order of arrival, and they too never bring back a deleted
//! account.
//!
//! Accounts are never removed, so the table only grows: open addressing with linear probing over slots of five 32-bit
//! words, 20 bytes an account, cut into shards that grow by a tenth at 90 % load, about 23 bytes an account in all. One
//! writer applies ([`ViewWriter`] is not cloned); readers never wait: a slot's id never changes once its state is set, a
//! state is one atomic word, and a shard that grows is replaced as a whole.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use account_events::{AccountEvent, AccountId, AccountStatus, Version};
use arc_swap::ArcSwap;

/// Shards: while one grows, a 256th of the table is there twice.
const SHARD_COUNT: usize = 256;

/// The slots of an empty shard.
const FIRST_SLOTS: usize = 8;

/// A shard grows when more than this share of its slots, in percent, is taken.
const MAX_LOAD_PERCENT: usize = 90;

/// A shard grows by this share of its slots, in percent.
const GROWTH_PERCENT: usize = 10;

/// What the view knows of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// Its status.
    pub status: AccountStatus,
    /// The version it has it since; `None` if only events without versions told of it.
    pub version: Option<Version>,
}

/// What an event did to the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The account is new, or its state is another one now.
    Updated,
    /// The view knew as much or more: the event was repeated, or late.
    Unchanged,
}

/// The view, for readers. Clones see the same accounts.
#[derive(Clone)]
pub struct AccountView(Arc<Table>);

/// The view's one writer.
pub struct ViewWriter(Arc<Table>);

struct Table {
    shards: Box<[ArcSwap<Shard>]>,
    accounts: AtomicU64,
    /// How many of them have each status, in the order of [`AccountStatus::ALL`].
    by_status: [AtomicU64; AccountStatus::ALL.len()],
    /// Makes the places of ids unpredictable, so that nobody can choose ids that all meet in one place.
    seeds: [u64; 2],
}

/// Slots of `[id, id, id, id, state]`; the state is 0 while the slot is free.
struct Shard {
    slots: Box<[[AtomicU32; 5]]>,
    taken: AtomicU64,
}

/// An empty view, as its writer and its readers hold it.
pub fn account_view() -> (ViewWriter, AccountView) {
    let random = RandomState::new();
    let table = Arc::new(Table {
        shards: (0..SHARD_COUNT).map(|_| ArcSwap::from_pointee(Shard::with_slots(FIRST_SLOTS))).collect(),
        accounts: AtomicU64::new(0),
        by_status: Default::default(),
        seeds: [random.hash_one(1), random.hash_one(2)],
    });
    (ViewWriter(Arc::clone(&table)), AccountView(table))
}

impl AccountView {
    /// What is known of the account; `None` if no event told of it.
    pub fn get(&self, id: AccountId) -> Option<AccountState> {
        let (shard, place) = self.0.place(id);
        let shard = self.0.shards[shard].load();
        let slot = shard.find(words(id), place).ok()?;
        Some(unpack(shard.slots[slot][4].load(Ordering::Acquire)))
    }

    /// How many accounts there are.
    pub fn len(&self) -> u64 {
        self.0.accounts.load(Ordering::Relaxed)
    }

    /// How many accounts have this status. Counted as events are applied, so asking costs nothing.
    pub fn count(&self, status: AccountStatus) -> u64 {
        self.0.by_status[status as usize].load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ViewWriter {
    /// Takes `event` into the view.
    pub fn apply(&mut self, event: &AccountEvent) -> Applied {
        let (shard_index, place) = self.0.place(event.account_id);
        let id = words(event.account_id);
        let shard = self.0.shards[shard_index].load();
        match shard.find(id, place) {
            Ok(slot) => {
                let state = &shard.slots[slot][4];
                let current = state.load(Ordering::Relaxed);
                let merged = merge(current, event);
                if merged == current {
                    return Applied::Unchanged;
                }
                state.store(merged, Ordering::Release);
                self.0.count(Some(unpack(current).status), unpack(merged).status);
            }
            Err(slot) => {
                let state = pack(event.status, event.version);
                if shard.is_full() {
                    let grown = shard.grown(|id| self.0.place(id).1);
                    grown.take(grown.find(id, place).unwrap_or_else(|free| free), id, state);
                    self.0.shards[shard_index].store(Arc::new(grown));
                } else {
                    shard.take(slot, id, state);
                }
                self.0.accounts.fetch_add(1, Ordering::Relaxed);
                self.0.count(None, event.status);
            }
        }
        Applied::Updated
    }
}

impl Table {
    /// Takes note that an account has another status now.
    fn count(&self, before: Option<AccountStatus>, now: AccountStatus) {
        if before != Some(now) {
            self.by_status[now as usize].fetch_add(1, Ordering::Relaxed);
            if let Some(before) = before {
                self.by_status[before as usize].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The shard of an id, and a number that gives its place in the shard.
    fn place(&self, id: AccountId) -> (usize, u32) {
        let (high, low) = id.0.as_u64_pair();
        let product = u128::from(high ^ self.seeds[0]) * u128::from(low ^ self.seeds[1]);
        let hash = (product >> 64) as u64 ^ product as u64;
        // A second round, since the low half of a product depends on few bits of its factors.
        let product = u128::from(hash) * u128::from(self.seeds[0] | 1);
        let hash = (product >> 64) as u64 ^ product as u64;
        ((hash >> 32) as usize % SHARD_COUNT, hash as u32)
    }
}

impl Shard {
    fn with_slots(count: usize) -> Self {
        Shard { slots: (0..count).map(|_| Default::default()).collect(), taken: AtomicU64::new(0) }
    }

    /// The slot of `id`, or else the free one where it belongs. There always is a free one.
    fn find(&self, id: [u32; 4], place: u32) -> Result<usize, usize> {
        let mut slot = ((u64::from(place) * self.slots.len() as u64) >> 32) as usize;
        loop {
            let words = &self.slots[slot];
            // The id was written before the state, and is read after it.
            if words[4].load(Ordering::Acquire) == 0 {
                return Err(slot);
            }
            if (0..4).all(|word| words[word].load(Ordering::Relaxed) == id[word]) {
                return Ok(slot);
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
    }

    fn take(&self, slot: usize, id: [u32; 4], state: u32) {
        for (word, value) in self.slots[slot].iter().zip(id) {
            word.store(value, Ordering::Relaxed);
        }
        self.slots[slot][4].store(state, Ordering::Release);
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        (self.taken.load(Ordering::Relaxed) + 1) as usize * 100 > self.slots.len() * MAX_LOAD_PERCENT
    }

    fn grown(&self, place: impl Fn(AccountId) -> u32) -> Shard {
        let count = self.slots.len();
        let grown = Shard::with_slots(count + (count * GROWTH_PERCENT / 100).max(FIRST_SLOTS));
        for slot in &self.slots {
            let [a, b, c, d, state] = [0, 1, 2, 3, 4].map(|word| slot[word].load(Ordering::Relaxed));
            if state != 0 {
                let id = [a, b, c, d];
                let free = grown.find(id, place(from_words(id))).unwrap_or_else(|free| free);
                grown.take(free, id, state);
            }
        }
        grown
    }
}

/// `deleted` in the highest bit, then 30 bits of version (0 if there is none), then `blocked`, and 1 added, so that no
/// state is 0. Of two states the greater is the one that holds.
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

fn merge(current: u32, event: &AccountEvent) -> u32 {
    let new = pack(event.status, event.version);
    let known = unpack(current);
    let in_order_of_arrival = event.version.is_none() && known.version.is_none();
    if in_order_of_arrival && known.status != AccountStatus::Deleted { new } else { current.max(new) }
}

fn words(id: AccountId) -> [u32; 4] {
    let (high, low) = id.0.as_u64_pair();
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]
}

fn from_words([a, b, c, d]: [u32; 4]) -> AccountId {
    let pair = |high, low| u64::from(high) << 32 | u64::from(low);
    AccountId(uuid::Uuid::from_u64_pair(pair(a, b), pair(c, d)))
}

#[cfg(test)]
mod tests;
