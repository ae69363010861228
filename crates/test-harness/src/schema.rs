//! Checks JSON against the JSON Schemas of this project's OpenAPI and AsyncAPI documents. A keyword or format that is not
//! implemented panics, so nothing is ignored in silence.

use regex_lite::Regex;
use serde_json::Value;

/// Returns where `value` breaks `schema`, whose `$ref`s are places in `document`; `None` if it does not.
pub fn schema_violation(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let rules = schema.as_object().expect("a schema is an object");
    rules.iter().find_map(|(keyword, rule)| {
        let is_kept = match keyword.as_str() {
            "$ref" => return schema_violation(document, resolve(document, schema), value),
            "allOf" => return rule.as_array()?.iter().find_map(|part| schema_violation(document, part, value)),
            "properties" => {
                let mut known =
                    rule.as_object()?.iter().filter_map(|(name, part)| Some((name, part, value.get(name)?)));
                return known.find_map(|(name, part, value)| {
                    Some(format!("{name}: {}", schema_violation(document, part, value)?))
                });
            }
            "additionalProperties" | "items" => {
                let items = value.as_object().map(|object| object.values().collect::<Vec<_>>());
                let items = items.or_else(|| value.as_array().map(|items| items.iter().collect())).unwrap_or_default();
                return items.into_iter().find_map(|item| schema_violation(document, rule, item));
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_of_type(name, value)),
                name => is_of_type(name, value),
            },
            "required" => rule.as_array()?.iter().all(|name| value.get(name.as_str().unwrap_or_default()).is_some()),
            "oneOf" => {
                let fitting = rule.as_array()?.iter().filter(|part| schema_violation(document, part, value).is_none());
                fitting.count() == 1
            }
            "enum" => rule.as_array()?.contains(value),
            "const" => rule == value,
            // A value of another type is a matter of `type`.
            "minimum" => value.as_f64().is_none_or(|number| Some(number) >= rule.as_f64()),
            "maximum" => value.as_f64().is_none_or(|number| Some(number) <= rule.as_f64()),
            "minLength" => value.as_str().is_none_or(|text| Some(text.chars().count() as u64) >= rule.as_u64()),
            "maxLength" => value.as_str().is_none_or(|text| Some(text.chars().count() as u64) <= rule.as_u64()),
            "minItems" => value.as_array().is_none_or(|items| Some(items.len() as u64) >= rule.as_u64()),
            "pattern" => matches(rule.as_str()?, value),
            "propertyNames" => {
                let mut names = value.as_object()?.keys();
                return names.find_map(|name| schema_violation(document, rule, &name.as_str().into()));
            }
            "format" => match rule.as_str()? {
                "uuid" => matches("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", value),
                "date-time" => matches(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", value),
                "int32" | "int64" | "double" => true,
                format => panic!("a schema has the unknown format {format}"),
            },
            "description" | "title" | "default" | "examples" => true,
            keyword => panic!("a schema has the unknown keyword {keyword}"),
        };
        (!is_kept).then(|| format!("{keyword} {rule} is broken by {value}"))
    })
}

/// Follows the `$ref` of `node`, if it has one.
pub(crate) fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    let Some(place) = node.get("$ref").and_then(Value::as_str) else { return node };
    document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place} leads nowhere"))
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        name => panic!("a schema has the unknown type {name}"),
    }
}

fn matches(pattern: &str, value: &Value) -> bool {
    let pattern = Regex::new(pattern).expect("a regular expression");
    value.as_str().is_none_or(|text| pattern.is_match(text))
}
