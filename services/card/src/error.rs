//! The errors of the card service, with the texts of docs/api.md.

use group_commit::StoreError;

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CardError {
    /// A creation without a country.
    #[error("country is required")]
    MissingCountry,
    /// A country code that does not exist.
    #[error("country {0}")]
    InvalidCountry(#[from] country_code::InvalidCountryCode),
    /// A creation without an account.
    #[error("account ID is required")]
    MissingAccountId,
    /// An `account_id` that is not an account id.
    #[error("account_id {0}")]
    InvalidAccountId(#[from] account_events::InvalidAccountId),
    /// No `?id=`.
    #[error("Missing required query parameter: id")]
    MissingId,
    /// An `?id=` that is not a card id.
    #[error("id must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7")]
    InvalidId,
    /// No `?card_number=`.
    #[error("card number is required")]
    MissingNumber,
    /// An `?after=` that is not the `next` of a page.
    #[error("after must be the next of an earlier page")]
    InvalidAfter,
    /// No event about the account has been read.
    #[error("account not found")]
    AccountNotFound,
    /// The account is deleted according to the view or the card database.
    #[error("cannot create card for deleted account")]
    AccountDeleted,
    /// The account is blocked.
    #[error("cannot create card for inactive account")]
    AccountInactive,
    /// The view has not reached the end of the event log yet, or is older than the operator allows.
    #[error("account view is catching up")]
    CatchingUp,
    /// An `Account-Version` that is not a version.
    #[error("Account-Version must be one number from 1 to {}, bare or in double quotes", account_events::MAX_VERSION)]
    InvalidAccountVersion,
    /// As many requests wait for the view as may.
    #[error("too many requests wait for the account view, try again")]
    TooManyWaiting,
    /// A `?buckets=` that is not the number of a digest's buckets.
    #[error("buckets must be a number from 1 to {}", account_events::digest::MAX_BUCKETS)]
    InvalidBuckets,
    /// A `?from=` that is not a list of offsets.
    #[error("from must be a list such as 0:17,1:4 of partitions with offsets")]
    InvalidFrom,
    /// A `?from=` of an event stream that is not `start`.
    #[error("from must be start")]
    InvalidStart,
    /// A `Last-Event-ID` that is not the id of an event.
    #[error("Last-Event-ID must be the id of an earlier event")]
    InvalidLastEventId,
    /// All event streams that may be open are.
    #[error("too many event streams are open")]
    TooManyStreams,
    /// The event log cannot be read.
    #[error("the event log cannot be read now")]
    LogUnavailable,
    /// A `?partition=` or `?offset=` that is missing or no number.
    #[error("{0} must be a whole number")]
    InvalidPlace(&'static str),
    /// The quarantine has no record at this place.
    #[error("the quarantine has no such record")]
    NotQuarantined,
    /// The card does not exist, and never did. A deleted card exists.
    #[error("card not found")]
    NotFound,
    /// A deletion of a deleted card.
    #[error("card is already deleted")]
    AlreadyDeleted,
    /// The condition of `If-None-Match` does not hold.
    #[error("the card exists, which If-None-Match excludes")]
    Exists,
    /// The idempotency key belongs to another request.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// The database failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}
