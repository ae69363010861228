//! What this instance knows of accounts: the feed from the event log, the view in memory and its checkpoint on disk, how current the
//! view is, and the records that could not be decoded.

pub(crate) mod checkpoint;
pub(crate) mod feed;
pub(crate) mod quarantine;
pub mod status;
pub mod view;
