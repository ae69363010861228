//! The types of the contract.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// The version of an account: 1 when it is created, and one more with each change. At most [`MAX_VERSION`].
pub type Version = u32;

/// The highest version. The account view packs status and version into 32 bits. An account that changes every second reaches it after
/// 34 years.
pub const MAX_VERSION: Version = (1 << 30) - 1;

/// The id of an account: a UUID, written in lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = Uuid)]
pub struct AccountId(pub Uuid);

/// The error of a text that is not an account id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID such as 550e8400-e29b-41d4-a716-446655440000")]
pub struct InvalidAccountId;

impl FromStr for AccountId {
    type Err = InvalidAccountId;

    /// Accepts only the form with hyphens, which this system writes.
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

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The status of an account. Statuses are ordered: of two events with the same version, the greater status wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(rename_all = "UPPERCASE")]
pub enum AccountStatus {
    /// Cards can be added.
    Active,
    /// No cards can be added for now.
    Blocked,
    /// Final. It is a status and not a tombstone: "deleted" and "not found" stay different answers (B3).
    Deleted,
}

impl AccountStatus {
    /// All statuses.
    pub const ALL: [AccountStatus; 3] = [AccountStatus::Active, AccountStatus::Blocked, AccountStatus::Deleted];

    /// The name in the API, in events and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            AccountStatus::Active => "ACTIVE",
            AccountStatus::Blocked => "BLOCKED",
            AccountStatus::Deleted => "DELETED",
        }
    }

    /// The status with this name, upper case only.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl Serialize for AccountStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AccountStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("must be ACTIVE, BLOCKED or DELETED"))
    }
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The account was created.
    Created,
    /// The account's status changed.
    StatusChanged,
}

impl EventType {
    /// The type of the event that leads to `version`: the first one creates the account.
    pub fn of_version(version: Version) -> Self {
        if version == 1 { EventType::Created } else { EventType::StatusChanged }
    }

    /// The name in the event and in `ce_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Created => "account.created",
            EventType::StatusChanged => "account.status_changed",
        }
    }

    /// The type with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [EventType::Created, EventType::StatusChanged].into_iter().find(|kind| kind.as_str() == text)
    }
}
