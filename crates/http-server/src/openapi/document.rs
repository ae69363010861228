//! The document made of the operations.

use std::collections::{BTreeMap, BTreeSet};

use access::Access;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::endpoints::{Api, Endpoint};
use super::shared::{request_headers, response_headers, shared_errors};
use super::{Content, Operation};
use crate::error::ApiError;
use crate::health::HEALTH_PATHS;

/// The errors of every operation, which arise before the router.
const ALWAYS: [&str; 6] =
    ["invalid_host", "bad_request", "method_not_allowed", "request_timeout", "uri_too_long", "headers_too_large"];

/// The errors of every operation but health checks.
const NOT_HEALTH: [&str; 4] = ["unknown_host", "overloaded", "rate_limited", "too_many_in_flight"];

/// The errors of an operation that not everybody may call.
const AUTHENTICATION: [&str; 3] = ["unauthenticated", "insufficient_scope", "unavailable"];

/// The errors of an operation with a query.
const QUERY: [&str; 2] = ["invalid_query", "duplicate_parameter"];

/// The errors of an operation with a body.
const BODY: [&str; 8] = [
    "malformed_json",
    "invalid_encoding",
    "invalid_body",
    "invalid_field",
    "duplicate_field",
    "incomplete_body",
    "body_too_large",
    "unsupported_media_type",
];

/// Returns the document.
pub(super) fn document(api: &Api, endpoints: &[Endpoint]) -> Value {
    let mut writer = Writer { errors: BTreeMap::new(), schemas: BTreeMap::new(), responses: Map::new() };
    // Of two errors with a code, the service's own one has the better text.
    for error in (api.errors)().into_iter().chain(shared_errors()) {
        writer.errors.entry(error.code).or_insert(error);
    }
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut tags = Vec::new();
    for Endpoint { method, path, access, operation } in endpoints {
        let operation = operation();
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
        let operation = writer.operation(method, path, *access, operation);
        paths.entry(path).or_default().insert((*method).to_owned(), operation);
    }
    writer.schemas.insert(
        "Error".to_owned(),
        json!({
            "type": "object",
            "required": ["error", "code"],
            "properties": {
                "error": { "type": "string", "description": "The cause, for people." },
                "code": { "type": "string", "description": "The cause, for programs. Stable." },
                "field": { "type": "string", "description": "The field, header or parameter at fault, if there is one." },
            },
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": api.version,
            "description": api.description,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "tags": tags.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": writer.schemas,
            "parameters": request_headers(),
            "headers": response_headers(),
            "responses": writer.responses,
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A key or a token, where the service authenticates its callers. An operation names the scope that it needs.",
            } },
        },
    })
}

struct Writer {
    errors: BTreeMap<&'static str, ApiError>,
    schemas: BTreeMap<String, Value>,
    /// The error responses that are the same wherever they occur.
    responses: Map<String, Value>,
}

impl Writer {
    fn operation(&mut self, method: &str, path: &str, access: Access, operation: Operation) -> Value {
        let codes = codes(method, path, access, &operation);
        let Operation { id, tag, summary, description, mut parameters, body, answers, headers, is_idempotent, .. } =
            operation;
        let mut responses = Map::new();
        for answer in answers {
            let mut names = [&answer.headers[..], &headers].concat();
            names.extend(is_idempotent.then_some("Idempotent-Replayed"));
            if method == "get" && answer.status == 200 {
                let text = "`If-None-Match` names the current `ETag`, or is `*`.";
                responses.insert("304".to_owned(), response(text, &names, None));
            }
            let content =
                answer.contents.into_iter().map(|content| (content.media_type.to_owned(), self.content(content)));
            let content = content.collect::<Map<_, _>>().into();
            responses.insert(answer.status.to_string(), response(answer.description, &names, Some(content)));
        }
        let mut by_status: BTreeMap<u16, Vec<ApiError>> = BTreeMap::new();
        for code in codes {
            debug_assert!(self.errors.contains_key(code), "{id}: no error has the code {code}");
            let error = self.errors.get(code).cloned().into_iter();
            error.for_each(|error| by_status.entry(error.status.as_u16()).or_default().push(error));
        }
        for (status, errors) in by_status {
            // A description of the operation's own is richer.
            responses.entry(status.to_string()).or_insert_with(|| self.error_response(&errors, &headers));
        }
        parameters.push(json!({ "$ref": "#/components/parameters/X-Request-Id" }));
        let mut json = json!({
            "operationId": id, "tags": [tag], "summary": summary, "parameters": parameters, "responses": responses,
        });
        if let Access::Needs(scope) = access {
            json["security"] = json!([{ "bearer": [scope.name()] }]);
        }
        if !description.is_empty() {
            json["description"] = description.into();
        }
        if let Some(content) = body {
            json["requestBody"] = json!({ "required": true, "content": { content.media_type: self.content(content) } });
        }
        json
    }

    fn content(&mut self, content: Content) -> Value {
        self.schemas.extend(content.schemas);
        json!({ "schema": content.schema, "example": content.example })
    }

    /// The response of a status, which `errors` have. A response to one error has a name, and is written once.
    fn error_response(&mut self, errors: &[ApiError], headers: &[&str]) -> Value {
        let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
        let description = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        let mut headers = headers.to_vec();
        headers.extend(errors.iter().any(|error| error.retry_after_s.is_some()).then_some("Retry-After"));
        headers.extend(errors.iter().any(|error| error.status == StatusCode::METHOD_NOT_ALLOWED).then_some("Allow"));
        headers.extend(errors.iter().any(|error| error.challenge.is_some()).then_some("WWW-Authenticate"));
        let examples: Map<_, _> =
            errors.iter().map(|error| (error.code.to_owned(), json!({ "value": error }))).collect();
        let of_codes = json!({ "properties": { "code": { "enum": codes } } });
        let schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Error" }, of_codes] });
        let content = json!({ "application/json": { "schema": schema, "examples": examples } });
        let described = response(&description, &headers, Some(content));
        match codes[..] {
            [code] if headers.len() < 2 => {
                self.responses.insert(code.to_owned(), described);
                json!({ "$ref": format!("#/components/responses/{code}") })
            }
            _ => described,
        }
    }
}

/// The codes of all errors that the operation may answer.
fn codes(method: &str, path: &str, access: Access, operation: &Operation) -> BTreeSet<&'static str> {
    let mut codes = BTreeSet::from(ALWAYS);
    codes.extend(&operation.codes);
    if !HEALTH_PATHS.contains(&path) {
        codes.extend(NOT_HEALTH);
    }
    if access != Access::Open {
        codes.extend(AUTHENTICATION);
    }
    if method != "get" {
        codes.insert("cross_site");
    }
    if operation.has_query {
        codes.extend(QUERY);
    }
    if operation.body.is_some() {
        codes.extend(BODY);
    }
    codes
}

fn response(description: &str, headers: &[&str], content: Option<Value>) -> Value {
    let headers = headers.iter().chain(&["X-Request-Id", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]);
    let headers: Map<_, _> =
        headers.map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))).collect();
    let mut response = json!({ "description": description, "headers": headers });
    if let Some(content) = content {
        response["content"] = content;
    }
    response
}
