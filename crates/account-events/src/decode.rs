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
        if let Some((event_type, account_id, status)) = as_written(value) {
            let version = record.headers.get("ce_sequence").map(version).transpose()?;
            return Ok(AccountEvent { event_type, account_id, status, version });
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
            version: record.headers.get("ce_sequence").map(version).transpose()?,
        })
    }
}

/// Takes apart what is byte for byte as [`Envelope`](crate::Envelope) writes it, in a fraction of the time that a parser needs: a
/// view reads millions of these. `None` for all else, which is the parser's.
fn as_written(value: &[u8]) -> Option<(EventType, AccountId, AccountStatus)> {
    let text = std::str::from_utf8(value).ok()?;
    let (event_type, rest) = text.strip_prefix(r#"{"type":""#)?.split_once('"')?;
    let (account_id, rest) = rest.strip_prefix(r#","account_id":""#)?.split_at_checked(ACCOUNT_ID_BYTES)?;
    let status = rest.strip_prefix(r#"","status":""#)?.strip_suffix(r#""}"#)?;
    Some((EventType::parse(event_type)?, account_id.parse().ok()?, AccountStatus::parse(status)?))
}

fn version(header: &[u8]) -> Result<Version, Unintelligible> {
    let number = std::str::from_utf8(header).ok().and_then(|text| text.parse().ok());
    number
        .filter(|version| (1..=MAX_VERSION).contains(version))
        .ok_or_else(|| Unintelligible::InvalidSequence(String::from_utf8_lossy(header).into_owned()))
}

#[cfg(test)]
mod tests {
    use event_log::Headers;

    use super::*;

    fn decoded(value: &str) -> Result<AccountEvent, Unintelligible> {
        let (key, value) = (None, Some(value.as_bytes()));
        AccountEvent::decode(RecordRef { partition: 0, offset: 0, key, value, headers: Headers::Empty })
    }

    #[test]
    fn what_is_as_written_means_what_the_parser_says() {
        let id = "550e8400-e29b-41d4-a716-446655440000";
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
