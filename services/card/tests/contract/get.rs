//! `GET /card?id=`, and what `DELETE` says to a wrong id too.

use crate::service::{TestService, UNKNOWN_ID, card};

const BAD_ID: &str = "id must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7";

#[test]
fn a_card_is_answered_as_it_was_made() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    let answer = service.get(created.header("location"));
    assert_eq!((answer.status, &answer.raw), (200, &created.raw));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(service.get(&card(&created.text("id").to_uppercase())).raw, created.raw);
}

#[test]
fn an_unknown_card_is_404() {
    let service = TestService::start();
    let account = service.account();
    service.card("US", &account);
    for id in [UNKNOWN_ID, &account] {
        for method in ["GET", "DELETE"] {
            let answer = service.send(method, &card(id), &[], Vec::new());
            answer.expect_error(404, "card_not_found", "card not found", None);
        }
    }
}

#[test]
fn a_missing_id_is_asked_for() {
    let service = TestService::start();
    for method in ["GET", "DELETE"] {
        for path in ["/card", "/card?", "/card?id", "/card?id=", "/card?ID=x"] {
            let answer = service.send(method, path, &[], Vec::new());
            answer.expect_error(400, "missing_id", "Missing required query parameter: id", Some("id"));
        }
    }
}

#[test]
fn an_id_that_is_no_uuid_is_named() {
    let service = TestService::start();
    let long = "a".repeat(5_000);
    for method in ["GET", "DELETE"] {
        for id in ["42", "%20", "550e8400-e29b-41d4-a716-44665544000g", "US-12345678", "%00", "1'%20OR%20'1'='1", &long]
        {
            let answer = service.send(method, &card(id), &[], Vec::new());
            answer.expect_error(400, "invalid_id", BAD_ID, Some("id"));
        }
    }
}

#[test]
fn a_query_that_cannot_be_read_is_named() {
    let service = TestService::start();
    for (query, code, text) in [
        ("1&id=2", "duplicate_parameter", "query parameter id is given more than once"),
        ("%zz", "invalid_query", "query parameter id holds a % that two hex digits do not follow"),
        ("%ff", "invalid_query", "query parameter id is not UTF-8"),
    ] {
        service.get(&card(query)).expect_error(400, code, text, Some("id"));
        service.delete(&card(query)).expect_error(400, code, text, Some("id"));
    }
}
