//! `GET /admin/log?from=`: the records of the event log from these offsets on, for `tandem verify`. Another process cannot read
//! the embedded event log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use account_events::digest::LogLine;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use event_log::{EventLog, LogError, Positions, Reader};
use http_server::{ApiError, Content, LineSender, Operation, QueryParams, ScanPermit, lines};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::IntoParams;

use crate::accounts::status::remaining;
use crate::error::CardError;
use crate::http::response::{ACCOUNT_ID, ADMIN, CardService};

/// The most records of a response, and some more: a few seconds' worth. The caller continues at its last line.
const MAX_RECORDS: usize = 1_000_000;

/// How long the log may bring nothing before the response ends.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How long the log may take to return its end offsets.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one poll waits for records.
const POLL: Duration = Duration::from_millis(100);

#[derive(Deserialize, IntoParams)]
pub(crate) struct LogQuery {
    /// The first offset of each partition; the oldest one if it is not given.
    #[param(value_type = String, required = false, example = "0:17,1:4")]
    from: Option<String>,
}

/// The last line: the next offset of each partition, and the end offsets when the response began.
#[derive(Serialize)]
struct LogPosition {
    positions: Positions,
    ends: Positions,
}

pub(crate) async fn read_log(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<LogQuery>,
    permit: ScanPermit,
) -> Result<Response, ApiError> {
    let from = query.from.as_deref().filter(|from| !from.is_empty());
    let from = from.map_or(Some(Positions::new()), parse_positions).ok_or(CardError::InvalidFrom)?;
    let opening = spawn_blocking(move || open(service.log.as_ref(), &from));
    let (reader, ends) =
        opening.await.map_err(|_panic| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR))?.map_err(|error| {
            tracing::warn!(%error, "the event log cannot be read for a comparison");
            CardError::LogUnavailable
        })?;
    let (sender, response) = lines(permit);
    spawn_blocking(move || {
        if let Err(error) = send_records(reader, ends, sender) {
            tracing::warn!(%error, "a list of the event log's records was cut short");
        }
    });
    Ok(response)
}

pub(crate) fn read_log_operation() -> Operation {
    let lines = format!(
        "[0,\"{ACCOUNT_ID}\",[\"{ACCOUNT_ID}\",1,\"ACTIVE\"]]\n{{\"positions\":{{\"0\":18}},\"ends\":{{\"0\":18}}}}\n"
    );
    Operation::new("read_log", ADMIN, "Lists records of the event log, a JSON value a line.")
        .description(
            "A response is complete if its last line is an object: the next offsets, and the end offsets at its start.",
        )
        .query::<LogQuery>()
        .answer(200, "The records.", Content::text("application/x-ndjson", lines), &[])
        .errors(&["invalid_from", "log_unavailable"])
}

fn open(log: &dyn EventLog, from: &Positions) -> Result<(Box<dyn Reader>, Positions), LogError> {
    let ends = log.end_offsets(OFFSETS_TIMEOUT)?;
    Ok((log.reader(from)?, ends))
}

fn send_records(mut reader: Box<dyn Reader>, ends: Positions, mut sender: LineSender) -> Result<(), LogError> {
    let (mut count, mut progressed) = (0, Instant::now());
    while remaining(&reader.positions(), &ends) > 0 && count < MAX_RECORDS {
        let before = reader.positions();
        count += reader.poll(POLL, &mut |record| sender.push(&LogLine::of(record)))?;
        if reader.positions() != before {
            progressed = Instant::now();
        } else if progressed.elapsed() >= STALLED_AFTER {
            let trouble = reader.trouble().unwrap_or_else(|| "it brings no records".to_owned());
            return Err(LogError::Unavailable(trouble));
        }
        if !sender.blocking_send() {
            return Ok(());
        }
    }
    let positions = reader.positions();
    // Closing a consumer takes a while.
    drop(reader);
    sender.blocking_finish(&LogPosition { positions, ends });
    Ok(())
}

/// Parses partitions with offsets, such as `0:17,1:4`.
pub(crate) fn parse_positions(text: &str) -> Option<Positions> {
    let position = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    text.split(',').map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_partitions_with_offsets() {
        assert_eq!(parse_positions("0:17,2:4"), Some(Positions::from([(0, 17), (2, 4)])));
        for text in ["0", "0:", ":1", "0:1,", "0:-1", "a:1", "0:1;1:2"] {
            assert_eq!(parse_positions(text), None, "{text}");
        }
    }
}
