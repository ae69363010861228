//! From an event to the record that tells of it.

use std::io::Write;

use event_log::Record;
use uuid::Uuid;

use crate::{AccountEvent, Version};

/// `ce_source`: who says so.
const SOURCE: &str = "/account-service";

/// How long a `ce_id` can be: an account's id, a colon, and a version.
const MAX_EVENT_ID_BYTES: usize = 36 + 1 + 10;

/// An event with what its headers say beside it.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// What happened.
    pub event: AccountEvent,
    /// The account's version from then on, for `ce_sequence`.
    pub version: Version,
    /// When it was committed, RFC 3339 in UTC, for `ce_time`. The record's own timestamp is that of its publishing.
    pub time: &'a str,
    /// The W3C trace context of the request that did it.
    pub traceparent: &'a str,
}

impl Envelope<'_> {
    /// The record: keyed by the account, so that one account's events stay in order in one partition and compaction
    /// keeps its last one. `ce_id` is made of account and version, so a record published twice has the same.
    pub fn encode(&self) -> Record {
        let mut record = Record::default();
        self.encode_into(&mut record);
        record
    }

    /// Makes `record` that record, in the memory that it has. Whether it is the first of its key is for the caller to say.
    pub fn encode_into(&self, record: &mut Record) {
        let AccountEvent { event_type, account_id, status, .. } = self.event;
        let (mut buffer, kind) = (Uuid::encode_buffer(), event_type.as_str());
        let id: &str = account_id.0.hyphenated().encode_lower(&mut buffer);
        write(&mut record.key, &[id]);
        // The seed's fields in its order. There is nothing in them that JSON would escape.
        let fields = [r#"{"type":""#, kind, r#"","account_id":""#, id, r#"","status":""#, status.as_str(), r#""}"#];
        write(&mut record.value, &fields);
        let mut buffer = [0; MAX_EVENT_ID_BYTES];
        let mut room = buffer.as_mut_slice();
        // Writing to memory fails only where there is too little of it.
        let _ = write!(room, "{id}:{}", self.version);
        let left = room.len();
        let event_id = str::from_utf8(&buffer[..MAX_EVENT_ID_BYTES - left]).unwrap_or_default(); // always ASCII
        let version = &event_id[id.len() + 1..];
        record.is_first_of_key = false;
        record.headers.clear();
        let mut header = |name: &str, value: &str| record.headers.push(name, value.as_bytes());
        header("ce_specversion", "1.0");
        header("ce_id", event_id);
        header("ce_source", SOURCE);
        header("ce_type", kind);
        header("ce_time", self.time);
        header("ce_subject", id);
        header("ce_sequence", version);
        header("traceparent", self.traceparent);
    }
}

fn write(part: &mut Option<Vec<u8>>, texts: &[&str]) {
    let part = part.get_or_insert_default();
    part.clear();
    texts.iter().for_each(|text| part.extend_from_slice(text.as_bytes()));
}
