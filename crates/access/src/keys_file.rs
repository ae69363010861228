//! The file of API keys, in JSON: `{"keys": [{"id", "name", "hash", "scopes", "expires"}]}`.
//!
//! Invariant: no error contains text of the file but ids, names and scopes, since the rest may be a hash or a secret.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::key::{Key, is_id};
use crate::scope::{Scope, Scopes};

/// The longest name of a caller, in characters: names are kept in every history entry.
pub const MAX_NAME_CHARS: usize = 100;

/// The fields of an entry.
const FIELDS: [&str; 5] = ["id", "name", "hash", "scopes", "expires"];

/// Parses the content of a keys file. The error is the predicate of a line: it names the entry at fault.
pub(crate) fn parse(content: &[u8]) -> Result<Vec<Key>, String> {
    let text = str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err("is empty: without keys it is {\"keys\": []}".to_owned());
    }
    let file: Value = serde_json::from_str(text).map_err(|error| {
        // The parser's own text may repeat what it read.
        format!("is not JSON (line {}, column {})", error.line(), error.column())
    })?;
    let entries = match file.as_object().filter(|file| file.len() == 1).and_then(|file| file.get("keys")) {
        Some(Value::Array(entries)) => entries,
        _ => return Err("is not an object with one field, the array `keys`".to_owned()),
    };
    let mut ids = HashSet::new();
    let mut keys = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        let key = parse_entry(entry).and_then(|key| match ids.insert(key.id.clone()) {
            true => Ok(key),
            false => Err("an earlier entry has the same id".to_owned()),
        });
        keys.push(key.map_err(|error| {
            let id = entry.get("id").and_then(Value::as_str).filter(|id| is_id(id));
            let id = id.map(|id| format!(" (id {id:.20})")).unwrap_or_default();
            format!("has an error in entry {}{id}: {error}", place + 1)
        })?);
    }
    Ok(keys)
}

fn parse_entry(entry: &Value) -> Result<Key, String> {
    let entry = entry.as_object().ok_or("it is not an object")?;
    if entry.keys().any(|field| !FIELDS.contains(&field.as_str())) {
        return Err(format!("it has a field besides {}", FIELDS.join(", ")));
    }
    let id = text(entry, "id")?;
    if !is_id(id) {
        return Err("`id` is not letters and digits".to_owned());
    }
    let name = text(entry, "name")?;
    check_name(name)?;
    let hash = parse_hash(text(entry, "hash")?).ok_or("`hash` is not a SHA-256 as 64 hexadecimal digits")?;
    let scopes = entry.get("scopes").and_then(Value::as_array).ok_or("`scopes` is not an array")?;
    let scopes = scopes.iter().map(|scope| scope.as_str().unwrap_or_default().parse::<Scope>());
    let scopes: Scopes = scopes.collect::<Result<_, _>>()?;
    let expires = match entry.get("expires") {
        None | Some(Value::Null) => None,
        Some(time) => {
            let time = time.as_str().and_then(|time| time.parse::<Timestamp>().ok());
            Some(time.ok_or("`expires` is not a time such as 2027-01-31T00:00:00Z")?)
        }
    };
    Ok(Key { id: id.to_owned(), name: name.into(), hash, scopes, expires })
}

fn text<'a>(entry: &'a Map<String, Value>, field: &str) -> Result<&'a str, String> {
    entry.get(field).and_then(Value::as_str).ok_or_else(|| format!("`{field}` is missing or is not a text"))
}

/// Checks that `name` can name a caller in a log line.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(format!("`name` is not 1 to {MAX_NAME_CHARS} characters without control characters"));
    }
    Ok(())
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// Returns the content of a file with `keys`.
pub(crate) fn render<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let entry = |key: &Key| {
        let hash: String = key.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let scopes: Vec<_> = key.scopes.iter().map(Scope::name).collect();
        let mut entry = json!({ "id": key.id, "name": &*key.name, "hash": hash, "scopes": scopes });
        if let Some(expires) = key.expires {
            entry["expires"] = expires.to_string().into();
        }
        entry
    };
    let keys: Vec<_> = keys.into_iter().map(entry).collect();
    format!("{:#}\n", json!({ "keys": keys }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_harness::mangled;

    use super::*;

    fn entry() -> Value {
        json!({ "id": "a1", "name": "Łódź shop", "hash": "0f".repeat(32), "scopes": ["cards:write"] })
    }

    fn refusal(content: impl AsRef<[u8]>) -> String {
        parse(content.as_ref()).unwrap_err()
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let expires = json!({ "expires": "2027-01-31T00:00:00Z", "id": "b2", "name": "x", "hash": "A0".repeat(32), "scopes": [] });
        let text = json!({ "keys": [entry(), expires] }).to_string();
        let keys = parse(text.as_bytes()).unwrap();
        assert_eq!((keys.len(), keys[0].hash, keys[1].hash), (2, [0x0f; 32], [0xa0; 32]));
        assert_eq!(parse(render(&keys).as_bytes()).unwrap(), keys);
        let windows = format!("\u{feff}{}", render(&keys).replace('\n', "\r\n"));
        assert_eq!(parse(windows.as_bytes()).unwrap(), keys);
        assert_eq!(parse(render([]).as_bytes()).unwrap(), []);
    }

    proptest! {
        #[test]
        fn fuzz_a_file_is_read_as_it_is_written_or_refused(content in mangled(vec![
            json!({ "keys": [entry()] }).to_string().into_bytes(),
            b"\xef\xbb\xbf{\"keys\": []}".to_vec(),
        ])) {
            match parse(&content) {
                Ok(keys) => prop_assert_eq!(parse(render(&keys).as_bytes()), Ok(keys)),
                Err(error) => prop_assert!(!error.is_empty() && !error.contains('\n'), "{}", error),
            }
        }
    }

    #[test]
    fn a_malformed_file_is_refused() {
        assert!(refusal("").contains("empty") && refusal(" \r\n").contains("empty"));
        assert_eq!(refusal([0xff]), "is not UTF-8");
        assert_eq!(refusal("{\n\"keys\": [tdm_a_b]}"), "is not JSON (line 2, column 11)");
        for text in ["[]", "{}", "{\"keys\": {}}", "{\"keys\": [], \"more\": 1}", "null"] {
            assert!(refusal(text).contains("the array `keys`"), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_entry_and_shows_no_secret() {
        let secret = "tdm_a1_s3cret";
        for (field, value, error) in [
            ("id", json!(secret), "entry 2: `id` is not"),
            ("id", json!("a1"), "entry 2 (id a1): an earlier entry"),
            ("name", json!("a\nb"), "entry 2 (id b2): `name` is not"),
            ("name", json!(" "), "entry 2 (id b2): `name` is not"),
            ("name", json!("é".repeat(MAX_NAME_CHARS + 1)), "entry 2 (id b2): `name` is not"),
            ("name", json!(null), "entry 2 (id b2): `name` is missing"),
            ("hash", json!(secret), "entry 2 (id b2): `hash` is not"),
            ("hash", json!("é".repeat(32)), "entry 2 (id b2): `hash` is not"),
            ("hash", json!(["0f".repeat(32)]), "entry 2 (id b2): `hash` is missing"),
            ("scopes", json!("cards:write"), "entry 2 (id b2): `scopes` is not"),
            ("scopes", json!(["cards:delete"]), "entry 2 (id b2): `cards:delete` is no scope: expected accounts:read"),
            ("scopes", json!([7]), "entry 2 (id b2): `` is no scope"),
            ("expires", json!("tomorrow"), "entry 2 (id b2): `expires` is not"),
            ("expires", json!(7), "entry 2 (id b2): `expires` is not"),
            (secret, json!(1), "entry 2 (id b2): it has a field besides"),
        ] {
            let mut second = entry();
            second["id"] = "b2".into();
            second[field] = value;
            let error_of = refusal(json!({ "keys": [entry(), second] }).to_string());
            assert!(
                error_of.starts_with(&format!("has an error in {error}")) && !error_of.contains("s3cret"),
                "{field}: {error_of}"
            );
        }
        assert!(
            refusal(json!({ "keys": [secret] }).to_string())
                .starts_with("has an error in entry 1: it is not an object")
        );
    }
}
