//! `DELETE /card?id=`

use serde_json::json;

use crate::service::{TestService, UNKNOWN_ID, by_account, card, written};

#[test]
fn a_deleted_card_stays_and_says_so() {
    let service = TestService::start();
    let account = service.account();
    let created = service.card("US", &account);
    let answer = service.delete(created.header("location"));
    assert_eq!((answer.status, &*answer.raw), (200, r#"{"message":"Card deleted successfully"}"#));
    assert_eq!(answer.header("content-type"), "application/json");

    let mut expected = created.body.clone();
    expected["deleted"] = json!(true);
    let deleted = service.get(created.header("location"));
    assert_eq!((deleted.status, &deleted.raw), (200, &written(&expected)));
    let by_number = format!("/cards/by-number?card_number={}", created.text("card_number"));
    assert_eq!(service.get(&by_number).raw, deleted.raw);
    for list in ["/cards".to_owned(), by_account(&account)] {
        assert_eq!(service.get(&list).expect(200), json!({"cards": [expected], "total": 1, "next": null}));
    }
    service.card("US", &account);
}

#[test]
fn a_card_is_deleted_once() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    service.delete(created.header("location")).expect(200);
    for _ in 0..2 {
        let answer = service.delete(created.header("location"));
        answer.expect_error(409, "card_already_deleted", "card is already deleted", None);
    }
}

#[test]
fn a_card_that_exists_is_not_deleted_on_the_condition_that_none_does() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    let delete = |path: &str, condition| service.send("DELETE", path, &[("If-None-Match", condition)], Vec::new());
    let text = "the card exists, which If-None-Match excludes";
    delete(created.header("location"), "*").expect_error(412, "precondition_failed", text, None);
    delete(&card(UNKNOWN_ID), "*").expect_error(404, "card_not_found", "card not found", None);
    let get = service.send("GET", created.header("location"), &[("If-None-Match", "*")], Vec::new());
    assert_eq!((get.status, &*get.raw), (304, ""));
    delete(created.header("location"), "\"1\"").expect(200);
    delete(created.header("location"), "*").expect_error(409, "card_already_deleted", "card is already deleted", None);
}
