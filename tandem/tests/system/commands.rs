//! `tandem events` and `tandem quarantine`, as an operator runs them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use event_log::Record;
use serde_json::Value;
use test_harness::{Http, binary, output_of, wait_until};

use crate::place::Place;
use crate::requests::{create_account, delete_account};

fn tandem(cards: &Http, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("tandem"));
    command.args(arguments).args(["--card-url", &format!("http://{}", cards.address())]).env_clear();
    command
}

/// The lines on stdout of a command that succeeds. It says on stderr what it talks to.
fn lines(cards: &Http, arguments: &[&str]) -> Vec<String> {
    let Output { status, stdout, stderr } = output_of(&mut tandem(cards, arguments));
    let stderr = String::from_utf8(stderr).expect("text");
    assert!(status.success(), "{arguments:?}: {stderr}");
    assert_eq!(stderr, format!("card service: http://{}\n", cards.address()));
    String::from_utf8(stdout).expect("text").lines().map(str::to_owned).collect()
}

fn json(cards: &Http, arguments: &[&str]) -> Vec<Value> {
    let lines = lines(cards, &[arguments, &["--json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn events_of_the_embedded_log_are_printed() {
    let place = Place::embedded();
    let services = place.start_services();
    print_events(&services.accounts, &services.cards);
    assert_eq!(lines(&services.cards, &["quarantine", "list"]), ["The quarantine is empty."]);
    services.stop();
}

#[test]
fn events_and_quarantined_records_of_kafka_are_printed() {
    let place = Place::kafka();
    let services = place.start_services();
    let cards = &services.cards;
    print_events(&services.accounts, cards);
    place.publish(&[Record { key: Some(b"a key".to_vec()), value: Some(b"poison".to_vec()), ..Record::default() }]);
    wait_until("it is in quarantine", || (cards.get("/quarantine").body["total"] == 1).then_some(()));
    let listed = lines(cards, &["quarantine", "list"]);
    assert!(listed.len() == 1 && listed[0].contains("not_json"), "{listed:?}");
    let place = listed[0].split(' ').next().expect("a place");
    let shown = json(cards, &["quarantine", "show", place]);
    assert_eq!((&shown[0]["value"], &shown[0]["key"]), (&"poison".into(), &"a key".into()));
    // The events are all there although the last record of the log is none.
    assert_eq!(lines(cards, &["events"]).len(), 22);
    lines(cards, &["quarantine", "acknowledge", place]);
    let missing = output_of(&mut tandem(cards, &["quarantine", "show", place]));
    let line = String::from_utf8(missing.stderr).expect("text");
    assert!(missing.status.code() == Some(1) && line.contains("is in quarantine"), "{line}");
    assert_eq!(json(cards, &["quarantine", "list"])[0]["records"], Value::Array(Vec::new()));
    services.stop();
}

/// `tandem events` for 20 new accounts, one of them deleted, and an account that is created while the command follows.
fn print_events(accounts: &Http, cards: &Http) {
    let ids: Vec<_> = (0..20).map(|_| create_account(accounts)).collect();
    delete_account(accounts, ids[0]);
    let deleted = ids[0].to_string();
    wait_until("the view knows all", || {
        let view = cards.get("/readyz").body;
        (view["view"]["accounts"] == 20
            && cards.get(&format!("/account-view?account_id={deleted}")).body["status"] == "DELETED")
            .then_some(())
    });
    let all = lines(cards, &["events"]);
    assert_eq!(all.len(), 21, "{all:#?}");
    assert!(ids.iter().all(|id| all.iter().any(|line| line.contains(&id.to_string()))), "{all:#?}");
    let of_one = json(cards, &["events", "--account", &deleted]);
    let versions: Vec<_> = of_one.iter().map(|event| (&event["version"], &event["status"])).collect();
    assert_eq!(versions, [(&1.into(), &"ACTIVE".into()), (&2.into(), &"DELETED".into())]);
    follow(accounts, cards);
}

/// `--follow` prints an account that is created later.
fn follow(accounts: &Http, cards: &Http) {
    let mut command = tandem(cards, &["events", "--follow", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a command that starts");
    let mut printed = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(printed.by_ref().take(21).count(), 21);
    let id = create_account(accounts).to_string();
    assert!(printed.next().is_some_and(|line| line.contains(&id)));
    // It follows until it is killed.
    child.kill().expect("a process that runs");
    child.wait().expect("a process that ends");
}

#[test]
fn a_service_that_is_away_and_wrong_arguments_are_named() {
    let nowhere = Http::new("127.0.0.1:1".parse().unwrap());
    let refused = output_of(&mut tandem(&nowhere, &["events"]));
    let text = String::from_utf8(refused.stderr).expect("text");
    assert!(
        refused.status.code() == Some(1) && text.contains("error: ") && text.contains("http://127.0.0.1:1"),
        "{text}"
    );
    for wrong in [&["quarantine", "show", "x"][..], &["events", "--account", "x"], &["quarantine"]] {
        let refused = output_of(&mut tandem(&nowhere, wrong));
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
    }
}
