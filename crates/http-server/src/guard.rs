//! What the server asks of a request before any route sees it: a `Host` (RFC 9112, 3.2) that is the server's own, and,
//! of a web page that writes, an origin that may.
//!
//! A page on the internet can send requests to a service on the visitor's own machine. Browsers withhold the response,
//! but a write has happened by then; and a page that points a name of its own at 127.0.0.1 (DNS rebinding) counts as
//! the service's own page. `Sec-Fetch-Site` and `Origin` show the first, `Host` shows the second.

use std::net::{IpAddr, Ipv6Addr};
use std::str::{self, FromStr};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method, Version};

use crate::body::shorten;
use crate::cors::CorsOrigin;
use crate::error::ApiError;
use crate::health::HEALTH_PATHS;

/// The header in which a browser says how the page and the server are related (Fetch Metadata).
pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a caller should wait when all connections are taken, in seconds: idle ones are closed for new ones.
const OVERLOADED_RETRY_AFTER_S: u32 = 1;

/// Marks a request that came on a connection without a place: only health checks are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overloaded;

/// The names in `ALLOWED_HOSTS`: what a `Host` header may name beside IP addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl FromStr for AllowedHosts {
    type Err = String;

    /// Reads names with commas between them, without ports.
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

/// What [`Guard::check`] goes by.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// The names that a `Host` may have; any if `None`.
    pub(crate) hosts: Option<AllowedHosts>,
    pub(crate) cors: Option<CorsOrigin>,
}

impl Guard {
    /// Why `request` is refused, if it is.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let host = own_host(request)?;
        let is_health = HEALTH_PATHS.contains(&request.uri().path());
        if request.extensions().get::<Overloaded>().is_some() && !is_health {
            let text = "too many connections are open, try again";
            return Err(ApiError::unavailable("overloaded", text, OVERLOADED_RETRY_AFTER_S));
        }
        if let (Some(allowed), Some(host)) = (&self.hosts, &host)
            && !is_health
        {
            allowed.check(host.host)?;
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        self.check_origin(request, host.as_ref())
    }

    /// 403 if the request is a web page's of another site, unless CORS allows its origin. A browser says so in one header
    /// or the other; a caller that sends neither is no browser.
    fn check_origin(&self, request: &Request, host: Option<&Authority<'_>>) -> Result<(), ApiError> {
        let headers = request.headers();
        let (origins, sites) = (headers.get_all(ORIGIN), headers.get_all(SEC_FETCH_SITE));
        let names_origin = headers.contains_key(ORIGIN);
        let is_allowed = match &self.cors {
            None => false,
            Some(CorsOrigin::Any) => true,
            Some(CorsOrigin::List(allowed)) => names_origin && origins.iter().all(|origin| allowed.contains(origin)),
        };
        // Where a proxy has changed `Host`, the origin cannot be compared: the browser's own word comes first.
        let is_own = match headers.contains_key(SEC_FETCH_SITE) {
            true => sites.iter().all(|site| site == "same-origin" || site == "none"),
            false => origins.iter().all(|origin| host.is_some_and(|host| host.is_of_origin(origin))),
        };
        if is_allowed || is_own {
            return Ok(());
        }
        let text = "a web page of another site must not write here, unless CORS_ALLOW_ORIGIN names its origin";
        let field = if names_origin { "Origin" } else { "Sec-Fetch-Site" };
        Err(ApiError::forbidden("cross_site", text).with_field(field))
    }
}

impl AllowedHosts {
    fn check(&self, host: &str) -> Result<(), ApiError> {
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
        Err(ApiError::forbidden("unknown_host", text).with_field("Host"))
    }
}

/// The host that `request` is for: its target's if the target names one, else its `Host`'s. `None` for HTTP/1.0 without
/// either.
fn own_host(request: &Request) -> Result<Option<Authority<'_>>, ApiError> {
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

/// A host and its port, as they stand in `Host` and in an origin.
#[derive(Debug, PartialEq, Eq)]
struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:` or `host:port` (RFC 3986, 3.2.2 and 3.2.3); `None` for anything else.
    fn parse(text: &'a str) -> Option<Self> {
        let host_end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(host_end);
        let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && is_registered_name(host.as_bytes()),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        is_host.then_some(Self { host, port })
    }

    /// Whether a page of `origin` is this host's own. Over which scheme the page was loaded is not known here: a proxy
    /// may have ended TLS.
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

/// Whether `name` consists of unreserved characters, sub-delimiters and escapes.
fn is_registered_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => bytes.next().is_some_and(u8::is_ascii_hexdigit) && bytes.next().is_some_and(u8::is_ascii_hexdigit),
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte),
        };
        if !valid {
            return false;
        }
    }
    true
}
