//! The embedded log's reader of all partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cursor::{Cursor, Until, wait};
use super::shared::{Shared, locked};
use crate::{LogError, Positions, Reader, RecordRef};

pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    cursor: Cursor,
}

impl EmbeddedReader {
    pub(super) fn open(shared: Arc<Shared>, from: &Positions) -> Result<EmbeddedReader, LogError> {
        let mut cursor = Cursor::open(&shared, Until::Visible)?;
        let state = locked(&shared.state);
        cursor.seek(&state, |partition| from.get(&partition).copied().unwrap_or(0));
        cursor.assign((0..state.partition_count()).collect());
        drop(state);
        Ok(EmbeddedReader { shared, cursor })
    }
}

impl Reader for EmbeddedReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let mut state = locked(&self.shared.state);
            while !self.cursor.gather(&state) {
                match wait(&self.shared.appended, state, deadline) {
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

    fn positions(&self) -> Positions {
        self.cursor.positions()
    }

    fn durable_positions(&self) -> Positions {
        let state = locked(&self.shared.state);
        let mut positions = self.cursor.positions();
        for (partition, position) in &mut positions {
            *position = state.partitions[*partition as usize].durable_end.min(*position);
        }
        positions
    }
}
