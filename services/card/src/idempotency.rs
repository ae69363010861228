//! What is stored under an idempotency key, and what a request with a stored key is answered.
//!
//! The stored value names the card that the request created. A card does not change but for `deleted`, so the handler builds the same
//! answer from it again: the fingerprint contains method and path, so the handler is the same.

use std::collections::HashMap;
use std::sync::Arc;

use http_server::{IdempotencyKey, KeyedRequest};
use uuid::Uuid;

use crate::card::Card;
use crate::error::CardError;

/// A command that succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// The card that the command created, if it created one.
    pub(crate) card: Option<Card>,
    /// Whether an earlier request with the same key ran the command.
    pub(crate) is_replay: bool,
}

/// What a key in the database belongs to.
#[derive(Debug, Clone)]
pub(crate) struct StoredAnswer {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) card: Option<Card>,
}

/// The stored keys that a batch names, without expired ones.
pub(crate) type StoredKeys = HashMap<IdempotencyKey, StoredAnswer>;

/// A key to store.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) request: Arc<KeyedRequest>,
    /// The card that the command created.
    pub(crate) card_id: Option<Uuid>,
}

impl StoredAnswer {
    /// The outcome of `request`, whose key is this one.
    pub(crate) fn replay(&self, request: &KeyedRequest) -> Result<Done, CardError> {
        if self.fingerprint != request.fingerprint {
            return Err(CardError::KeyReused);
        }
        let card = self.card.clone().map(|card| Card { deleted: false, ..card });
        Ok(Done { card, is_replay: true })
    }
}
