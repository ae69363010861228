//! `GET /asyncapi.json`: the topic `account-events`, as AsyncAPI 3.0.

use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use http_server::{Content, Operation};
use serde_json::json;

/// The path of the document.
pub(crate) const ASYNCAPI_PATH: &str = "/asyncapi.json";

/// Written by hand. A test compares it with the golden records (`tests/contract/documents.rs`).
const DOCUMENT: &str = include_str!("asyncapi.json");

pub(crate) async fn get_asyncapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

pub(crate) fn asyncapi_operation() -> Operation {
    let schema = json!({ "type": "object", "required": ["asyncapi", "info", "channels"] });
    let content = Content::inline(schema, json!({ "asyncapi": "3.0.0", "info": {}, "channels": {} }));
    Operation::new("get_asyncapi", "Documents", "Returns the AsyncAPI document of the events.").answer(
        200,
        "The document.",
        content,
        &[],
    )
}
