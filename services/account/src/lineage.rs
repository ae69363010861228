//! Whose position is it? Compares the account database with the owner record in the event log (docs/decisions/0017).
//!
//! A position in the log means something only to the database whose events it counts. A restored database, a copied data directory or a
//! wrong topic would otherwise skip events, or publish old versions after new ones. So the relay compares the two sides before it opens
//! a publisher and again after it has fenced the others.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use account_events::{LastEvent, Owner, Version};
use event_log::Committed;
use parking_lot::RwLock;
use uuid::Uuid;

use crate::error::AccountError;

/// Sequences that are left out above the highest one in the owner record, which lags by the creations of about a second.
pub(crate) const SEQUENCE_MARGIN: u64 = 1_000_000;

/// Asks the log for the owner of the topic, if it has one. Called for an empty database only.
pub(crate) type Predecessor<'a> = dyn Fn() -> Option<Inheritance> + Sync + 'a;

/// What an empty database takes over with the topic: the identity, so that the log knows it, and where sequences go on.
#[derive(Debug, Clone)]
pub(crate) struct Inheritance {
    pub(crate) owner: Owner,
    pub(crate) number_key: [u8; 16],
    /// The outbox sequence of the last event in the log.
    pub(crate) position: u64,
    /// New accounts get greater sequences.
    pub(crate) account_sequence_floor: u64,
}

impl Inheritance {
    /// Reads what publishers have committed. `None` if that names no owner.
    pub(crate) fn of(committed: &Committed) -> Option<Inheritance> {
        let owner = Owner::from_note(&committed.note)?;
        Some(Inheritance {
            number_key: u128::from_str_radix(&owner.number_key, 16).ok()?.to_be_bytes(),
            position: committed.position,
            account_sequence_floor: owner.account_sequence_high + SEQUENCE_MARGIN,
            owner,
        })
    }
}

/// What the account database knows of its own events.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    pub(crate) database_id: String,
    pub(crate) number_key: String,
    /// Whether the owner's session is one of this database's.
    pub(crate) knows_session: bool,
    pub(crate) has_accounts: bool,
    /// The highest position that the log may have: the last event at the start; once the log confirms a session, the last event.
    pub(crate) anchor: u64,
    /// The last event that left the outbox, because the log had it.
    pub(crate) removed: u64,
    /// The event in the outbox whose sequence is the log's position.
    pub(crate) event_at_position: Option<LastEvent>,
    /// If the event at the log's position has left the outbox: the version of the latest event of the account that the log's last event
    /// names. `None` if the account has no row, as an account that `tandem recover` blocked.
    pub(crate) row_version: Option<Version>,
    /// How the instances noticed that the database was replaced by an older copy.
    pub(crate) set_back: Option<String>,
}

/// The relation of the database to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The log has what left the outbox, and nothing that this database does not know.
    Current,
    /// The log lacks events that left the outbox.
    LogLacksEvents,
    /// The log has events that this database does not know.
    Superseded(Reason),
}

/// Why the database is superseded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Another database owns the topic.
    Foreign { owner: String },
    /// The topic has an owner, and this database has no accounts. Only a start can take the topic over.
    Empty { owner: String },
    /// Another copy of this database has published.
    Copy,
    /// The log is ahead of this database.
    Restored { position: u64, anchor: u64 },
    /// The log has another event at its position: the database lost events, and numbered new ones like those.
    Diverged { position: u64 },
    /// The database was replaced under running instances.
    SetBack { notice: String },
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Foreign { owner } => write!(
                f,
                "the topic belongs to the account database {owner}: check KAFKA_TOPIC and the database URL; one topic has one account \
                 database"
            ),
            Reason::Empty { owner } => write!(
                f,
                "the topic belongs to the account database {owner}, and this one is empty: a restart takes the topic over"
            ),
            Reason::Copy => f.write_str(
                "another copy of this account database has published to the event log: stop one of them, and run tandem recover",
            ),
            Reason::Restored { position, anchor } => write!(
                f,
                "the event log is ahead of this account database (event {position} after {anchor}), which is an older copy: run tandem \
                 recover"
            ),
            Reason::Diverged { position } => write!(
                f,
                "event {position} of the event log is not event {position} of this account database, which has lost events: run tandem \
                 recover"
            ),
            Reason::SetBack { notice } => write!(f, "{notice}: run tandem recover"),
        }
    }
}

impl Lineage {
    /// Compares this database with what the log says: the owner, and the position of the last event.
    pub(crate) fn compare(&self, owner: Option<&Owner>, position: Option<u64>) -> Standing {
        if let Some(notice) = &self.set_back {
            return Standing::Superseded(Reason::SetBack { notice: notice.clone() });
        }
        let position = position.unwrap_or(0);
        if let Some(owner) = owner {
            let id = || owner.database_id.clone();
            if owner.database_id != self.database_id {
                let reason =
                    if self.has_accounts { Reason::Foreign { owner: id() } } else { Reason::Empty { owner: id() } };
                return Standing::Superseded(reason);
            }
            let has_last_event = self.has_last_event(owner, position);
            // The anchor is 0 while a recovery is not complete.
            let is_vouched_for = has_last_event == Some(true) && self.anchor > 0;
            if position > self.anchor && !is_vouched_for {
                return Standing::Superseded(Reason::Restored { position, anchor: self.anchor });
            }
            if !self.knows_session {
                return Standing::Superseded(Reason::Copy);
            }
            if has_last_event == Some(false) {
                return Standing::Superseded(Reason::Diverged { position });
            }
        }
        if position < self.removed { Standing::LogLacksEvents } else { Standing::Current }
    }

    /// Whether this database has the last event of the log. `None` if the owner record does not name the event, or the database cannot
    /// tell.
    pub(crate) fn has_last_event(&self, owner: &Owner, position: u64) -> Option<bool> {
        let last = owner.last_event?;
        let Some(event) = self.event_at_position else {
            let has_row = self.row_version? >= last.version;
            // A recovery vouches for its position, also if the log had lost the records of the account.
            return (has_row || position != self.anchor).then_some(has_row);
        };
        Some(event == last)
    }
}

/// Why the database takes no writes, if so. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct SupersededState(Arc<RwLock<Option<Arc<str>>>>);

impl SupersededState {
    pub(crate) fn new(reason: Option<String>) -> Self {
        SupersededState(Arc::new(RwLock::new(reason.map(Arc::from))))
    }

    /// Sets the reason, or that there is none. Returns whether that is a change.
    pub(crate) fn set(&self, reason: Option<&str>) -> bool {
        let mut current = self.0.write();
        let changes = current.as_deref() != reason;
        if changes {
            *current = reason.map(Arc::from);
        }
        changes
    }

    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.0.read().clone()
    }

    /// Fails if the database takes no writes.
    pub(crate) fn check(&self) -> Result<(), AccountError> {
        if self.0.read().is_some() { Err(AccountError::Superseded) } else { Ok(()) }
    }
}

/// The id of a new session, or of a log without an owner.
pub(crate) fn random_id() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use account_events::AccountId;

    use super::*;

    /// A database that published event 90 and has 100 events.
    fn database() -> Lineage {
        Lineage {
            database_id: "a".to_owned(),
            number_key: String::new(),
            knows_session: true,
            has_accounts: true,
            anchor: 100,
            removed: 90,
            event_at_position: None,
            row_version: None,
            set_back: None,
        }
    }

    fn event(version: Version, occurred_at: i64) -> Option<LastEvent> {
        Some(LastEvent { account_id: AccountId(Uuid::from_u128(7)), version, occurred_at })
    }

    fn owner(database_id: &str) -> Owner {
        Owner {
            database_id: database_id.to_owned(),
            session: "s".to_owned(),
            account_sequence_high: 7,
            number_key: String::new(),
            log_id: String::new(),
            is_resync_open: false,
            last_event: None,
        }
    }

    #[test]
    fn each_row_of_the_table_has_its_standing() {
        let ours = owner("a");
        let compare = |database: Lineage, owner, position| database.compare(owner, position);
        assert_eq!(compare(database(), Some(&ours), Some(90)), Standing::Current);
        assert_eq!(compare(database(), Some(&ours), Some(100)), Standing::Current);
        assert_eq!(compare(database(), Some(&ours), Some(89)), Standing::LogLacksEvents);
        assert_eq!(compare(database(), None, None), Standing::LogLacksEvents);
        assert_eq!(compare(Lineage { removed: 0, ..database() }, None, None), Standing::Current);
        let superseded = |standing| match standing {
            Standing::Superseded(reason) => reason,
            other => panic!("{other:?}"),
        };
        let ahead = superseded(compare(database(), Some(&ours), Some(101)));
        assert_eq!(ahead, Reason::Restored { position: 101, anchor: 100 });
        let copy = Lineage { knows_session: false, ..database() };
        assert_eq!(superseded(compare(copy, Some(&ours), Some(90))), Reason::Copy);
        let other = owner("b");
        let foreign = superseded(compare(database(), Some(&other), Some(5)));
        assert_eq!(foreign, Reason::Foreign { owner: "b".to_owned() });
        let empty = Lineage { has_accounts: false, ..database() };
        assert_eq!(superseded(compare(empty, Some(&other), Some(5))), Reason::Empty { owner: "b".to_owned() });
        let set_back = Lineage { set_back: Some("it went back".to_owned()), ..database() };
        assert!(superseded(compare(set_back, Some(&ours), Some(90))).to_string().starts_with("it went back"));
    }

    #[test]
    fn the_last_event_decides_where_both_sides_name_it() {
        let ahead = |position| Standing::Superseded(Reason::Restored { position, anchor: 100 });
        let diverged = |position| Standing::Superseded(Reason::Diverged { position });
        for (position, named, in_outbox, row_version, expected) in [
            // In the outbox: the same event, another version, and the same version at another time.
            (95, event(3, 1), event(3, 1), None, Standing::Current),
            (95, event(3, 1), event(2, 1), None, diverged(95)),
            (95, event(3, 1), event(3, 2), None, diverged(95)),
            // A publisher that was paused went on after the anchor was set.
            (105, event(3, 1), event(3, 1), None, Standing::Current),
            (105, event(3, 1), None, Some(3), Standing::Current),
            (105, event(3, 1), event(3, 2), None, ahead(105)),
            // It has left the outbox, and the account may have changed since.
            (90, event(3, 1), None, Some(3), Standing::Current),
            (90, event(3, 1), None, Some(4), Standing::Current),
            (90, event(3, 1), None, Some(2), diverged(90)),
            (80, event(3, 1), None, Some(3), Standing::LogLacksEvents),
            // After a recovery.
            (100, event(3, 1), None, Some(2), Standing::Current),
            // One side does not say: the numbers decide.
            (95, event(3, 1), None, None, Standing::Current),
            (95, None, event(3, 1), Some(3), Standing::Current),
            (101, event(3, 1), None, None, ahead(101)),
            (101, None, event(3, 1), None, ahead(101)),
        ] {
            let database = Lineage { event_at_position: in_outbox, row_version, ..database() };
            let named = Owner { last_event: named, ..owner("a") };
            let case = format!("{position} {named:?} {in_outbox:?} {row_version:?}");
            assert_eq!(database.compare(Some(&named), Some(position)), expected, "{case}");
        }
        let (named, other_session) = (Owner { last_event: event(3, 1), ..owner("a") }, false);
        let copy = Lineage { event_at_position: event(3, 2), knows_session: other_session, ..database() };
        assert_eq!(copy.compare(Some(&named), Some(95)), Standing::Superseded(Reason::Copy));
        let recovering = Lineage { anchor: 0, row_version: Some(3), ..database() };
        let unfinished = Standing::Superseded(Reason::Restored { position: 90, anchor: 0 });
        assert_eq!(recovering.compare(Some(&named), Some(90)), unfinished);
    }
}
