//! API keys: `tdm_<id>_<secret>`, kept as the SHA-256 of the whole key.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::scope::Scopes;

/// The start of every key, by which people and secret scanners recognize one.
const PREFIX: &str = "tdm_";

/// The characters of an id and of a secret.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The length of an id. Ids need not be secret, only distinct within a file.
const ID_CHARS: usize = 10;

/// The length of a secret: 43 random characters of 62 have 256 bits.
const SECRET_CHARS: usize = 43;

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The public part of the key.
    pub id: String,
    /// The name of the caller; one caller may have several keys.
    pub name: Arc<str>,
    /// The SHA-256 of the key.
    pub hash: [u8; 32],
    /// What the key allows.
    pub scopes: Scopes,
    /// When the key ends; `None` for never.
    pub expires: Option<Timestamp>,
}

impl Key {
    /// Makes a key of random characters. Returns its text, which is kept nowhere, and its entry. Fails if the system has no random
    /// numbers.
    pub fn generate(
        name: &str,
        scopes: Scopes,
        expires: Option<Timestamp>,
    ) -> Result<(String, Self), getrandom::Error> {
        let id = random_base62(ID_CHARS)?;
        let text = format!("{PREFIX}{id}_{}", random_base62(SECRET_CHARS)?);
        let hash = Sha256::digest(&text).into();
        Ok((text, Key { id, name: name.into(), hash, scopes, expires }))
    }

    /// Whether the key is past its end at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Whether `id` can be part of a key.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn random_base62(length: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 on would make the first 8 characters more likely.
        let places = bytes.iter().filter(|byte| **byte < 248).map(|byte| usize::from(byte % 62));
        text.extend(places.take(length - text.len()).map(|place| char::from(BASE62[place])));
    }
    Ok(text)
}

/// The keys of a file, by id.
#[derive(Debug, Clone, Default)]
pub struct KeySet(HashMap<String, Key>);

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        KeySet(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }
}

impl KeySet {
    /// Returns the entry of the key `text` unless it has expired.
    ///
    /// The hashes are not compared in constant time: the time tells about the hash of a secret with 256 random bits, from which the
    /// secret cannot be found.
    pub(crate) fn find(&self, text: &str, now: Timestamp) -> Option<&Key> {
        let (id, _secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let key = self.0.get(id)?;
        let hash: [u8; 32] = Sha256::digest(text).into();
        (key.hash == hash && !key.has_expired(now)).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_256_random_bits_and_is_found_until_it_expires() {
        let now = Timestamp::now();
        let (text, key) = Key::generate("shop", "cards:write".parse().unwrap(), Some(now)).unwrap();
        let (other, _) = Key::generate("shop", Scopes::default(), None).unwrap();
        let secret = text.strip_prefix(&format!("tdm_{}_", key.id)).unwrap();
        assert!(is_id(&key.id) && is_id(secret) && text != other);
        assert!(secret.len() as f64 * 62_f64.log2() >= 256.0);
        let before = now - jiff::SignedDuration::from_millis(1);
        let keys: KeySet = [key.clone()].into_iter().collect();
        assert_eq!(keys.find(&text, before), Some(&key));
        assert_eq!(keys.find(&text, now), None);
        assert_eq!(keys.find(&text[..text.len() - 1], before), None);
        assert_eq!(keys.find(&format!("{text}0"), before), None);
        assert_eq!(keys.find(&other, before), None);
    }

    #[test]
    fn every_character_is_as_likely() {
        let text = random_base62(62_000).unwrap();
        for char in BASE62 {
            let count = text.bytes().filter(|byte| byte == char).count();
            // 8 standard deviations.
            assert!((750..1_250).contains(&count), "{}: {count}", char::from(*char));
        }
    }
}
