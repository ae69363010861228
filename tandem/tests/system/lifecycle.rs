//! How the binaries end: SIGTERM, SIGINT and SIGHUP let them answer what they have begun, and what was answered is kept.

use tempfile::TempDir;
use test_harness::{Http, Process, binary, wait_until};

use crate::keep_alive::KeepAlive;
use crate::place::Place;
use crate::requests::{card_of, create_account, create_card, john_doe};

/// Asks `process` to stop while a request to `service` is on its way. Its answer is a 201, and the end a success; returns
/// the id of what was made.
fn stop_in_the_middle(process: &mut Process, service: &Http, signal: i32, path: &str, body: &str) -> String {
    let mut connection = KeepAlive::connect(service.address()).expect("a connection");
    let (first, rest) = body.split_at(body.len() / 2);
    connection.begin_post(path, body.len()).expect("a server that waits");
    connection.send(first).expect("a server that reads");
    process.signal(signal);
    wait_until("it says that it is stopping", || {
        let stopping = |line: &String| line.contains("stopping; a second signal stops at once");
        process.lines().iter().any(stopping).then_some(())
    });
    wait_until("it takes no more connections", || KeepAlive::connect(service.address()).err());
    connection.send(rest).expect("a server that reads on");
    let (status, answer) = connection.answer().expect("an answer");
    assert_eq!(status, 201, "{answer}");
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{:#?}", process.lines());
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    answer["id"].as_str().expect("an id").to_owned()
}

#[test]
fn the_all_in_one_answers_what_it_has_begun_and_keeps_it() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let place = Place::durable();
        let start = || place.start_all_in_one();
        let mut tandem = start();
        let accounts = tandem.ready_service(account_service::NAME);
        tandem.ready_service(card_service::NAME);
        let account = stop_in_the_middle(&mut tandem, &accounts, signal, "/account", &john_doe().to_string());

        let mut tandem = start();
        let accounts = tandem.ready_service(account_service::NAME);
        let cards = tandem.ready_service(card_service::NAME);
        accounts.get(&format!("/account?id={account}")).expect(200);
        // It was published before the end, so the view has it from the start.
        let account = account.parse().unwrap();
        create_card(&cards, account).expect(201);
        let card = stop_in_the_middle(&mut tandem, &cards, signal, "/card", &card_of(account).to_string());

        let mut tandem = start();
        let cards = tandem.ready_service(card_service::NAME);
        cards.get(&format!("/card?id={card}")).expect(200);
    }
}

#[test]
fn the_services_answer_what_they_have_begun_and_keep_it() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let place = Place::kafka();
        let (mut account_service, mut card_service) =
            (place.start(account_service::NAME), place.start(card_service::NAME));
        let accounts = account_service.ready_service(account_service::NAME);
        let cards = card_service.ready_service(card_service::NAME);
        let known = create_account(&accounts);
        let account = stop_in_the_middle(&mut account_service, &accounts, signal, "/account", &john_doe().to_string());
        // Both events were published before the end.
        for id in [known, account.parse().unwrap()] {
            wait_until("the card service knows the account", || (create_card(&cards, id).status == 201).then_some(()));
        }
        let card = stop_in_the_middle(&mut card_service, &cards, signal, "/card", &card_of(known).to_string());

        let tables = place.databases().tables();
        assert!(tables.accounts.contains_key(&account.parse().unwrap()), "{account}");
        assert!(tables.cards.contains_key(&card.parse().unwrap()), "{card}");
    }
}

#[test]
fn a_service_without_its_kafka_serves_and_stops() {
    let folder = TempDir::new().unwrap();
    for name in [account_service::NAME, card_service::NAME] {
        let mut process = Process::start(&binary(name), folder.path(), &[("KAFKA_BROKERS", "127.0.0.1:1")]);
        process.service(name).get("/health").expect(200);
        assert_eq!(process.terminate().code(), Some(0), "{:#?}", process.lines());
    }
}
