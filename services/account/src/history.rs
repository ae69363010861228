//! The history of an account: one entry for each version. The creation is an entry too, which the account's own row describes.

use account_events::{AccountStatus, Version};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::account::Account;

/// An entry, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The version of the account after the change.
    #[schema(value_type = u32)]
    pub version: Version,
    /// What happened.
    #[serde(rename = "type")]
    pub change_type: ChangeType,
    /// The names of the fields that changed, apart from the status, separated by commas. The API shows them as a list.
    #[serde(serialize_with = "as_list")]
    #[schema(value_type = Vec<String>)]
    pub fields: String,
    /// The status of the account after the change.
    pub status: AccountStatus,
    /// The time of the change.
    pub at: Timestamp,
    /// Who made the change; `None` while callers are not authenticated.
    #[schema(required)]
    pub caller: Option<String>,
}

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ChangeType {
    /// The account was created.
    Created,
    /// Fields other than the status changed.
    Updated,
    /// The status changed to `ACTIVE` or `BLOCKED`.
    StatusChanged,
    /// The status changed to `DELETED`.
    Deleted,
    /// `tandem recover` or `tandem verify --repair` gave the account a new version.
    Recovered,
    /// The name of the deleted account was erased.
    Erased,
}

impl ChangeType {
    const ALL: [ChangeType; 6] = [
        ChangeType::Created,
        ChangeType::Updated,
        ChangeType::StatusChanged,
        ChangeType::Deleted,
        ChangeType::Recovered,
        ChangeType::Erased,
    ];

    /// The name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ChangeType::Created => "created",
            ChangeType::Updated => "updated",
            ChangeType::StatusChanged => "status_changed",
            ChangeType::Deleted => "deleted",
            ChangeType::Recovered => "recovered",
            ChangeType::Erased => "erased",
        }
    }

    /// The name in the database. Release 0.1.0 reads the table too during an upgrade, and does not know `erased`: an erasure is stored as
    /// an update, the only one that a deleted account can have.
    pub(crate) fn stored(self) -> &'static str {
        match self {
            ChangeType::Erased => ChangeType::Updated.as_str(),
            other => other.as_str(),
        }
    }

    /// The type that is stored under this name, with the status of the account after the change.
    pub(crate) fn parse(text: &str, status: AccountStatus) -> Option<Self> {
        match Self::ALL.into_iter().find(|change_type| change_type.as_str() == text)? {
            ChangeType::Updated if status == AccountStatus::Deleted => Some(ChangeType::Erased),
            other => Some(other),
        }
    }
}

impl Serialize for ChangeType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl HistoryEntry {
    /// The entry of a change after which the account is `after`.
    pub(crate) fn new(change_type: ChangeType, fields: String, after: &Account, caller: Option<&str>) -> Self {
        let Account { version, status, updated_at, .. } = *after;
        HistoryEntry { version, change_type, fields, status, at: updated_at, caller: caller.map(str::to_owned) }
    }

    /// The entry of an erasure.
    pub(crate) fn of_erasure(after: &Account, caller: Option<&str>) -> Self {
        Self::new(ChangeType::Erased, "beholder_name".to_owned(), after, caller)
    }

    /// The entry of a request that changed `before` to `after`. A change of the status takes precedence over other fields.
    pub(crate) fn of_change(before: &Account, after: &Account, caller: Option<&str>) -> Self {
        let change_type = match after.status {
            status if status == before.status => ChangeType::Updated,
            AccountStatus::Deleted => ChangeType::Deleted,
            AccountStatus::Active | AccountStatus::Blocked => ChangeType::StatusChanged,
        };
        let fields = [
            ("beholder_name", before.beholder_name != after.beholder_name),
            ("country_code", before.country_code != after.country_code),
        ];
        let fields: Vec<_> = fields.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect();
        Self::new(change_type, fields.join(","), after, caller)
    }
}

fn as_list<S: Serializer>(fields: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fields.split_terminator(','))
}
