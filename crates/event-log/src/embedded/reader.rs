//! The embedded log's readers: one of all partitions, and one for a member of a group.
//!
//! The members of a group share out the partitions: partition p belongs to member p modulo their number, in the order in which
//! they joined. When the group changes, each member takes its new share at its next poll. A partition that moves to another
//! member is read from the group's committed position.

use std::sync::Arc;
use std::time::Duration;

use super::cursor::Cursor;
use super::shared::Shared;
use super::state::State;
use crate::{GroupReader, LogError, Positions, Reader, RecordRef};

pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    cursor: Cursor,
}

impl EmbeddedReader {
    pub(super) fn open(shared: Arc<Shared>, from: &Positions) -> Result<EmbeddedReader, LogError> {
        let mut cursor = Cursor::open(&shared, |partition| partition.next_offset)?;
        let state = shared.state.lock();
        let partitions = (0..state.partition_count()).collect();
        cursor.assign(&state, partitions, |partition| from.get(&partition).copied().unwrap_or(0));
        drop(state);
        Ok(EmbeddedReader { shared, cursor })
    }
}

impl Reader for EmbeddedReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        self.cursor.poll(&self.shared, &self.shared.appended, timeout, |_, _| {}, apply)
    }

    fn positions(&self) -> Positions {
        self.cursor.positions()
    }

    fn durable_positions(&self) -> Positions {
        let state = self.shared.state.lock();
        let mut positions = self.cursor.positions();
        for (partition, position) in &mut positions {
            *position = state.partitions[*partition as usize].durable_end.min(*position);
        }
        positions
    }
}

pub(super) struct EmbeddedGroupReader {
    shared: Arc<Shared>,
    membership: Membership,
    /// Reads durable records only: a committed position outlives the process (B5).
    cursor: Cursor,
}

struct Membership {
    group: String,
    member: u64,
    /// The generation of the group that the cursor's partitions are from; 0 before the first assignment.
    generation: u64,
}

impl Membership {
    /// Assigns this member's partitions to `cursor` if the group has changed. A partition that stays keeps its position.
    fn rebalance(&mut self, cursor: &mut Cursor, state: &State) {
        let Some(group) = state.groups.get(&self.group).filter(|group| group.generation != self.generation) else {
            return;
        };
        self.generation = group.generation;
        let kept = cursor.positions();
        let share = (0..state.partition_count()).filter(|partition| group.owner(*partition) == Some(self.member));
        cursor.assign(state, share.collect(), |partition| {
            kept.get(&partition).or_else(|| group.committed.get(&partition)).copied().unwrap_or(0)
        });
    }
}

impl EmbeddedGroupReader {
    pub(super) fn open(shared: Arc<Shared>, group: &str) -> Result<EmbeddedGroupReader, LogError> {
        let cursor = Cursor::open(&shared, |partition| partition.durable_end)?;
        let member = shared.state.lock().join(group);
        shared.synced.notify_all();
        let membership = Membership { group: group.to_owned(), member, generation: 0 };
        Ok(EmbeddedGroupReader { shared, membership, cursor })
    }
}

impl GroupReader for EmbeddedGroupReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let EmbeddedGroupReader { shared, membership, cursor } = self;
        cursor.poll(shared, &shared.synced, timeout, |cursor, state| membership.rebalance(cursor, state), apply)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let Membership { group: name, member, .. } = &self.membership;
        let mut positions = self.cursor.positions();
        if let Some(group) = self.shared.state.lock().groups.get(name) {
            // Another member commits the partitions that have moved to it.
            positions.retain(|partition, position| {
                group.owner(*partition) == Some(*member) && group.committed.get(partition) != Some(position)
            });
        }
        if positions.is_empty() {
            return Ok(());
        }
        self.shared.commit_group(name, &positions)
    }
}

impl Drop for EmbeddedGroupReader {
    fn drop(&mut self) {
        self.shared.state.lock().leave(&self.membership.group, self.membership.member);
        self.shared.synced.notify_all();
    }
}
