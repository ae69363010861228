//! The document of the API. `test_harness` compares every answer of every test with it.

use crate::service::TestService;

#[test]
fn the_openapi_document_has_the_methods_that_the_router_has() {
    let service = TestService::start();
    let document = service.openapi();
    assert_eq!(document.0["openapi"], "3.1.0");
    for path in ["/", "/card", "/cards", "/events", "/quarantine", "/health", "/openapi.json", "/docs", "/admin/log"] {
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
