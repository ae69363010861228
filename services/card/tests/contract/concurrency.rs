//! Concurrent requests of many clients.

use std::collections::HashSet;

use account_events::AccountStatus::Deleted;
use serde_json::{Value, json};
use test_harness::at_once;

use crate::service::{TestService, by_account, changed, ids};

#[test]
fn cards_made_at_once_are_all_there_with_numbers_of_their_own() {
    const THREADS: usize = 32;
    const EACH: usize = 50;
    let service = TestService::start();
    let accounts: Vec<_> = (0..4).map(|_| service.account()).collect();
    let made: Vec<Value> = at_once(THREADS, &service, |thread, http| {
        let country = if thread % 2 == 0 { "US" } else { "DE" };
        let body = json!({"country": country, "account_id": accounts[thread % 4]});
        (0..EACH).map(|_| http.post("/card", &body).expect(201)).collect::<Vec<_>>()
    })
    .concat();
    let texts = |field: &str| made.iter().map(|card| card[field].as_str().unwrap().to_owned()).collect::<HashSet<_>>();
    assert_eq!(texts("id").len(), THREADS * EACH);
    // Without the country: the digits alone are unique.
    assert_eq!(texts("card_number").iter().map(|number| &number[3..]).collect::<HashSet<_>>().len(), THREADS * EACH);
    assert_eq!(service.get("/cards").body["total"], THREADS * EACH);
    for account in &accounts {
        assert_eq!(service.get(&by_account(account)).body["total"], THREADS * EACH / 4);
    }
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/cards?limit=200{after}")).expect(200);
        listed.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert!(listed.is_sorted_by(|one, other| one > other), "newest first");
    assert_eq!(listed.into_iter().collect::<HashSet<_>>(), texts("id"));
}

#[test]
fn of_deletions_at_once_exactly_one_succeeds() {
    let service = TestService::start();
    let account = service.account();
    for _ in 0..5 {
        let card = service.card("US", &account);
        let statuses = at_once(16, &service, |_, http| http.delete(card.header("location")).status);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
        assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    }
}

#[test]
fn whoever_is_making_cards_while_the_account_is_deleted_no_card_stays() {
    let service = TestService::start();
    for _ in 0..3 {
        let account = service.account();
        let body = json!({"country": "US", "account_id": account});
        let made: usize = at_once(8, &service, |thread, http| {
            let mut made = 0;
            loop {
                let answer = http.post("/card", &body);
                if answer.status != 201 {
                    let text = "cannot create card for deleted account";
                    answer.expect_error(403, "account_deleted", text, None);
                    return made;
                }
                made += 1;
                if thread == 0 && made == 5 {
                    service.publish(&[changed(&account, Deleted, 2)]);
                }
            }
        })
        .into_iter()
        .sum();
        service.wait_until_all_deleted(&format!("{}&limit=200", by_account(&account)));
        assert_eq!(service.get(&by_account(&account)).body["total"], made);
        service.post_card("US", &account).expect(403);
    }
}
