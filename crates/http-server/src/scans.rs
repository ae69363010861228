//! A limit on requests that scan whole tables or logs.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// The scans of a service at the same time: one of `tandem verify`, and one whose caller is gone and that has not noticed yet.
const MAX_SCANS: usize = 2;

/// The places for scans of a service, as an `Extension` of the routes that take a [`ScanPermit`].
#[derive(Debug, Clone)]
pub struct Scans(Arc<Semaphore>);

impl Default for Scans {
    fn default() -> Self {
        Scans(Arc::new(Semaphore::new(MAX_SCANS)))
    }
}

/// Permits one scan while it exists. A request without a free place is answered 503.
#[derive(Debug)]
pub struct ScanPermit {
    _permit: OwnedSemaphorePermit,
}

impl<S: Sync> FromRequestParts<S> for ScanPermit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let scans =
            parts.extensions.get::<Scans>().ok_or_else(|| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
        let permit = Arc::clone(&scans.0).try_acquire_owned();
        let permit =
            permit.map_err(|_| ApiError::unavailable("overloaded", "other scans are running, try again", 1))?;
        Ok(ScanPermit { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn a_scan_has_a_place_until_its_permit_is_dropped() {
        let scans = Scans::default();
        let request = || {
            let mut request = Request::new(());
            request.extensions_mut().insert(scans.clone());
            request.into_parts().0
        };
        let mut permits = Vec::new();
        for _ in 0..MAX_SCANS {
            permits.push(ScanPermit::from_request_parts(&mut request(), &()).await.unwrap());
        }
        let refused = ScanPermit::from_request_parts(&mut request(), &()).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (503, "overloaded"));
        permits.pop();
        assert!(ScanPermit::from_request_parts(&mut request(), &()).await.is_ok());
    }
}
