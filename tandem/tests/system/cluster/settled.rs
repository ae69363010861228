//! What is true once all has settled: nothing acknowledged is lost, the topic tells every version once and in order, and
//! every view answers by the account table.

use std::collections::BTreeMap;

use account_events::AccountStatus;
use test_harness::{Http, wait_until, with_postgres};

use super::{Cluster, Instance, Writer};
use crate::events::{Seen, last_versions};
use crate::kafka::{Isolation, read_topic};
use crate::random::Random;
use crate::requests::{create_card, error};
use crate::tables::{Databases, Tables};

/// Accounts that each card instance is asked about at the end.
const SAMPLES: usize = 40;

pub(crate) fn count(database: &str, sql: &str) -> i64 {
    with_postgres(database, async |client| Ok(client.query_one(sql, &[]).await?.get(0)))
}

/// Waits until all has been published, read and closed.
pub(crate) fn settle(cluster: &Cluster) {
    let rows = cluster.databases();
    cluster.there().for_each(Instance::wait_until_ready);
    wait_until("the outbox is empty", || (rows.outbox_events() == 0).then_some(()));
    let accounts = count(&cluster.database, "SELECT count(*) FROM account.accounts");
    for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
        wait_until("the view has every account", || {
            (instance.readyz()["view"]["accounts"].as_i64() == Some(accounts)).then_some(())
        });
    }
    wait_until("no deleted account has a live card", || (rows.live_cards_of_deleted() == 0).then_some(()));
}

impl Cluster {
    /// Where the rows are.
    fn databases(&self) -> Databases {
        Databases::Postgres(self.database.clone())
    }

    /// What the database holds.
    pub(crate) fn tables(&self) -> Tables {
        self.databases().tables()
    }

    /// The topic, each partition in order.
    pub(crate) fn read_topic(&self, isolation: Isolation) -> Vec<Seen> {
        read_topic(&self.brokers, &self.topic, isolation)
    }
}

impl Tables {
    /// Everything acknowledged is there, and nothing else but what may have been done without an answer.
    pub(crate) fn check(&self, writers: &[Writer]) {
        let mut strangers = self.accounts.clone();
        for account in writers.iter().flat_map(|writer| &writer.accounts) {
            let found = strangers.remove(&account.id);
            let found = found.unwrap_or_else(|| panic!("{account:?} was acknowledged and is lost"));
            let perhaps = account.perhaps.map(|status| (status, account.version + 1));
            assert!(found == (account.status, account.version) || Some(found) == perhaps, "{account:?}: {found:?}");
        }
        let unknown: usize = writers.iter().map(|writer| writer.unknown_accounts).sum();
        assert!(strangers.len() <= unknown, "{unknown} creations were not answered: {strangers:?}");
        assert!(strangers.values().all(|found| *found == (AccountStatus::Active, 1)), "{strangers:?}");
        for card in writers.iter().flat_map(|writer| &writer.cards) {
            let found = self.cards.get(&card.id).unwrap_or_else(|| panic!("{card:?} was acknowledged and is lost"));
            let closed = self.accounts[&card.account].0 == AccountStatus::Deleted;
            let may_be = card.deleted || card.perhaps_deleted || closed;
            let must_be = card.deleted || closed;
            assert!(found.0 == card.account && (found.1 || !must_be) && (!found.1 || may_be), "{card:?}: {found:?}");
        }
    }

    /// The topic tells of every version of every account, in order, and nothing twice.
    pub(crate) fn check_topic(&self, events: &[Seen]) {
        assert_eq!(last_versions(events).len(), self.accounts.len(), "every account has its events");
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for Seen { event, .. } in events {
            told.entry(event.account_id).or_default().push((event.version.expect("checked above"), event.status));
        }
        for (id, (status, version)) in &self.accounts {
            let versions: Vec<_> = told[id].iter().map(|(version, _)| *version).collect();
            assert_eq!(versions, (1..=*version).collect::<Vec<_>>(), "{id}");
            assert_eq!(told[id].last(), Some(&(*version, *status)), "{id}");
        }
    }

    /// Each instance answers by each account's status.
    pub(crate) fn check_views(&self, cluster: &Cluster, random: &mut Random) {
        let accounts: Vec<_> = self.accounts.iter().collect();
        for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
            let view = &instance.readyz()["view"];
            assert_eq!(
                (view["accounts"].as_u64(), view["quarantined"].as_u64()),
                (Some(accounts.len() as u64), Some(0))
            );
            // Connections that rested for long are closed.
            let http = Http::new(instance.http().expect("it is there").address());
            for _ in 0..SAMPLES {
                let (id, (status, _)) = random.pick(&accounts).expect("there are accounts");
                let expected = match status {
                    AccountStatus::Active => (201, ""),
                    AccountStatus::Blocked => (403, "cannot create card for inactive account"),
                    AccountStatus::Deleted => (403, "cannot create card for deleted account"),
                };
                let answer = create_card(&http, **id);
                assert_eq!((answer.status, error(&answer)), expected, "{id}");
            }
        }
    }
}
