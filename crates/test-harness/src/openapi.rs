//! Checks answers against the OpenAPI document of the service that gave them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::schema::{resolve, schema_violation};
use crate::{Answer, Http};

/// Response headers that OpenAPI leaves to HTTP, or that depend on the configuration.
const UNDOCUMENTED_HEADERS: [&str; 7] =
    ["content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "date", "vary"];

/// An OpenAPI document.
#[derive(Debug, Clone)]
pub struct OpenApi(pub Value);

impl OpenApi {
    /// Panics if `http`, the service of this document, has other methods on a documented path than the document.
    pub fn check_routes(&self, http: &Http) {
        for (path, item) in self.0["paths"].as_object().expect("paths") {
            let answer = http.send("BREW", path, &[], Vec::new());
            assert_eq!(answer.status, 405, "{path}");
            let allowed: BTreeSet<_> = answer.header("allow").split(',').filter(|method| *method != "HEAD").collect();
            let documented: Vec<_> =
                item.as_object().expect("operations").keys().map(|name| name.to_uppercase()).collect();
            assert_eq!(allowed, documented.iter().map(String::as_str).collect(), "{path}");
        }
    }

    /// All documented responses with their operation and status.
    pub fn responses(&self) -> impl Iterator<Item = (&Value, &str, &Value)> {
        let operations = self.0["paths"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, item)| item.as_object().expect("operations"));
        operations.flat_map(move |(_, operation)| {
            let responses = operation["responses"].as_object().expect("responses");
            responses.iter().map(move |(status, response)| (operation, &**status, resolve(&self.0, response)))
        })
    }

    /// Panics if no operation documents the code of an error in `source`, which has a line `(StatusCode::…, "code", …)` for each. 500
    /// is not documented.
    pub fn check_codes(&self, source: &str) {
        let schemas =
            self.responses().filter_map(|(_, _, response)| response.pointer("/content/application~1json/schema"));
        let listed = schemas.filter_map(|schema| schema.pointer("/allOf/1/properties/code/enum")?.as_array());
        let documented: BTreeSet<_> = listed.flatten().filter_map(Value::as_str).collect();
        let lines = source.lines().filter(|line| line.contains("(StatusCode::"));
        let codes: BTreeSet<_> = lines.filter_map(|line| line.split('"').nth(1)).collect();
        assert!(codes.len() > 10, "{codes:?}");
        assert!(codes.is_subset(&documented), "{:?}", codes.difference(&documented));
    }

    /// Panics if an example of the document breaks its schema, or if a reference leads nowhere.
    pub fn check_examples(&self) {
        check_references(&self.0, &self.0);
        for (operation, status, response) in self.responses() {
            let mut contents: Vec<_> =
                response["content"].as_object().into_iter().flat_map(|content| content.values()).collect();
            contents.extend(
                operation["requestBody"]["content"].as_object().into_iter().flat_map(|content| content.values()),
            );
            for content in contents {
                let named = content["examples"].as_object().into_iter().flat_map(|examples| examples.values());
                let mut examples: Vec<_> =
                    named.map(|example| &example["value"]).chain(content.get("example")).collect();
                assert!(!examples.is_empty(), "{} {status} has no example", operation["operationId"]);
                examples.retain(|example| schema_violation(&self.0, &content["schema"], example).is_some());
                assert!(examples.is_empty(), "{} {status}: {examples:?}", operation["operationId"]);
            }
        }
    }

    /// Panics if the document does not have `answer` to a request of `method` for `target`: its status, headers, code and body. A
    /// path or a method that is not documented must be refused, and 500 is an answer that nothing documents.
    pub fn check(&self, method: &str, target: &str, answer: &Answer) {
        let (path, status) = (target.split('?').next().unwrap_or_default(), answer.status);
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let item = &self.0["paths"][path];
        if status == 500 || method == "options" {
            return;
        }
        let Some(operation) = item.get(&method) else {
            let refusals = if item.is_null() { &[400, 403, 404, 503][..] } else { &[400, 403, 405, 503] };
            assert!(refusals.contains(&status), "{method} {path} is not documented, and is answered {status}");
            return;
        };
        let place = format!("{method} {target} is answered {status}");
        let Some(response) = operation["responses"].get(status.to_string()) else {
            panic!("{place}, which is not documented")
        };
        let response = resolve(&self.0, response);
        let headers = response["headers"].as_object().expect("headers");
        let is_documented = |name: &str| headers.keys().any(|header| header.eq_ignore_ascii_case(name));
        for name in answer.headers.keys().map(|name| name.as_str()) {
            let is_other = UNDOCUMENTED_HEADERS.contains(&name) || name.starts_with("access-control-");
            assert!(is_other || is_documented(name), "{place} with {name}, which is not documented");
        }
        for (name, header) in headers {
            let header = resolve(&self.0, header);
            assert!(header["required"] == false || answer.headers.contains_key(name), "{place} without {name}");
        }
        if answer.body.is_null() {
            return;
        }
        let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
        let Some(content) = response["content"].get(media_type) else { panic!("{place} with {media_type}") };
        if media_type == "application/json" {
            let broken = schema_violation(&self.0, &content["schema"], &answer.body);
            assert_eq!(broken, None, "{place}: {}", answer.raw);
        }
    }
}

fn check_references(document: &Value, node: &Value) {
    resolve(document, node);
    let parts: &mut dyn Iterator<Item = &Value> = match node {
        Value::Object(fields) => &mut fields.values(),
        Value::Array(items) => &mut items.iter(),
        _ => return,
    };
    parts.for_each(|part| check_references(document, part));
}
