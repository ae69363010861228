//! The embedded log's publisher.

use std::sync::Arc;

use super::shared::Shared;
use crate::{LogError, Publisher, Record};

pub(super) struct EmbeddedPublisher {
    shared: Arc<Shared>,
    name: Arc<str>,
    epoch: u64,
    position: Option<u64>,
    /// Set when a commit failed. Its records are visible and will be in the file with the next commit, so publishing
    /// them once more through this publisher would put them there twice.
    spent: bool,
}

impl EmbeddedPublisher {
    pub(super) fn open(shared: Arc<Shared>, name: &str) -> Result<EmbeddedPublisher, LogError> {
        let name = Arc::from(name);
        let (epoch, position) = shared.open_publisher(&name)?;
        Ok(EmbeddedPublisher { shared, name, epoch, position, spent: false })
    }
}

impl Publisher for EmbeddedPublisher {
    fn position(&self) -> Option<u64> {
        self.position
    }

    fn publish(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        if self.spent {
            return Err(LogError::Unavailable("an earlier publish failed: open a new publisher".to_owned()));
        }
        let result = self.shared.publish(&self.name, self.epoch, records, position);
        match &result {
            Ok(()) => self.position = Some(position),
            Err(LogError::Unavailable(_) | LogError::Damaged(_)) => self.spent = true,
            // Nothing of the batch was taken.
            Err(LogError::Fenced(_) | LogError::Refused(_)) => {}
        }
        result
    }
}
