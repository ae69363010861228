//! `tandem verify`: compares the account table, the event log and the account view of each card service, and repairs what differs
//! (docs/decisions/0016).

mod compare;
mod log;
mod progress;
mod repair;
mod report;

use std::time::{Duration, Instant};

use account_events::digest::EventState;
use event_log::KafkaLog;
use process::Variables;

use self::compare::{Parties, first_there};
use self::log::Source;
use self::progress::Progress;
use self::report::Report;
use crate::client::{self, Service};
use crate::settings::{Settings, VerifyArgs};

/// The exit status if accounts differ.
const DIFFERENT: i32 = 1;

/// The exit status if the comparison was not possible.
const NOT_COMPARED: i32 = 2;

/// Runs the command and exits.
pub(crate) fn run(arguments: &VerifyArgs, settings: &Settings, variables: &Variables) -> ! {
    let progress = Progress::new();
    let outcome =
        process::init_logs(&settings.common.log_level).and_then(|()| verify(arguments, settings, variables, &progress));
    progress.clear();
    let status = match outcome {
        Ok(report) => {
            match arguments.json {
                true => println!("{}", report.json()),
                false => print!("{}", report.text()),
            }
            if report.is_equal() { 0 } else { DIFFERENT }
        }
        Err(error) => {
            eprintln!("error: cannot compare: {error:#}");
            NOT_COMPARED
        }
    };
    process::exit(status)
}

fn verify(
    arguments: &VerifyArgs,
    settings: &Settings,
    variables: &Variables,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let patience = Duration::from_secs(arguments.wait_seconds);
    let urls = arguments.account_url.iter().chain(&arguments.card_url).map(String::as_str);
    let agent = client::agent(urls, arguments.ca_file.as_deref())?;
    let services = |urls: &[String]| -> Vec<Service> {
        urls.iter().map(|url| Service::new(agent.clone(), url, arguments.token.clone(), patience)).collect()
    };
    progress.step("asking the services");
    let (accounts, cards) = (services(&arguments.account_url), services(&arguments.card_url));
    let source = match (settings.kafka.log_settings(variables)?, cards.first()) {
        (Some(kafka), _) => Source::Kafka { log: Box::new(KafkaLog::open(kafka)?), reader: None, patience },
        (None, Some(card)) => Source::Service(card.clone()),
        (None, None) => anyhow::bail!("no --card-url"),
    };
    let mut parties = Parties { accounts: first_there(&accounts, patience)?, cards, source, patience };
    let mut comparison = parties.compare(progress)?;
    let mut repaired = None;
    if arguments.repair && !comparison.differing.is_empty() {
        progress.step("publishing accounts again");
        repaired = Some(repair::repair(&parties.accounts, &comparison.differing)?);
        comparison = parties.compare(progress)?;
    }
    Ok(Report {
        account_url: parties.accounts.url.clone(),
        card_urls: parties.cards.iter().map(|card| card.url.clone()).collect(),
        log: parties.source.describe(),
        comparison,
        repaired,
        elapsed: started.elapsed(),
    })
}
