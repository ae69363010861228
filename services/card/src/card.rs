//! A card, and the rule for creating one.

use account_events::{AccountId, AccountStatus};
use country_code::CountryCode;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::accounts::view::AccountState;
use crate::error::CardError;

/// A card, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

/// Checks whether an account with this state in the view may have a new card.
pub fn may_have_card(account: AccountState) -> Result<(), CardError> {
    match account.status {
        AccountStatus::Active => Ok(()),
        AccountStatus::Blocked => Err(CardError::AccountInactive),
        AccountStatus::Deleted => Err(CardError::AccountDeleted),
    }
}
