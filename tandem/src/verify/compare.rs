//! Compares the account table, the event log and the views (docs/decisions/0016).
//!
//! First by digests, anchored at positions: the table is read, then the log to an end that has every event of the table, then each view once
//! it has the log to that end. Accounts in buckets that differ are compared again one by one, until they are equal or
//! surely differ.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use account_events::AccountId;
use account_events::digest::{
    Digest, EventState, MAX_BUCKETS, MAX_SELECTED_ACCOUNTS, MAX_SELECTED_BUCKETS, Selection, StateLine,
};
use anyhow::bail;
use event_log::Positions;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::log::{LogStates, Source, remaining};
use super::progress::Progress;
use crate::client::{Failure, Service, patiently};

/// The most accounts that are compared one by one. More differ only if a database or the log was lost, and `tandem resync` publishes
/// every account.
const MAX_CANDIDATES: usize = 100_000;

/// In how many rounds in a row an account must differ.
const CONFIRMATIONS: u32 = 2;

/// After how many rounds an account that changes all the time is left alone: each change publishes its state.
const MAX_ROUNDS: usize = 10;

/// The pause between two looks at a position.
const POLL: Duration = Duration::from_millis(20);

/// What is compared.
pub(super) struct Parties {
    /// The instance of the account service that answered.
    pub(super) accounts: Service,
    pub(super) cards: Vec<Service>,
    pub(super) source: Source,
    /// How long a position may not advance.
    pub(super) patience: Duration,
}

/// An account's state in each place; `None` where it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct States {
    pub(super) row: Option<EventState>,
    pub(super) log: Option<EventState>,
    /// In the order of the card services.
    pub(super) views: Vec<Option<EventState>>,
}

/// The result of a comparison.
pub(super) struct Comparison {
    pub(super) accounts: u64,
    pub(super) log_accounts: u64,
    pub(super) undecodable: u64,
    pub(super) view_accounts: Vec<u64>,
    /// The accounts that differ.
    pub(super) differing: BTreeMap<AccountId, States>,
    /// Whether all accounts that differ are in `differing`.
    pub(super) is_complete: bool,
    /// Accounts that changed in every round.
    pub(super) changing: usize,
}

/// The answer of `GET /admin/position` of the account service, and the last line of its states.
#[derive(Deserialize)]
pub(super) struct OutboxPosition {
    position: u64,
    published: u64,
}

#[derive(Deserialize)]
struct TableDigest {
    position: u64,
    buckets: Digest,
}

/// The answer of `GET /admin/position` of a card service, and the last line of its states.
#[derive(Deserialize)]
struct ViewPosition {
    positions: Positions,
}

#[derive(Deserialize)]
struct ViewDigest {
    buckets: Digest,
}

impl Parties {
    /// Compares all accounts.
    pub(super) fn compare(&mut self, progress: &Progress) -> anyhow::Result<Comparison> {
        let digest = format!("/admin/digest?buckets={MAX_BUCKETS}");
        progress.step("reading the account table");
        let table: TableDigest = self.accounts.get(&digest)?;
        self.wait_until_published(table.position, progress)?;
        let mut log = LogStates::default();
        self.source.restart();
        let ends = self.read_log(&mut log, progress)?;
        let mut views = Vec::new();
        for card in &self.cards {
            self.wait_for_view(card, &ends, progress)?;
            progress.step("reading the account view");
            views.push(card.get::<ViewDigest>(&digest)?.buckets);
        }
        progress.step("comparing");
        let of_log = log.digest(MAX_BUCKETS);
        let digests = views.iter().chain([&table.buckets]);
        let numbers: BTreeSet<u32> = digests.flat_map(|digest| digest.differing(&of_log)).collect();
        let (candidates, is_complete) = self.candidates(numbers.into_iter().collect(), &log)?;
        let (differing, changing) = self.settle(candidates, &mut log, progress)?;
        Ok(Comparison {
            accounts: table.buckets.accounts(),
            log_accounts: of_log.accounts(),
            undecodable: log.undecodable,
            view_accounts: views.iter().map(Digest::accounts).collect(),
            differing,
            is_complete,
            changing,
        })
    }

    /// The accounts in these buckets that differ from the log, in the table or in a view, and whether these are all of them.
    fn candidates(&self, numbers: Vec<u32>, log: &LogStates) -> anyhow::Result<(BTreeSet<AccountId>, bool)> {
        let mut candidates = BTreeSet::new();
        let mut is_complete = true;
        for numbers in numbers.chunks(MAX_SELECTED_BUCKETS) {
            let selection = Selection { buckets: MAX_BUCKETS, numbers: numbers.to_vec(), ..Selection::default() };
            for service in self.cards.iter().chain([&self.accounts]) {
                candidates.extend(service.patiently(|| differing(service, &selection, log))?);
            }
            if candidates.len() > MAX_CANDIDATES {
                is_complete = false;
                break;
            }
        }
        Ok((candidates.into_iter().take(MAX_CANDIDATES).collect(), is_complete))
    }

    /// Compares `candidates` in rounds, and returns those that differ and the number of those that change all the time.
    ///
    /// A round reads the rows, the log with all their events, the views with that log, and the rows again. If a row has not changed
    /// meanwhile, nothing of it is in flight, so the log and the views must equal it. If it has, they must not be ahead of it.
    fn settle(
        &mut self,
        candidates: BTreeSet<AccountId>,
        log: &mut LogStates,
        progress: &Progress,
    ) -> anyhow::Result<(BTreeMap<AccountId, States>, usize)> {
        let mut open: BTreeMap<AccountId, u32> = candidates.into_iter().map(|id| (id, 0)).collect();
        let mut differing = BTreeMap::new();
        for _ in 0..MAX_ROUNDS {
            if open.is_empty() {
                break;
            }
            let ids: Vec<_> = open.keys().copied().collect();
            progress.step("comparing accounts that differ");
            let (rows, outbox) = states_of::<OutboxPosition>(&self.accounts, &ids)?;
            let anchor = outbox.iter().map(|outbox| outbox.position).max().unwrap_or(0);
            self.wait_until_published(anchor, progress)?;
            let ends = self.read_log(log, progress)?;
            let mut views = Vec::new();
            for card in &self.cards {
                self.wait_for_view(card, &ends, progress)?;
                views.push(states_of::<ViewPosition>(card, &ids)?.0);
            }
            let (rows_after, _) = states_of::<OutboxPosition>(&self.accounts, &ids)?;
            for id in ids {
                let row_before = rows.get(&id).copied();
                let states = States {
                    row: rows_after.get(&id).copied(),
                    log: log.get(id),
                    views: views.iter().map(|view| view.get(&id).copied()).collect(),
                };
                match states.verdict(row_before) {
                    Verdict::Equal => _ = open.remove(&id),
                    Verdict::InFlight => _ = open.insert(id, 0),
                    Verdict::Differs => {
                        let times = open.entry(id).or_default();
                        *times += 1;
                        if *times == CONFIRMATIONS {
                            open.remove(&id);
                            differing.insert(id, states);
                        }
                    }
                }
            }
        }
        Ok((differing, open.len()))
    }

    fn read_log(&mut self, log: &mut LogStates, progress: &Progress) -> anyhow::Result<Positions> {
        self.source.read(log, &|read, left| progress.count("reading the event log", read, read + left))
    }

    /// Waits until the log has every event up to `position`.
    fn wait_until_published(&self, position: u64, progress: &Progress) -> anyhow::Result<()> {
        progress.step("waiting until the event log has every event");
        let published = || Ok(self.accounts.get::<OutboxPosition>("/admin/position")?.published);
        let is_reached = |published: &u64| *published >= position;
        wait(self.patience, published, is_reached, "the event log does not take the events of the outbox")
    }

    /// Waits until the view has the log up to `ends`.
    fn wait_for_view(&self, card: &Service, ends: &Positions, progress: &Progress) -> anyhow::Result<()> {
        progress.step("waiting for the account view");
        let positions = || Ok(card.get::<ViewPosition>("/admin/position")?.positions);
        let is_reached = |positions: &Positions| remaining(positions, ends) == 0;
        wait(self.patience, positions, is_reached, &format!("the account view of {} does not catch up", card.url))
    }
}

/// The first of `services` that answers.
pub(super) fn first_there(services: &[Service], patience: Duration) -> anyhow::Result<Service> {
    patiently(patience, || {
        let mut outcome = Err(Failure::Final("no --account-url".to_owned()));
        for service in services {
            match service.try_get::<OutboxPosition>("/admin/position") {
                Ok(_) => return Ok(service.clone()),
                Err(failure) => outcome = Err(failure),
            }
        }
        outcome
    })
}

/// Waits until `read` returns a value that is reached. Fails with `what` when the value has not changed for `patience`.
fn wait<T: PartialEq>(
    patience: Duration,
    read: impl Fn() -> anyhow::Result<T>,
    is_reached: impl Fn(&T) -> bool,
    what: &str,
) -> anyhow::Result<()> {
    let (mut value, mut changed) = (read()?, Instant::now());
    while !is_reached(&value) {
        if changed.elapsed() > patience {
            bail!("{what}: nothing for {} s", patience.as_secs());
        }
        std::thread::sleep(POLL);
        let next = read()?;
        if next != value {
            (value, changed) = (next, Instant::now());
        }
    }
    Ok(())
}

/// The accounts that `service` and the log know differently in the selected buckets.
fn differing(service: &Service, selection: &Selection, log: &LogStates) -> Result<Vec<AccountId>, Failure> {
    let (mut known, mut found) = (HashSet::new(), Vec::new());
    let compare = |line: StateLine| {
        known.insert(line.0);
        if log.get(line.0) != Some(line.state()) {
            found.push(line.0);
        }
    };
    let _end: serde_json::Value = service.lines("/admin/states", Some(selection), compare)?;
    let is_selected = selection.filter();
    let unknown = log.accounts().map(|line| line.0).filter(|id| is_selected(*id) && !known.contains(id));
    found.extend(unknown.take(MAX_CANDIDATES + 1));
    Ok(found)
}

/// The states of those of `ids` that the service knows, and the last line of each response.
fn states_of<E: DeserializeOwned>(
    service: &Service,
    ids: &[AccountId],
) -> anyhow::Result<(HashMap<AccountId, EventState>, Vec<E>)> {
    let (mut states, mut ends) = (HashMap::new(), Vec::new());
    for accounts in ids.chunks(MAX_SELECTED_ACCOUNTS) {
        let selection = Selection { accounts: accounts.to_vec(), ..Selection::default() };
        let add = |line: StateLine| _ = states.insert(line.0, line.state());
        let mut add = add;
        ends.push(service.patiently(|| service.lines("/admin/states", Some(&selection), &mut add))?);
    }
    Ok((states, ends))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    InFlight,
    Differs,
}

impl States {
    /// What the states mean. `row_before` is the row before the log and the views were read, and `self.row` the row after that.
    fn verdict(&self, row_before: Option<EventState>) -> Verdict {
        let mut known = self.views.iter().chain([&self.log]);
        if row_before == self.row {
            return if known.all(|state| *state == self.row) { Verdict::Equal } else { Verdict::Differs };
        }
        // Events of the change may be on their way, but none is ahead of the row.
        if known.any(|state| *state > self.row) { Verdict::Differs } else { Verdict::InFlight }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use account_events::AccountStatus::{Active, Blocked};
    use account_events::digest::LogLine;
    use uuid::Uuid;

    use super::*;

    /// A service without accounts, which answers until the process ends.
    fn empty_service() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = BufReader::new(connection.unwrap());
                let head = connection.by_ref().lines().map(|line| line.unwrap().to_ascii_lowercase());
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                std::io::copy(&mut connection.by_ref().take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{}\n";
                connection.get_mut().write_all(answer).unwrap();
            }
        });
        Service::new(crate::client::agent(std::iter::empty(), None).unwrap(), &url, None, Duration::from_secs(10))
    }

    #[test]
    fn more_accounts_than_are_compared_one_by_one_are_not_all_of_them() {
        let service = empty_service();
        let source = Source::Service(service.clone());
        let cards = vec![service.clone()];
        let parties = Parties { accounts: service, cards, source, patience: Duration::from_secs(10) };
        let mut log = LogStates::default();
        let mut add = |numbers: std::ops::Range<usize>| {
            for id in numbers.map(|number| AccountId(Uuid::from_u128(number as u128))) {
                log.apply(LogLine(0, Some(id), Some(StateLine(id, 1, Active))));
            }
            let (candidates, is_complete) = parties.candidates((0..MAX_BUCKETS).collect(), &log).unwrap();
            (candidates.len(), is_complete)
        };
        assert_eq!(add(0..MAX_CANDIDATES), (MAX_CANDIDATES, true));
        assert_eq!(add(MAX_CANDIDATES..MAX_CANDIDATES + 1), (MAX_CANDIDATES, false));
    }

    #[test]
    fn only_what_cannot_be_in_flight_is_a_difference() {
        let state = |version, status| Some(EventState { version, status });
        let (one, two, three) = (state(1, Active), state(2, Blocked), state(3, Active));
        for (before, row, log, view, expected) in [
            (one, one, one, one, Verdict::Equal),
            (two, two, two, one, Verdict::Differs),
            (two, two, one, two, Verdict::Differs),
            (two, two, None, two, Verdict::Differs),
            (None, None, one, one, Verdict::Differs),
            (one, two, one, one, Verdict::InFlight),
            (one, two, two, one, Verdict::InFlight),
            (None, one, None, None, Verdict::InFlight),
            (one, two, three, two, Verdict::Differs),
            (one, two, one, three, Verdict::Differs),
        ] {
            let states = States { row, log, views: vec![view] };
            assert_eq!(states.verdict(before), expected, "{before:?} {states:?}");
        }
    }
}
