//! The topic is deleted under load: once so that the services recreate it themselves, once with an empty one put in its
//! place at once. The account service notices, and publishes the state of every account; views that are built from the new
//! topic are complete, and those that run go on in it. No request fails. And once more when nothing is published at all.

use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus};
use event_log::{DEFAULT_PARTITION_COUNT, EventLog, KafkaLog, KafkaSettings};
use test_harness::{DEADLINE, postgres_database, wait_until, with_postgres};

use crate::cluster::{Cluster, Instance, Load, Writer, any, count, settle, under_load};
use crate::events::last_versions;
use crate::kafka::Isolation;
use crate::kafka::admin::Admin;
use crate::random::{Random, seed};
use crate::requests::{create_card, error};
use crate::servers;

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(20);

/// Accounts that a fresh instance is asked about.
const SAMPLES: usize = 40;

/// Requests acknowledged between two steps.
const REQUESTS: usize = 300;

#[test]
fn a_recreated_topic_has_every_account_soon_and_all_views_follow_it() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = planned((brokers, postgres_database(&server)));
    let (running, fresh) = cluster.cards.split_at(2);
    cluster.accounts.iter().chain(running).for_each(Instance::restart);
    let mut writers: Vec<_> = (0..3).map(|_| Writer::new(random.next())).collect();
    let mut operator = Writer::new(random.next());
    under_load(&cluster, &mut writers, PACE, |load| {
        for (at_once, fresh) in [(false, &fresh[0]), (true, &fresh[1])] {
            load.wait_for(REQUESTS);
            let begun = Instant::now();
            delete_topic(&cluster, at_once);
            let deleted = begun.elapsed();
            check_followed(&cluster, &mut operator, &mut random, load);
            let (followed, before) = (begun.elapsed(), some_accounts(&cluster));
            fresh.restart();
            eprintln!(
                "{:?}: deleted in {deleted:?}, all views follow the new topic after {followed:?}, a fresh one is ready after {:?}",
                started.elapsed(),
                begun.elapsed()
            );
            check_complete(&cluster, fresh, before);
            check_settings(&cluster);
        }
    });
    writers.push(operator);
    writers.iter().for_each(Writer::check_none_failed);

    settle(&cluster);
    let begun = Instant::now();
    delete_topic(&cluster, true);
    fresh[2].restart();
    settle(&cluster);
    eprintln!("a topic recreated while nothing was published had every account after {:?}", begun.elapsed());
    settle_views(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    let versions = tables.accounts.iter().map(|(id, (_, version))| (*id, *version)).collect();
    assert_eq!(last_versions(&cluster.read_topic(Isolation::Committed)), versions, "the topic has every account");
    tables.check_views(&cluster, &mut random);
}

/// Two instances of each service, and three more of the card service that are started later.
fn planned(servers: (String, String)) -> Cluster {
    let (account, card) = (account_service::NAME, card_service::NAME);
    let binaries = |service, count| vec![test_harness::binary(service); count];
    Cluster::plan("recreated", servers, &binaries(account, 2), &binaries(card, 5))
}

fn delete_topic(cluster: &Cluster, and_make_it_at_once: bool) {
    let admin = Admin::of(&cluster.brokers, &cluster.topic);
    admin.delete_topic();
    if and_make_it_at_once {
        admin.make_topic();
    }
}

/// Accounts that are made and changed now become known to every running view.
fn check_followed(cluster: &Cluster, operator: &mut Writer, random: &mut Random, load: &Load) {
    load.wait_for(REQUESTS);
    let accounts = any(&cluster.accounts, random);
    let place = operator.create_account(&accounts.http).expect("no request fails");
    assert!(operator.change(&accounts.http, place, AccountStatus::Blocked), "no request fails");
    let id = operator.accounts[place].id;
    for http in cluster.cards.iter().filter_map(Instance::http) {
        wait_until("a running view knows what is new", || {
            (error(&create_card(&http, id)) == "cannot create card for inactive account").then_some(())
        });
    }
    assert!(operator.change(&accounts.http, place, AccountStatus::Active), "no request fails");
    let sql = format!("SELECT count(*) FROM account.outbox WHERE account_id = '{id}'");
    wait_until("it is published", || (count(&cluster.database, &sql) == 0).then_some(()));
}

fn some_accounts(cluster: &Cluster) -> Vec<AccountId> {
    let sql = format!("SELECT id FROM account.accounts ORDER BY random() LIMIT {SAMPLES}");
    let rows = with_postgres(&cluster.database, async |client| client.query(&sql, &[]).await);
    rows.iter().map(|row| AccountId(row.get(0))).collect()
}

/// An instance that is ready knows all accounts from before its start (ARCHITECTURE.md C3).
fn check_complete(cluster: &Cluster, fresh: &Instance, before: Vec<AccountId>) {
    let http = fresh.http().expect("it is there");
    for id in before {
        let answer = create_card(&http, id);
        assert!(matches!(answer.status, 201 | 403), "{} knows {id}: {}", cluster.topic, answer.raw);
    }
}

/// The topic is as the services make it, though these brokers make a topic for whoever asks for it.
fn check_settings(cluster: &Cluster) {
    let (brokers, topic) = (cluster.brokers.clone(), cluster.topic.clone());
    let log =
        KafkaLog::open(KafkaSettings { brokers, topic, extra: Vec::new() }).expect("settings that librdkafka takes");
    assert_eq!(log.topic_problems(DEADLINE), [""; 0]);
    assert_eq!(log.end_offsets(DEADLINE).expect("a topic").len(), DEFAULT_PARTITION_COUNT as usize);
}

/// Waits until no view lags.
fn settle_views(cluster: &Cluster) {
    for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
        wait_until("the view has caught up", || (instance.readyz()["view"]["lag"] == 0).then_some(()));
    }
}
