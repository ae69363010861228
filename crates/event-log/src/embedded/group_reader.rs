//! The embedded log's reader for one member of a group.
//!
//! The members of a group in this process share out the partitions: partition p belongs to member p modulo their number,
//! in the order they came. When a member comes or goes, each one takes its new share up at its next poll; what moves to
//! another member is read on from the group's committed position.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::cursor::{Cursor, Until, wait};
use super::shared::{Shared, locked};
use super::state::State;
use crate::{GroupReader, LogError, Positions, RecordRef};

pub(super) struct EmbeddedGroupReader {
    shared: Arc<Shared>,
    group: String,
    member: u64,
    /// The group's generation that the assignment is of.
    generation: u64,
    /// Over durable records only: a committed position outlives the process, and must never be ahead of the sync.
    cursor: Cursor,
    assigned: Vec<u32>,
}

impl EmbeddedGroupReader {
    pub(super) fn open(shared: Arc<Shared>, group: &str) -> Result<EmbeddedGroupReader, LogError> {
        let cursor = Cursor::open(&shared, Until::Durable)?;
        let member = locked(&shared.state).join(group);
        shared.synced.notify_all();
        // Generations begin at 1 with the first member, so the first poll finds that this one is over.
        Ok(EmbeddedGroupReader { shared, group: group.to_owned(), member, generation: 0, cursor, assigned: Vec::new() })
    }

    /// Takes up this member's share if the group has changed. A partition that stays goes on where it was.
    fn rebalance(&mut self, state: &State) {
        let Some(group) = state.groups.get(&self.group).filter(|group| group.generation != self.generation) else {
            return;
        };
        self.generation = group.generation;
        let count = group.members.len();
        let mine: Vec<u32> = (0..state.partition_count())
            .filter(|partition| group.members.get(*partition as usize % count) == Some(&self.member))
            .collect();
        let kept: Positions =
            self.assigned.iter().map(|partition| (*partition, self.cursor.position(*partition))).collect();
        self.cursor.seek(state, |partition| {
            kept.get(&partition).or_else(|| group.committed.get(&partition)).copied().unwrap_or(0)
        });
        self.cursor.assign(mine.clone());
        self.assigned = mine;
    }

    fn gather(&mut self, state: &MutexGuard<'_, State>) -> bool {
        self.rebalance(state);
        self.cursor.gather(state)
    }
}

impl GroupReader for EmbeddedGroupReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let shared = Arc::clone(&self.shared);
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let mut state = locked(&shared.state);
            while !self.gather(&state) {
                match wait(&shared.synced, state, deadline) {
                    Some(again) => state = again,
                    None => return Ok(0),
                }
            }
            drop(state);
            let count = self.cursor.hand_over(apply)?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let positions: Positions = {
            let state = locked(&self.shared.state);
            let Some(group) = state.groups.get(&self.group) else { return Ok(()) };
            let count = group.members.len();
            // What has moved to another member since is that member's to commit, as Kafka refuses it.
            self.cursor
                .positions()
                .into_iter()
                .filter(|(partition, _)| group.members.get(*partition as usize % count) == Some(&self.member))
                .filter(|(partition, position)| group.committed.get(partition) != Some(position))
                .collect()
        };
        if positions.is_empty() {
            return Ok(());
        }
        self.shared.commit_group(&self.group, &positions)
    }
}

impl Drop for EmbeddedGroupReader {
    fn drop(&mut self) {
        locked(&self.shared.state).leave(&self.group, self.member);
        self.shared.synced.notify_all();
    }
}
