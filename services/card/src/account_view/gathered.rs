//! What a view that is being rebuilt has been told of the accounts of one shard.
//!
//! Nobody asks it anything then (ARCHITECTURE.md C3), so no account need be found before the end. What comes is added behind what
//! came before, and is put in order when there is enough of it; then each account has one state again.

use super::{merge, unpack};

/// An account, and a state that it was told to have.
type Told = ([u32; 4], u32);

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
