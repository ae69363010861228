//! The documents of the API and of the events. `test_harness` compares every answer of every test with the API's document.

use serde_json::{Value, json};
use test_harness::schema_violation;

use crate::service::TestService;

#[test]
fn the_openapi_document_has_the_methods_that_the_router_has() {
    let service = TestService::start();
    let document = service.openapi();
    assert_eq!(document.0["openapi"], "3.1.0");
    for path in ["/", "/account", "/accounts", "/health", "/openapi.json", "/asyncapi.json", "/docs", "/admin/states"] {
        assert!(document.0["paths"].get(path).is_some(), "{path}");
    }
    document.check_routes(&service);
}

#[test]
fn the_openapi_document_has_every_error_and_valid_examples() {
    let document = TestService::start().openapi();
    document.check_examples();
    document.check_codes(include_str!("../../src/http/error.rs"));
}

#[test]
fn the_asyncapi_document_describes_the_golden_records() {
    let document = TestService::start().get("/asyncapi.json").expect(200);
    assert_eq!(document["asyncapi"], "3.0.0");
    let message = &document["components"]["messages"]["accountEvent"];
    let is_described = |part: &str, value: &Value| {
        schema_violation(&document, message.pointer(part).expect("a schema"), value).is_none()
    };
    let file = include_str!("../../../../crates/account-events/testdata/tandem.jsonl");
    let mut records = file.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record")).peekable();
    assert!(records.peek().is_some());
    for record in records {
        let mut value: Value = serde_json::from_str(record["value"].as_str().expect("a value")).expect("JSON");
        let pairs = record["headers"].as_array().expect("headers").iter();
        let mut headers: Value = pairs.map(|pair| (pair[0].as_str().expect("a name"), pair[1].clone())).collect();
        let documented = document["components"]["schemas"]["headers"]["properties"].as_object().expect("headers");
        assert!(headers.as_object().expect("headers").keys().eq(documented.keys()));
        assert!(is_described("/payload", &value) && is_described("/headers", &headers), "{record}");
        assert!(is_described("/bindings/kafka/key", &record["key"]), "{record}");
        value["status"] = json!("CLOSED");
        headers["ce_sequence"] = json!("0");
        assert!(!is_described("/payload", &value) && !is_described("/headers", &headers));
    }
    let example = &message["examples"][0];
    assert!(is_described("/payload", &example["payload"]) && is_described("/headers", &example["headers"]));
}
