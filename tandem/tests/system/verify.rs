//! `tandem verify`, as an operator runs it, on the embedded event log and, where there is one, on Apache Kafka.

mod away;
mod differences;
mod load;

use std::path::Path;
use std::process::Command;

use account_events::AccountId;
use serde_json::Value;
use test_harness::{binary, output_of};

use crate::place::{Place, Services};

/// The exit status and the report of a run.
struct Verified {
    status: i32,
    report: Value,
}

fn places() -> impl Iterator<Item = Place> {
    [Some(Place::embedded()), Place::apache_kafka()].into_iter().flatten()
}

fn verify(place: &Place, services: &Services, arguments: &[&str]) -> Verified {
    let url = |http: &test_harness::Http| format!("http://{}", http.address());
    run(place, &[&["--account-url", &url(&services.accounts), "--card-url", &url(&services.cards)], arguments].concat())
}

fn run(place: &Place, arguments: &[&str]) -> Verified {
    run_in(place.folder(), place.log_settings(), arguments)
}

/// Runs the command in `folder` with `settings` of the event log.
fn run_in(folder: &Path, settings: Vec<(&'static str, String)>, arguments: &[&str]) -> Verified {
    let mut command = Command::new(binary("tandem"));
    command.args(["verify", "--json"]).args(arguments);
    let output = output_of(command.current_dir(folder).env_clear().envs(settings));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let status = output.status.code().unwrap_or_else(|| panic!("{}: {stderr}", output.status));
    let report = if stdout.is_empty() { Value::from(stderr) } else { stdout.parse().expect("JSON") };
    Verified { status, report }
}

/// What a run prints for people.
fn text(place: &Place, services: &Services) -> String {
    let mut command = Command::new(binary("tandem"));
    let url = |http: &test_harness::Http| format!("http://{}", http.address());
    command.args(["verify", "--account-url", &url(&services.accounts), "--card-url", &url(&services.cards)]);
    let output = output_of(command.current_dir(place.folder()).env_clear().envs(place.log_settings()));
    String::from_utf8(output.stdout).expect("text")
}

impl Verified {
    #[track_caller]
    fn expect_equal(&self) {
        assert_eq!((self.status, &self.report["equal"]), (0, &true.into()), "{:#}", self.report);
    }

    /// The account is the only one that differs, and its meaning has this text.
    #[track_caller]
    fn expect_different(&self, id: AccountId, meaning: &str) {
        assert_eq!((self.status, &self.report["differing"]), (1, &1.into()), "{:#}", self.report);
        let account = &self.report["accounts"][0];
        assert_eq!(account["account"], id.to_string(), "{:#}", self.report);
        assert!(account["meaning"].as_str().is_some_and(|text| text.contains(meaning)), "{meaning}: {account:#}");
    }
}
