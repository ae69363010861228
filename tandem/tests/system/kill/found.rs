//! What is found in the databases and in the event log, compared with what was acknowledged and with each other.

use std::collections::BTreeMap;

use account_events::{AccountId, AccountStatus, Version};

use super::acknowledged::{Account, Unanswered, Writer};
use crate::events::{Seen, last_versions, view_of};
use crate::place::Place;
use crate::tables::Tables;

/// What a process that is not running has left.
pub(super) struct Found {
    tables: Tables,
    events: Vec<Seen>,
}

impl Found {
    pub(super) fn read(place: &Place) -> Self {
        let databases = place.databases();
        assert_eq!((databases.outbox_events(), databases.live_cards_of_deleted()), (0, 0), "after the end too");
        let with_another_history = (databases.accounts_with_another_history(), databases.cards_with_another_history());
        assert_eq!(with_another_history, (0, 0), "each change has one entry");
        Found { tables: databases.tables(), events: place.events() }
    }

    /// Panics at the first thing that is not as it must be. What was not answered is taken as it turned out.
    pub(super) fn check(&self, writers: &mut [Writer], round: usize) {
        // None is there twice, or reading would have failed; and compaction has not had enough to do yet.
        let mut counts = BTreeMap::new();
        self.events.iter().for_each(|seen| *counts.entry(seen.event.account_id).or_default() += 1);
        let last = last_versions(&self.events).into_iter();
        let told = last.map(|(id, version)| (id, (version, counts[&id]))).collect();
        let mut strangers = self.tables.accounts.clone();
        for writer in &mut *writers {
            self.check_accounts(writer, &told);
            self.check_cards(writer);
            strangers.retain(|id, _| !writer.accounts.contains_key(id));
        }
        let unanswered = |writer: &&Writer| matches!(writer.unanswered, Some(Unanswered::CreateAccount));
        let creations = writers.iter().filter(unanswered).count();
        assert!(strangers.len() <= creations, "round {round}: {strangers:?} were never acknowledged");
        for (id, (status, version)) in strangers {
            assert_eq!((status, version), (AccountStatus::Active, 1), "round {round}: {id} was never changed");
            // Created without an answer, it belongs to nobody, and to the first writer from now on.
            writers[0].accounts.insert(id, Account::created());
        }
        self.check_view();
        writers.iter_mut().for_each(Writer::settle);
    }

    fn check_accounts(&self, writer: &mut Writer, told: &BTreeMap<AccountId, (Version, usize)>) {
        for (id, account) in &mut writer.accounts {
            let found =
                *self.tables.accounts.get(id).unwrap_or_else(|| panic!("account {id} was acknowledged and is lost"));
            if let Some(Unanswered::ChangeAccount(changed, after)) = writer.unanswered
                && changed == *id
                && found == (after.status, after.version)
            {
                *account = after;
            }
            assert_eq!(found, (account.status, account.version), "account {id}");
            let expected = (account.told, account.events);
            assert_eq!(told.get(id), Some(&expected), "the last event of account {id}, and how many there are");
        }
    }

    fn check_cards(&self, writer: &mut Writer) {
        for (id, card) in &mut writer.cards {
            let (account, deleted) =
                *self.tables.cards.get(id).unwrap_or_else(|| panic!("card {id} was acknowledged and is lost"));
            assert_eq!(account, card.account, "card {id}");
            let unanswered = matches!(writer.unanswered, Some(Unanswered::DeleteCard(asked)) if asked == *id);
            let closed = self.tables.accounts[&account].0 == AccountStatus::Deleted;
            assert!(deleted == (card.deleted || closed) || (deleted && unanswered), "card {id}: {deleted}, {card:?}");
            card.deleted = deleted;
        }
    }

    /// The view is the account table.
    fn check_view(&self) {
        let view = view_of(&self.events);
        assert_eq!(view.len(), self.tables.accounts.len() as u64, "the view and the table have the same accounts");
        for (id, (status, version)) in &self.tables.accounts {
            let state = view.get(*id).unwrap_or_else(|| panic!("account {id} is not in the view"));
            assert_eq!(state.status, *status, "account {id}");
            assert!(state.version.is_some_and(|told| told <= *version), "account {id}: {state:?}, version {version}");
        }
    }
}
