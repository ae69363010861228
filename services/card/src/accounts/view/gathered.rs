//! Catching up at a start, from a checkpoint or from the start of the event log (docs/decisions/0009).
//!
//! No request reads the view before it is complete (ARCHITECTURE.md C3). So the states of a shard's accounts are appended to a
//! list, and the shard is built from the list at the end. That avoids one cache miss an event and the repeated growth of the
//! shards.

use account_events::AccountEvent;

use super::shard::{IdWords, Shard, from_words, words};
use super::{ViewWriter, incoming_state, merge, unpack};

/// A list is sorted when its unsorted part exceeds the sorted part divided by this number.
const UNSORTED_DIVISOR: usize = 4;

/// Fewer unsorted states than this are not worth a sort.
const MIN_UNSORTED: usize = 64;

/// The states of one shard's accounts.
#[derive(Default)]
pub(super) struct Gathered {
    /// Sorted by account, and for each account in the order of arrival, up to `sorted`.
    states: Vec<(IdWords, u32)>,
    sorted: usize,
}

impl Gathered {
    fn push(&mut self, id: IdWords, state: u32) {
        if self.states.len() - self.sorted > MIN_UNSORTED.max(self.sorted / UNSORTED_DIVISOR) {
            self.sort();
        }
        self.states.push((id, state));
    }

    /// Sorts the states and merges those of one account. States with a version merge to one state, and so do states without
    /// one. Both kinds merge only with what the view knows, so an account may keep several.
    fn sort(&mut self) {
        // The sort is stable and fast on sorted runs. The last word comes first, because it differs most.
        self.states.sort_by_key(|([a, b, c, d], _)| [*d, *c, *b, *a]);
        let has_version = |state| unpack(state).version.is_some();
        self.states.dedup_by(|(id, incoming), (earlier, state)| {
            let is_mergeable = id == earlier && has_version(*incoming) == has_version(*state);
            if is_mergeable {
                *state = merge(*state, *incoming);
            }
            is_mergeable
        });
        self.sorted = self.states.len();
    }
}

impl ViewWriter {
    /// Adds `event` to a view that is being rebuilt. It takes effect when the view [settles](ViewWriter::settle).
    pub(crate) fn gather(&mut self, event: &AccountEvent) {
        let (shard, _) = self.table.place(event.account_id);
        self.gathered[shard].push(words(event.account_id), incoming_state(event));
    }

    /// Applies the events that were gathered.
    pub(crate) fn settle(&mut self) {
        for number in 0..self.gathered.len() {
            let mut gathered = std::mem::take(&mut self.gathered[number]);
            gathered.sort();
            if self.table.shards[number].load().slot_count() == 0 {
                let accounts = gathered.states.chunk_by(|(id, _), (next, _)| id == next).count();
                self.table.shards[number].store(Shard::with_capacity(accounts).into());
            }
            for (id, state) in gathered.states {
                self.apply_state(self.table.place(from_words(id)), id, state);
            }
        }
    }
}
