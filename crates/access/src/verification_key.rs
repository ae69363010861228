//! Public keys that verify tokens, and the algorithms that each is good for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The algorithms of tokens that are accepted. None of them has a shared secret, which a service would have to keep.
pub(crate) const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// The shortest modulus of an RSA key: NIST SP 800-131A disallows shorter ones.
const MIN_RSA_BYTES: usize = 2048 / 8;

/// The most keys of a set: providers publish up to about ten.
const MAX_KEYS: usize = 100;

/// A public key.
#[derive(Debug)]
pub(crate) struct VerificationKey {
    /// The `kid` of tokens that this key verifies; `None` for tokens with any or none.
    pub(crate) id: Option<String>,
    /// What the key is good for: never algorithms of two kinds of key.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

impl VerificationKey {
    /// `None` if the key is not for signatures, of another kind, or too short.
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let of_kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if modulus_bytes(&rsa.n)? >= MIN_RSA_BYTES => {
                &[Algorithm::RS256, Algorithm::PS256]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            _ => return None,
        };
        let is_for_signatures =
            jwk.common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature)
                && jwk.common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
        let named = jwk.common.key_algorithm;
        let fits = |algorithm: &&Algorithm| named.is_none_or(|named| named == (**algorithm).into());
        let algorithms: Vec<_> = of_kind.iter().filter(fits).copied().collect();
        if algorithms.is_empty() || !is_for_signatures {
            return None;
        }
        Some(VerificationKey { id: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// The length of an RSA modulus without leading zeros.
fn modulus_bytes(modulus: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(modulus.trim_end_matches('=')).ok()?;
    Some(bytes.len() - bytes.iter().take_while(|byte| **byte == 0).count())
}

/// The keys of a JSON Web Key Set (RFC 7517). Keys that verify no token of [`ALGORITHMS`] are left out.
pub(crate) fn of_jwks(content: &[u8]) -> Result<Vec<VerificationKey>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(content).map_err(|_| "is not a JSON Web Key Set".to_owned())?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} keys"));
    }
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(jwks.filter_map(|jwk| VerificationKey::of_jwk(&jwk)).collect())
}

/// The key of a PEM file.
pub(crate) fn of_pem(content: &[u8]) -> Result<Vec<VerificationKey>, String> {
    // A private key would verify tokens too, but is for the issuer alone.
    let is_public = String::from_utf8_lossy(content).contains("PUBLIC KEY-----");
    let of_kind = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
    let key = of_kind.iter().filter(|_| is_public).find_map(|read| read(content).ok());
    let jwk = key.and_then(|key| Jwk::from_decoding_key(&key, None).ok());
    let key = jwk.and_then(|jwk| VerificationKey::of_jwk(&jwk));
    Ok(vec![key.ok_or("is not a public key in PEM: RSA of 2048 bits or more, P-256 or Ed25519")?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn algorithms(jwk: &Value) -> Vec<Algorithm> {
        let keys = of_jwks(json!({ "keys": [jwk, 7, {}] }).to_string().as_bytes()).unwrap();
        keys.into_iter().flat_map(|key| key.algorithms).collect()
    }

    #[test]
    fn a_key_is_good_for_its_kind_and_its_declared_use_alone() {
        use Algorithm::{ES256, EdDSA, PS256, RS256};
        let rsa = |bytes: usize| json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([vec![0, 0], vec![0x80; bytes]].concat()) });
        let ec = json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" });
        let with = |key: &Value, field: &str, value: Value| {
            let mut key = key.clone();
            key[field] = value;
            key
        };
        assert_eq!(algorithms(&rsa(256)), [RS256, PS256]);
        assert_eq!(algorithms(&rsa(255)), []);
        assert_eq!(algorithms(&with(&rsa(256), "alg", json!("PS256"))), [PS256]);
        assert_eq!(algorithms(&with(&rsa(256), "alg", json!("RS512"))), []);
        assert_eq!(algorithms(&with(&rsa(256), "alg", json!("HS256"))), []);
        assert_eq!(algorithms(&with(&rsa(256), "alg", json!("RSA-OAEP"))), []);
        assert_eq!(algorithms(&ec), [ES256]);
        assert_eq!(algorithms(&with(&ec, "crv", json!("P-384"))), []);
        assert_eq!(algorithms(&with(&ec, "use", json!("sig"))), [ES256]);
        assert_eq!(algorithms(&with(&ec, "use", json!("enc"))), []);
        assert_eq!(algorithms(&with(&ec, "key_ops", json!(["verify"]))), [ES256]);
        assert_eq!(algorithms(&with(&ec, "key_ops", json!(["encrypt"]))), []);
        assert_eq!(algorithms(&json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" })), [EdDSA]);
        assert_eq!(algorithms(&json!({ "kty": "OKP", "crv": "X25519", "x": "AA" })), []);
        assert_eq!(algorithms(&json!({ "kty": "oct", "k": "AAAA" })), []);
    }

    #[test]
    fn a_set_that_is_no_set_is_refused() {
        for text in ["", "[]", "{}", "<html>", "{\"keys\": 1}"] {
            assert_eq!(of_jwks(text.as_bytes()).unwrap_err(), "is not a JSON Web Key Set", "{text}");
        }
        let many = json!({ "keys": vec![0; MAX_KEYS + 1] }).to_string();
        assert!(of_jwks(many.as_bytes()).unwrap_err().contains("more than 100"));
        assert!(of_jwks(b"{\"keys\": []}").unwrap().is_empty());
    }
}
