//! Logs on stderr: compact text on a terminal, one JSON object per line otherwise. A separate thread writes them
//! ([`log_writer`]).

use std::io::{IsTerminal as _, stderr};
use std::{panic, thread};

use anyhow::Context as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::log_writer::{self, LogLine};

/// The levels of a filter.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging for the process with `level_filter` (see [`log_level`]), panics included. The process ends with
/// [`exit`](crate::exit), which flushes the log.
pub fn init_logs(level_filter: &str) -> anyhow::Result<()> {
    let filter = parse_filter(level_filter).map_err(anyhow::Error::msg)?;
    // The number of dropped lines is logged whatever the filter is.
    let filter = filter.with_target("process::log_writer", LevelFilter::WARN);
    let is_terminal = stderr().is_terminal();
    // The formatter would print its own errors to stderr, which may block.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| LogLine).with_ansi(is_terminal).log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if is_terminal {
        lines.compact().boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().context("logging is set up already")?;
    log_writer::start().context("cannot start the thread that writes the log")?;
    panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("no text");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: {text}");
        // The process ends with the main thread.
        if thread::current().name() == Some("main") {
            log_writer::flush();
        }
    }));
    Ok(())
}

/// Checks the value of `LOG_LEVEL`, for `#[arg(value_parser = process::log_level)]`: a level, or several directives
/// with commas between them, such as `info,card_service=debug`.
pub fn log_level(text: &str) -> Result<String, String> {
    parse_filter(text).map(|_| text.trim().to_owned())
}

fn parse_filter(text: &str) -> Result<Targets, String> {
    for directive in text.split(',').map(str::trim) {
        // `Targets` takes a lone word for a target, so that `LOG_LEVEL=inof` would log nothing.
        let level = directive.split_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level.trim())) {
            let expected = LEVELS.join(", ");
            return Err(format!("`{level}` is no level: expected {expected}, or target=level such as event_log=debug"));
        }
    }
    let spaceless: String = text.split_whitespace().collect();
    spaceless.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn filters_are_levels_for_targets() {
        let filter = parse_filter("info, card_service=debug").unwrap();
        assert!(filter.would_enable("any", &Level::INFO) && !filter.would_enable("any", &Level::DEBUG));
        assert!(filter.would_enable("card_service::feed", &Level::DEBUG));
        assert_eq!(log_level(" WARN ").unwrap(), "WARN");
        for (text, wrong) in
            [("inof", "`inof`"), ("", "``"), ("info,", "``"), ("a=b", "`b`"), ("info;a=debug", "`debug`")]
        {
            match log_level(text) {
                Err(error) => assert!(error.starts_with(wrong), "{text}: {error}"),
                Ok(_) => assert_eq!(text, "info;a=debug", "an odd target, and a level"),
            }
        }
    }

    /// The process whose stderr the test below reads.
    #[test]
    #[ignore = "sets the logger of its process"]
    fn child() {
        init_logs("info").unwrap();
        tracing::debug!("left out");
        tracing::info!(count = 3, text = "a\nb", "two\nlines");
        assert!(init_logs("info").is_err_and(|error| error.to_string() == "logging is set up already"));
        let _ended = std::thread::spawn(|| panic!("boom")).join();
        log_writer::flush();
    }

    #[test]
    fn a_pipe_gets_one_json_object_a_line() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::tests::child", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let lines = String::from_utf8(child.stderr).unwrap();
        let [event, panic] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        assert!(event.starts_with("{\"timestamp\":\"20") && event.ends_with('}'), "{event}");
        let fields =
            r#""level":"INFO","message":"two\nlines","count":3,"text":"a\nb","target":"process::telemetry::tests""#;
        assert!(event.contains(fields), "{event}");
        assert!(panic.contains(r#""level":"ERROR","message":"panic: boom","place":"crates/process"#), "{panic}");
    }
}
