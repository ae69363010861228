//! The audit: a line for each write request that was done, or that its caller may not send, to the log under the target `audit` and to a file.
//!
//! A line has no body, no header but the request id, and no query but an id or a place, so that it has no names and no secrets.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::LOCATION;
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tracing::info;
use uuid::Uuid;

use crate::audit_file::AuditFile;

/// The most bytes of a path in a line: paths of the services are shorter, and a caller chooses others freely.
const MAX_PATH_BYTES: usize = 256;

/// The target of the lines in the log.
const TARGET: &str = "audit";

/// The code of an error, in the extensions of its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// Writes the lines of a service.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) service: &'static str,
    pub(crate) file: Option<Arc<AuditFile>>,
}

/// What a line says of its request, before the request is answered.
#[derive(Debug)]
pub(crate) struct Audited<'a> {
    /// The name of the caller; `None` if nobody is named.
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) request_id: &'a HeaderValue,
    /// The address of the connection's peer, which may be a proxy.
    pub(crate) client: IpAddr,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    service: &'static str,
    caller: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    id: Option<String>,
    request_id: &'a str,
    status: u16,
    code: Option<&'static str>,
    client: IpAddr,
}

impl Audit {
    /// Writes the line of a request and its `response`, unless the request only reads. Does not block.
    pub(crate) fn record(&self, request: &Audited<'_>, response: &Response) {
        if !matches!(*request.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
            return;
        }
        let path = request.uri.path();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let line = Line {
            time: Timestamp::now(),
            service: self.service,
            caller: request.caller.as_deref(),
            method: request.method.as_str(),
            path: &path[..path.floor_char_boundary(MAX_PATH_BYTES)],
            id: location.map_or(request.uri.query(), |location| Some(query_of(location))).and_then(id_of),
            request_id: request.request_id.to_str().unwrap_or_default(),
            status: response.status().as_u16(),
            code: response.extensions().get::<ErrorCode>().map(|code| code.0),
            client: request.client,
        };
        let Line { service, caller, method, path, request_id, status, code, .. } = line;
        let (id, client) = (line.id.as_deref(), tracing::field::display(line.client));
        info!(target: TARGET, service, caller, method, path, id, request_id, status, code, client, "write request");
        if let Some(file) = &self.file
            && let Ok(mut text) = serde_json::to_vec(&line)
        {
            text.push(b'\n');
            file.write(text);
        }
    }
}

/// The query of `uri`.
fn query_of(uri: &str) -> &str {
    uri.split_once('?').map_or("", |(_, query)| query)
}

/// The id in `query`, or the partition and the offset, as the handlers decode them. Other text may be anything.
fn id_of(query: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let decoded = |text| percent_decode_str(text).decode_utf8().ok();
        pairs.find_map(|(name, value)| decoded(name).filter(|name| name == wanted).and_then(|_| decoded(value)))
    };
    match value("id") {
        Some(id) => Some(id.parse::<Uuid>().ok()?.to_string()),
        None => {
            let number = |name| value(name)?.parse::<u64>().ok();
            Some(format!("{}:{}", number("partition")?, number("offset")?))
        }
    }
}
