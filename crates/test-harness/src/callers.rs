//! Callers of a service with authentication.

use std::sync::Arc;

use access::{Authenticator, Key, Scope};
use sha2::{Digest as _, Sha256};

use crate::Http;

/// Knows callers of these names. Each may do everything with the key of [`key_of`].
pub fn callers(names: &[&str]) -> Arc<Authenticator> {
    let key = |name: &&str| Key {
        id: (*name).to_owned(),
        name: (*name).into(),
        hash: Sha256::digest(key_of(name)).into(),
        scopes: [Scope::Admin].into_iter().collect(),
        expires: None,
    };
    Authenticator::of_keys(names.iter().map(key).collect())
}

/// The key of a caller.
pub fn key_of(name: &str) -> String {
    format!("tdm_{name}_secret")
}

impl Http {
    /// A client that sends the key of the caller `name` with each request.
    pub fn of_caller(&self, name: &str) -> Http {
        self.clone().with_authorization(format!("Bearer {}", key_of(name)))
    }
}
