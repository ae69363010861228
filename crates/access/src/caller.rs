//! Who sent a request.

use std::fmt;
use std::sync::Arc;

use crate::authenticator::Authenticator;
use crate::scope::{Scope, Scopes};

/// An authenticated caller, in the extensions of its request.
#[derive(Clone)]
pub struct Caller {
    /// The name in history entries and in the audit: a key's name, or a token's issuer and subject.
    pub name: Arc<str>,
    /// What the caller may do.
    pub scopes: Scopes,
    authorization: Arc<[u8]>,
    authenticator: Arc<Authenticator>,
}

impl Caller {
    pub(crate) fn new(
        name: Arc<str>,
        scopes: Scopes,
        authorization: Arc<[u8]>,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        Caller { name, scopes, authorization, authenticator }
    }

    /// Whether the caller's credentials are still valid and allow `scope`. A response that lasts, such as an event stream, asks from
    /// time to time.
    pub async fn may_still(&self, scope: Scope) -> bool {
        let caller = self.authenticator.authenticate(Some(&self.authorization)).await;
        caller.is_ok_and(|caller| caller.scopes.allow(scope))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}
