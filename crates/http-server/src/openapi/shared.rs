//! What the documents of both services share: the headers, and the errors that arise in this crate.

use std::num::NonZeroU32;

use access::{Refusal, Scope};
use axum::http::header::ORIGIN;
use axum::http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authentication::{insufficient_scope, unauthenticated};
use crate::body::incomplete;
use crate::body_error::explain;
use crate::error::ApiError;
use crate::guard::{AllowedHosts, Guard};
use crate::idempotency::{MAX_KEY_BYTES, invalid};
use crate::limits::{rate_limited, too_many_in_flight};
use crate::paging::parse_limit;
use crate::query::{check_encoding, refuse};
use crate::request_id::MAX_REQUEST_ID_BYTES;

/// The headers that requests may have. They have no examples: Swagger UI would send the example with each request.
pub(super) fn request_headers() -> Map<String, Value> {
    let id = json!({ "type": "string", "pattern": "^[A-Za-z0-9._:/+=-]+$", "maxLength": MAX_REQUEST_ID_BYTES });
    let key = json!({ "type": "string", "pattern": "^[!-~]+$", "maxLength": MAX_KEY_BYTES });
    let text = json!({ "type": "string" });
    let version = json!({ "type": "integer", "minimum": 1, "maximum": 1_073_741_823 });
    [
        ("X-Request-Id", id, "Names the request in the response and in the logs. Another value is replaced."),
        ("Idempotency-Key", key, "A request that is repeated with its key is done once."),
        ("If-Match", text.clone(), "The change is made only if the current `ETag` is one of these, such as `\"1\"`."),
        ("If-None-Match", text.clone(), "The request is answered only if the current `ETag` is none of these."),
        (
            "Prefer",
            text.clone(),
            "`wait=5` waits up to 5 seconds, at most 30, until the view knows the account (RFC 7240).",
        ),
        ("Account-Version", version, "The view must know the account in this version or a later one."),
        ("Last-Event-ID", text.clone(), "The stream goes on after the event with this `id`."),
        ("traceparent", text, "The W3C trace context that the events of the change carry."),
    ]
    .map(|(name, schema, description)| {
        let header = json!({ "name": name, "in": "header", "description": description, "schema": schema });
        (name.to_owned(), header)
    })
    .into_iter()
    .collect()
}

/// The headers that responses may have. Those that are not required depend on the request.
pub(super) fn response_headers() -> Map<String, Value> {
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 1 }));
    let count = json!({ "type": "integer", "minimum": 0 });
    [
        ("X-Request-Id", true, text.clone(), "The caller's id of the request if it is valid, else a new one."),
        ("ETag", true, json!({ "type": "string", "pattern": "^\"[0-9]+\"$" }), "The version, in double quotes."),
        ("Location", true, text.clone(), "Where the new resource is."),
        ("Account-Version", true, number.clone(), "The version of the account's latest event."),
        (
            "Idempotent-Replayed",
            false,
            json!({ "const": "true" }),
            "The answer is that of an earlier request with the key.",
        ),
        ("Preference-Applied", false, text.clone(), "The preference that was applied, as `wait=S`."),
        ("Retry-After", true, number, "The seconds to wait before a retry."),
        ("Allow", true, text.clone(), "The methods of the path."),
        ("RateLimit-Limit", false, count.clone(), "The requests that the client may send in a second."),
        ("RateLimit-Remaining", false, count.clone(), "The requests that the client may send at once."),
        ("RateLimit-Reset", false, count, "The seconds until all of them are there again."),
        ("WWW-Authenticate", false, text, "How to authenticate, and the scope that is missing (RFC 6750)."),
    ]
    .map(|(name, required, schema, description)| {
        (name.to_owned(), json!({ "description": description, "required": required, "schema": schema }))
    })
    .into_iter()
    .collect()
}

/// One error of each code that arises in this crate, made as for a request.
pub(super) fn shared_errors() -> impl Iterator<Item = ApiError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "name")]
        _name: String,
    }
    let bodies: [&[u8]; 6] = [b"{", b"\xff", b"[]", b"{\"name\":5}", b"{\"name\":\"a\",\"name\":\"b\"}", b"{}"];
    let statuses = [
        StatusCode::BAD_REQUEST,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::URI_TOO_LONG,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    ];
    let guard = Guard { hosts: None, cors: None };
    let mut foreign = Request::new(());
    *foreign.version_mut() = axum::http::Version::HTTP_10;
    let is_overloaded = guard.check(&foreign, true);
    *foreign.method_mut() = axum::http::Method::POST;
    foreign.headers_mut().insert(ORIGIN, HeaderValue::from_static("https://shop.example"));
    let refused = [
        is_overloaded,
        guard.check(&foreign, false),
        guard.check(&Request::new(()), false),
        AllowedHosts::default().check("shop.example"),
        parse_limit(Some("0")).map(drop),
        check_encoding("id=%zz"),
        Err(refuse("duplicate field `id`")),
        Err(invalid("the Idempotency-Key header is given more than once")),
        Err(incomplete()),
        Err(unauthenticated(Refusal::Missing)),
        Err(unauthenticated(Refusal::Unavailable)),
        Err(insufficient_scope(Scope::Admin)),
        Err(rate_limited("this address", NonZeroU32::MIN)),
        Err(too_many_in_flight("this address", NonZeroU32::MIN)),
    ];
    let refused = refused.into_iter().filter_map(Result::err);
    bodies.into_iter().map(explain::<Body>).chain(statuses.map(ApiError::of_status)).chain(refused)
}
