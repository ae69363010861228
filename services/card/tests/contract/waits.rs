//! `POST /card` with `Account-Version` and `Prefer: wait`: reading one's own writes of the account service.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread::Scope;
use std::time::{Duration, Instant};

use account_events::AccountStatus::{Active, Blocked, Deleted};
use event_log::Record;
use serde_json::{Value, json};
use test_harness::{Answer, Http, wait_until};

use crate::service::{Settings, TestService, UNKNOWN_ID, changed, created, new_id};

/// An answer that comes sooner was not given at the end of a wait of [`LONG`].
const SOON: Duration = Duration::from_secs(15);

/// The longest wait, which no test waits for.
const LONG: (&str, &str) = ("Prefer", "wait=30");

const SHORT: (&str, &str) = ("Prefer", "wait=1");

const VERSION: &str = "Account-Version";

fn post(http: &Http, account: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    http.send("POST", "/card", &headers, json!({"country": "US", "account_id": account}).to_string().into_bytes())
}

fn applied(answer: &Answer) -> &str {
    answer.header("preference-applied")
}

#[track_caller]
fn assert_catching_up(answer: &Answer) {
    answer.expect_error(503, "catching_up", "account view is catching up", None);
    assert_eq!(answer.header("retry-after"), "1");
}

#[track_caller]
fn assert_not_found(answer: &Answer) {
    answer.expect_error(404, "account_not_found", "account not found", None);
}

fn wait_for_waiters(service: &TestService, count: usize) {
    wait_until("so many requests wait", || (service.view()["waiting"] == count).then_some(()));
}

/// A request that waits in a thread of its own, and how long its answer took from `go` on.
struct Waiting<'scope>(std::thread::ScopedJoinHandle<'scope, (Answer, Instant)>);

impl<'scope> Waiting<'scope> {
    fn post(
        scope: &'scope Scope<'scope, '_>,
        service: &TestService,
        account: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let (http, account) = (Http::new(service.address()), account.to_owned());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Waiting(scope.spawn(move || {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            (post(&http, &account, &headers), Instant::now())
        }))
    }

    /// The answer, which must come soon after now.
    #[track_caller]
    fn answered_soon(self) -> Answer {
        let go = Instant::now();
        let (answer, at) = self.0.join().expect("no panic");
        assert!(at.saturating_duration_since(go) < SOON, "{}", answer.raw);
        answer
    }
}

#[test]
fn an_account_version_is_one_number_bare_or_in_quotes() {
    let service = TestService::start();
    let account = service.account();
    for version in ["1", "\"1\"", "01"] {
        assert_eq!(post(&service, &account, &[(VERSION, version)]).status, 201, "{version}");
    }
    // The highest version is one, though the view does not have it.
    assert_catching_up(&post(&service, &account, &[(VERSION, "1073741823")]));
    let text = "Account-Version must be one number from 1 to 1073741823, bare or in double quotes";
    let view = format!("/account-view?account_id={account}");
    for version in [
        "",
        "0",
        "-1",
        "+1",
        "1.0",
        "1073741824",
        "99999999999999999999",
        "x",
        "\"1",
        "1\"",
        "\"\"",
        "\"\"1\"\"",
        "1,1",
        "W/\"1\"",
        "\" 1\"",
        "\u{661}",
    ] {
        for answer in [
            post(&service, &account, &[(VERSION, version)]),
            post(&service, &account, &[(VERSION, version), LONG]),
            service.send("GET", &view, &[(VERSION, version)], Vec::new()),
        ] {
            answer.expect_error(400, "invalid_account_version", text, Some(VERSION));
            assert_eq!(applied(&answer), "");
        }
    }
    let twice = post(&service, &account, &[(VERSION, "1"), (VERSION, "1")]);
    twice.expect_error(400, "invalid_account_version", text, Some(VERSION));
}

#[test]
fn without_prefer_a_version_that_the_view_does_not_know_is_503_and_never_404() {
    let service = TestService::start();
    let account = service.account();
    for (account, version) in [(&*account, "2"), (UNKNOWN_ID, "1")] {
        let answer = post(&service, account, &[(VERSION, version)]);
        assert_catching_up(&answer);
        assert_eq!(applied(&answer), "");
    }
    service.tell(&[changed(&account, Blocked, 3)]);
    for version in ["1", "2", "3"] {
        let answer = post(&service, &account, &[(VERSION, version)]);
        answer.expect_error(403, "account_inactive", "cannot create card for inactive account", None);
    }
    assert_catching_up(&post(&service, &account, &[(VERSION, "4")]));
    service.tell(&[changed(&account, Deleted, 4)]);
    assert_eq!(post(&service, &account, &[(VERSION, "4")]).text("code"), "account_deleted");
    assert_not_found(&post(&service, UNKNOWN_ID, &[]));
}

#[test]
fn an_account_whose_events_have_no_version_satisfies_none() {
    let service = TestService::start();
    let account = new_id();
    let value = format!(r#"{{"account_id":"{account}","status":"ACTIVE","type":"account.created"}}"#);
    service.tell(&[Record { value: Some(value.into()), ..Record::default() }]);
    assert_eq!(post(&service, &account, &[LONG]).status, 201);
    assert_catching_up(&post(&service, &account, &[(VERSION, "1")]));
    let waited = post(&service, &account, &[(VERSION, "1"), SHORT]);
    assert_catching_up(&waited);
    assert_eq!(applied(&waited), "wait=1");
}

#[test]
fn a_preference_that_is_applied_is_named_and_one_that_is_malformed_is_ignored() {
    let service = TestService::start();
    let account = service.account();
    for (lines, expected) in [
        (&["wait=5"][..], "wait=5"),
        (&["wait=31"], "wait=30"),
        (&["wait=99999999999999999999"], "wait=30"),
        (&["respond-async, Wait=\"7\"; x=y"], "wait=7"),
        (&["return=minimal", "wait=3, wait=9"], "wait=3"),
        (&["wait=0"], ""),
        (&["wait=soon"], ""),
        (&["wait=-5"], ""),
        (&["return=minimal"], ""),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| ("Prefer", *line)).collect();
        let created = post(&service, &account, &headers);
        assert_eq!((created.status, applied(&created)), (201, expected), "{lines:?}");
        if expected.is_empty() {
            assert_not_found(&post(&service, UNKNOWN_ID, &headers));
        }
    }
    let refused = post(&service, "42", &[LONG]);
    assert_eq!((refused.text("code"), applied(&refused)), ("invalid_account_id", ""));
}

#[test]
fn a_request_that_waits_is_answered_as_soon_as_the_view_knows_the_account() {
    let service = TestService::start();
    for version in [None, Some("1")] {
        let account = new_id();
        std::thread::scope(|scope| {
            let headers: Vec<_> = [LONG].into_iter().chain(version.map(|version| (VERSION, version))).collect();
            let waiting: Vec<_> = (0..3).map(|_| Waiting::post(scope, &service, &account, &headers)).collect();
            wait_for_waiters(&service, 3);
            // The event of another account wakes nobody.
            service.account();
            assert_eq!(service.view()["waiting"], 3);
            service.publish(&[created(&account)]);
            for waiting in waiting {
                let answer = waiting.answered_soon();
                assert_eq!((answer.status, applied(&answer)), (201, "wait=30"), "{}", answer.raw);
                assert_eq!(answer.header("location"), format!("/card?id={}", answer.text("id")));
            }
        });
        wait_for_waiters(&service, 0);
    }
}

#[test]
fn a_version_is_waited_for_and_the_card_is_judged_by_the_state_that_has_it() {
    let service = TestService::start();
    for (status, version, expected) in
        [(Blocked, 2, "account_inactive"), (Active, 2, ""), (Active, 5, ""), (Deleted, 3, "account_deleted")]
    {
        let account = service.account();
        std::thread::scope(|scope| {
            let waiting = Waiting::post(scope, &service, &account, &[LONG, (VERSION, "2")]);
            wait_for_waiters(&service, 1);
            service.publish(&[changed(&account, status, version)]);
            let answer = waiting.answered_soon();
            assert_eq!((answer.body["code"].as_str().unwrap_or_default(), applied(&answer)), (expected, "wait=30"));
            assert_eq!(answer.status, if expected.is_empty() { 201 } else { 403 });
        });
    }
}

#[test]
fn at_the_end_of_the_wait_an_account_is_not_found_only_if_the_view_has_all_of_the_log() {
    let service = TestService::start();
    let started = Instant::now();
    let unknown = post(&service, UNKNOWN_ID, &[SHORT]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_not_found(&unknown);
    assert_eq!(applied(&unknown), "wait=1");
    // A version that somebody was given belongs to an account that exists.
    assert_catching_up(&post(&service, UNKNOWN_ID, &[SHORT, (VERSION, "1")]));

    // The account's event is in the log, and so is any other one.
    for account in [new_id(), UNKNOWN_ID.to_owned()] {
        service.switches.hold_feed(true);
        let other = new_id();
        service.publish(&[created(if account == UNKNOWN_ID { &other } else { &account })]);
        let answer = post(&service, &account, &[SHORT]);
        assert_catching_up(&answer);
        assert_eq!(applied(&answer), "wait=1");
        service.switches.hold_feed(false);
        wait_until("the view follows", || (service.view()["lag"] == 0).then_some(()));
    }

    // Where the log ends is not known since the request came.
    service.switches.set_away(true);
    assert_catching_up(&post(&service, UNKNOWN_ID, &[SHORT]));
    assert_not_found(&post(&service, UNKNOWN_ID, &[]));
}

#[test]
fn a_log_whose_end_moves_does_not_keep_an_account_from_being_not_found() {
    let service = TestService::start();
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let publishing = scope.spawn({
            let service = &service;
            move || {
                let pace = Duration::from_millis(2);
                while stopped.recv_timeout(pace) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    service.publish(&(0..5).map(|_| created(&new_id())).collect::<Vec<_>>());
                }
            }
        });
        let answer = post(&service, UNKNOWN_ID, &[("Prefer", "wait=2")]);
        drop(stop);
        publishing.join().expect("no panic");
        assert_not_found(&answer);
    });
}

#[test]
fn while_the_view_catches_up_a_request_waits_for_it() {
    let account = new_id();
    let service = TestService::start_behind(Settings::default(), |log, switches| {
        log.publish(&[created(&account)]);
        switches.hold_feed(true);
    });
    assert_catching_up(&post(&service, &account, &[(VERSION, "1")]));
    for id in [&account, UNKNOWN_ID] {
        let answer = post(&service, id, &[SHORT]);
        assert_catching_up(&answer);
        assert_eq!(applied(&answer), "wait=1");
    }
    std::thread::scope(|scope| {
        let waiting = [&[LONG][..], &[LONG, (VERSION, "1")]];
        let waiting = waiting.map(|headers| Waiting::post(scope, &service, &account, headers));
        wait_for_waiters(&service, 2);
        service.switches.hold_feed(false);
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.answered_soon().status, 201));
    });
}

#[test]
fn a_view_that_is_too_old_is_waited_for_too() {
    let view_max_age = Some(Duration::from_secs(2));
    let service = TestService::start_with(Settings { view_max_age, ..Settings::default() });
    let account = service.account();
    service.switches.set_away(true);
    wait_until("the view is too old", || (service.post_card("US", &account).status == 503).then_some(()));
    assert_catching_up(&post(&service, &account, &[(VERSION, "1")]));
    assert_catching_up(&post(&service, &account, &[(VERSION, "1"), SHORT]));
    std::thread::scope(|scope| {
        let waiting = [&[LONG][..], &[LONG, (VERSION, "1")]];
        let waiting = waiting.map(|headers| Waiting::post(scope, &service, &account, headers));
        wait_for_waiters(&service, 2);
        service.switches.set_away(false);
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.answered_soon().status, 201));
    });
}

/// A request on a connection of its own, of which the test does what it likes.
fn send(service: &TestService, account: &str, more: &str) -> TcpStream {
    let body = json!({"country": "US", "account_id": account}).to_string();
    let head = "POST /card HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=30\r\nContent-Type: application/json";
    let mut stream = TcpStream::connect(service.address()).expect("a connection");
    stream.set_read_timeout(Some(test_harness::DEADLINE)).expect("a timeout");
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}{more}", body.len()).expect("a request");
    stream
}

/// The status and the body of the next answer.
fn receive(stream: &mut BufReader<TcpStream>) -> (u16, Value) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).expect("an answer"), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    (head[9..12].parse().expect("a status"), serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn a_client_that_leaves_waits_no_more() {
    let service = TestService::start();
    let account = new_id();
    let left: Vec<_> = (0..50).map(|_| send(&service, &account, "")).collect();
    wait_for_waiters(&service, 50);
    let left_at = Instant::now();
    drop(left);
    wait_for_waiters(&service, 0);
    assert!(left_at.elapsed() < SOON, "the wait came to its end");
    service.tell(&[created(&account)]);
    let cards = service.get(&crate::service::by_account(&account)).expect(200);
    assert_eq!(cards["total"], 0, "nobody has asked for a card any more");
}

#[test]
fn what_follows_on_the_connection_is_answered_in_order_and_other_connections_meanwhile() {
    let service = TestService::start();
    let account = new_id();
    let waiting: Vec<_> = (0..200).map(|_| send(&service, UNKNOWN_ID, "")).collect();
    let pipelined = send(&service, &account, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_for_waiters(&service, 201);
    let other = service.account();
    for _ in 0..20 {
        service.card("US", &other);
        service.get("/cards").expect(200);
    }
    assert_eq!(service.view()["waiting"], 201);
    service.publish(&[created(&account)]);
    let mut pipelined = BufReader::new(pipelined);
    assert_eq!(receive(&mut pipelined).0, 201);
    assert_eq!(receive(&mut pipelined), (200, json!({"status": "healthy", "service": "card-service"})));
    service.publish(&[created(UNKNOWN_ID)]);
    for stream in waiting {
        assert_eq!(receive(&mut BufReader::new(stream)).0, 201);
    }
}

#[test]
fn a_service_that_stops_answers_those_who_wait() {
    let service = TestService::start();
    std::thread::scope(|scope| {
        let waiting = Waiting::post(scope, &service, UNKNOWN_ID, &[LONG, (VERSION, "1")]);
        wait_for_waiters(&service, 1);
        drop(service);
        assert_catching_up(&waiting.answered_soon());
    });
}
