//! What is true once all has settled: nothing acknowledged is lost, the topic tells every version once and in order, and
//! every view answers by the account table.

use std::collections::BTreeMap;

use account_events::{AccountId, AccountStatus, Version};
use test_harness::{wait_until, with_postgres};

use super::{Cluster, Instance, Writer};
use crate::events::{Seen, last_versions};
use crate::kafka::{Isolation, read_topic};
use crate::keep_alive::KeepAlive;
use crate::random::Random;
use crate::requests::card_of;
use crate::tables::{Databases, Tables};

/// Accounts that each card instance is asked about at the end, at most: more than most tests make.
const ASKED: usize = 3_000;

/// Connections over which each card instance is asked.
const CONNECTIONS: usize = 4;

/// How many accounts there are, and how many of each status, as `view` of `/readyz` names them.
type Counts = [(&'static str, u64); 4];

pub(crate) fn count(database: &str, sql: &str) -> i64 {
    with_postgres(database, async |client| Ok(client.query_one(sql, &[]).await?.get(0)))
}

/// Waits until all has been published, read and closed.
pub(crate) fn settle(cluster: &Cluster) {
    let rows = cluster.databases();
    cluster.there().for_each(Instance::wait_until_ready);
    wait_until("the outbox is empty", || (rows.outbox_events() == 0).then_some(()));
    let counts = counts(rows.tables().accounts.values().map(|(status, _)| *status));
    for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
        wait_until(&format!("the view has {counts:?}"), || (counted(instance) == counts).then_some(()));
    }
    wait_until("no deleted account has a live card", || (rows.live_cards_of_deleted() == 0).then_some(()));
}

fn counts(statuses: impl Iterator<Item = AccountStatus>) -> Counts {
    let mut counts = [("accounts", 0), ("active", 0), ("blocked", 0), ("deleted", 0)];
    for status in statuses {
        counts[0].1 += 1;
        counts[1 + status as usize].1 += 1;
    }
    counts
}

/// What the instance says of its view.
fn counted(instance: &Instance) -> Counts {
    let view = &instance.readyz()["view"];
    ["accounts", "active", "blocked", "deleted"].map(|name| (name, view[name].as_u64().unwrap_or(u64::MAX)))
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

/// The last record of each account in each partition.
fn last_records(events: &[Seen]) -> BTreeMap<(u32, AccountId), (Version, AccountStatus)> {
    let of = |seen: &Seen| (seen.event.version.expect("this system's events have versions"), seen.event.status);
    events.iter().map(|seen| ((seen.partition, seen.event.account_id), of(seen))).collect()
}

/// In each partition no account goes back to an earlier version (ARCHITECTURE.md A3).
pub(crate) fn check_order(events: &[Seen]) {
    let mut last = BTreeMap::new();
    for Seen { partition, event, .. } in events {
        let before = last.insert((partition, event.account_id), event.version);
        assert!(before <= Some(event.version), "{} went back from {before:?} to {event:?}", event.account_id);
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

    /// The topic has every version of every account, in order, and nothing twice.
    pub(crate) fn check_topic(&self, events: &[Seen]) {
        self.check_told(events, |_| ());
    }

    /// The topic has every version of every account, in order. While its state is published again, as by a resync, the
    /// newest version of that moment may come once more.
    pub(crate) fn check_topic_with_repeats(&self, events: &[Seen]) {
        self.check_told(events, Vec::dedup);
    }

    fn check_told(&self, events: &[Seen], clean: impl Fn(&mut Vec<(Version, AccountStatus)>)) {
        assert_eq!(last_versions(events).len(), self.accounts.len(), "every account has its events");
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for Seen { event, .. } in events {
            told.entry(event.account_id).or_default().push((event.version.expect("checked above"), event.status));
        }
        told.values_mut().for_each(clean);
        for (id, (status, version)) in &self.accounts {
            let versions: Vec<_> = told[id].iter().map(|(version, _)| *version).collect();
            assert_eq!(versions, (1..=*version).collect::<Vec<_>>(), "{id}");
            assert_eq!(told[id].last(), Some(&(*version, *status)), "{id}");
        }
    }

    /// Of all that the brokers have, the last record of each key, which compaction keeps, is the newest.
    pub(crate) fn check_compacted(&self, events: &[Seen]) {
        let kept: BTreeMap<_, _> = events
            .iter()
            .map(|seen| (seen.event.account_id, (seen.event.status, seen.event.version.expect("a version"))))
            .collect();
        assert_eq!(kept, self.accounts, "the last record of each key, which compaction keeps, is the newest");
    }

    /// As [`Tables::check_compacted`], where an account has events in several partitions, because some were added, or not
    /// all its events, because the topic was created again: the newest of the last records is the table's.
    pub(crate) fn check_newest(&self, events: &[Seen]) {
        let mut newest = BTreeMap::new();
        for (id, last) in last_records(events).into_iter().map(|((_, id), last)| (id, last)) {
            let known = newest.entry(id).or_insert(last);
            *known = last.max(*known);
        }
        let accounts = self.accounts.iter().map(|(id, (status, version))| (*id, (*version, *status))).collect();
        assert_eq!(newest, accounts, "the newest of the records that compaction keeps");
    }

    /// Each instance's view has as many accounts of each status as the table, and it answers by each account's status.
    pub(crate) fn check_views(&self, cluster: &Cluster, random: &mut Random) {
        let mut accounts: Vec<_> = self.accounts.iter().map(|(id, (status, _))| (*id, *status)).collect();
        let counts = counts(accounts.iter().map(|(_, status)| *status));
        let asked = accounts.len().min(ASKED);
        for place in 0..asked {
            accounts.swap(place, place + random.below(self.accounts.len() - place));
        }
        let each = asked.div_ceil(CONNECTIONS).max(1);
        std::thread::scope(|scope| {
            for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
                assert_eq!(counted(instance), counts, "as many accounts as in the table");
                assert_eq!(instance.readyz()["view"]["quarantined"], 0);
                let address = instance.http().expect("it is there").address();
                for share in accounts[..asked].chunks(each) {
                    scope.spawn(move || ask(KeepAlive::connect(address).expect("a connection"), share));
                }
            }
        });
    }
}

/// Asks an instance for a card of each account. That of a deleted one is refused by the database too, so only the counts
/// show what the view says of it.
fn ask(mut connection: KeepAlive, accounts: &[(AccountId, AccountStatus)]) {
    for (id, status) in accounts {
        let (expected, text) = match status {
            AccountStatus::Active => (201, ""),
            AccountStatus::Blocked => (403, "cannot create card for inactive account"),
            AccountStatus::Deleted => (403, "cannot create card for deleted account"),
        };
        let (answered, body) = connection.post("/card", &card_of(*id).to_string()).expect("an answer");
        assert!(answered == expected && body.contains(text), "{id} is {status:?}: {answered} {body}");
    }
}
