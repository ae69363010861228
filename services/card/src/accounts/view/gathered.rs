//! What a view that is being rebuilt has been told of the accounts of one shard.
//!
//! Nobody asks it anything then (ARCHITECTURE.md C3), so no account need be found before the end. What comes is added behind what
//! came before, and is put in order when there is enough of it; then each account has one state again.

use std::sync::{Mutex, PoisonError};

use account_events::AccountEvent;

use super::shard::{Counted, Told, from_words, words};
use super::{SHARD_COUNT, ViewWriter, merge, on_two_threads, phase, place, told, unpack};

/// States are put in order when there are more new ones than this share of those that are in order.
const NEW_SHARE: usize = 4;

/// Nothing is put in order for less.
const LEAST_NEW: usize = 64;

/// The states of one shard's accounts.
#[derive(Default)]
pub(super) struct Gathered {
    /// By account, and then in the order they came.
    states: Vec<Told>,
    /// How many of them are in order; the others came since.
    ordered: usize,
}

impl Gathered {
    pub(super) fn add(&mut self, told: Told) {
        if self.states.len() - self.ordered > LEAST_NEW.max(self.ordered / NEW_SHARE) {
            self.order();
        }
        self.states.push(told);
    }

    /// All of them in order: one of each account, or a few where some have a version and some have none.
    pub(super) fn into_states(mut self) -> Vec<Told> {
        self.order();
        self.states
    }

    /// States with versions are as good as the last of them, and so are those without. What both come to depends on what is known
    /// before.
    fn order(&mut self) {
        // It keeps the order they came in, and merges what is in order already. The last word first, as it differs most.
        self.states.sort_by_key(|([a, b, c, d], _)| [*d, *c, *b, *a]);
        let has_version = |state| unpack(state).version.is_some();
        self.states.dedup_by(|(id, told), (earlier, state)| {
            let is_more_of_it = id == earlier && has_version(*told) == has_version(*state);
            if is_more_of_it {
                *state = merge(*state, *told);
            }
            is_more_of_it
        });
        self.ordered = self.states.len();
    }
}

impl ViewWriter {
    /// Takes note of `events`, which take effect when the view [settles](ViewWriter::settle): for a view that is being rebuilt.
    ///
    /// They are not applied one by one: for each, its place would have to come from memory, and shards would grow again and
    /// again. Measured at ten million accounts: 110 ns an event, settling on one thread included, and 470 as they are applied.
    pub(crate) fn gather(&mut self, events: &[AccountEvent]) {
        for event in events {
            let (shard, _) = self.table.place(event.account_id);
            self.gathered[shard].add((words(event.account_id), told(event)));
        }
    }

    /// Applies what was gathered. Two threads put it in order and make shards of it, since the one that read the log has ended by
    /// then; what is told of shards that have accounts already is applied by this one. Measured at ten million accounts: 0.17 s,
    /// and 0.34 on one thread, of a replay that takes 1.5.
    pub(crate) fn settle(&mut self) {
        let left = Mutex::new((0..SHARD_COUNT).zip(self.gathered.iter_mut().map(std::mem::take)));
        let (taken, seeds) = (&self.taken, self.table.seeds());
        let settle_some = || {
            let (mut made, mut told) = (Vec::new(), Vec::new());
            loop {
                let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((number, gathered)) = next else { return (made, told) };
                let states = gathered.into_states();
                match taken[number] {
                    0 => made.push((number, Counted::of_states(&states, phase(number), |id| place(seeds, id).1))),
                    _ => told.push(states),
                }
            }
        };
        for (made, told) in on_two_threads("view-settler", settle_some) {
            made.into_iter().for_each(|(number, counted)| self.fill(number, counted));
            for (id, told) in told.into_iter().flatten() {
                self.apply_at(self.table.place(from_words(id)), id, told);
            }
        }
    }
}
