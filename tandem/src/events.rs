//! `tandem events`: prints the account events of the log, as a card service streams them (docs/api.md, "The event stream").

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _, stdout};
use std::time::{Duration, Instant};

use account_events::AccountId;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Failure, Lines, Service};
use crate::settings::EventsArgs;

/// How long a service may be away before the command gives up, unless it follows.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pause before a stream that has ended is resumed.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the command and exits.
pub(crate) fn run(arguments: &EventsArgs) -> ! {
    let outcome = arguments.service.connect().and_then(|service| print(&service, arguments));
    process::exit(crate::client::status(outcome))
}

fn print(service: &Service, arguments: &EventsArgs) -> anyhow::Result<()> {
    let mut printer = Printer { account: arguments.account, json: arguments.service.json };
    let mut stream = Stream { service, path: "/events?from=start".to_owned(), last: None };
    if arguments.follow {
        return stream.follow(&mut printer);
    }
    // A stream without a start begins at the present, and says where that is.
    let end = service.patiently(|| first_id(service)).context("cannot read the present position")?;
    let end = positions(&end).with_context(|| format!("a position that this release does not know: {end}"))?;
    stream.read_to(&end, &mut printer)
}

/// The events from the start on, resumed after each interruption.
struct Stream<'a> {
    service: &'a Service,
    path: String,
    /// The position of the last block.
    last: Option<String>,
}

/// A block of a stream.
#[derive(Debug, Default, PartialEq)]
struct Block {
    id: String,
    name: String,
    data: Option<String>,
}

impl Stream<'_> {
    /// Prints events until the process is ended.
    fn follow(&mut self, printer: &mut Printer) -> anyhow::Result<()> {
        loop {
            match self.pass(|block| printer.print(block).map(|()| false)) {
                Err(error) if error.is_final => return Err(error.cause),
                Err(error) => eprintln!("the stream is resumed: {:#}", error.cause),
                Ok(()) => {}
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Prints the events before `end`.
    fn read_to(&mut self, end: &BTreeMap<u32, u64>, printer: &mut Printer) -> anyhow::Result<()> {
        let mut progressed = Instant::now();
        loop {
            let mut is_done = false;
            let before = self.last.clone();
            let outcome = self.pass(|block| {
                printer.print(block)?;
                is_done = positions(&block.id).is_some_and(|reached| covers(&reached, end));
                Ok(is_done)
            });
            if is_done {
                return Ok(());
            }
            if self.last != before {
                progressed = Instant::now();
            }
            match outcome {
                Err(error) if error.is_final || progressed.elapsed() >= PATIENCE => return Err(error.cause),
                Ok(()) if progressed.elapsed() >= PATIENCE => bail!("{}: the stream ends too early", self.service.url),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Reads one stream until it ends, or until `each` returns `true`.
    fn pass(&mut self, mut each: impl FnMut(&Block) -> anyhow::Result<bool>) -> Result<(), Interruption> {
        let mut lines = self.service.stream(&self.path, self.last.as_deref())?;
        while let Some(block) = next_block(&mut lines).map_err(Interruption::transient)? {
            if !block.id.is_empty() {
                self.last = Some(block.id.clone());
            }
            if each(&block).map_err(Interruption::last)? {
                break;
            }
        }
        Ok(())
    }
}

/// Why a stream ended.
struct Interruption {
    cause: anyhow::Error,
    /// Resuming the stream does not help.
    is_final: bool,
}

impl Interruption {
    fn transient(error: std::io::Error) -> Self {
        Interruption { cause: error.into(), is_final: false }
    }

    fn last(cause: anyhow::Error) -> Self {
        Interruption { cause, is_final: true }
    }
}

impl From<Failure> for Interruption {
    fn from(failure: Failure) -> Self {
        let is_final = matches!(failure, Failure::Final(_));
        let (Failure::Final(text) | Failure::Transient(text)) = failure;
        Interruption { cause: anyhow::Error::msg(text), is_final }
    }
}

/// The position in the first block of a stream that begins at the present.
fn first_id(service: &Service) -> Result<String, Failure> {
    let mut lines = service.stream("/events", None)?;
    let block = next_block(&mut lines).ok().flatten();
    block.map(|block| block.id).ok_or_else(|| Failure::Transient("the stream ends too early".to_owned()))
}

/// Reads the next block; `None` at the end of the stream.
fn next_block(lines: &mut Lines) -> std::io::Result<Option<Block>> {
    let (mut block, mut line) = (Block::default(), String::new());
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(": ") {
            None => return Ok(Some(block)),
            Some(("id", id)) => block.id = id.to_owned(),
            Some(("event", name)) => block.name = name.to_owned(),
            Some(("data", data)) => block.data = Some(data.to_owned()),
            Some(_) => {} // a comment
        }
    }
}

/// The next offset of each partition in the `id` of a block.
fn positions(id: &str) -> Option<BTreeMap<u32, u64>> {
    let (_log, positions) = id.split_once(';')?;
    let position = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    positions.split(',').filter(|pair| !pair.is_empty()).map(position).collect()
}

/// Whether `reached` is `end` or beyond it in each partition.
fn covers(reached: &BTreeMap<u32, u64>, end: &BTreeMap<u32, u64>) -> bool {
    end.iter().all(|(partition, offset)| *offset == 0 || reached.get(partition).is_some_and(|found| found >= offset))
}

/// What is printed of an event.
#[derive(Deserialize)]
struct Event {
    r#type: String,
    account_id: AccountId,
    status: String,
    version: Option<u32>,
    partition: u32,
    offset: u64,
    time: Option<String>,
}

struct Printer {
    account: Option<AccountId>,
    json: bool,
}

impl Printer {
    fn print(&mut self, block: &Block) -> anyhow::Result<()> {
        let Some(data) = &block.data else { return Ok(()) };
        if block.name == "gap" {
            let reason = serde_json::from_str::<Value>(data).ok();
            let reason = reason.as_ref().and_then(|data| data["reason"].as_str()).unwrap_or_default();
            eprintln!("events may be missing before the next one: {reason}");
            return Ok(());
        }
        let event: Event = serde_json::from_str(data).context("an event that this release does not know")?;
        if self.account.is_some_and(|account| account != event.account_id) {
            return Ok(());
        }
        let line = if self.json { data.clone() } else { event.line() };
        // Whoever does not read the output has closed it.
        writeln!(stdout(), "{line}").context("stdout is closed")
    }
}

impl Event {
    fn line(&self) -> String {
        let Event { r#type, account_id, status, version, partition, offset, time } = self;
        let version = version.map_or("-".to_owned(), |version| version.to_string());
        let time = time.as_deref().unwrap_or("-");
        format!("{time:<24} {partition}:{offset:<8} {account_id} version {version:<4} {status:<7} {type}", type = r#type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_covers_another_in_each_partition() {
        let at = |id: &str| positions(id).unwrap();
        assert_eq!(at("7f;0:17,2:4"), BTreeMap::from([(0, 17), (2, 4)]));
        assert_eq!((at(";"), positions("7f"), positions("7f;x")), (BTreeMap::new(), None, None));
        assert!(covers(&at("a;0:17,1:1"), &at("a;0:17,2:0")));
        assert!(!covers(&at("a;0:16,1:1"), &at("a;0:17")));
        assert!(!covers(&at("a;"), &at("a;0:1")));
    }
}
