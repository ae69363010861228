//! What a card is.

use account_events::{AccountId, AccountStatus};
use country_code::CountryCode;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::accounts::view::AccountState;
use crate::http::error::CardError;

/// A card, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Its id.
    pub id: Uuid,
    /// The country, `-` and eight or more hexadecimal digits, unique for ever.
    pub card_number: String,
    /// The country it was made for.
    pub country: CountryCode,
    /// The account it belongs to.
    pub account_id: AccountId,
    /// Whether it is of no more use: deleted itself, or closed with its account.
    pub deleted: bool,
    /// When it was made.
    pub creation_timestamp: Timestamp,
}

/// Whether an account may have a new card, by what the view knows of it.
pub fn may_have_card(account: Option<AccountState>) -> Result<(), CardError> {
    match account.map(|account| account.status) {
        Some(AccountStatus::Active) => Ok(()),
        Some(AccountStatus::Blocked) => Err(CardError::AccountInactive),
        Some(AccountStatus::Deleted) => Err(CardError::AccountDeleted),
        None => Err(CardError::AccountNotFound),
    }
}
