//! The limits on the requests of a client: requests a second (429, `RateLimit-*` headers), and requests in flight.
//!
//! A client is an address as in [`client_of`](crate::slots::client_of), and with authentication also a caller. A request counts for
//! both. The limits on connections are in `slots.rs`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::{HeaderMap, HeaderName, StatusCode};
use governor::clock::DefaultClock;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use crate::error::ApiError;

pub(crate) const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(crate) const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub(crate) const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// How many requests pass before clients that have been quiet for a second are forgotten. It bounds the memory: a client takes some
/// 100 bytes.
const FORGET_AFTER: u32 = 16 * 1024;

/// The limits on one kind of client; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests a second. As many may come at once.
    pub rate: Option<NonZeroU32>,
    /// Requests that are answered at the same time.
    pub in_flight: Option<NonZeroU32>,
}

/// The limits of one listener on its clients.
#[derive(Debug)]
pub(crate) struct Limits {
    addresses: Clients<IpAddr>,
    callers: Clients<Arc<str>>,
}

/// A request within the limits. It is in flight until this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    _address: Option<Place<IpAddr>>,
    _caller: Option<Place<Arc<str>>>,
    /// What is left of the tightest limit.
    quota: Option<StateSnapshot>,
}

impl Limits {
    /// `None` if nothing is limited.
    pub(crate) fn new(of_address: ClientLimits, of_caller: ClientLimits) -> Option<Self> {
        let is_limited = of_address != ClientLimits::default() || of_caller != ClientLimits::default();
        let new = || Limits { addresses: Clients::new(of_address), callers: Clients::new(of_caller) };
        is_limited.then(new)
    }

    /// Counts a request of `address`. Called before authentication, so that guesses at keys count.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Admitted, Refused> {
        let (quota, place) = self.addresses.admit(address, "this address")?;
        Ok(Admitted { _address: place, _caller: None, quota })
    }

    /// Counts the request `admitted` for its caller.
    pub(crate) fn admit_caller(&self, caller: &Arc<str>, mut admitted: Admitted) -> Result<Admitted, Refused> {
        let (quota, place) = self.callers.admit(Arc::clone(caller), "this caller")?;
        admitted._caller = place;
        admitted.quota =
            [admitted.quota, quota].into_iter().flatten().min_by_key(StateSnapshot::remaining_burst_capacity);
        Ok(admitted)
    }
}

impl Admitted {
    /// Adds the `RateLimit-*` headers if a rate is limited.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(quota) = &self.quota {
            add_headers(headers, quota.quota().burst_size().get(), quota.remaining_burst_capacity());
        }
    }
}

/// Why a request is refused before the router.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: ApiError,
    rate: Option<NonZeroU32>,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Refused { error, rate: None }
    }
}

impl Refused {
    /// Adds the `RateLimit-*` headers if it is a rate that is exceeded.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(rate) = self.rate {
            add_headers(headers, rate.get(), 0);
        }
    }
}

/// All is left a second after the last request, whatever the rate is.
fn add_headers(headers: &mut HeaderMap, limit: u32, remaining: u32) {
    headers.insert(RATE_LIMIT_LIMIT, limit.into());
    headers.insert(RATE_LIMIT_REMAINING, remaining.into());
    headers.insert(RATE_LIMIT_RESET, u32::from(remaining < limit).into());
}

/// 429: `client` has sent more than `rate` requests in a second.
pub(crate) fn rate_limited(client: &str, rate: NonZeroU32) -> ApiError {
    let text = format!("{client} may send {rate} requests a second: try again later");
    too_many("rate_limited", text)
}

/// 429: `limit` requests of `client` are in flight.
pub(crate) fn too_many_in_flight(client: &str, limit: NonZeroU32) -> ApiError {
    too_many("too_many_in_flight", format!("{client} may have {limit} requests in flight: wait for an answer"))
}

fn too_many(code: &'static str, text: String) -> ApiError {
    ApiError { retry_after_s: Some(1), ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, text) }
}

type Rate<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The requests of the clients of one kind.
#[derive(Debug)]
struct Clients<K: Hash + Eq + Clone> {
    limits: ClientLimits,
    rate: Option<Rate<K>>,
    passed: AtomicU32,
    in_flight: Arc<Mutex<HashMap<K, u32>>>,
}

impl<K: Hash + Eq + Clone> Clients<K> {
    fn new(limits: ClientLimits) -> Self {
        let rate = limits
            .rate
            .map(|rate| RateLimiter::keyed(Quota::per_second(rate)).with_middleware::<StateInformationMiddleware>());
        Clients { limits, rate, passed: AtomicU32::new(0), in_flight: Arc::default() }
    }

    fn admit(&self, client: K, name: &str) -> Result<(Option<StateSnapshot>, Option<Place<K>>), Refused> {
        let quota = match (&self.rate, self.limits.rate) {
            (Some(limiter), Some(rate)) => {
                if self.passed.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_AFTER) {
                    limiter.retain_recent();
                }
                let quota = limiter.check_key(&client);
                Some(quota.map_err(|_wait| Refused { error: rate_limited(name, rate), rate: Some(rate) })?)
            }
            _ => None,
        };
        let place = match self.limits.in_flight {
            None => None,
            Some(limit) => {
                let place = Place::take(&self.in_flight, client, limit);
                Some(place.ok_or_else(|| Refused { error: too_many_in_flight(name, limit), rate: None })?)
            }
        };
        Ok((quota, place))
    }
}

/// The place of a request in flight.
#[derive(Debug)]
struct Place<K: Hash + Eq> {
    in_flight: Arc<Mutex<HashMap<K, u32>>>,
    client: K,
}

impl<K: Hash + Eq + Clone> Place<K> {
    fn take(in_flight: &Arc<Mutex<HashMap<K, u32>>>, client: K, limit: NonZeroU32) -> Option<Self> {
        let mut counts = in_flight.lock();
        let count = counts.entry(client.clone()).or_insert(0);
        if *count >= limit.get() {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { in_flight: Arc::clone(in_flight), client })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.in_flight.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: u32, in_flight: u32) -> ClientLimits {
        ClientLimits { rate: NonZeroU32::new(rate), in_flight: NonZeroU32::new(in_flight) }
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_client_has_its_rate_and_the_others_keep_theirs() {
        let limits = Limits::new(limits(3, 0), limits(2, 0)).unwrap();
        let mut headers = HeaderMap::new();
        for remaining in ["2", "1", "0"] {
            limits.admit(address(1)).unwrap().add_headers(&mut headers);
            let values = [&headers[RATE_LIMIT_LIMIT], &headers[RATE_LIMIT_REMAINING], &headers[RATE_LIMIT_RESET]];
            assert_eq!(values, ["3", remaining, "1"]);
        }
        let refused = limits.admit(address(1)).unwrap_err();
        assert_eq!((refused.error.status.as_u16(), refused.error.code), (429, "rate_limited"));
        refused.add_headers(&mut headers);
        assert_eq!(headers[RATE_LIMIT_REMAINING], "0");
        for remaining in ["1", "0"] {
            let admitted = limits.admit(address(2)).unwrap();
            limits.admit_caller(&"bob".into(), admitted).unwrap().add_headers(&mut headers);
            assert_eq!([&headers[RATE_LIMIT_LIMIT], &headers[RATE_LIMIT_REMAINING]], ["2", remaining]);
        }
        let admitted = limits.admit(address(2)).unwrap();
        assert_eq!(limits.admit_caller(&"bob".into(), admitted).unwrap_err().error.code, "rate_limited");
        limits.admit_caller(&"eve".into(), limits.admit(address(3)).unwrap()).unwrap();
    }

    #[test]
    fn a_request_is_in_flight_until_it_is_answered() {
        let limits = Limits::new(limits(0, 2), limits(0, 1)).unwrap();
        let first = limits.admit_caller(&"bob".into(), limits.admit(address(1)).unwrap()).unwrap();
        let refused = limits.admit_caller(&"bob".into(), limits.admit(address(1)).unwrap()).unwrap_err();
        assert_eq!((refused.error.status.as_u16(), refused.error.code), (429, "too_many_in_flight"));
        let _second = limits.admit(address(1)).unwrap();
        assert!(limits.admit(address(1)).is_err());
        drop(first);
        limits.admit_caller(&"bob".into(), limits.admit(address(1)).unwrap()).unwrap();
        assert!(limits.callers.in_flight.lock().is_empty());
    }

    #[test]
    fn clients_that_are_quiet_are_forgotten() {
        let limits = Limits::new(limits(u32::MAX, 0), ClientLimits::default()).unwrap();
        for client in 0..3 * FORGET_AFTER {
            limits.admit(client.to_be_bytes().into()).unwrap();
        }
        assert!(limits.addresses.rate.unwrap().len() <= 2 * FORGET_AFTER as usize);
    }

    #[test]
    fn without_limits_there_is_nothing_to_count() {
        assert!(Limits::new(ClientLimits::default(), ClientLimits::default()).is_none());
    }
}
