//! What `tandem verify` compares (docs/decisions/0016): an account's state, as the account table, the event log and each account view
//! have it, and digests of many states.
//!
//! A digest divides accounts into buckets by a hash of their ids. A bucket has the number of its accounts and the sum of their
//! states' hashes, so the order of accounts does not matter. Both services and the command use this code; their digests agree only
//! if they are of the same release.

use std::hash::Hasher as _;

use event_log::RecordRef;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use utoipa::ToSchema;

use crate::{AccountEvent, AccountId, AccountStatus, Version};

/// The most buckets of a digest: with 10 million accounts a bucket has some 150, and a digest is 2 MB of JSON.
pub const MAX_BUCKETS: u32 = 65_536;

/// The most accounts that a [`Selection`] names: with their quotes they take 39 KB of a body of at most 64 KiB.
pub const MAX_SELECTED_ACCOUNTS: usize = 1_000;

/// The most buckets that a [`Selection`] names: 48 KB. A selection of buckets costs a scan of all accounts, so few requests should do.
pub const MAX_SELECTED_BUCKETS: usize = 8_000;

/// The state of an account: the version and status of its latest event. The greater of two states takes precedence in a view:
/// `DELETED` before all, then the version, then `BLOCKED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventState {
    /// The version of the event; 0 if the event has none.
    pub version: Version,
    /// The status.
    pub status: AccountStatus,
}

impl Ord for EventState {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |state: &Self| (state.status == AccountStatus::Deleted, state.version, state.status);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for EventState {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl EventState {
    /// The state of an account in this state after another event, as the account view merges them: a state without a version
    /// replaces one of version 1 or without, and otherwise the greater state wins.
    pub fn merged(self, incoming: EventState) -> EventState {
        let is_by_arrival = incoming.version == 0 && self.version <= 1 && self.status != AccountStatus::Deleted;
        if is_by_arrival { incoming } else { self.max(incoming) }
    }
}

/// An account and its state: a line of an answer to a [`Selection`], `["550e8400-…", 1, "ACTIVE"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLine(pub AccountId, pub Version, pub AccountStatus);

impl StateLine {
    /// The line of an account in this state.
    pub fn new(id: AccountId, state: EventState) -> Self {
        StateLine(id, state.version, state.status)
    }

    /// The state.
    pub fn state(&self) -> EventState {
        EventState { version: self.1, status: self.2 }
    }
}

/// A record of the event log: its partition, its key if that is an account id, and the account and state that it reports, `null` if it
/// cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine(pub u32, pub Option<AccountId>, pub Option<StateLine>);

impl LogLine {
    /// The line of `record`.
    pub fn of(record: RecordRef<'_>) -> Self {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        let state = |event: AccountEvent| StateLine(event.account_id, event.version.unwrap_or(0), event.status);
        LogLine(record.partition, key, AccountEvent::decode(record).ok().map(state))
    }
}

/// A bucket of a digest: `[accounts, sum of hashes]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket(pub u64, pub u64);

/// The buckets of a set of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(Vec<Bucket>);

impl Digest {
    /// A digest of no accounts, with so many buckets, 1 to [`MAX_BUCKETS`].
    pub fn new(buckets: u32) -> Self {
        Digest(vec![Bucket::default(); buckets.clamp(1, MAX_BUCKETS) as usize])
    }

    /// Adds an account.
    pub fn add(&mut self, line: StateLine) {
        let number = bucket_of(line.0, self.0.len() as u32);
        let mut hasher = hasher_of(line.0);
        hasher.write(&line.1.to_le_bytes());
        hasher.write(line.2.as_str().as_bytes());
        let Bucket(count, sum) = &mut self.0[number as usize];
        *count += 1;
        *sum = sum.wrapping_add(hasher.finish());
    }

    /// The number of accounts.
    pub fn accounts(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.0).sum()
    }

    /// The number of buckets.
    pub fn buckets(&self) -> u32 {
        self.0.len() as u32
    }

    /// The numbers of the buckets in which `other`, of as many buckets, differs.
    pub fn differing<'a>(&'a self, other: &'a Digest) -> impl Iterator<Item = u32> + 'a {
        (0..).zip(self.0.iter().zip(&other.0)).filter(|(_, (one, other))| one != other).map(|(number, _)| number)
    }
}

/// The number of buckets that the parameter `buckets` of a request asks for: [`MAX_BUCKETS`] without it, `None` if it is not valid.
pub fn parse_buckets(text: Option<&str>) -> Option<u32> {
    let Some(text) = text else { return Some(MAX_BUCKETS) };
    text.parse().ok().filter(|buckets| (1..=MAX_BUCKETS).contains(buckets))
}

/// The number of the account's bucket among `buckets`.
pub fn bucket_of(id: AccountId, buckets: u32) -> u32 {
    ((u128::from(hasher_of(id).finish()) * u128::from(buckets)) >> 64) as u32
}

/// The hasher has a fixed key, so that processes agree.
fn hasher_of(id: AccountId) -> SipHasher13 {
    let mut hasher = SipHasher13::new();
    hasher.write(id.0.as_bytes());
    hasher
}

/// Which accounts' states to list: those in `accounts`, or those in the buckets `numbers` of `buckets`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Selection {
    /// The accounts, at most 1,000.
    pub accounts: Vec<AccountId>,
    /// The number of buckets of the digest, 1 to 65,536.
    pub buckets: u32,
    /// The buckets, at most 8,000.
    pub numbers: Vec<u32>,
}

impl Selection {
    /// Why the selection is not valid, if so: the field and the reason.
    pub fn error(&self) -> Option<(&'static str, String)> {
        if self.accounts.len() > MAX_SELECTED_ACCOUNTS {
            return Some(("accounts", format!("accounts must be at most {MAX_SELECTED_ACCOUNTS}")));
        }
        if !self.accounts.is_empty() {
            return None;
        }
        if !(1..=MAX_BUCKETS).contains(&self.buckets) {
            return Some(("buckets", format!("buckets must be a number from 1 to {MAX_BUCKETS}")));
        }
        let is_valid = (1..=MAX_SELECTED_BUCKETS).contains(&self.numbers.len())
            && self.numbers.iter().all(|number| *number < self.buckets);
        (!is_valid).then(|| ("numbers", format!("numbers must be 1 to {MAX_SELECTED_BUCKETS} numbers below buckets")))
    }

    /// Whether the buckets of the selection contain an account. Takes as long for many buckets as for one.
    pub fn filter(&self) -> impl Fn(AccountId) -> bool + Send + 'static {
        let buckets = self.buckets;
        let mut selected = vec![false; buckets as usize];
        self.numbers.iter().for_each(|number| selected[*number as usize] = true);
        move |id| selected[bucket_of(id, buckets) as usize]
    }
}

/// The most accounts of a [`Republications`]: 50 KB of a body of at most 64 KiB.
pub const MAX_REPUBLISHED: usize = 500;

/// An account whose state is to be published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Republication {
    /// The account.
    pub id: AccountId,
    /// The highest version that the log or a view has, if its state takes precedence over the row's: the row's version rises above it.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub above: Option<Version>,
    /// Whether the log has the account as `DELETED`, which is final: the row becomes `DELETED` too.
    #[serde(default)]
    pub delete: bool,
}

/// The body of a request to publish accounts again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Republications {
    /// The accounts, at most 500.
    pub accounts: Vec<Republication>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn line(id: u128, version: Version, status: AccountStatus) -> StateLine {
        StateLine(AccountId(Uuid::from_u128(id)), version, status)
    }

    fn digest(lines: &[StateLine]) -> Digest {
        let mut digest = Digest::new(8);
        lines.iter().for_each(|line| digest.add(*line));
        digest
    }

    #[test]
    fn a_digest_is_the_same_in_any_order_and_differs_in_the_bucket_of_what_differs() {
        let lines: Vec<_> = (0..100).map(|id| line(id, 1, AccountStatus::Active)).collect();
        let reversed: Vec<_> = lines.iter().rev().copied().collect();
        assert_eq!(digest(&lines), digest(&reversed));
        assert_eq!(digest(&lines).accounts(), 100);
        for other in [line(7, 2, AccountStatus::Active), line(7, 1, AccountStatus::Blocked)] {
            let mut changed = lines.clone();
            changed[7] = other;
            let differing: Vec<_> = digest(&lines).differing(&digest(&changed)).collect();
            assert_eq!(differing, [bucket_of(other.0, 8)]);
        }
        let differing: Vec<_> = digest(&lines).differing(&digest(&lines[1..])).collect();
        assert_eq!(differing, [bucket_of(lines[0].0, 8)]);
    }

    #[test]
    fn hashes_are_the_same_in_every_process() {
        // Other values would make services of different releases differ.
        let id = AccountId(Uuid::from_u128(0x0193_6f2e_7b1a_7c40_8000_0123_4567_89ab));
        let mut digest = Digest::new(1);
        digest.add(StateLine(id, 3, AccountStatus::Blocked));
        assert_eq!((bucket_of(id, MAX_BUCKETS), digest.0[0]), (52127, Bucket(1, 0x5cffb5c5a35278f2)));
    }

    #[test]
    fn a_selection_names_buckets_or_accounts_within_bounds() {
        let of = |accounts: usize, buckets, numbers: &[u32]| Selection {
            accounts: vec![AccountId(Uuid::nil()); accounts],
            buckets,
            numbers: numbers.to_vec(),
        };
        for (selection, field) in [
            (of(1, 0, &[]), None),
            (of(MAX_SELECTED_ACCOUNTS, 0, &[]), None),
            (of(MAX_SELECTED_ACCOUNTS + 1, 0, &[]), Some("accounts")),
            (of(0, 8, &[0, 7]), None),
            (of(0, 8, &[8]), Some("numbers")),
            (of(0, 8, &[]), Some("numbers")),
            (of(0, 0, &[0]), Some("buckets")),
            (of(0, MAX_BUCKETS + 1, &[0]), Some("buckets")),
            (of(0, 8, &[0; MAX_SELECTED_BUCKETS + 1]), Some("numbers")),
        ] {
            assert_eq!(selection.error().map(|(field, _)| field), field, "{selection:?}");
        }
        let id = AccountId(Uuid::from_u128(5));
        let own = bucket_of(id, 8);
        assert!(of(0, 8, &[own]).filter()(id) && !of(0, 8, &[(own + 1) % 8]).filter()(id));
    }

    #[test]
    fn deleted_comes_before_the_version_and_the_version_before_the_status() {
        use AccountStatus::{Active, Blocked, Deleted};
        let state = |version, status| EventState { version, status };
        let ascending = [
            state(0, Active),
            state(1, Active),
            state(1, Blocked),
            state(2, Active),
            state(1, Deleted),
            state(2, Deleted),
        ];
        assert!(ascending.is_sorted_by(|one, next| one < next));
        assert_eq!(state(1, Active).merged(state(0, Blocked)), state(0, Blocked), "in the order of arrival");
        assert_eq!(state(2, Active).merged(state(0, Blocked)), state(2, Active));
        assert_eq!(state(1, Deleted).merged(state(0, Active)), state(1, Deleted));
        assert_eq!(state(3, Active).merged(state(2, Blocked)), state(3, Active));
    }
}
