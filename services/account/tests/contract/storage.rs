//! A database that cannot be written to for a while.

use serde_json::json;
use test_harness::wait_until;

use crate::service::{TestService, account};

#[test]
fn while_the_database_refuses_requests_are_503_and_readyz_says_why_and_it_recovers_by_itself() {
    let service = TestService::start();
    let id = service.new_id();
    service.with_the_database_held(|| {
        let refused = service.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"}));
        assert_eq!((refused.status, refused.text("code")), (503, "storage_unavailable"), "{}", refused.raw);
        assert_eq!(refused.header("retry-after"), "1");
        let unready = service.get("/readyz");
        assert_eq!(unready.status, 503, "{}", unready.raw);
        assert!(unready.text("error").contains("the database is unavailable"), "{}", unready.raw);
        service.get(&account(&id)).expect(200);
    });
    wait_until("it is ready again, with no request spent on it", || {
        (service.get("/readyz").status == 200).then_some(())
    });
    service.new_id();
    assert_eq!(service.list("")["total"], 2);
}
