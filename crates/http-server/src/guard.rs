//! The checks of a request before the router: the limit on connections, its `Host` (RFC 9112, 3.2), and the origin of a web page that
//! writes.
//!
//! A page on the internet can send requests to a service on the visitor's own machine. The browser withholds the response,
//! but not the write. `Sec-Fetch-Site` and `Origin` reveal such a page. A page can also point a name of its own at
//! 127.0.0.1 (DNS rebinding), and then counts as the service's own page. `Host` reveals that name.

use std::net::{IpAddr, Ipv6Addr};
use std::str::{self, FromStr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};

use crate::body::shorten;
use crate::cors::CorsOrigin;
use crate::error::ApiError;
use crate::health::HEALTH_PATHS;
use crate::query::has_valid_escapes;

/// The header in which a browser states how the page and the server are related (Fetch Metadata).
pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// `Retry-After` when all connections are in use, in seconds: idle connections are closed for new ones.
const OVERLOADED_RETRY_AFTER_S: u32 = 1;

/// The names in `ALLOWED_HOSTS`, which a `Host` header may have besides IP addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl FromStr for AllowedHosts {
    type Err = String;

    /// Parses names with commas between them, without ports.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(|name| {
            let name = name.trim();
            match Authority::parse(name) {
                Some(Authority { host, port: None }) if host == name => Ok(name.to_ascii_lowercase()),
                _ => Err(format!("`{name}` is no host name: expected names such as accounts.example, without a port")),
            }
        });
        names.collect::<Result<_, _>>().map(Self)
    }
}

/// The checks of one service.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The names that a `Host` may have besides IP addresses and `localhost`; any name if `None`.
    pub(crate) hosts: Option<AllowedHosts>,
    pub(crate) cors: Option<CorsOrigin>,
}

impl Guard {
    /// Returns the refusal of `request` if a check fails. `is_spare` says that the connection is beyond the limit.
    pub(crate) fn check<B>(&self, request: &Request<B>, is_spare: bool) -> Result<(), ApiError> {
        let host = requested_host(request)?;
        if !HEALTH_PATHS.contains(&request.uri().path()) {
            if is_spare {
                let text = "too many connections are open, try again";
                return Err(ApiError::unavailable("overloaded", text, OVERLOADED_RETRY_AFTER_S));
            }
            if let (Some(allowed), Some(host)) = (&self.hosts, &host) {
                allowed.check(host.host)?;
            }
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        self.check_origin(request, host.as_ref())
    }

    /// Refuses a request of another site's page with 403, unless CORS allows the origin. Browsers send at least one of the
    /// two headers; a caller that sends neither is not a browser.
    fn check_origin<B>(&self, request: &Request<B>, host: Option<&Authority<'_>>) -> Result<(), ApiError> {
        let headers = request.headers();
        let (origins, sites) = (headers.get_all(ORIGIN), headers.get_all(SEC_FETCH_SITE));
        let names_origin = headers.contains_key(ORIGIN);
        let is_allowed = match &self.cors {
            None => false,
            Some(CorsOrigin::Any) => true,
            Some(CorsOrigin::List(allowed)) => names_origin && origins.iter().all(|origin| allowed.contains(origin)),
        };
        // A proxy may have changed `Host`, and then the origin differs: `Sec-Fetch-Site` takes precedence.
        let is_own = match headers.contains_key(SEC_FETCH_SITE) {
            true => sites.iter().all(|site| site == "same-origin" || site == "none"),
            false => origins.iter().all(|origin| host.is_some_and(|host| host.is_of_origin(origin))),
        };
        if is_allowed || is_own {
            return Ok(());
        }
        let text = "a web page of another site must not write here, unless CORS_ALLOW_ORIGIN names its origin";
        let field = if names_origin { "Origin" } else { "Sec-Fetch-Site" };
        Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", text).with_field(field))
    }
}

impl AllowedHosts {
    pub(crate) fn check(&self, host: &str) -> Result<(), ApiError> {
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
        if is_address
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
        {
            return Ok(());
        }
        let text = format!(
            "{} is no name of this server, which is reached on this machine only, by an IP address or localhost; \
             ALLOWED_HOSTS adds names",
            shorten(host)
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, "unknown_host", text).with_field("Host"))
    }
}

/// Returns the host of the request's target if the target names one, else that of `Host`. `None` for HTTP/1.0 without
/// either.
fn requested_host<B>(request: &Request<B>) -> Result<Option<Authority<'_>>, ApiError> {
    let refuse = |text| Err(ApiError::invalid("Host", "invalid_host", text));
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (None, _) => return refuse("the Host header is missing"),
        (Some(_), Some(_)) => return refuse("the Host header is given more than once"),
        (Some(host), None) => match str::from_utf8(host.as_bytes()).ok().and_then(Authority::parse) {
            None => return refuse("the Host header is not a host with an optional port"),
            host => host,
        },
    };
    match request.uri().authority() {
        None => Ok(host),
        Some(authority) => match Authority::parse(authority.as_str()) {
            None => refuse("the request's target is not of a host with an optional port"),
            host => Ok(host),
        },
    }
}

/// A host and its port, as in `Host` and in an origin.
#[derive(Debug, PartialEq, Eq)]
struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host`, `host:` or `host:port` (RFC 3986, 3.2.2 and 3.2.3); `None` for anything else.
    fn parse(text: &'a str) -> Option<Self> {
        let host_end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(host_end);
        let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_registered_name(host),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        is_host.then_some(Self { host, port })
    }

    /// Whether `origin` is this host. The scheme is not compared: a proxy may terminate TLS.
    fn is_of_origin(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().unwrap_or_default();
        let (rest, default_port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
            (Some(rest), _) => (rest, 80),
            (None, Some(rest)) => (rest, 443),
            (None, None) => return false,
        };
        Authority::parse(rest).is_some_and(|origin| {
            origin.host.eq_ignore_ascii_case(self.host)
                && origin.port.unwrap_or(default_port) == self.port.unwrap_or(default_port)
        })
    }
}

/// Whether `name` is not empty, and consists of unreserved characters, sub-delimiters and escapes.
fn is_registered_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"%-._~!$&'()*+,;=".contains(&byte);
    !name.is_empty() && name.bytes().all(is_valid) && has_valid_escapes(name)
}
