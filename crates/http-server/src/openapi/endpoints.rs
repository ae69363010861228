//! The routes of a service, each with its description.

use std::fmt;
use std::sync::{Arc, LazyLock};

use access::Access;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodFilter, get, on};
use axum::{Extension, Router};
use bytes::Bytes;

use super::document::document;
use super::{Content, Operation};
use crate::docs_page::docs_endpoints;
use crate::error::{APPLICATION_JSON, ApiError};
use crate::health::index_endpoint;
use crate::routes::Routes;
use crate::scans::Scans;

/// The path of the document.
pub(crate) const OPENAPI_PATH: &str = "/openapi.json";

/// What the document says about a service besides its endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    /// The name of the service, as `/health` gives it.
    pub service: &'static str,
    /// The version of the service.
    pub version: &'static str,
    /// The title of the document.
    pub title: &'static str,
    /// What the service does, in Markdown.
    pub description: &'static str,
    /// One error of each code that the service's own endpoints answer.
    pub errors: fn() -> Vec<ApiError>,
    /// The links of `GET /` besides those that every service has: a name and a path.
    pub links: &'static [(&'static str, &'static str)],
}

/// A method of a path, what it needs of its caller, and the function that describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) operation: fn() -> Operation,
}

/// The routes of a service. A route is added together with what it needs of its caller, and with the function that returns its
/// description.
pub struct Endpoints<S = ()> {
    router: Router<S>,
    described: Vec<Endpoint>,
}

impl<S: Clone + Send + Sync + 'static> Default for Endpoints<S> {
    fn default() -> Self {
        Endpoints { router: Router::new(), described: Vec::new() }
    }
}

impl<S> fmt::Debug for Endpoints<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.described.fmt(f)
    }
}

macro_rules! method {
    ($name:ident, $method:ident) => {
        /// Adds the handler of this method of `path`, for callers with `access`. `operation` describes it.
        #[must_use]
        pub fn $name<H: Handler<T, S>, T: 'static>(
            self,
            path: &'static str,
            access: impl Into<Access>,
            handler: H,
            operation: fn() -> Operation,
        ) -> Self {
            let endpoint = Endpoint { method: stringify!($name), path, access: access.into(), operation };
            self.add(MethodFilter::$method, endpoint, handler)
        }
    };
}

impl<S: Clone + Send + Sync + 'static> Endpoints<S> {
    method!(get, GET);
    method!(post, POST);
    method!(put, PUT);
    method!(patch, PATCH);
    method!(delete, DELETE);

    fn add<H: Handler<T, S>, T: 'static>(mut self, filter: MethodFilter, endpoint: Endpoint, handler: H) -> Self {
        self.described.push(endpoint);
        Endpoints { router: self.router.route(endpoint.path, on(filter, handler)), ..self }
    }

    /// Limits the scans of the handlers that take a [`ScanPermit`](crate::ScanPermit).
    #[must_use]
    pub fn with_scans(self) -> Self {
        Endpoints { router: self.router.layer(Extension(Scans::default())), ..self }
    }

    /// Adds the endpoints of `other`.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.described.extend(other.described);
        Endpoints { router: self.router.merge(other.router), ..self }
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state(self, state: S) -> Endpoints {
        Endpoints { router: self.router.with_state(state), described: self.described }
    }
}

impl Endpoints {
    /// Adds `/`, `/openapi.json` and `/docs`, and returns the routes.
    pub fn into_routes(self, api: Api) -> Routes {
        let mut endpoints = self.merge(index_endpoint(&api)).merge(docs_endpoints(api.title));
        let (path, access) = (OPENAPI_PATH, Access::Open);
        endpoints.described.push(Endpoint { method: "get", path, access, operation: openapi_operation });
        let described = endpoints.described;
        let accesses = described.clone().into_iter().map(|endpoint| (endpoint.method, endpoint.path, endpoint.access));
        let document = LazyLock::new(move || Bytes::from(document(&api, &described).to_string()));
        let document = Arc::new(document);
        let serve = async move || ([(CONTENT_TYPE, APPLICATION_JSON)], Bytes::clone(&document));
        Routes::new(endpoints.router.route(OPENAPI_PATH, get(serve)), accesses)
    }
}

fn openapi_operation() -> Operation {
    let schema = serde_json::json!({ "type": "object", "required": ["openapi", "info", "paths"] });
    let example = serde_json::json!({ "openapi": "3.1.0", "info": {}, "paths": {} });
    let content = Content::inline(schema, example);
    Operation::new("get_openapi", "Documents", "Returns this document.").answer(200, "The document.", content, &[])
}
