//! `tandem quarantine`: lists, shows and acknowledges the records that a card service cannot decode (docs/operations/troubleshoot.md).

use std::fmt::Write as _;
use std::str::FromStr;

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Service;
use crate::settings::QuarantineCommand;

/// A partition and an offset, such as `0:17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    partition: u32,
    offset: u64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once(':').and_then(|(partition, offset)| {
            Some(Place { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        place.ok_or_else(|| "expected a partition and an offset such as 0:17".to_owned())
    }
}

/// A page of `GET /quarantine`.
#[derive(Deserialize)]
struct Page {
    records: Vec<Value>,
    dropped: u64,
    next: Option<String>,
}

/// Runs the command and exits.
pub(crate) fn run(command: &QuarantineCommand) -> ! {
    let outcome = command.service().connect().and_then(|service| execute(&service, command));
    process::exit(crate::client::status(outcome.map(|output| println!("{}", output.trim_end()))))
}

/// Returns the text for stdout.
fn execute(service: &Service, command: &QuarantineCommand) -> anyhow::Result<String> {
    let json = command.service().json;
    match command {
        QuarantineCommand::List { .. } => {
            let (records, dropped) = all(service)?;
            Ok(if json {
                json!({ "records": records, "dropped": dropped }).to_string()
            } else {
                table(&records, dropped)
            })
        }
        QuarantineCommand::Show { place, .. } => {
            let (records, _) = all(service)?;
            let Some(record) = records.iter().find(|record| place.is_of(record)) else {
                bail!(
                    "{}: no record of partition {} and offset {} is in quarantine",
                    service.url,
                    place.partition,
                    place.offset
                )
            };
            Ok(if json { record.to_string() } else { serde_json::to_string_pretty(record)? })
        }
        QuarantineCommand::Acknowledge { place: Place { partition, offset }, .. } => {
            let answer: Value = service.delete(&format!("/quarantine?partition={partition}&offset={offset}"))?;
            Ok(if json {
                answer.to_string()
            } else {
                format!("The record {partition}:{offset} is acknowledged and removed.")
            })
        }
    }
}

impl Place {
    fn is_of(self, record: &Value) -> bool {
        record["partition"] == self.partition && record["offset"] == self.offset
    }
}

/// All records, and how many found no room.
fn all(service: &Service) -> anyhow::Result<(Vec<Value>, u64)> {
    let (mut records, mut path) = (Vec::new(), "/quarantine?limit=200".to_owned());
    loop {
        let page: Page = service.get(&path)?;
        records.extend(page.records);
        match page.next {
            Some(next) => path = format!("/quarantine?limit=200&after={next}"),
            None => return Ok((records, page.dropped)),
        }
    }
}

/// A line for each record.
fn table(records: &[Value], dropped: u64) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for record in records {
        let place = format!("{}:{}", record["partition"], record["offset"]);
        let [timestamp, reason, detail] = ["timestamp", "reason", "detail"].map(|name| word(&record[name]));
        let _ = writeln!(text, "{place:<12} {timestamp:<24} {reason:<18} {detail}");
    }
    if records.is_empty() {
        text.push_str("The quarantine is empty.\n");
    }
    if dropped > 0 {
        let _ =
            writeln!(text, "{dropped} more records found no room since the start of this instance; the log has them.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!("2:17".parse(), Ok(Place { partition: 2, offset: 17 }));
        for wrong in ["", "2", ":17", "2:", "a:1", "-1:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
