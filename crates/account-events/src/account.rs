//! The words of the contract as types.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// How often an account has changed: 1 when it is created, 1 more with each change. At most [`MAX_VERSION`].
pub type Version = u32;

/// The highest version there is. Status and version fit in 32 bits together, which is what makes a view of millions of
/// accounts small; an account that changes every second reaches it after 34 years.
pub const MAX_VERSION: Version = (1 << 30) - 1;

/// The id of an account: a UUID, written in lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub Uuid);

/// A text that is no account id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID such as 550e8400-e29b-41d4-a716-446655440000")]
pub struct InvalidAccountId;

impl FromStr for AccountId {
    type Err = InvalidAccountId;

    /// Takes the form with hyphens only: it is the one that this system writes.
    fn from_str(text: &str) -> Result<Self, InvalidAccountId> {
        if text.len() != 36 {
            return Err(InvalidAccountId);
        }
        Uuid::try_parse(text).map(AccountId).map_err(|_| InvalidAccountId)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Serialize for AccountId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

/// Whether an account may have new cards. The order is that of finality: where two events claim the same version, the
/// greater status holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountStatus {
    /// It may.
    Active,
    /// Not now.
    Blocked,
    /// Never again. It is a value and not a tombstone: "deleted" and "not found" stay different answers (B3).
    Deleted,
}

impl AccountStatus {
    /// All there are.
    pub const ALL: [AccountStatus; 3] = [AccountStatus::Active, AccountStatus::Blocked, AccountStatus::Deleted];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            AccountStatus::Active => "ACTIVE",
            AccountStatus::Blocked => "BLOCKED",
            AccountStatus::Deleted => "DELETED",
        }
    }

    /// The status written so, upper case only.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_bytes(text.as_bytes())
    }

    pub(crate) fn parse_bytes(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().as_bytes() == text)
    }
}

impl Serialize for AccountStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What kinds of events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The account came to be.
    Created,
    /// Its status is another one now.
    StatusChanged,
}

impl EventType {
    /// Of the event that brings an account to this version: the first one creates it.
    pub fn of_version(version: Version) -> Self {
        if version == 1 { EventType::Created } else { EventType::StatusChanged }
    }

    /// As it is written in the event and in `ce_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Created => "account.created",
            EventType::StatusChanged => "account.status_changed",
        }
    }

    /// The type written so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_bytes(text.as_bytes())
    }

    pub(crate) fn parse_bytes(text: &[u8]) -> Option<Self> {
        [EventType::Created, EventType::StatusChanged].into_iter().find(|kind| kind.as_str().as_bytes() == text)
    }
}
