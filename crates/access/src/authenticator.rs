//! From the `Authorization` header to a caller.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::caller::Caller;
use crate::key::KeySet;

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request has no credentials.
    Missing,
    /// The credentials are malformed, unknown, expired or revoked.
    Invalid,
}

/// Knows which credentials are valid. The services of a process share one.
#[derive(Debug)]
pub struct Authenticator {
    keys: ArcSwap<KeySet>,
}

impl Authenticator {
    /// Accepts the keys of `keys`.
    pub fn of_keys(keys: KeySet) -> Arc<Self> {
        Arc::new(Authenticator { keys: ArcSwap::from_pointee(keys) })
    }

    /// Returns the caller that `authorization`, the value of the header, names.
    pub async fn authenticate(self: &Arc<Self>, authorization: Option<&[u8]>) -> Result<Caller, Refusal> {
        let authorization = authorization.ok_or(Refusal::Missing)?;
        let token = bearer_token(authorization).ok_or(Refusal::Invalid)?;
        let keys = self.keys.load();
        let key = keys.find(token, Timestamp::now()).ok_or(Refusal::Invalid)?;
        Ok(Caller::new(Arc::clone(&key.name), key.scopes, authorization.into(), Arc::clone(self)))
    }

    /// Why credentials may be out of date, if so: a warning for operators.
    pub fn warning(&self) -> Option<String> {
        None
    }
}

/// Returns the token of `Bearer <token>` (RFC 6750, 2.1). The scheme's case does not matter.
fn bearer_token(authorization: &[u8]) -> Option<&str> {
    let (scheme, token) = str::from_utf8(authorization).ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
