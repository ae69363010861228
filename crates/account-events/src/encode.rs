//! Encoding an event as a record.

use event_log::Record;
use uuid::Uuid;

use crate::{AccountEvent, Version};

/// The header `ce_source`.
const SOURCE: &str = "/account-service";

/// An event with the contents of its headers.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The event.
    pub event: AccountEvent,
    /// The account's version after the event, for `ce_sequence`.
    pub version: Version,
    /// When the event was committed, RFC 3339 in UTC, for `ce_time`. The record's own timestamp is the time of publishing.
    pub time: &'a str,
    /// The W3C trace context of the request, for `traceparent`.
    pub traceparent: &'a str,
}

impl Envelope<'_> {
    /// The record. Its key is the account id: the events of an account stay in order in one partition, and compaction keeps the last
    /// one. `ce_id` is account id and version, so both copies of a record that is published twice have the same `ce_id`.
    pub fn encode(&self) -> Record {
        let mut record = Record::default();
        self.encode_into(&mut record);
        record
    }

    /// As [`encode`](Envelope::encode), but reuses the allocations of `record`.
    pub fn encode_into(&self, record: &mut Record) {
        let AccountEvent { event_type, account_id, status, .. } = self.event;
        let (mut buffer, event_type) = (Uuid::encode_buffer(), event_type.as_str());
        let id: &str = account_id.0.hyphenated().encode_lower(&mut buffer);
        write(&mut record.key, &[id]);
        // No value contains a character that JSON escapes.
        let status = status.as_str();
        let value = [r#"{"type":""#, event_type, r#"","account_id":""#, id, r#"","status":""#, status, r#""}"#];
        write(&mut record.value, &value);
        let event_id = format!("{id}:{}", self.version);
        record.headers.clear();
        let mut header = |name: &str, value: &str| record.headers.push(name, value.as_bytes());
        header("ce_specversion", "1.0");
        header("ce_id", &event_id);
        header("ce_source", SOURCE);
        header("ce_type", event_type);
        header("ce_time", self.time);
        header("ce_subject", id);
        header("ce_sequence", &event_id[id.len() + 1..]);
        header("traceparent", self.traceparent);
    }
}

fn write(part: &mut Option<Vec<u8>>, texts: &[&str]) {
    let part = part.get_or_insert_default();
    part.clear();
    texts.iter().for_each(|text| part.extend_from_slice(text.as_bytes()));
}
