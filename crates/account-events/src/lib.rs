//! The wire contract of the topic `account-events` (docs/api.md, "The event"): what the account service writes and what
//! any consumer may rely on.
//!
//! The value is the seed's three fields and nothing else; what more a consumer needs travels as headers, in CloudEvents
//! 1.0's binary Kafka form. [`AccountEvent::decode`] also takes what the seed's Go producer writes, which has neither key
//! nor headers. Golden records of both are in `testdata/`. Tolerant where the contract says so (unknown fields, missing
//! headers), it answers all else with what is wrong, so that a consumer can put the record in quarantine.

mod account;
mod decode;
mod encode;
mod trace_parent;

pub use account::{AccountId, AccountStatus, EventType, InvalidAccountId, MAX_VERSION, Version};
pub use decode::Unintelligible;
pub use encode::Envelope;
pub use trace_parent::TraceParent;

/// Raised whenever [`AccountEvent::decode`] makes something else of a record, so that what was made of records before is
/// not taken for what would be made of them now.
pub const DECODE_VERSION: u32 = 2;

/// The topic's name where none is configured.
pub const DEFAULT_TOPIC: &str = "account-events";

/// Something that happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountEvent {
    /// What happened.
    pub event_type: EventType,
    /// To which account.
    pub account_id: AccountId,
    /// The account's status from then on.
    pub status: AccountStatus,
    /// The account's version from then on. `None` in events without headers, where the order of arrival decides; but the
    /// creation of an account is version 1 where its key is the account's.
    pub version: Option<Version>,
}
