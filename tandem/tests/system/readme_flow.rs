//! The README's flow, the very text that a person copies, and the seed's, which sleeps where the README waits: run by bash.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use test_harness::{Http, wait_until};

use crate::place::Place;
use crate::requests::{create_account, create_card};

/// `curl` as far as the flow uses it, on a machine that has nothing but bash.
const CURL_STAND_IN: &str = r#"
curl() {
  local LC_ALL=C method=GET body= url= headers= include=
  while [ $# -gt 0 ]; do
    case "$1" in
      -s) ;;
      -i) include=yes ;;
      -X) method=$2; shift ;;
      -H) headers+="$2"$'\r\n'; shift ;;
      -d) body=$2; shift ;;
      http://*) url=${1#http://} ;;
      *) echo "the stand-in does not know $1" >&2; return 2 ;;
    esac
    shift
  done
  local authority=${url%%/*} line
  exec 3<>"/dev/tcp/${authority%:*}/${authority##*:}" || return 7
  printf '%s /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%sContent-Length: %s\r\n\r\n%s' \
    "$method" "${url#*/}" "$authority" "$headers" "${#body}" "$body" >&3
  while IFS= read -r line <&3; do
    [ -z "$include" ] || printf '%s\n' "$line"
    [ "$line" != $'\r' ] || break
  done
  cat <&3
  exec 3>&-
}
"#;

#[test]
fn the_flow_of_the_readme_works_on_the_all_in_one_embedded() {
    let place = Place::embedded();
    let mut tandem = place.start_all_in_one();
    check_flow(&tandem.ready_service(account_service::NAME), &tandem.ready_service(card_service::NAME));
}

#[test]
fn the_flow_of_the_readme_works_on_the_all_in_one_and_kafka() {
    let place = Place::kafka();
    let mut tandem = place.start_all_in_one();
    check_flow(&tandem.ready_service(account_service::NAME), &tandem.ready_service(card_service::NAME));
    assert!(!place.folder().join("data/event-log.db").exists(), "its own event log is not used");
}

#[test]
fn the_flow_of_the_readme_works_on_two_processes_and_kafka() {
    let place = Place::kafka();
    let services = place.start_services();
    check_flow(&services.accounts, &services.cards);
}

/// Runs it with the stand-in, and with curl itself where there is one.
pub(crate) fn check_flow(accounts: &Http, cards: &Http) {
    // A relay that has just started may still be on its way to Kafka.
    let first = create_account(accounts);
    wait_until("the first event has come through", || (create_card(cards, first).status == 201).then_some(()));

    check_flow_with(CURL_STAND_IN, accounts, cards);
    if Command::new("curl").arg("--version").output().is_ok() {
        check_flow_with("", accounts, cards);
    } else {
        eprintln!("curl is not installed: the stand-in alone has run the flow");
    }
}

/// The seed's flow, its requests as they are written there, and the id put in by hand.
const SEED_FLOW: &str = include_str!("readme_flow/seed.sh");

/// Runs both. The seed's flow gives an event a second. Where the machine is too busy for that, it runs once more and gives it longer.
fn check_flow_with(prelude: &str, accounts: &Http, cards: &Http) {
    check_answers(&run(prelude, &block_of_readme(), accounts, cards), cards);
    let mut output = run(prelude, SEED_FLOW, accounts, cards);
    if output.contains("account not found") || !output.contains("cannot create card for deleted account") {
        eprintln!("an event took longer than a second: {output}");
        output = run(&format!("{prelude}\nsleep() {{ command sleep 8; }}\n"), SEED_FLOW, accounts, cards);
    }
    check_answers(&output, cards);
}

/// Runs `prelude` and then `block` against these two, and returns what it printed.
fn run(prelude: &str, block: &str, accounts: &Http, cards: &Http) -> String {
    assert!(block.contains("localhost:8081") && block.contains("localhost:8082"), "{block}");
    let block = block
        .replace("localhost:8081", &accounts.address().to_string())
        .replace("localhost:8082", &cards.address().to_string());
    let output = Command::new("bash").arg("-c").arg(format!("{prelude}{block}")).output().expect("bash");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}\n{text}", output.status);
    text
}

/// The block of commands under "The flow".
fn block_of_readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let (_, section) = readme.split_once("\n## The flow\n").expect("a section \"The flow\"");
    let (_, block) = section.split_once("```bash\n").expect("a block of commands in it");
    block.split_once("```\n").expect("the block's end").0.to_owned()
}

/// The seed's answers, in the seed's order: account, card, cards of the account, deletion, refusal.
fn check_answers(output: &str, cards: &Http) {
    let answers = json_values(output);
    let [account, card, list, deleted, refused] = &answers[..] else { panic!("not five answers: {output}") };

    assert_fields(account, &["id", "account_number", "beholder_name", "country_code", "status"]);
    let text = |answer: &(&str, Value), field: &str| answer.1[field].as_str().expect(field).to_owned();
    assert_eq!(text(account, "beholder_name"), "John Doe");
    assert_eq!((text(account, "country_code"), text(account, "status")), ("US".to_owned(), "ACTIVE".to_owned()));
    let digits = text(account, "account_number").strip_prefix("ACC-").expect("ACC-").to_owned();
    assert!(digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");

    assert_fields(card, &["id", "card_number", "country", "account_id", "deleted", "creation_timestamp"]);
    assert_eq!(card.1.as_object().expect("an object").len(), 6, "{}", card.0);
    let digits = text(card, "card_number").strip_prefix("US-").expect("US-").to_owned();
    assert!(digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
    assert_eq!((text(card, "country"), text(card, "account_id")), ("US".to_owned(), text(account, "id")));
    assert_eq!(card.1["deleted"], json!(false));
    let time = text(card, "creation_timestamp");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");

    assert_eq!(list.1, json!({ "cards": [card.1], "total": 1, "next": null }));
    assert_fields(list, &["cards", "id", "card_number", "country", "account_id", "deleted", "creation_timestamp"]);
    assert_eq!(deleted.1, json!({ "message": "Account deleted successfully" }));
    assert_fields(refused, &["error"]);
    assert_eq!(text(refused, "error"), "cannot create card for deleted account");

    // What the seed leaves open: the card ends with its account.
    wait_until("the card is deleted with its account", || {
        let card = cards.get(&format!("/card?id={}", text(card, "id"))).expect(200);
        (card["deleted"] == json!(true)).then_some(())
    });
}

/// The JSON values that stand one after the other in `output`, each with its own text.
fn json_values(output: &str) -> Vec<(&str, Value)> {
    let mut values = serde_json::Deserializer::from_str(output).into_iter::<Value>();
    let mut start = 0;
    std::iter::from_fn(|| {
        let value = values.next()?.unwrap_or_else(|error| panic!("{error} in {output}"));
        let text = output[start..values.byte_offset()].trim();
        start = values.byte_offset();
        Some((text, value))
    })
    .collect()
}

/// `answer` begins with `fields`, in this order.
fn assert_fields((text, _): &(&str, Value), fields: &[&str]) {
    let names: Vec<_> = text.split('"').skip(1).step_by(2).collect();
    // Names and texts alternate in no fixed way, so what counts is where each name stands first.
    let places: Vec<_> = fields.iter().map(|field| names.iter().position(|name| name == field)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{fields:?} in {text}");
    assert_eq!(places[0], Some(0), "{} comes first in {text}", fields[0]);
}
