//! The account view of this instance: the feed that applies the event log, the view in memory, its checkpoint on disk, its status, and
//! the quarantine.

pub(crate) mod checkpoint;
pub(crate) mod event_ring;
pub(crate) mod feed;
pub(crate) mod quarantine;
pub mod status;
pub mod view;
pub(crate) mod waiters;
