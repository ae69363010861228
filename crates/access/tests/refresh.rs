//! When an issuer's keys are fetched, and what is valid meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use access::{Authenticator, JwksUrl, RefreshTimes, Refusal, TokenIssuer};
use jsonwebtoken::Algorithm;
use test_harness::{Issuer, SigningKey, wait_until};

/// Long enough that nothing is fetched by the clock while a test runs.
const NEVER: Duration = Duration::from_secs(3_600);

fn of(issuer: &Issuer, times: RefreshTimes) -> Arc<Authenticator> {
    let url: JwksUrl = issuer.url().parse().expect("a URL");
    let accepts = TokenIssuer { issuer: Issuer::NAME.to_owned(), audience: Issuer::AUDIENCE.to_owned() };
    Authenticator::of_jwks(accepts, url, times).expect("a thread")
}

async fn refusal(authenticator: &Arc<Authenticator>, token: &str) -> Option<Refusal> {
    authenticator.authenticate(Some(format!("Bearer {token}").as_bytes())).await.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_fetched_at_its_first_token_and_the_withdrawn_one_is_refused() {
    let issuer = Issuer::start();
    let authenticator = of(&issuer, RefreshTimes::default());
    let claims = Issuer::claims("admin");
    let (old, next) = (issuer.token("admin"), SigningKey::generate(Algorithm::EdDSA, "key-2"));
    assert_eq!(refusal(&authenticator, &old).await, None);
    issuer.publish(&[next.jwk()]);
    assert_eq!(refusal(&authenticator, &old).await, None, "the old key is known until the next fetch");
    assert_eq!(refusal(&authenticator, &next.sign(&claims)).await, None);
    assert_eq!(refusal(&authenticator, &old).await, Some(Refusal::Invalid), "also from the cache");
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cause_one_fetch_a_minute() {
    const TOKENS: usize = 10_000;
    let issuer = Issuer::start();
    let authenticator = of(&issuer, RefreshTimes::default());
    let stranger = SigningKey::generate(Algorithm::ES256, "");
    let claims = Issuer::claims("admin");
    let token = |number: usize| {
        let header = jsonwebtoken::Header { kid: Some(format!("unknown-{number}")), ..stranger.header() };
        stranger.sign_with(&header, &claims)
    };
    assert_eq!(refusal(&authenticator, &issuer.token("admin")).await, None);
    let started = Instant::now();
    let requests: Vec<_> = (0..TOKENS)
        .map(|number| {
            let (authenticator, token) = (Arc::clone(&authenticator), token(number));
            tokio::spawn(async move { refusal(&authenticator, &token).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), Some(Refusal::Invalid));
    }
    let minutes = started.elapsed().as_secs() as usize / 60;
    // The first fetch is the one of the start.
    assert!((2..=2 + minutes).contains(&issuer.fetches()), "{} fetches", issuer.fetches());
    assert_eq!(refusal(&authenticator, &issuer.token("admin")).await, None, "known keys are not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_key_is_refused_after_the_next_refresh() {
    let issuer = Issuer::start();
    let authenticator = of(&issuer, RefreshTimes { interval: Duration::from_millis(20), ..RefreshTimes::default() });
    let token = issuer.token("admin");
    assert_eq!(refusal(&authenticator, &token).await, None);
    issuer.publish(&[]);
    let fetches = issuer.fetches();
    // One that had begun may still bring the key.
    wait_until("two fetches have ended", || (issuer.fetches() > fetches + 2).then_some(()));
    assert_eq!(refusal(&authenticator, &token).await, Some(Refusal::Invalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_or_answers_nonsense_keeps_the_known_keys() {
    let issuer = Issuer::start();
    let interval = Duration::from_millis(20);
    let authenticator = of(&issuer, RefreshTimes { interval, retry: interval, unknown_key: NEVER });
    let token = issuer.token("admin");
    assert_eq!(refusal(&authenticator, &token).await, None);
    assert_eq!(authenticator.warning(), None);
    let troubles: [(&dyn Fn(), &str); 3] = [
        (&|| issuer.go_away(), "JWT_JWKS_URL cannot be fetched: "),
        (
            &|| issuer.publish_text("<html>"),
            "JWT_JWKS_URL is not a JSON Web Key Set; the keys known until now stay valid",
        ),
        (&|| issuer.publish_text(&"a".repeat(2 * 1024 * 1024)), "JWT_JWKS_URL cannot be read: "),
    ];
    for (trouble, expected) in troubles {
        trouble();
        wait_until("the failure shows", || authenticator.warning().filter(|warning| warning.starts_with(expected)));
        assert_eq!(refusal(&authenticator, &token).await, None);
        issuer.publish(&[issuer.key.jwk()]);
        wait_until("the failure is over", || authenticator.warning().is_none().then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_cannot_be_checked_until_the_keys_are_known() {
    let issuer = Issuer::start();
    issuer.go_away();
    let retry = Duration::from_millis(20);
    let authenticator = of(&issuer, RefreshTimes { retry, interval: NEVER, unknown_key: NEVER });
    let token = issuer.token("admin");
    assert_eq!(refusal(&authenticator, &token).await, Some(Refusal::Unavailable));
    let warning = wait_until("the failure shows", || authenticator.warning());
    assert!(warning.ends_with("; tokens cannot be checked"), "{warning}");
    issuer.publish(&[issuer.key.jwk()]);
    wait_until("the keys are known", || authenticator.warning().is_none().then_some(()));
    assert_eq!(refusal(&authenticator, &token).await, None);
}
