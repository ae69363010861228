//! What cannot be compared is no difference: exit status 2.

use std::process::Command;

use test_harness::{binary, output_of};

use super::{places, run};
use crate::place::Place;
use crate::random::{Random, seed};
use crate::requests::{create_account, free_port};

#[test]
fn a_service_that_is_away_is_neither_equal_nor_different() {
    let nobody = format!("http://127.0.0.1:{}", free_port(&mut Random::new(seed())));
    for place in places() {
        let services = place.start_services();
        create_account(&services.accounts);
        let (accounts, cards) = (services.accounts.address(), services.cards.address());
        let (accounts, cards) = (format!("http://{accounts}"), format!("http://{cards}"));
        for (account_url, card_urls) in
            [(&nobody, vec![&cards]), (&accounts, vec![&nobody]), (&accounts, vec![&cards, &nobody])]
        {
            let mut arguments = vec!["--wait-seconds", "1", "--account-url", account_url];
            card_urls.iter().for_each(|url| arguments.extend(["--card-url", url]));
            let verified = run(&place, &arguments);
            let text = verified.report.as_str().expect("an error");
            assert!(verified.status == 2 && text.contains("cannot compare") && text.contains(&nobody), "{text}");
        }
        // Of several account instances one is enough.
        run(&place, &["--account-url", &nobody, "--account-url", &accounts, "--card-url", &cards]).expect_equal();
        services.stop();
    }
}

#[test]
fn a_broker_that_is_away_is_neither_equal_nor_different() {
    let place = Place::embedded();
    let services = place.start_services();
    let url = |http: &test_harness::Http| format!("http://{}", http.address());
    let mut command = Command::new(binary("tandem"));
    command.args(["verify", "--wait-seconds", "1", "--account-url", &url(&services.accounts)]);
    command.args(["--card-url", &url(&services.cards)]).env_clear();
    let brokers = format!("127.0.0.1:{}", free_port(&mut Random::new(seed())));
    let output = output_of(command.current_dir(place.folder()).env("KAFKA_BROKERS", brokers));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.code() == Some(2) && text.contains("cannot compare"), "{}: {text}", output.status);
    services.stop();
}
