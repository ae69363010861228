//! A card, its history, and the rule for creating one.

use account_events::{AccountId, AccountStatus};
use country_code::CountryCode;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accounts::view::AccountState;
use crate::error::CardError;

/// A card, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Card {
    /// The id.
    pub id: Uuid,
    /// The country, `-` and eight or more hexadecimal digits. Unique.
    pub card_number: String,
    /// The country of the card.
    pub country: CountryCode,
    /// The account of the card.
    pub account_id: AccountId,
    /// Whether the card was deleted, alone or with its account.
    pub deleted: bool,
    /// The time of creation.
    pub creation_timestamp: Timestamp,
}

/// An entry in the history of a card, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CardChange {
    /// The card was created.
    Created {
        /// The time of creation.
        at: Timestamp,
        /// Who created the card; `None` while callers are not authenticated.
        #[schema(required)]
        caller: Option<String>,
    },
    /// The card was deleted.
    Deleted {
        /// The time of deletion.
        at: Timestamp,
        /// Who requested the deletion; `None` while callers are not authenticated, and for a deletion with the account.
        #[schema(required)]
        caller: Option<String>,
        /// Why the card was deleted.
        reason: DeletionReason,
    },
}

/// Why a card was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeletionReason {
    /// `DELETE /card`.
    Requested,
    /// The account of the card was deleted.
    AccountDeleted,
}

impl DeletionReason {
    /// The name in the API and in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DeletionReason::Requested => "requested",
            DeletionReason::AccountDeleted => "account_deleted",
        }
    }

    /// The reason with this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [DeletionReason::Requested, DeletionReason::AccountDeleted].into_iter().find(|reason| reason.as_str() == text)
    }
}

impl Serialize for DeletionReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Checks whether an account with this state in the view may have a new card.
pub fn may_have_card(account: AccountState) -> Result<(), CardError> {
    match account.status {
        AccountStatus::Active => Ok(()),
        AccountStatus::Blocked => Err(CardError::AccountInactive),
        AccountStatus::Deleted => Err(CardError::AccountDeleted),
    }
}
