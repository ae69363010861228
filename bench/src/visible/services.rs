//! Both services in this process, and what a turn of making accounts came to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use database::DatabaseUrl;
use event_log::EventLog;
use hdrhistogram::Histogram;
use process::Clock;
use tempfile::TempDir;
use test_harness::{Http, wait_until};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::watched_log::{Seen, WatchedLog, lock};
use crate::ACCOUNT;
use crate::load::{self, Busy, Request, Schedule, Tally, micros};
use crate::machine::{processor_time, sync_rate};

/// What the services run on.
pub(crate) struct Setup {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) account_database: DatabaseUrl,
    pub(crate) card_database: DatabaseUrl,
}

/// Both services, running, with a look at the log between them.
pub(crate) struct Services {
    accounts: SocketAddr,
    seen: Arc<Seen>,
    shutdown: CancellationToken,
    serving: [JoinHandle<anyhow::Result<()>>; 2],
    runtime: Runtime,
    /// Where the card service keeps what is not in its database.
    _data_dir: TempDir,
}

/// What a turn came to. Latencies are in microseconds.
pub(crate) struct Turn {
    pub(crate) commit_to_visible: Histogram<u64>,
    /// From when the request was due.
    pub(crate) due_to_visible: Histogram<u64>,
    pub(crate) due_to_answered: Histogram<u64>,
    /// Accounts a second.
    pub(crate) rate: f64,
    /// Processor time a request, in microseconds: of both services, with the look at the log, and of the generator.
    pub(crate) services_micros: f64,
    pub(crate) generator_micros: f64,
    /// Raw syncs a second, right after.
    pub(crate) syncs: f64,
}

impl Services {
    /// Starts them, and waits until both are ready.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let (seen, data_dir) = (Arc::new(Seen::default()), tempfile::tempdir()?);
        let log = Arc::new(WatchedLog { log: setup.log, seen: Arc::clone(&seen) });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let shutdown = CancellationToken::new();
        let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (account_listener, card_listener) = (runtime.block_on(bind())?, runtime.block_on(bind())?);
        let (accounts, cards) = (account_listener.local_addr()?, card_listener.local_addr()?);
        let account = account_service::Config {
            database: setup.account_database,
            cors: None,
            clock: Clock::system(),
            backlog_published: Default::default(),
        };
        let card = card_service::Config {
            database: setup.card_database,
            data_dir: data_dir.path().to_owned(),
            group: card_service::DEFAULT_GROUP.to_owned(),
            backlog_published: None,
            view_max_age: None,
            cors: None,
            clock: Clock::system(),
        };
        let serving = [
            runtime.spawn(account_service::run(account, account_listener, log.clone(), shutdown.clone())),
            runtime.spawn(card_service::run(card, card_listener, log, shutdown.clone())),
        ];
        for service in [accounts, cards].map(Http::new) {
            wait_until("the services are ready", || (service.get("/readyz").status == 200).then_some(()));
        }
        Ok(Services { accounts, seen, shutdown, serving, runtime, _data_dir: data_dir })
    }

    /// Accounts a second that 64 connections make which send the next request when they have the last one's answer.
    pub(crate) fn saturation(&self, lasting: Duration) -> anyhow::Result<f64> {
        self.seen.forget();
        let busy = Busy { connections: 64, threads: 1, lasting };
        let tally = load::closed_loop(self.accounts, &Request::post("/account", ACCOUNT), busy)?;
        self.all_visible(&tally)?;
        Ok(tally.rate())
    }

    /// Makes accounts by `schedule`. Those of the first `warm_up` do not count.
    pub(crate) fn turn(&self, schedule: Schedule, warm_up: Duration) -> anyhow::Result<Turn> {
        self.seen.forget();
        let answers = Mutex::new(Vec::with_capacity((schedule.rate * schedule.seconds) as usize));
        let before = processor_time(std::process::id())?;
        let tally = load::open_loop(self.accounts, &Request::post("/account", ACCOUNT), schedule, |answer| {
            let account = id_in(answer.body).unwrap_or_default();
            lock(&answers).push(Answer { account, due: answer.due, answered: answer.answered });
        })?;
        let used = processor_time(std::process::id())? - before;
        self.all_visible(&tally)?;
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let services = used.saturating_sub(tally.processor_time);
        let mut turn = Turn {
            commit_to_visible: Histogram::new(3)?,
            due_to_visible: Histogram::new(3)?,
            due_to_answered: Histogram::new(3)?,
            rate: tally.rate(),
            services_micros: tally.micros_a_request(services),
            generator_micros: tally.micros_a_request(tally.processor_time),
            syncs: sync_rate()?,
        };
        turn.record(&answers, &self.seen, warm_up)?;
        Ok(turn)
    }

    fn all_visible(&self, tally: &Tally) -> anyhow::Result<()> {
        ensure!(tally.errors == 0, "{} of the requests failed", tally.errors);
        let accounts = usize::try_from(tally.latencies.len())?;
        wait_until("all are visible", || (self.seen.visible_count() >= accounts).then_some(()));
        Ok(())
    }

    /// Ends both.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.serving.into_iter().try_for_each(|service| self.runtime.block_on(service)?)
    }
}

/// One POST, as its client saw it.
struct Answer {
    account: Uuid,
    due: Instant,
    answered: Instant,
}

/// The account's id in its JSON. Reading all of the JSON would cost the generator as much as the request.
fn id_in(body: &[u8]) -> Option<Uuid> {
    const NAME: &[u8] = br#""id":""#;
    let start = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Uuid::try_parse_ascii(body.get(start..start + 36)?).ok()
}

impl Turn {
    fn record(&mut self, answers: &[Answer], seen: &Seen, warm_up: Duration) -> anyhow::Result<()> {
        let [published, visible] = seen.moments();
        let counts_from = answers.iter().map(|answer| answer.due).min().context("no account was made")? + warm_up;
        for Answer { account, due, answered } in answers.iter().filter(|answer| answer.due >= counts_from) {
            let both = published.get(account).zip(visible.get(account));
            let (published, visible) = both.context("an account was never published")?;
            let committed = *published.min(answered);
            self.due_to_answered.record(micros(*answered - *due))?;
            self.commit_to_visible.record(micros(visible.saturating_duration_since(committed)))?;
            self.due_to_visible.record(micros(*visible - *due))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_account_is_found_in_its_json() {
        let id = "0199a1b2-c3d4-7e5f-8a6b-0123456789ab";
        let body = format!(r#"{{"account_id":"x","id":"{id}","beholder_name":"John Doe"}}"#);
        assert_eq!(id_in(body.as_bytes()), Some(id.parse().unwrap()));
        assert_eq!(id_in(br#"{"error":"what"}"#), None);
    }
}
