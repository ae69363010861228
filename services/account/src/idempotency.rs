//! What is stored under an idempotency key, and what a request with a stored key is answered.
//!
//! The stored value is the account as the first answer showed it. The handler builds the answer from it again: the fingerprint
//! contains method and path, so the handler is the same, and so are status, headers and body.

use std::collections::HashMap;
use std::sync::Arc;

use http_server::{IdempotencyKey, KeyedRequest};

use crate::account::Account;
use crate::error::AccountError;

/// A command that succeeded.
#[derive(Debug, Clone)]
pub struct Done {
    /// The account after the command.
    pub account: Account,
    /// Whether an earlier request with the same key ran the command.
    pub is_replay: bool,
}

/// What a key in the database belongs to.
#[derive(Debug, Clone)]
pub(crate) struct StoredAnswer {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) account: Account,
}

/// The stored keys that a batch names, without expired ones.
pub(crate) type StoredKeys = HashMap<IdempotencyKey, StoredAnswer>;

/// A key to store.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) request: Arc<KeyedRequest>,
    pub(crate) account: Account,
}

impl StoredAnswer {
    /// The outcome of `request`, whose key is this one.
    pub(crate) fn replay(&self, request: &KeyedRequest) -> Result<Done, AccountError> {
        match self.fingerprint == request.fingerprint {
            true => Ok(Done { account: self.account.clone(), is_replay: true }),
            false => Err(AccountError::KeyReused),
        }
    }
}
