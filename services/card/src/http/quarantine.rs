//! `GET /quarantine?limit=&after=`: a page of the records that could not be decoded, by partition and offset.
//! `DELETE /quarantine?partition=&offset=` removes one.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_server::{ApiError, Content, Idempotency, Operation, QueryParams, parse_limit, with_replay_header};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use utoipa::IntoParams;

use crate::accounts::quarantine::{MAX_STORED_BYTES, Place, StoredRecord};
use crate::error::CardError;
use crate::http::response::{CardService, STORE_READ, STORE_WRITE};

const MESSAGE: &str = "Record acknowledged";

/// The group of the operations in the OpenAPI document.
const TAG: &str = "Quarantine";

#[derive(Deserialize, IntoParams)]
pub(crate) struct PlaceQuery {
    /// The partition of the record.
    #[param(value_type = u32, example = 0)]
    partition: Option<String>,
    /// The offset of the record.
    #[param(value_type = u64, example = 17)]
    offset: Option<String>,
}

/// The place of a record stands in `after`.
#[derive(Deserialize, IntoParams)]
pub(crate) struct QuarantineQuery {
    /// The size of the page.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// The `next` of the page before.
    #[param(value_type = String, required = false, example = "0:17")]
    after: Option<String>,
}

/// A page. `dropped` is the number of records that found no room since the start of this instance.
#[derive(Serialize)]
pub(crate) struct Quarantined {
    records: Vec<StoredRecord>,
    total: u64,
    dropped: u64,
    next: Option<String>,
}

impl Serialize for StoredRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let StoredRecord { place: (partition, offset), timestamp, reason, detail, key, value } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("partition", partition)?;
        map.serialize_entry("offset", offset)?;
        map.serialize_entry("timestamp", timestamp)?;
        map.serialize_entry("reason", reason)?;
        map.serialize_entry("detail", detail)?;
        for (name, base64_name, bytes) in [("key", "key_base64", key), ("value", "value_base64", value)] {
            match bytes.as_deref().map(|bytes| text(bytes).ok_or(bytes)) {
                Some(Err(bytes)) => map.serialize_entry(base64_name, &STANDARD.encode(bytes))?,
                text => map.serialize_entry(name, &text.and_then(Result::ok))?,
            }
        }
        map.end()
    }
}

/// `bytes` as text, if they are UTF-8. A character that the limit cuts in two is left out.
fn text(bytes: &[u8]) -> Option<&str> {
    match str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if bytes.len() == MAX_STORED_BYTES && error.error_len().is_none() => {
            str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

pub(crate) async fn list_quarantined(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<QuarantineQuery>,
) -> Result<Json<Quarantined>, ApiError> {
    let limit = parse_limit(query.limit.as_deref())?;
    let after = query.after.map(|after| parse_place(&after).ok_or(CardError::InvalidAfter)).transpose()?;
    let page = service.store.quarantined(limit as usize, after).await?;
    let last = page.items.last().filter(|_| page.more);
    Ok(Json(Quarantined {
        next: last.map(|StoredRecord { place: (partition, offset), .. }| format!("{partition}:{offset}")),
        total: page.total,
        dropped: service.store.dropped().get(),
        records: page.items,
    }))
}

pub(crate) async fn acknowledge(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<PlaceQuery>,
    idempotency: Idempotency,
) -> Result<Response, CardError> {
    let partition = query.partition.as_deref().and_then(number).ok_or(CardError::InvalidPlace("partition"))?;
    let offset = query.offset.as_deref().and_then(offset).ok_or(CardError::InvalidPlace("offset"))?;
    let done = service.store.acknowledge((partition, offset), idempotency.of_fields(&[])).await?;
    let message = Json(json!({ "message": MESSAGE }));
    Ok(with_replay_header(message.into_response(), done.is_replay))
}

pub(crate) fn list_quarantined_operation() -> Operation {
    let (number, text) = (json!({ "type": "integer", "minimum": 0 }), json!({ "type": "string" }));
    let nullable = json!({ "type": ["string", "null"], "description": "At most 4 KiB." });
    let properties = json!({
        "partition": number, "offset": number, "timestamp": { "type": "string", "format": "date-time" }, "reason": text,
        "detail": text, "key": nullable, "key_base64": text, "value": nullable, "value_base64": text,
    });
    let required = ["partition", "offset", "timestamp", "reason", "detail"];
    let record = json!({ "type": "object", "required": required, "properties": properties });
    let properties = json!({
        "records": { "type": "array", "items": record }, "total": number, "dropped": number,
        "next": { "type": ["string", "null"], "description": "`after` for the next page; null at the end." },
    });
    let required = ["records", "total", "dropped", "next"];
    let schema = json!({ "type": "object", "required": required, "properties": properties });
    let record = json!({
        "partition": 0, "offset": 17, "timestamp": "2026-11-30T10:30:00.123Z", "reason": "not_json",
        "detail": "the value is not JSON", "key": null, "value": "hello",
    });
    let example = json!({ "records": [record], "total": 1, "dropped": 0, "next": null });
    Operation::new("list_quarantined", TAG, "Lists the records that cannot be decoded, by partition and offset.")
        .query::<QuarantineQuery>()
        .answer(200, "A page.", Content::inline(schema, example), &[])
        .errors(&["invalid_limit", "invalid_after"])
        .errors(&STORE_READ)
}

pub(crate) fn acknowledge_operation() -> Operation {
    Operation::new("acknowledge", TAG, "Removes a record from the quarantine.")
        .idempotent()
        .query::<PlaceQuery>()
        .answer(200, "The record is removed.", Content::message(MESSAGE), &[])
        .errors(&["invalid_partition", "invalid_offset", "record_not_found"])
        .errors(&STORE_WRITE)
}

fn parse_place(text: &str) -> Option<Place> {
    let (partition, after) = text.split_once(':')?;
    Some((number(partition)?, offset(after)?))
}

/// Databases and logs store offsets as signed integers.
fn offset(text: &str) -> Option<u64> {
    number(text).filter(|offset| i64::try_from(*offset).is_ok())
}

/// A number in digits; `parse` accepts a sign.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_two_numbers() {
        assert_eq!(parse_place("2:17"), Some((2, 17)));
        for wrong in ["", "2", "2:", ":17", "-1:4", "2:+4", "4294967296:0", "0:9223372036854775808", "2:1:7"] {
            assert_eq!(parse_place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_limit_cuts_a_character() {
        let cut = ["a".repeat(MAX_STORED_BYTES - 1).as_bytes(), &"é".as_bytes()[..1]].concat();
        assert_eq!(text(&cut).map(str::len), Some(MAX_STORED_BYTES - 1));
        assert_eq!(text(&cut[1..]), None);
        assert_eq!(text(&[&[0xff], &cut[1..]].concat()), None);
    }
}
