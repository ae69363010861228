//! Authentication of requests (RFC 6750), where the configuration has an [`Authenticator`].

use std::sync::Arc;

use access::{Access, Authenticator, Caller, Refusal, Scope};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use crate::error::ApiError;

/// Returns the caller of a request with `headers` to a route that needs `access`, and whether the request may be answered. The caller is
/// `None` if nobody is named.
pub(crate) async fn authenticate(
    authenticator: &Arc<Authenticator>,
    access: Access,
    headers: &HeaderMap,
) -> (Option<Caller>, Result<(), ApiError>) {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let caller = match (lines.next(), lines.next()) {
        (_, Some(_)) => Err(Refusal::Invalid),
        (line, None) => authenticator.authenticate(line.map(|line| line.as_bytes())).await,
    };
    match (caller, access) {
        (Ok(caller), Access::Needs(scope)) if !caller.scopes.allow(scope) => {
            (Some(caller), Err(insufficient_scope(scope)))
        }
        (Ok(caller), _) => (Some(caller), Ok(())),
        (Err(_), Access::Open) => (None, Ok(())),
        (Err(refusal), Access::Needs(_)) => (None, Err(unauthenticated(refusal))),
    }
}

/// `Retry-After` while the issuer's keys are not known, in seconds: the fetch is repeated every 10 seconds.
const NO_KEYS_RETRY_AFTER_S: u32 = 10;

/// 401, or 503 if the credentials cannot be checked. `WWW-Authenticate` tells whether there were credentials.
pub(crate) fn unauthenticated(refusal: Refusal) -> ApiError {
    let (text, challenge) = match refusal {
        Refusal::Unavailable => {
            let text = "the credentials cannot be checked now: the keys of their issuer are not known yet";
            return ApiError::unavailable("unavailable", text, NO_KEYS_RETRY_AFTER_S);
        }
        Refusal::Missing => ("credentials are required: Authorization: Bearer, and a key or a token", "Bearer"),
        Refusal::Invalid => {
            ("the credentials are malformed, unknown, expired or revoked", "Bearer error=\"invalid_token\"")
        }
    };
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "unauthenticated", text).with_field("Authorization");
    ApiError { challenge: Some(challenge.into()), ..error }
}

/// 403: the caller lacks `scope`.
pub(crate) fn insufficient_scope(scope: Scope) -> ApiError {
    let scope = scope.name();
    let text = format!("the credentials do not allow this: it needs the scope {scope}");
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    ApiError { challenge: Some(challenge.into()), ..ApiError::new(StatusCode::FORBIDDEN, "insufficient_scope", text) }
}

/// Extracts the name of the caller; `None` if callers are not authenticated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerName(pub Option<Arc<str>>);

impl<S: Sync> FromRequestParts<S> for CallerName {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(CallerName(parts.extensions.get::<Caller>().map(|caller| Arc::clone(&caller.name))))
    }
}
