//! A client that treats every status as an answer.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

use crate::openapi::OpenApi;

/// How long a connection may be idle before it is used again. A server that closes it at the same moment would look like
/// one that does not answer; a test may set the server's idle time as low as this.
const MAX_IDLE_AGE: Duration = Duration::from_secs(5);

/// One service, at one address. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    address: SocketAddr,
    authorization: Option<String>,
    /// The service's OpenAPI document, once an answer was compared with it; `None` if answers are not compared.
    document: Option<Arc<OnceLock<OpenApi>>>,
}

/// What the service answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; null if it is empty.
    pub body: Value,
    /// The body as it was sent: the order of its fields shows here only.
    pub raw: String,
}

impl Http {
    /// A client for the service at `address`.
    pub fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .max_idle_age(MAX_IDLE_AGE)
            .allow_non_standard_methods(true)
            .build();
        Http { agent: config.into(), address, authorization: None, document: None }
    }

    /// Compares every answer with the service's OpenAPI document.
    #[must_use]
    pub fn checked(self) -> Self {
        Http { document: Some(Arc::default()), ..self }
    }

    /// Sends `authorization`, the value of the header, with each request.
    #[must_use]
    pub fn with_authorization(self, authorization: String) -> Self {
        Http { authorization: Some(authorization), ..self }
    }

    /// The value of `Authorization` that is sent with each request.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The OpenAPI document of the service.
    pub fn openapi(&self) -> OpenApi {
        OpenApi(Http { document: None, ..self.clone() }.get("/openapi.json").expect(200))
    }

    /// Where the service is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new())
    }

    /// `DELETE path`
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Vec::new())
    }

    /// `POST path` with a JSON body
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send_json("POST", path, body)
    }

    /// `method path` with a JSON body
    pub fn send_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[("Content-Type", "application/json")], body.to_string().into_bytes())
    }

    /// Any request. Panics if there is no answer, or one whose body is not JSON.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Http::send`], where no answer is one of the things that may happen.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let authorization = self.authorization.iter().map(|value| ("Authorization", value.as_str()));
        for (name, value) in headers.iter().copied().chain(authorization) {
            request = request.header(name, value);
        }
        let mut response = match body.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
            true => self.agent.run(request.body(())?)?,
            false => self.agent.run(request.body(body)?)?,
        };
        let text = response.body_mut().read_to_string()?;
        let body = match text.as_str() {
            "" => Value::Null,
            // JSON values, one a line.
            text if response.headers().get("content-type").is_some_and(|kind| kind == "application/x-ndjson") => {
                text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")).collect()
            }
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{method} {path}: {error} in {text:?}")),
        };
        let answer =
            Answer { status: response.status().as_u16(), headers: response.headers().clone(), body, raw: text };
        if let Some(document) = &self.document {
            document.get_or_init(|| self.openapi()).check(method, path, &answer);
        }
        Ok(answer)
    }
}

impl Answer {
    /// The body of an answer with this status; panics if it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Checks that it is this error, about `field` if one is at fault, in the one form that every error has.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str, text: &str, field: Option<&str>) {
        let field = field.map(|field| format!(",\"field\":{}", Value::from(field))).unwrap_or_default();
        let expected = format!("{{\"error\":{},\"code\":{}{field}}}", Value::from(text), Value::from(code));
        assert_eq!((self.status, &*self.raw), (status, &*expected));
        assert_eq!(self.header("content-type"), "application/json", "{}", self.raw);
        assert_ne!(self.header("x-request-id"), "", "{}", self.raw);
    }

    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A text field of the body; panics if there is none.
    #[track_caller]
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("no text {field} in {}", self.body))
    }
}
