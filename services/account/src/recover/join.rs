//! The join of one account: its row, and what the event log says of it. No database and no log.

use account_events::digest::EventState;
use account_events::{AccountId, AccountStatus, Version};

/// An account in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) id: AccountId,
    /// The row's version, which a change of name raises too.
    pub(crate) version: Version,
    /// The state that the latest event reports.
    pub(crate) state: EventState,
}

/// What the log has of an account, in four bytes each: the version, and the status in the two low bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry {
    winning: u32,
    last: u32,
}

/// What becomes of an account.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The row's new status, version and event version, if it changes.
    pub(super) row: Option<(AccountStatus, Version, Version)>,
    /// The state to publish, if the log lacks it.
    pub(super) event: Option<EventState>,
}

impl LogEntry {
    pub(super) fn new(state: EventState) -> Self {
        LogEntry { winning: pack(state), last: pack(state) }
    }

    /// Adds the state that a later record reports.
    pub(super) fn add(&mut self, state: EventState) {
        *self = LogEntry { winning: pack(unpack(self.winning).merged(state)), last: pack(state) };
    }

    /// The state to publish for an account whose row is lost, to block it; `None` if it gets no cards anyway.
    pub(super) fn blocked(self) -> Option<EventState> {
        let EventState { version, status } = unpack(self.winning);
        let version = version.max(unpack(self.last).version) + 1;
        (status == AccountStatus::Active).then_some(EventState { version, status: AccountStatus::Blocked })
    }
}

/// Joins a row with the log.
///
/// The state that takes precedence in a view wins. It is published if it is not the log's last record, which is the one that compaction
/// keeps. Its version is then at least every version in the log, so none goes down: DELETED wins over a higher version.
pub(super) fn join(row: &Row, log: Option<LogEntry>) -> Joined {
    let Some(log) = log else { return Joined { row: None, event: Some(row.state) } };
    let (winning, last) = (unpack(log.winning), unpack(log.last));
    let state = if winning.version == 0 && winning.status != AccountStatus::Deleted {
        // Without a version nobody can say that the log is newer.
        row.state
    } else {
        row.state.max(winning)
    };
    let is_in_log = state == last;
    let version = if is_in_log { state.version } else { state.version.max(winning.version).max(last.version) };
    let published = EventState { version, ..state };
    let changes = published != row.state;
    let has_new_status = u32::from(published.status != row.state.status);
    Joined {
        row: changes
            .then(|| (published.status, published.version.max(row.version + has_new_status), published.version)),
        event: (!is_in_log).then_some(published),
    }
}

fn pack(state: EventState) -> u32 {
    state.version << 2 | state.status as u32
}

fn unpack(packed: u32) -> EventState {
    let status = AccountStatus::ALL.get((packed & 3) as usize).copied().unwrap_or(AccountStatus::Active);
    EventState { version: packed >> 2, status }
}

#[cfg(test)]
mod tests {
    use account_events::AccountStatus::{Active, Blocked, Deleted};
    use uuid::Uuid;

    use super::*;

    fn state(version: Version, status: AccountStatus) -> EventState {
        EventState { version, status }
    }

    fn row(version: Version, state: EventState) -> Row {
        Row { id: AccountId(Uuid::from_u128(1)), version, state }
    }

    fn log(states: &[EventState]) -> Option<LogEntry> {
        let (first, rest) = states.split_first()?;
        let mut entry = LogEntry::new(*first);
        rest.iter().for_each(|state| entry.add(*state));
        Some(entry)
    }

    #[test]
    fn the_newer_side_wins_and_what_the_log_lacks_is_published() {
        let one = state(1, Active);
        let nothing = Joined { row: None, event: None };
        assert_eq!(join(&row(1, one), log(&[one])), nothing);
        // Renamed since its latest event.
        assert_eq!(join(&row(7, one), log(&[one])), nothing);
        assert_eq!(join(&row(1, one), None), Joined { row: None, event: Some(one) });
        let two = state(2, Blocked);
        assert_eq!(join(&row(2, two), log(&[one])), Joined { row: None, event: Some(two) });
        assert_eq!(join(&row(1, one), log(&[one, two])), Joined { row: Some((Blocked, 2, 2)), event: None });
        assert_eq!(join(&row(7, one), log(&[one, two])), Joined { row: Some((Blocked, 8, 2)), event: None });
        // A stale record is the last one.
        assert_eq!(join(&row(2, two), log(&[two, one])), Joined { row: None, event: Some(two) });
    }

    #[test]
    fn deleted_wins_over_every_version_and_no_version_goes_down_in_the_log() {
        let (deleted, later) = (state(2, Deleted), state(5, Active));
        let joined = Joined { row: Some((Deleted, 5, 5)), event: Some(state(5, Deleted)) };
        assert_eq!(join(&row(2, deleted), log(&[later])), joined);
        assert_eq!(join(&row(5, later), log(&[deleted])), Joined { row: Some((Deleted, 6, 2)), event: None });
    }

    #[test]
    fn an_account_without_a_row_is_blocked_only_if_it_is_active() {
        let blocked = |states: &[EventState]| log(states).unwrap().blocked();
        assert_eq!(blocked(&[state(3, Active)]), Some(state(4, Blocked)));
        assert_eq!(blocked(&[state(3, Blocked)]), None);
        assert_eq!(blocked(&[state(3, Active), state(4, Deleted)]), None);
    }

    /// Every pair of states: the join does not depend on the side, repeating it changes nothing, and it is the merge of the view.
    #[test]
    fn the_join_is_commutative_idempotent_and_the_views_merge() {
        let states: Vec<_> =
            (1..=4).flat_map(|version| AccountStatus::ALL.map(|status| state(version, status))).collect();
        for one in &states {
            for other in &states {
                let result = |table: EventState, of_log: EventState| {
                    let joined = join(&row(table.version, table), log(&[of_log]));
                    joined.row.map_or(table, |(status, _, version)| state(version, status))
                };
                let (forth, back) = (result(*one, *other), result(*other, *one));
                assert_eq!(forth.status, back.status, "{one:?} {other:?}");
                assert_eq!(forth.status, one.merged(*other).status, "{one:?} {other:?}");
                if one.status != Deleted && other.status != Deleted {
                    assert_eq!((forth, back), (one.merged(*other), one.merged(*other)));
                }
                // Run again, with what was published in the log.
                let joined = join(&row(one.version, *one), log(&[*other]));
                let after = joined.row.map_or(row(one.version, *one), |(status, version, event_version)| {
                    row(version, state(event_version, status))
                });
                let published: Vec<_> = std::iter::once(*other).chain(joined.event).collect();
                assert_eq!(join(&after, log(&published)), Joined { row: None, event: None }, "{one:?} {other:?}");
                assert!(published.is_sorted_by_key(|state| state.version), "{one:?} {other:?}: {published:?}");
            }
        }
    }
}
