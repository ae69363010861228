//! `kill -9` of the all-in-one while requests with idempotency keys are in flight: a retry gets the first answer, and each request is
//! done once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use test_harness::{Answer, Http, wait_until};

use crate::place::Place;
use crate::random::{Random, seed};
use crate::requests::{card_of, create_account, create_card, john_doe};

/// Kills, unless `TANDEM_TEST_KEY_ROUNDS` says how many.
const ROUNDS: usize = 20;

/// Threads that write at the same time. The kill leaves up to one request of each without an answer.
const WRITERS: usize = 16;

/// A round ends by a kill after fewer answers than this, in all.
const MAX_ANSWERS: usize = 200;

/// A request with its key, and the answer that the caller has, if one arrived.
struct Request {
    is_of_cards: bool,
    method: &'static str,
    path: String,
    body: String,
    key: String,
    answer: Option<Answer>,
}

impl Request {
    fn send(&self, services: &[Http; 2]) -> Option<Answer> {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &*self.key)];
        let service = &services[usize::from(self.is_of_cards)];
        service.try_send(self.method, &self.path, &headers, self.body.clone().into_bytes()).ok()
    }
}

#[test]
fn a_retry_after_a_kill_gets_the_first_answer() {
    let rounds = std::env::var("TANDEM_TEST_KEY_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let (mut random, place) = (Random::new(seed()), Place::durable());
    let mut tandem = place.start_all_in_one();
    let mut services = [account_service::NAME, card_service::NAME].map(|name| tandem.ready_service(name));
    let holder = create_account(&services[0]);
    wait_until("the view has the holder", || (create_card(&services[1], holder).status == 201).then_some(()));
    // The holder's account and card.
    let (mut accounts, mut cards, mut unanswered, mut done_unanswered) = (1, 1, 0, 0);
    for round in 0..rounds {
        let (kill_after, answers, killed) = (random.below(MAX_ANSWERS), AtomicUsize::new(0), AtomicBool::new(false));
        let seeds: Vec<_> = (0..WRITERS).map(|_| random.next()).collect();
        let requests: Vec<Vec<Request>> = std::thread::scope(|scope| {
            let write = |writer: usize| {
                let (mut random, mut requests) = (Random::new(seeds[writer]), Vec::<Request>::new());
                while requests.last().is_none_or(|last| last.answer.is_some()) {
                    let key = format!("{round}-{writer}-{}", requests.len());
                    let mut request = next(&mut random, &requests, &card_of(holder).to_string(), key);
                    request.answer = request.send(&services);
                    answers.fetch_add(1, Ordering::Relaxed);
                    requests.push(request);
                }
                assert!(killed.load(Ordering::Acquire), "a request was not answered before the kill");
                requests
            };
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            wait_until("some requests are answered", || (answers.load(Ordering::Relaxed) >= kill_after).then_some(()));
            killed.store(true, Ordering::Release);
            tandem.kill();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        tandem = place.start_all_in_one();
        services = [account_service::NAME, card_service::NAME].map(|name| tandem.ready_service(name));
        for request in requests.iter().flatten() {
            let again = request.send(&services).expect("an answer");
            let is_replay = again.header("idempotent-replayed") == "true";
            let first = match &request.answer {
                Some(first) => {
                    assert!(is_replay, "{}: {}", request.key, again.raw);
                    first
                }
                None => {
                    unanswered += 1;
                    done_unanswered += usize::from(is_replay);
                    &again
                }
            };
            assert!([200, 201].contains(&first.status), "{}: {}", request.key, first.raw);
            assert_same(first, &again);
            assert_same(first, &request.send(&services).expect("an answer"));
            accounts += usize::from(request.path == "/account");
            cards += usize::from(request.path == "/card");
        }
        assert_eq!(services[0].get("/accounts?limit=1").body["total"], accounts, "round {round}");
        assert_eq!(services[1].get("/cards?limit=1").body["total"], cards, "round {round}");
    }
    eprintln!("{rounds} kills, {unanswered} requests without an answer, of which {done_unanswered} were done");
    assert!(done_unanswered > 0, "no kill came between a commit and its answer");
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
}

/// A new account or card, or a change or deletion of one that was answered.
fn next(random: &mut Random, earlier: &[Request], card: &str, key: String) -> Request {
    let is_of_cards = random.below(2) == 1;
    let collection = if is_of_cards { "/card" } else { "/account" };
    let body = if is_of_cards { card.to_owned() } else { john_doe().to_string() };
    let new = Request { is_of_cards, method: "POST", path: collection.to_owned(), body, key, answer: None };
    // Its last request of this kind, so that no card is deleted twice.
    let last = earlier.iter().rev().find(|request| request.is_of_cards == is_of_cards);
    match last.filter(|last| last.method == "POST" && random.below(2) == 1).and_then(|last| last.answer.as_ref()) {
        None => new,
        Some(made) => {
            let path = made.header("location").to_owned();
            let (method, body) = match is_of_cards {
                true => ("DELETE", String::new()),
                false => ("PATCH", r#"{"status":"BLOCKED"}"#.to_owned()),
            };
            Request { method, path, body, ..new }
        }
    }
}

#[track_caller]
fn assert_same(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.raw), (first.status, &first.raw));
    for name in ["location", "etag", "account-version"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}
