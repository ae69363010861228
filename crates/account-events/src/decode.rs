//! Decoding a record as an event.

use std::borrow::Cow;

use event_log::RecordRef;
use serde::Deserialize;

use crate::{AccountEvent, AccountStatus, EventType, MAX_VERSION, Version};

/// The largest value that is decoded, in bytes. The largest value of the contract has 116.
const MAX_VALUE_BYTES: usize = 64 * 1_024;

/// Why a record is not an event. Consumers quarantine such a record and continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unintelligible {
    /// A tombstone. The account service writes none, since deleted accounts have a status.
    #[error("it has no value")]
    NoValue,
    /// The value is far larger than any event.
    #[error("its value has {0} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge(usize),
    /// The value is not UTF-8.
    #[error("its value is not UTF-8")]
    NotUtf8,
    /// The value is not JSON: malformed or truncated.
    #[error("its value is not JSON: {0}")]
    NotJson(String),
    /// The value is JSON but not an object, or a field is missing, repeated or of the wrong type.
    #[error("its value is not an account event: {0}")]
    NotAnEvent(String),
    /// The contract has no such type.
    #[error("unknown type {0:?}")]
    UnknownType(String),
    /// The contract has no such status.
    #[error("unknown status {0:?}")]
    UnknownStatus(String),
    /// The account id is not a UUID.
    #[error("account_id {0:?} is not a UUID")]
    InvalidAccountId(String),
    /// The header `ce_sequence` is not a version.
    #[error("ce_sequence {0:?} is not a number from 1 to {MAX_VERSION}")]
    InvalidSequence(String),
}

impl Unintelligible {
    /// A short stable name, for metrics.
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
    /// The event in `record`. Ignores unknown fields and headers.
    pub fn decode(record: RecordRef<'_>) -> Result<Self, Unintelligible> {
        let value = record.value.ok_or(Unintelligible::NoValue)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(Unintelligible::TooLarge(value.len()));
        }
        let text = std::str::from_utf8(value).map_err(|_| Unintelligible::NotUtf8)?;
        if let Some((event, id)) = decode_canonical(text) {
            let version = match is_first_version(&event) && record.key == Some(id.as_bytes()) {
                true => Some(1),
                false => version(record)?,
            };
            return Ok(AccountEvent { version, ..event });
        }
        // serde would accept an array of three texts.
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

/// Decodes a value that has exactly the form that [`Envelope`](crate::Envelope) writes, in a fifth of the time of the JSON parser: a
/// replay decodes millions. Returns the event without its version, and the account id's text. `None` for any other form.
fn decode_canonical(value: &str) -> Option<(AccountEvent, &str)> {
    let (event_type, rest) = value.strip_prefix(r#"{"type":""#)?.split_once('"')?;
    let (id, rest) = rest.strip_prefix(r#","account_id":""#)?.split_once('"')?;
    let status = rest.strip_prefix(r#","status":""#)?.strip_suffix(r#""}"#)?;
    let event = AccountEvent {
        event_type: EventType::parse(event_type)?,
        account_id: id.parse().ok()?,
        status: AccountStatus::parse(status)?,
        version: None,
    };
    Some((event, id))
}

/// Whether the event, if its key is the account id too, is version 1 ([`EventType::of_version`]). Then its headers are not read:
/// parsing them would take more than half of the time of a replay.
///
/// A creation without headers becomes version 1 as well, which changes nothing: events without a version take effect in the order of
/// arrival, before and after version 1.
fn is_first_version(event: &AccountEvent) -> bool {
    (event.event_type, event.status) == (EventType::Created, AccountStatus::Active)
}

/// The version in `ce_sequence`; `None` if there is no such header.
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
        AccountEvent::decode(RecordRef { partition: 0, offset: 0, key, value, headers: Headers::Encoded(&[]) })
    }

    /// The version of a record with this key and `ce_sequence`.
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
    fn any_other_record_has_the_version_of_its_headers() {
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
    fn the_fast_path_agrees_with_the_parser() {
        let id = ID;
        let upper_case = id.to_uppercase();
        let mut canonical = 0;
        for event_type in ["account.created", "account.status_changed", "account.closed", r"account\u002ecreated", ""] {
            for id in [id, &upper_case, "550e8400", "550e8400-e29b-41d4-a716-44665544000é", ""] {
                for status in ["ACTIVE", "BLOCKED", "DELETED", "active", r#"ACTIVE","more":"fields"#, ""] {
                    let value = format!(r#"{{"type":"{event_type}","account_id":"{id}","status":"{status}"}}"#);
                    canonical += usize::from(decode_canonical(&value).is_some());
                    // The leading space excludes the fast path.
                    assert_eq!(decoded(&value), decoded(&format!(" {value}")), "{value}");
                }
            }
        }
        // Two types, an id in both cases, three statuses.
        assert_eq!(canonical, 12);
    }
}

#[cfg(test)]
mod fuzz;
