//! The wire contract of the topic `account-events` (docs/api.md, "The event"): what the account service writes and what consumers may
//! rely on.
//!
//! The value is a JSON object of three fields. Everything else travels as headers, in the binary Kafka form of CloudEvents 1.0.
//! [`AccountEvent::decode`] also accepts records without key and headers, as the seed's Go producer writes them. Unknown fields and
//! missing headers are accepted; any other deviation is an error that names it, so that a consumer can quarantine the record. Golden
//! records are in `testdata/`.

mod account;
mod decode;
pub mod digest;
mod encode;
mod owner;
mod trace_parent;

pub use account::{AccountId, AccountStatus, EventType, InvalidAccountId, MAX_VERSION, Version};
pub use decode::Unintelligible;
pub use encode::Envelope;
pub use owner::{LastEvent, Owner, PUBLISHER};
pub use trace_parent::TraceParent;

/// The version of [`AccountEvent::decode`]'s result. A checkpoint that an earlier version made is not used.
pub const DECODE_VERSION: u32 = 2;

/// The default name of the topic.
pub const DEFAULT_TOPIC: &str = "account-events";

/// An event of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountEvent {
    /// The type of the event.
    pub event_type: EventType,
    /// The account.
    pub account_id: AccountId,
    /// The account's status after the event.
    pub status: AccountStatus,
    /// The account's version after the event. `None` in an event without headers, which takes effect in the order of arrival; but a
    /// creation whose key is the account id has version 1.
    pub version: Option<Version>,
}
