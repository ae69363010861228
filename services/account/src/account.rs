//! An account, and the rules for its changes. No database, no clock, no request or response.

use account_events::digest::Republication;
use account_events::{AccountId, AccountStatus, Version};
use country_code::CountryCode;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

pub use crate::beholder_name::BeholderName;
use crate::error::AccountError;

/// An account, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Account {
    /// The id.
    pub id: AccountId,
    /// `ACC-` and eight or more digits. Unique.
    pub account_number: String,
    /// The name of the account holder.
    pub beholder_name: BeholderName,
    /// The country of the account.
    pub country_code: CountryCode,
    /// The status. Only active accounts get new cards.
    pub status: AccountStatus,
    /// 1 after the creation, and 1 more after each change.
    #[schema(value_type = u32)]
    pub version: Version,
    /// The version of the latest event. At most `version`: a change of name or country makes no event.
    #[serde(skip)]
    pub event_version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

/// A change that a request asks for.
#[derive(Debug, Clone)]
pub enum Change {
    /// New values of the fields that are `Some`.
    Update {
        /// The new name.
        beholder_name: Option<BeholderName>,
        /// The new country.
        country_code: Option<CountryCode>,
        /// The new status. `DELETED` is final.
        status: Option<AccountStatus>,
    },
    /// Sets the status `DELETED`.
    Delete,
}

impl Change {
    /// The fields that the change sets, as text, in a fixed order.
    pub fn fields(&self) -> [Option<&str>; 3] {
        match self {
            Change::Update { beholder_name, country_code, status } => [
                beholder_name.as_ref().map(BeholderName::as_str),
                country_code.as_ref().map(|code| code.as_str()),
                status.map(AccountStatus::as_str),
            ],
            Change::Delete => [None; 3],
        }
    }
}

/// The condition that a caller sets on a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The account must have one of these versions; any version if `None`.
    pub required: Option<Versions>,
    /// The account must have none of these versions.
    pub excluded: Option<Versions>,
}

/// The versions that a precondition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Every version.
    Any,
    /// These versions, possibly none.
    OneOf(Vec<Version>),
}

impl Versions {
    fn contains(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

impl Account {
    /// Returns the account after `change` at the time `now`, if `precondition` holds. An update that changes no field
    /// keeps the version.
    ///
    /// Rules of the domain come before the precondition: RFC 9110, 13.2.1, ignores a precondition of a request that fails
    /// without it.
    pub fn changed(
        &self,
        change: Change,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Account, AccountError> {
        if self.status == AccountStatus::Deleted {
            return Err(match change {
                Change::Update { .. } => AccountError::CannotUpdateDeleted,
                Change::Delete => AccountError::AlreadyDeleted,
            });
        }
        if precondition.required.as_ref().is_some_and(|versions| !versions.contains(self.version)) {
            return Err(AccountError::VersionMismatch { version: self.version });
        }
        if precondition.excluded.as_ref().is_some_and(|versions| versions.contains(self.version)) {
            return Err(AccountError::VersionMatch { version: self.version });
        }
        let mut account = self.clone();
        match change {
            Change::Update { beholder_name, country_code, status } => {
                account.beholder_name = beholder_name.unwrap_or(account.beholder_name);
                account.country_code = country_code.unwrap_or(account.country_code);
                account.status = status.unwrap_or(account.status);
            }
            Change::Delete => account.status = AccountStatus::Deleted,
        }
        if account != *self {
            account.version += 1;
            if account.status != self.status {
                account.event_version = account.version;
            }
            account.updated_at = now;
        }
        Ok(account)
    }

    /// Returns the account without its name, if it is deleted. The version rises by 1, unless the name is erased already.
    pub(crate) fn erased(&self, now: Timestamp) -> Result<Account, AccountError> {
        if self.status != AccountStatus::Deleted {
            return Err(AccountError::NotDeleted);
        }
        let mut account = Account { beholder_name: BeholderName::erased(), ..self.clone() };
        if account != *self {
            account.version += 1;
            account.updated_at = now;
        }
        Ok(account)
    }

    /// Returns the account as `republication` publishes it again at the time `now`. The state stays as it is unless a greater
    /// one is in the log or a view.
    pub(crate) fn republished(&self, republication: Republication, now: Timestamp) -> Account {
        let Republication { above, delete, .. } = republication;
        let mut account = self.clone();
        let is_deleted_now = delete && self.status != AccountStatus::Deleted;
        // A change after the comparison has a higher version already.
        if is_deleted_now || above.is_some_and(|above| above >= self.event_version) {
            account.version = self.version.max(above.unwrap_or(0)) + 1;
            account.event_version = account.version;
            account.updated_at = now;
        }
        if is_deleted_now {
            account.status = AccountStatus::Deleted;
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            id: "01936f2e-7b1a-7c40-8000-0123456789ab".parse().unwrap(),
            account_number: "ACC-12345678".to_owned(),
            beholder_name: "John Doe".parse().unwrap(),
            country_code: "US".parse().unwrap(),
            status: AccountStatus::Active,
            version: 3,
            event_version: 1,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn update(name: Option<&str>, status: Option<AccountStatus>) -> Change {
        Change::Update { beholder_name: name.map(|name| name.parse().unwrap()), country_code: None, status }
    }

    fn if_match(version: Version) -> Precondition {
        Precondition { required: Some(Versions::OneOf(vec![version])), excluded: None }
    }

    const NONE: Precondition = Precondition { required: None, excluded: None };

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    #[test]
    fn a_change_raises_the_version_by_one_and_a_repeat_does_not() {
        let renamed = account().changed(update(Some("Jane Doe"), None), &NONE, NOW).unwrap();
        assert_eq!((renamed.version, renamed.updated_at, renamed.created_at), (4, NOW, Timestamp::UNIX_EPOCH));
        assert_eq!(renamed.event_version, 1, "no event");
        let again = renamed.changed(update(Some("Jane Doe"), Some(AccountStatus::Active)), &NONE, NOW);
        assert_eq!(again.unwrap(), renamed);
    }

    #[test]
    fn deleted_is_final_whatever_the_condition() {
        let deleted = account().changed(Change::Delete, &NONE, NOW).unwrap();
        assert_eq!((deleted.status, deleted.version, deleted.event_version), (AccountStatus::Deleted, 4, 4));
        for condition in [&NONE, &if_match(99)] {
            let update = deleted.changed(update(None, Some(AccountStatus::Active)), condition, NOW);
            assert!(matches!(update, Err(AccountError::CannotUpdateDeleted)));
            let delete = deleted.changed(Change::Delete, condition, NOW);
            assert!(matches!(delete, Err(AccountError::AlreadyDeleted)));
        }
    }

    #[test]
    fn a_condition_on_another_version_changes_nothing() {
        let changed = |precondition: &Precondition| account().changed(Change::Delete, precondition, NOW);
        assert!(matches!(changed(&if_match(2)), Err(AccountError::VersionMismatch { version: 3 })));
        assert!(changed(&if_match(3)).is_ok());
        let if_none_match = |named| Precondition { excluded: Some(named), ..if_match(3) };
        for named in [Versions::Any, Versions::OneOf(vec![3])] {
            assert!(matches!(changed(&if_none_match(named)), Err(AccountError::VersionMatch { version: 3 })));
        }
        assert!(changed(&if_none_match(Versions::OneOf(vec![2]))).is_ok());
    }

    #[test]
    fn an_account_is_published_again_as_it_is_or_with_a_version_above_what_others_have() {
        let account = Account { version: 5, event_version: 3, ..account() };
        let again = |above, delete| {
            let again = account.republished(Republication { id: account.id, above, delete }, NOW);
            (again.version, again.event_version, again.status)
        };
        for as_it_is in [None, Some(2)] {
            assert_eq!(again(as_it_is, false), (5, 3, AccountStatus::Active), "{as_it_is:?}");
        }
        assert_eq!(again(Some(3), false), (6, 6, AccountStatus::Active));
        assert_eq!(again(Some(9), false), (10, 10, AccountStatus::Active));
        assert_eq!(again(Some(1), true), (6, 6, AccountStatus::Deleted));
        assert_eq!(again(None, true), (6, 6, AccountStatus::Deleted));
    }

    #[test]
    fn a_name_that_an_older_version_took_does_not_stand_in_the_way_of_other_changes() {
        let old = Account { beholder_name: BeholderName::stored("\u{200B}".to_owned()), ..account() };
        let blocked = old.changed(update(None, Some(AccountStatus::Blocked)), &NONE, NOW).unwrap();
        assert_eq!((blocked.status, blocked.beholder_name), (AccountStatus::Blocked, old.beholder_name));
    }
}
