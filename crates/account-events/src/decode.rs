//! From a record to the event it tells of, or to what is wrong with it.

use std::borrow::Cow;

use event_log::RecordRef;
use serde::Deserialize;

use crate::{AccountEvent, AccountId, AccountStatus, EventType, MAX_VERSION, Version};

/// The largest value that is looked at, in bytes. The longest one this contract knows has 116.
const MAX_VALUE_BYTES: usize = 64 * 1_024;

/// How long an account id is.
const ACCOUNT_ID_BYTES: usize = 36;

/// Why a record tells of nothing. Such a record goes to quarantine and never stops a feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unintelligible {
    /// A tombstone. Deleted accounts have a status, so nobody here writes one.
    #[error("it has no value")]
    NoValue,
    /// Far larger than any event.
    #[error("its value has {0} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge(usize),
    /// Not text.
    #[error("its value is not UTF-8")]
    NotUtf8,
    /// Text, but not JSON: malformed or cut off.
    #[error("its value is not JSON: {0}")]
    NotJson(String),
    /// JSON, but a field is missing, is twice there or has the wrong type, or it is no object.
    #[error("its value is not an account event: {0}")]
    NotAnEvent(String),
    /// A type that the contract does not know.
    #[error("unknown type {0:?}")]
    UnknownType(String),
    /// A status outside the three.
    #[error("unknown status {0:?}")]
    UnknownStatus(String),
    /// An account id that is no UUID.
    #[error("account_id {0:?} is not a UUID")]
    InvalidAccountId(String),
    /// `ce_sequence` is there and is no version.
    #[error("ce_sequence {0:?} is not a number from 1 to {MAX_VERSION}")]
    InvalidSequence(String),
}

impl Unintelligible {
    /// A short stable name, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            Unintelligible::NoValue => "no_value",
            Unintelligible::TooLarge(_) => "too_large",
            Unintelligible::NotUtf8 => "not_utf8",
            Unintelligible::NotJson(_) => "not_json",
            Unintelligible::NotAnEvent(_) => "not_an_event",
            Unintelligible::UnknownType(_) => "unknown_type",
            Unintelligible::UnknownStatus(_) => "unknown_status",
            Unintelligible::InvalidAccountId(_) => "invalid_account_id",
            Unintelligible::InvalidSequence(_) => "invalid_sequence",
        }
    }
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    account_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

impl AccountEvent {
    /// The event that `record` tells of. Unknown fields and other headers are ignored.
    pub fn decode(record: RecordRef<'_>) -> Result<Self, Unintelligible> {
        let value = record.value.ok_or(Unintelligible::NoValue)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(Unintelligible::TooLarge(value.len()));
        }
        if let Some((event, id)) = as_written(value) {
            let version = match is_creation(&event) && record.key == Some(id) {
                true => Some(1),
                false => version(record)?,
            };
            return Ok(AccountEvent { version, ..event });
        }
        let text = std::str::from_utf8(value).map_err(|_| Unintelligible::NotUtf8)?;
        // An array of three texts would do for the parser.
        if text.trim_start().starts_with('[') {
            return Err(Unintelligible::NotAnEvent("it is an array".to_owned()));
        }
        let value: Value<'_> = serde_json::from_str(text).map_err(|error| match error.is_data() {
            true => Unintelligible::NotAnEvent(error.to_string()),
            false => Unintelligible::NotJson(error.to_string()),
        })?;
        Ok(AccountEvent {
            event_type: EventType::parse(&value.r#type)
                .ok_or_else(|| Unintelligible::UnknownType(value.r#type.clone().into_owned()))?,
            account_id: value
                .account_id
                .parse()
                .map_err(|_| Unintelligible::InvalidAccountId(value.account_id.into_owned()))?,
            status: AccountStatus::parse(&value.status)
                .ok_or_else(|| Unintelligible::UnknownStatus(value.status.clone().into_owned()))?,
            version: version(record)?,
        })
    }
}

/// Takes apart what is byte for byte as [`Envelope`](crate::Envelope) writes it, in a fraction of the time that a parser needs: a
/// view reads millions of these. `None` for all else, which is the parser's.
fn as_written(value: &[u8]) -> Option<(AccountEvent, &[u8])> {
    let rest = value.strip_prefix(br#"{"type":""#)?;
    let (event_type, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'"')?)?;
    let (id, rest) = rest.strip_prefix(br#"","account_id":""#)?.split_at_checked(ACCOUNT_ID_BYTES)?;
    let status = rest.strip_prefix(br#"","status":""#)?.strip_suffix(br#""}"#)?;
    let event = AccountEvent {
        event_type: EventType::parse_bytes(event_type)?,
        account_id: AccountId(uuid::Uuid::try_parse_ascii(id).ok()?),
        status: AccountStatus::parse_bytes(status)?,
        version: None,
    };
    Some((event, id))
}

/// Whether an event tells that its account came to be, as the account service writes it. If its key says so too, it is version 1
/// ([`EventType::of_version`]), and its headers are not looked at: librdkafka makes a list of all of them as soon as one is asked
/// for, which was more than half of what a replay's reading took.
///
/// An event without headers means the same as before, though it has a version now: the order of arrival decides, since what has
/// no version takes effect after version 1 as it does after none, and version 1 takes effect after what has none. A `ce_sequence`
/// that nobody looks at sends no record to quarantine.
fn is_creation(event: &AccountEvent) -> bool {
    (event.event_type, event.status) == (EventType::Created, AccountStatus::Active)
}

/// The version that `ce_sequence` tells; `None` if there is none.
fn version(record: RecordRef<'_>) -> Result<Option<Version>, Unintelligible> {
    let Some(header) = record.headers.get("ce_sequence") else { return Ok(None) };
    let number = std::str::from_utf8(header).ok().and_then(|text| text.parse().ok());
    let version = number.filter(|version| (1..=MAX_VERSION).contains(version));
    version.map(Some).ok_or_else(|| Unintelligible::InvalidSequence(String::from_utf8_lossy(header).into_owned()))
}

#[cfg(test)]
mod tests {
    use event_log::{HeaderList, Headers};

    use super::*;

    fn decoded(value: &str) -> Result<AccountEvent, Unintelligible> {
        let (key, value) = (None, Some(value.as_bytes()));
        AccountEvent::decode(RecordRef { partition: 0, offset: 0, key, value, headers: Headers::Empty })
    }

    /// What a record of this account comes to, by its key and its `ce_sequence`.
    fn version_of(
        event_type: &str,
        status: &str,
        key: Option<&str>,
        sequence: Option<&str>,
    ) -> Result<Option<Version>, &'static str> {
        let value = format!(r#"{{"type":"{event_type}","account_id":"{ID}","status":"{status}"}}"#);
        let headers: HeaderList = sequence.map(|sequence| ("ce_sequence", sequence)).into_iter().collect();
        let (key, value, headers) = (key.map(str::as_bytes), Some(value.as_bytes()), headers.as_headers());
        let event = AccountEvent::decode(RecordRef { partition: 0, offset: 0, key, value, headers });
        event.map(|event| event.version).map_err(|reason| reason.code())
    }

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn a_creation_with_its_key_is_version_1_whatever_its_headers_say() {
        for sequence in [Some("1"), Some("7"), Some("seven"), None] {
            assert_eq!(version_of("account.created", "ACTIVE", Some(ID), sequence), Ok(Some(1)));
        }
    }

    #[test]
    fn of_all_else_the_headers_tell_the_version() {
        let other_key = "550e8400-e29b-41d4-a716-446655440001";
        for (event_type, status, key) in [
            ("account.created", "ACTIVE", None),
            ("account.created", "ACTIVE", Some(other_key)),
            ("account.created", "DELETED", Some(ID)),
            ("account.status_changed", "ACTIVE", Some(ID)),
        ] {
            assert_eq!(version_of(event_type, status, key, Some("7")), Ok(Some(7)));
            assert_eq!(version_of(event_type, status, key, None), Ok(None));
            assert_eq!(version_of(event_type, status, key, Some("seven")), Err("invalid_sequence"));
        }
    }

    #[test]
    fn what_is_as_written_means_what_the_parser_says() {
        let id = ID;
        let upper_case = id.to_uppercase();
        let mut taken_apart = 0;
        for event_type in ["account.created", "account.status_changed", "account.closed", r"account\u002ecreated", ""] {
            for id in [id, &upper_case, "550e8400", "550e8400-e29b-41d4-a716-44665544000é", ""] {
                for status in ["ACTIVE", "BLOCKED", "DELETED", "active", r#"ACTIVE","more":"fields"#, ""] {
                    let value = format!(r#"{{"type":"{event_type}","account_id":"{id}","status":"{status}"}}"#);
                    taken_apart += usize::from(as_written(value.as_bytes()).is_some());
                    // With a space before it only the parser knows what to make of it.
                    assert_eq!(decoded(&value), decoded(&format!(" {value}")), "{value}");
                }
            }
        }
        // Two types, an id in both cases, three statuses.
        assert_eq!(taken_apart, 12);
    }
}
