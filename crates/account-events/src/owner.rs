//! The owner record: which account database publishes to the topic (docs/decisions/0017).

use serde::{Deserialize, Serialize};

use crate::{AccountId, Version};

/// The name under which account services publish. There is one for a topic, whatever the database, so that every database finds the
/// record of the one before.
pub const PUBLISHER: &str = "account-service";

/// What the publisher stores in the event log, atomically with its records and its position, which is the outbox sequence of the last
/// event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the account database.
    pub database_id: String,
    /// The session in which the database publishes: a random id for each opening of a publisher.
    pub session: String,
    /// About the highest sequence of an account in the database.
    pub account_sequence_high: u64,
    /// The key of the account numbers, in hexadecimal digits. Whoever takes over needs the key to issue no number twice.
    pub number_key: String,
    /// A random id of the log, new when the log was found empty or lacked events. A reader whose log got another id reads from the
    /// start: its positions are not of this log.
    pub log_id: String,
    /// Whether the log may lack accounts, because the state of every account is being published again.
    pub is_resync_open: bool,
    /// The last event that the position counts. `None` in a record of an earlier version, and where a resync has moved the position past
    /// events that had left the outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<LastEvent>,
}

/// Identifies an event of an account database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// The account.
    pub account_id: AccountId,
    /// The account's version after the event.
    pub version: Version,
    /// When the event was committed, in microseconds since 1970-01-01 UTC. Two copies of a database may bring an account to the same
    /// version.
    pub occurred_at: i64,
}

impl Owner {
    /// Reads a publisher's note. `None` if the note is no owner record.
    pub fn from_note(note: &str) -> Option<Owner> {
        serde_json::from_str(note).ok()
    }

    /// The record as a publisher's note.
    pub fn to_note(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // text and numbers always serialise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_version_names_no_event() {
        let earlier = r#"{"database_id":"a","session":"s","account_sequence_high":7,"number_key":"0f","log_id":"l","is_resync_open":false}"#;
        let owner = Owner::from_note(earlier).unwrap();
        assert_eq!((owner.last_event, owner.to_note().as_str()), (None, earlier));
        let account_id = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let last_event = Some(LastEvent { account_id, version: 3, occurred_at: 1_764_066_600_000_000 });
        let owner = Owner { last_event, ..owner };
        assert_eq!(Owner::from_note(&owner.to_note()), Some(owner));
    }
}
