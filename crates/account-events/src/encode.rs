//! From an event to the record that tells of it.

use event_log::{HeaderList, Record};
use serde::Serialize;

use crate::{AccountEvent, AccountId, AccountStatus, Version};

/// `ce_source`: who says so.
const SOURCE: &str = "/account-service";

/// Room for the headers of an event, so that they grow at most once.
const HEADERS_BYTES: usize = 384;

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

/// The value, its fields in the seed's order.
#[derive(Serialize)]
struct Value {
    r#type: &'static str,
    account_id: AccountId,
    status: AccountStatus,
}

impl Envelope<'_> {
    /// The record: keyed by the account, so that one account's events stay in order in one partition and compaction
    /// keeps its last one. `ce_id` is made of account and version, so a record published twice has the same.
    pub fn encode(&self) -> Record {
        let AccountEvent { event_type, account_id, status, .. } = self.event;
        let id = account_id.to_string();
        let value = serde_json::to_vec(&Value { r#type: event_type.as_str(), account_id, status });
        let (kind, version) = (event_type.as_str(), self.version.to_string());
        let mut headers = HeaderList::with_capacity(HEADERS_BYTES);
        let mut header = |name: &str, value: &str| headers.push(name, value.as_bytes());
        header("ce_specversion", "1.0");
        header("ce_id", &format!("{id}:{version}"));
        header("ce_source", SOURCE);
        header("ce_type", kind);
        header("ce_time", self.time);
        header("ce_subject", &id);
        header("ce_sequence", &version);
        header("traceparent", self.traceparent);
        Record {
            // Three plain strings: there is nothing in them that JSON cannot write.
            value: value.ok(),
            headers,
            key: Some(id.into_bytes()),
        }
    }
}
