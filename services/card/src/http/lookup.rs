//! Looking up an account in the view as a request asks for it: `Account-Version` and `Prefer: wait`.

use std::time::{Duration, Instant};

use account_events::{AccountId, MAX_VERSION, Version};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_server::{ACCOUNT_VERSION, PREFERENCE_APPLIED, Peer, prefer_wait};

use crate::accounts::view::AccountState;
use crate::error::CardError;
use crate::http::response::CardService;

/// The longest wait, in seconds. Proxies cut off a request that is not answered after 60.
const MAX_WAIT_S: u64 = 30;

/// What a request asks of the look-up.
pub(crate) struct Lookup {
    /// The view must know the account in this version or a later one.
    version: Option<Version>,
    /// For how many seconds the request may wait.
    wait_s: Option<u64>,
    peer: Option<Peer>,
}

impl<S: Sync> FromRequestParts<S> for Lookup {
    type Rejection = CardError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, CardError> {
        let wait_s = prefer_wait(&parts.headers).map(|seconds| seconds.min(MAX_WAIT_S));
        let peer = wait_s.and_then(|_| parts.extensions.get().cloned());
        Ok(Lookup { version: required_version(&parts.headers)?, wait_s, peer })
    }
}

impl Lookup {
    /// Returns the account's state if the view knows it as the request requires.
    pub(crate) fn known(&self, service: &CardService, id: AccountId) -> Option<AccountState> {
        service.waiters.known(id, self.version)
    }

    /// Returns the account's state, and waits for it if the request asks for that.
    pub(crate) async fn account(&self, service: &CardService, id: AccountId) -> Result<AccountState, CardError> {
        let waiters = &service.waiters;
        if let Some(state) = waiters.known(id, self.version) {
            return Ok(state);
        }
        let mut since = None;
        if let Some(seconds) = self.wait_s {
            since = Some(Instant::now());
            // On the heap, since few requests wait and the future of each request would be as large.
            let waiting = Box::pin(waiters.until_known(id, self.version, self.end(service, seconds)));
            if let Some(state) = waiting.await? {
                return Ok(state);
            }
        }
        // Determined before the last look-up: the view then has the events that make it complete.
        let status = &service.status;
        let is_complete = status.unready().is_none() && since.is_none_or(|since| status.is_complete_since(since));
        match waiters.known(id, self.version) {
            Some(state) => Ok(state),
            None if is_complete && self.version.is_none() => Err(CardError::AccountNotFound),
            None => Err(CardError::CatchingUp),
        }
    }

    /// Completes after `seconds`, when the peer is gone, or when the service stops.
    async fn end(&self, service: &CardService, seconds: u64) {
        let gone = async {
            match &self.peer {
                Some(peer) => peer.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            () = gone => {}
            () = service.shutdown.cancelled() => {}
        }
    }

    /// Returns the response for the outcome of a request after its look-up, with the preference that was applied.
    pub(crate) fn respond(&self, outcome: Result<impl IntoResponse, CardError>) -> Response {
        let was_applied = !matches!(outcome, Err(CardError::TooManyWaiting));
        let mut response = match outcome {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        };
        let applied = self.wait_s.filter(|_| was_applied).map(|seconds| format!("wait={seconds}"));
        if let Some(applied) = applied.and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}

/// Parses the `Account-Version` of a request: a version, bare or in double quotes.
fn required_version(headers: &HeaderMap) -> Result<Option<Version>, CardError> {
    let mut lines = headers.get_all(ACCOUNT_VERSION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().unwrap_or_default();
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_number = lines.next().is_none() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let version = digits.parse().ok().filter(|version| is_number && (1..=MAX_VERSION).contains(version));
    version.map(Some).ok_or(CardError::InvalidAccountVersion)
}
