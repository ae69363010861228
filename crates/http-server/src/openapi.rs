//! The OpenAPI 3.1 document of a service.
//!
//! [`Endpoints`] holds each route together with a function that returns its [`Operation`], so a route without a description does not
//! exist. Schemas and query parameters come from the types of the handlers (utoipa), examples of errors from the errors
//! themselves. What the layers before a handler answer is added to each operation. The document is made at its first request.

mod document;
mod endpoints;
mod shared;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams, ToSchema};

pub(crate) use self::endpoints::OPENAPI_PATH;
pub use self::endpoints::{Api, Endpoints};

/// The body of a request or of a response, for the document.
#[derive(Debug)]
pub struct Content {
    media_type: &'static str,
    schema: Value,
    example: Value,
    /// The named schemas that `schema` refers to.
    schemas: BTreeMap<String, Value>,
}

impl Content {
    /// JSON of the type `T`.
    pub fn json<T: ToSchema>(example: Value) -> Self {
        let mut named = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut named);
        let schemas = named.into_iter().map(|(name, schema)| (name, json!(schema))).collect();
        let schema = json!({ "$ref": format!("#/components/schemas/{}", T::name()) });
        Content { schemas, ..Self::inline(schema, example) }
    }

    /// JSON with a schema that has no name.
    pub fn inline(schema: Value, example: Value) -> Self {
        Content { media_type: "application/json", schema, example, schemas: BTreeMap::new() }
    }

    /// A page of a list of `T`, with the items in the field `name`, as [`Page::into_response`](crate::Page::into_response) makes it.
    pub fn page<T: ToSchema>(name: &str, item: Value) -> Self {
        let Content { schema, example, schemas, .. } = Self::json::<T>(item);
        let schema = json!({
            "type": "object",
            "required": [name, "total", "next"],
            "properties": {
                name: { "type": "array", "items": schema },
                "total": { "type": "integer", "minimum": 0, "description": "The length of the whole list." },
                "next": { "type": ["string", "null"], "description": "`after` for the next page; null at the end." },
            },
        });
        Content { schemas, ..Self::inline(schema, json!({ name: [example], "total": 1, "next": null })) }
    }

    /// `{"message": text}`
    pub fn message(text: &str) -> Self {
        let properties = json!({ "message": { "const": text } });
        let schema = json!({ "type": "object", "required": ["message"], "properties": properties });
        Self::inline(schema, json!({ "message": text }))
    }

    /// Text that is not JSON.
    pub fn text(media_type: &'static str, example: impl Into<Value>) -> Self {
        Content { media_type, ..Self::inline(json!({ "type": "string" }), example.into()) }
    }
}

/// A response that is no error.
#[derive(Debug)]
struct Answer {
    status: u16,
    description: &'static str,
    contents: Vec<Content>,
    headers: Vec<&'static str>,
}

/// The description of one method of one path.
#[derive(Debug, Default)]
pub struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Content>,
    answers: Vec<Answer>,
    /// Response headers that errors may have too.
    headers: Vec<&'static str>,
    codes: Vec<&'static str>,
    has_query: bool,
    is_idempotent: bool,
}

impl Operation {
    /// Describes an operation: a name for programs, the group that it is shown in, and a sentence for people.
    pub fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Operation { id, tag, summary, ..Self::default() }
    }

    /// Adds a longer text, in Markdown.
    #[must_use]
    pub fn description(self, description: &'static str) -> Self {
        Operation { description, ..self }
    }

    /// Adds the query parameters that the fields of `P` describe.
    #[must_use]
    pub fn query<P: IntoParams>(mut self) -> Self {
        self.parameters
            .extend(P::into_params(|| Some(ParameterIn::Query)).into_iter().map(|parameter| json!(parameter)));
        self.has_query = true;
        self
    }

    /// Adds a parameter as OpenAPI writes it.
    #[must_use]
    pub fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Adds request headers. `openapi/shared.rs` describes them.
    #[must_use]
    pub fn request_headers(mut self, names: &[&str]) -> Self {
        self.parameters.extend(names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })));
        self
    }

    /// The operation takes `Idempotency-Key`.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self.errors(&["invalid_idempotency_key", "idempotency_key_reused"]).request_headers(&["Idempotency-Key"])
    }

    /// The operation takes a body.
    #[must_use]
    pub fn body(mut self, content: Content) -> Self {
        self.body = Some(content);
        self
    }

    /// Adds a response that is no error, with the headers besides those that every response has.
    #[must_use]
    pub fn answer(self, status: u16, description: &'static str, content: Content, headers: &[&'static str]) -> Self {
        self.answer_of(status, description, vec![content], headers)
    }

    /// As [`answer`](Operation::answer), with a choice of media types.
    #[must_use]
    pub fn answer_of(
        mut self,
        status: u16,
        description: &'static str,
        contents: Vec<Content>,
        headers: &[&'static str],
    ) -> Self {
        self.answers.push(Answer { status, description, contents, headers: headers.to_vec() });
        self
    }

    /// Adds response headers that success and errors may have.
    #[must_use]
    pub fn headers(mut self, names: &[&'static str]) -> Self {
        self.headers.extend(names);
        self
    }

    /// Adds errors by their codes. [`Api::errors`] has their statuses and texts.
    #[must_use]
    pub fn errors(mut self, codes: &[&'static str]) -> Self {
        self.codes.extend(codes);
        self
    }
}
