//! JSON Web Tokens (RFC 7519, RFC 8725): which are valid, and whom they name.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::authenticator::Refusal;
use crate::refresh::Refresh;
use crate::scope::Scopes;
use crate::token_cache::{TokenCache, Verified};
use crate::verification_key::{ALGORITHMS, VerificationKey};

/// How far the clocks of issuer and service may differ, in seconds.
pub(crate) const LEEWAY_S: u64 = 60;

/// The longest subject, as in OpenID Connect: it is kept in history entries.
const MAX_SUBJECT_BYTES: usize = 255;

/// Verifies tokens of one issuer for one audience.
#[derive(Debug)]
pub(crate) struct Tokens {
    issuer: String,
    /// What is demanded of a token, by its algorithm.
    validations: Vec<(Algorithm, Validation)>,
    /// `None` until the first set of keys is known.
    keys: ArcSwapOption<KeyRing>,
    /// Fetches the keys, unless they come from a file.
    pub(crate) refresh: Option<Arc<Refresh>>,
}

/// A set of keys, with the tokens that it has verified: other keys begin with an empty cache.
#[derive(Debug)]
struct KeyRing {
    keys: Vec<VerificationKey>,
    cache: TokenCache,
}

/// Why a token is not valid.
enum Fault {
    /// A newer set of keys may have its key.
    UnknownKey,
    Invalid,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    scope: Option<Value>,
    scp: Option<Value>,
}

/// Scopes as one text with spaces, or as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    List(Vec<String>),
}

impl Value {
    fn scopes(&self) -> Scopes {
        match self {
            Value::Text(text) => Scopes::of_known(text.split(' ')),
            Value::List(list) => Scopes::of_known(list.iter().map(String::as_str)),
        }
    }
}

impl Tokens {
    pub(crate) fn new(issuer: String, audience: &str, refresh: Option<Arc<Refresh>>) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.leeway = LEEWAY_S;
            validation.validate_nbf = true;
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.set_issuer(&[&issuer]);
            validation.set_audience(&[audience]);
            (algorithm, validation)
        };
        let validations = ALGORITHMS.map(validation).into();
        Tokens { issuer, validations, keys: ArcSwapOption::empty(), refresh }
    }

    /// Replaces the keys. Tokens that only the keys before verified are refused from now on.
    pub(crate) fn set_keys(&self, keys: Vec<VerificationKey>) {
        self.keys.store(Some(Arc::new(KeyRing { keys, cache: TokenCache::default() })));
    }

    /// Whether a set of keys is known.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Returns the caller's name and scopes if `token` is valid. Waits for a fetch of the keys if they are not known yet, or if
    /// the token names a key that is unknown and was not looked for within a minute.
    pub(crate) async fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let hash = Sha256::digest(token).into();
        let mut was_refreshed = false;
        loop {
            let keys = self.keys.load_full();
            let refusal = match keys.map(|keys| self.verify_with(&keys, token, hash)) {
                Some(Ok(verified)) => return Ok(verified),
                Some(Err(Fault::Invalid)) => return Err(Refusal::Invalid),
                Some(Err(Fault::UnknownKey)) => Refusal::Invalid,
                None => Refusal::Unavailable,
            };
            match &self.refresh {
                Some(refresh) if !was_refreshed && refresh.wait(refusal == Refusal::Invalid).await => {
                    was_refreshed = true;
                }
                _ => return Err(refusal),
            }
        }
    }

    fn verify_with(&self, ring: &KeyRing, token: &str, hash: [u8; 32]) -> Result<Verified, Fault> {
        let now = Timestamp::now().as_second();
        if let Some(verified) = ring.cache.get(&hash, now) {
            return Ok(verified);
        }
        let header = decode_header(token).map_err(|_| Fault::Invalid)?;
        let validation = self.validations.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (_, validation) = validation.ok_or(Fault::Invalid)?;
        let key = ring.key(header.kid.as_deref(), header.alg)?;
        let claims = decode::<Claims>(token, key, validation).map_err(|_| Fault::Invalid)?.claims;
        let verified = self.verified(&claims).ok_or(Fault::Invalid)?;
        ring.cache.insert(hash, verified.clone());
        Ok(verified)
    }

    fn verified(&self, claims: &Claims) -> Option<Verified> {
        let Claims { iss, sub, exp, scope, scp } = claims;
        // A list of issuers passes the library's check.
        if *iss != self.issuer || sub.is_empty() || sub.len() > MAX_SUBJECT_BYTES || sub.chars().any(char::is_control) {
            return None;
        }
        let scopes = [scope, scp].into_iter().flatten().flat_map(|value| value.scopes().iter()).collect();
        // The cast saturates.
        Some(Verified {
            name: format!("{iss}|{sub}").into(),
            scopes,
            ends: (*exp as i64).saturating_add(LEEWAY_S as i64),
        })
    }
}

impl KeyRing {
    /// The key that verifies a token with the key id `id` and `algorithm`.
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, Fault> {
        let of_id = |key: &&VerificationKey| id.is_some() && key.id.as_deref() == id;
        let of_any = |key: &&VerificationKey| id.is_none() || key.id.is_none();
        let fits = |key: &&VerificationKey| key.algorithms.contains(&algorithm);
        if self.keys.iter().any(|key| of_id(&key)) {
            // Another algorithm than the key's is no reason to fetch the keys.
            return self.keys.iter().filter(of_id).find(fits).map(|key| &key.key).ok_or(Fault::Invalid);
        }
        let mut keys = self.keys.iter().filter(of_any).filter(fits);
        match (keys.next(), keys.next(), id) {
            (Some(key), None, _) => Ok(&key.key),
            (None, _, Some(_)) => Err(Fault::UnknownKey),
            _ => Err(Fault::Invalid),
        }
    }
}
