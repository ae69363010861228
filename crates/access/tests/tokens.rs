//! Which tokens are valid. The tokens are made by the library that also verifies them; `test_harness` has the keys.

use std::sync::Arc;

use access::{Authenticator, Caller, JwksUrl, RefreshTimes, Refusal, Scope, TokenIssuer};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use test_harness::{Issuer, SigningKey, hmac_token, unix_seconds, unsigned_token};

fn accepts() -> TokenIssuer {
    TokenIssuer { issuer: Issuer::NAME.to_owned(), audience: Issuer::AUDIENCE.to_owned() }
}

fn of(issuer: &Issuer) -> Arc<Authenticator> {
    let url: JwksUrl = issuer.url().parse().expect("a URL");
    Authenticator::of_jwks(accepts(), url, RefreshTimes::default()).expect("a thread")
}

async fn ask(authenticator: &Arc<Authenticator>, token: &str) -> Result<Caller, Refusal> {
    authenticator.authenticate(Some(format!("Bearer {token}").as_bytes())).await
}

async fn refusal(authenticator: &Arc<Authenticator>, token: &str) -> Option<Refusal> {
    ask(authenticator, token).await.err()
}

fn changed(field: &str, value: Value) -> Value {
    let mut claims = Issuer::claims("cards:read");
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = Issuer::claims("cards:read");
    claims.as_object_mut().expect("claims").remove(field);
    claims
}

#[tokio::test]
async fn tokens_of_all_four_algorithms_name_issuer_and_subject() {
    let issuer = Issuer::start();
    let algorithms = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
    let keys = algorithms.map(|algorithm| SigningKey::generate(algorithm, &format!("{algorithm:?}")));
    issuer.publish(&keys.each_ref().map(SigningKey::jwk));
    let authenticator = of(&issuer);
    for key in &keys {
        let token = key.sign(&Issuer::claims("openid cards:read events:read"));
        for _from_cache in [false, true] {
            let caller = ask(&authenticator, &token).await.unwrap();
            assert_eq!(&*caller.name, "https://login.example|shop");
            assert_eq!(caller.scopes.to_string(), "cards:read,events:read");
            assert!(caller.may_still(Scope::EventsRead).await && !caller.may_still(Scope::Admin).await);
            assert!(!format!("{caller:?}").contains(&token));
        }
        let (head, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let tampered = format!("{head}.{first}{}", &signature[1..]);
        assert_eq!(refusal(&authenticator, &tampered).await, Some(Refusal::Invalid));
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn scopes_are_a_text_or_a_list() {
    let issuer = Issuer::start();
    let authenticator = of(&issuer);
    for (scope, scp, expected) in [
        (json!("cards:read admin"), Value::Null, "cards:read,admin"),
        (Value::Null, json!(["cards:read", "profile"]), "cards:read"),
        (Value::Null, json!("cards:read cards:write"), "cards:read,cards:write"),
        (json!("cards:read"), json!(["events:read"]), "cards:read,events:read"),
        (json!(" "), json!([]), ""),
        (Value::Null, Value::Null, ""),
    ] {
        let mut claims = changed("scope", scope);
        claims["scp"] = scp;
        let caller = ask(&authenticator, &issuer.key.sign(&claims)).await.unwrap();
        assert_eq!(caller.scopes.to_string(), expected, "{claims}");
    }
    for scope in [json!(7), json!({ "cards:read": true }), json!([1])] {
        let token = issuer.key.sign(&changed("scope", scope));
        assert_eq!(refusal(&authenticator, &token).await, Some(Refusal::Invalid));
    }
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let issuer = Issuer::start();
    let authenticator = of(&issuer);
    let now = unix_seconds();
    for claims in [
        changed("exp", json!(now + 10)),
        // The leeway is 60 seconds.
        changed("exp", json!(now - 50)),
        changed("exp", json!(now as f64 + 10.5)),
        changed("nbf", json!(now - 10)),
        changed("nbf", json!(now + 50)),
        changed("aud", json!(["other", Issuer::AUDIENCE])),
        changed("sub", json!("é".repeat(127))),
    ] {
        assert_eq!(refusal(&authenticator, &issuer.key.sign(&claims)).await, None, "{claims}");
    }
    for claims in [
        changed("exp", json!(now - 70)),
        changed("exp", json!("soon")),
        changed("exp", json!((now + 10).to_string())),
        changed("exp", json!(-1)),
        changed("exp", Value::Null),
        without("exp"),
        changed("nbf", json!(now + 70)),
        changed("nbf", json!("soon")),
        changed("iss", json!("https://evil.example")),
        changed("iss", json!([Issuer::NAME])),
        changed("iss", json!(format!("{}/", Issuer::NAME))),
        without("iss"),
        changed("aud", json!("other")),
        changed("aud", json!([])),
        changed("aud", json!({ "tandem": true })),
        without("aud"),
        changed("sub", json!("")),
        changed("sub", json!(7)),
        changed("sub", json!("a\nb")),
        changed("sub", json!("a".repeat(256))),
        without("sub"),
    ] {
        assert_eq!(refusal(&authenticator, &issuer.key.sign(&claims)).await, Some(Refusal::Invalid), "{claims}");
    }
    assert_eq!(issuer.fetches(), 1, "claims are no reason to fetch keys");
}

#[tokio::test]
async fn tokens_that_no_key_of_the_issuer_signed_are_refused() {
    let issuer = Issuer::start();
    let ours = SigningKey::generate(Algorithm::RS256, "rsa");
    let mut pss_only = SigningKey::generate(Algorithm::PS256, "pss").jwk();
    pss_only["alg"] = "PS256".into();
    let mut of_encryption = issuer.key.jwk();
    (of_encryption["kid"], of_encryption["use"]) = ("enc".into(), "enc".into());
    issuer.publish(&[issuer.key.jwk(), ours.jwk(), pss_only, of_encryption]);
    let authenticator = of(&issuer);
    let claims = Issuer::claims("admin");
    let id = |id: &str| Some(id.to_owned());
    let stranger = SigningKey::generate(Algorithm::ES256, "key-1");
    let with = |kid: Option<String>, algorithm| Header { kid, ..Header::new(algorithm) };
    let (public, jwk) = (ours.public_pem(), ours.jwk());
    let modulus = jwk["n"].as_str().unwrap();
    let valid = issuer.token("cards:read");
    let [head, payload, signature] = valid.split('.').collect::<Vec<_>>()[..] else { panic!("{valid}") };
    let other = issuer.token("admin");
    let other_payload = other.split('.').nth(1).unwrap();
    for (what, token) in [
        ("garbage", "garbage".to_owned()),
        ("an API key", "tdm_a_b".to_owned()),
        ("empty parts", "..".to_owned()),
        ("two parts", format!("{head}.{payload}")),
        ("four parts", format!("{valid}.{signature}")),
        ("another payload", format!("{head}.{other_payload}.{signature}")),
        ("no signature", format!("{head}.{payload}.")),
        ("alg none", unsigned_token(&claims)),
        ("alg none with a signature", format!("{}{signature}", unsigned_token(&claims))),
        ("HMAC with the public key", hmac_token(public.as_bytes(), id("rsa"), &claims)),
        ("HMAC with the public key, trimmed", hmac_token(public.trim().as_bytes(), id("rsa"), &claims)),
        ("HMAC with the modulus", hmac_token(modulus.as_bytes(), id("rsa"), &claims)),
        ("another key under a known id", stranger.sign(&claims)),
        ("a key of another type", issuer.key.sign_with(&with(id("rsa"), Algorithm::ES256), &claims)),
        ("another algorithm than the key's", ours.sign_with(&with(id("pss"), Algorithm::RS256), &claims)),
        ("a longer hash", ours.sign_with(&with(id("rsa"), Algorithm::RS512), &claims)),
        ("a key for encryption", issuer.key.sign_with(&with(id("enc"), Algorithm::ES256), &claims)),
        ("no key id, another key", stranger.sign_with(&with(None, Algorithm::ES256), &claims)),
    ] {
        assert_eq!(refusal(&authenticator, &token).await, Some(Refusal::Invalid), "{what}");
    }
    // The key for encryption is left out of the set, so its id is unknown.
    assert_eq!(issuer.fetches(), 2, "no other one is a reason to fetch the keys");
    // One key fits, so the id may be left out.
    assert_eq!(refusal(&authenticator, &issuer.key.sign_with(&with(None, Algorithm::ES256), &claims)).await, None);
    assert_eq!(refusal(&authenticator, &ours.sign_with(&with(None, Algorithm::RS256), &claims)).await, None);
    // Two keys fit.
    let token = ours.sign_with(&with(None, Algorithm::PS256), &claims);
    assert_eq!(refusal(&authenticator, &token).await, Some(Refusal::Invalid));
}

#[tokio::test]
async fn a_public_key_file_verifies_tokens_with_any_key_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = SigningKey::generate(algorithm, "any");
        std::fs::write(&path, key.public_pem().replace('\n', "\r\n")).unwrap();
        let authenticator = Authenticator::of_public_key_file(accepts(), path.clone()).unwrap();
        let claims = Issuer::claims("admin");
        assert_eq!(refusal(&authenticator, &key.sign(&claims)).await, None, "{algorithm:?}");
        let anonymous = key.sign_with(&Header::new(algorithm), &claims);
        assert_eq!(refusal(&authenticator, &anonymous).await, None, "{algorithm:?}");
        let other = SigningKey::generate(algorithm, "any").sign(&claims);
        assert_eq!(refusal(&authenticator, &other).await, Some(Refusal::Invalid), "{algorithm:?}");
        let hmac = hmac_token(key.public_pem().as_bytes(), None, &claims);
        assert_eq!(refusal(&authenticator, &hmac).await, Some(Refusal::Invalid), "{algorithm:?}");
    }
    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let short = include_str!("rsa-1024.pem");
    for content in ["", "garbage", &private, short] {
        std::fs::write(&path, content).unwrap();
        let error = Authenticator::of_public_key_file(accepts(), path.clone()).unwrap_err().to_string();
        assert!(error.starts_with("JWT_PUBLIC_KEY_FILE: /") && error.contains("is not a public key in PEM"), "{error}");
    }
}
