//! The errors of the account service, with the texts of docs/api.md.

use account_events::Version;
use group_commit::StoreError;

use crate::beholder_name::InvalidBeholderName;

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// A creation without a name or a country.
    #[error("all fields are required to create an account")]
    MissingFields {
        /// The first missing field.
        field: &'static str,
    },
    /// An update with a name of nothing but spaces.
    #[error("beholder_name must not be empty")]
    EmptyName,
    /// A name that breaks a rule.
    #[error("beholder_name {0}")]
    InvalidName(#[from] InvalidBeholderName),
    /// A country code that does not exist.
    #[error("country_code {0}")]
    InvalidCountry(#[from] country_code::InvalidCountryCode),
    /// A status other than the three.
    #[error("status must be ACTIVE, BLOCKED or DELETED")]
    InvalidStatus,
    /// An update without a field.
    #[error("an update needs at least one of beholder_name, country_code and status")]
    NothingToUpdate,
    /// No `?id=`.
    #[error("Missing required query parameter: id")]
    MissingId,
    /// An `?id=` that is not an account id.
    #[error("id {0}")]
    InvalidId(#[from] account_events::InvalidAccountId),
    /// No `?account_number=`.
    #[error("Account number parameter is required")]
    MissingNumber,
    /// An `?after=` that is not the `next` of a page.
    #[error("after must be the next of an earlier page")]
    InvalidAfter,
    /// A `?buckets=` that is not the number of a digest's buckets.
    #[error("buckets must be a number from 1 to {}", account_events::digest::MAX_BUCKETS)]
    InvalidBuckets,
    /// The account does not exist, and never did. A deleted account exists.
    #[error("account not found")]
    NotFound,
    /// An update of a deleted account: `DELETED` is final.
    #[error("cannot update deleted account")]
    CannotUpdateDeleted,
    /// A deletion of a deleted account.
    #[error("account is already deleted")]
    AlreadyDeleted,
    /// An erasure of an account that is not deleted.
    #[error("the account is not deleted: delete it, then erase its name")]
    NotDeleted,
    /// The condition of `If-Match` does not hold.
    #[error("the account has version {version}, which If-Match does not name")]
    VersionMismatch {
        /// The account's version.
        version: Version,
    },
    /// The condition of `If-None-Match` does not hold.
    #[error("the account has version {version}, which If-None-Match names")]
    VersionMatch {
        /// The account's version.
        version: Version,
    },
    /// The idempotency key belongs to another request.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// The database takes no writes: the event log knows more than it, or belongs to another one.
    #[error("this account database is superseded and takes no writes; /readyz says why")]
    Superseded,
    /// The database failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}
