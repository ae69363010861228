//! API keys: `tdm_<id>_<secret>`, kept as the SHA-256 of the whole key.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::scope::Scopes;

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
        let (id, _secret) = text.strip_prefix("tdm_")?.split_once('_')?;
        let key = self.0.get(id)?;
        let hash: [u8; 32] = Sha256::digest(text).into();
        (key.hash == hash && key.expires.is_none_or(|expires| now < expires)).then_some(key)
    }
}
