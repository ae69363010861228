//! `--repair`: which accounts are published again, and how, so that the log and every view agree with the table.

use std::collections::BTreeMap;

use account_events::digest::{MAX_REPUBLISHED, Republication, Republications};
use account_events::{AccountId, AccountStatus, MAX_VERSION};
use serde::Deserialize;

use super::compare::States;
use crate::client::Service;

/// The answer of `POST /admin/republish`.
#[derive(Deserialize)]
struct Republished {
    republished: usize,
}

impl States {
    /// Whether a view has the account as DELETED, and neither the table nor the log has. No event changes that in the view.
    pub(super) fn is_deleted_in_view_alone(&self) -> bool {
        let is_deleted =
            |state: Option<_>| state.is_some_and(|state: super::EventState| state.status == AccountStatus::Deleted);
        !is_deleted(self.row) && !is_deleted(self.log) && self.views.iter().any(|view| is_deleted(*view))
    }

    /// How to publish the account; `None` if publishing does not help: the row is lost, only a deleted state in a view differs, or
    /// versions are used up.
    fn republication(&self, id: AccountId) -> Option<Republication> {
        let row = self.row?;
        let is_deleted = |status| status == AccountStatus::Deleted;
        // In every view that reads the log the account is deleted for ever.
        let delete = self.log.is_some_and(|log| is_deleted(log.status)) && !is_deleted(row.status);
        let views =
            self.views.iter().flatten().filter(|view| delete || is_deleted(row.status) || !is_deleted(view.status));
        let highest = views.chain(&self.log).max().copied();
        let is_helpful = self.log != self.row || highest != self.row || self.views.contains(&None);
        let above = highest.filter(|highest| *highest > row).map(|highest| highest.version);
        let is_possible = above.is_none_or(|above| above < MAX_VERSION);
        (is_helpful && is_possible).then_some(Republication { id, above, delete })
    }
}

/// Publishes the accounts again, and returns how many.
pub(super) fn repair(accounts: &Service, differing: &BTreeMap<AccountId, States>) -> anyhow::Result<usize> {
    let wanted: Vec<_> = differing.iter().filter_map(|(id, states)| states.republication(*id)).collect();
    let mut count = 0;
    for accounts_of_request in wanted.chunks(MAX_REPUBLISHED) {
        let body = Republications { accounts: accounts_of_request.to_vec() };
        count += accounts.post::<Republished>("/admin/republish", &body)?.republished;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use account_events::AccountStatus::{Active, Blocked, Deleted};
    use account_events::digest::EventState;

    use super::*;

    #[test]
    fn the_row_wins_with_its_version_if_it_can_and_with_a_higher_one_otherwise() {
        let id: AccountId = "01936f2e-7b1a-7c40-8000-0123456789ab".parse().unwrap();
        let state = |version, status| Some(EventState { version, status });
        let plain = Some((None, false));
        for (row, log, view, expected) in [
            (state(1, Active), None, state(1, Active), plain),
            (state(1, Active), state(1, Active), None, plain),
            (state(3, Active), state(2, Blocked), state(3, Active), plain),
            (state(1, Blocked), state(1, Active), state(1, Active), plain),
            (state(2, Active), state(2, Blocked), state(2, Blocked), Some((Some(2), false))),
            (state(2, Active), state(2, Active), state(9, Blocked), Some((Some(9), false))),
            (state(1, Active), state(7, Deleted), state(7, Deleted), Some((Some(7), true))),
            (state(2, Deleted), state(7, Deleted), state(7, Deleted), Some((Some(7), false))),
            // A view alone is deleted: only the log can be repaired.
            (state(1, Active), state(1, Active), state(1, Deleted), None),
            (state(2, Active), state(1, Active), state(1, Deleted), plain),
            (None, state(1, Active), state(1, Active), None),
            (state(1, Active), state(MAX_VERSION, Blocked), state(1, Active), None),
        ] {
            let states = States { row, log, views: vec![view] };
            let republication = states.republication(id).map(|found| (found.above, found.delete));
            assert_eq!(republication, expected, "{states:?}");
        }
    }
}
