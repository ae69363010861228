//! The HTTP settings of every binary, which flattens [`HttpArgs`] into its own arguments.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use access::{AuthArgs, Authenticator};
use clap::Args;

use crate::audit_file::{AuditArgs, AuditError, AuditFile};
use crate::cors::CorsOrigin;
use crate::guard::AllowedHosts;
use crate::limits::ClientLimits;
use crate::server::{MAX_CONNECTIONS, SPARE_CONNECTIONS, ServeSettings};
use crate::tls::{Tls, TlsError, TlsFiles};

/// The file descriptors for other uses than HTTP connections: 5 for each SQLite database with its readers and its lock, up
/// to 10 connections to each PostgreSQL database, a connection to every Kafka broker for each client, temporary files, and
/// the runtime's own. The number is rounded up: a request fails if a database cannot open a file, but a connection waits.
const RESERVED_DESCRIPTORS: usize = 256;

/// The HTTP configuration of one service.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The origins whose pages may call the service; none if `None`.
    pub cors: Option<CorsOrigin>,
    /// The names that a `Host` may have on loopback besides IP addresses and `localhost`.
    pub allowed_hosts: AllowedHosts,
    /// Knows the callers; `None` if anyone may call.
    pub authenticator: Option<Arc<Authenticator>>,
    /// The limits on each address.
    pub address_limits: ClientLimits,
    /// The limits on each authenticated caller.
    pub caller_limits: ClientLimits,
    /// The certificate of HTTPS; `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Gets a line for each write request. Where callers are authenticated, the log does, too.
    pub audit_file: Option<Arc<AuditFile>>,
    /// The server's bounds.
    pub limits: ServeSettings,
    /// How long an idempotency key is kept.
    pub keep_idempotency_keys: Duration,
}

/// How long an idempotency key is kept by default, in hours: a client retries within a day, or a person looks into it.
const KEEP_KEYS_HOURS: u64 = 24;

impl HttpConfig {
    /// Returns the start of the URLs of the service: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            cors: None,
            allowed_hosts: AllowedHosts::default(),
            authenticator: None,
            address_limits: ClientLimits::default(),
            caller_limits: ClientLimits::default(),
            tls: None,
            audit_file: None,
            limits: ServeSettings::default(),
            keep_idempotency_keys: Duration::from_hours(KEEP_KEYS_HOURS),
        }
    }
}

/// The HTTP settings of a process.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// The origins whose web pages may call, separated by commas, or * for all; none by default
    #[arg(long, env = "CORS_ALLOW_ORIGIN")]
    cors_allow_origin: Option<CorsOrigin>,

    /// Host names that a request to a service on loopback may have besides localhost, separated by commas: those that a
    /// proxy on the same machine sends
    #[arg(long, env = "ALLOWED_HOSTS")]
    allowed_hosts: Option<AllowedHosts>,

    /// How long a connection may be idle, in seconds; longer than the idle timeout of a proxy in front
    #[arg(long, env = "HTTP_IDLE_TIMEOUT_SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    http_idle_timeout_seconds: u64,

    /// How long an Idempotency-Key is kept, in hours: a request that is repeated within this time is not done twice
    #[arg(long, env = "IDEMPOTENCY_KEY_HOURS", default_value_t = KEEP_KEYS_HOURS, value_parser = clap::value_parser!(u64).range(1..=8_760))]
    idempotency_key_hours: u64,

    /// A PEM file with the certificate and its chain: the service then speaks HTTPS only. Read again when it changes
    #[arg(long, env = "TLS_CERT_FILE")]
    tls_cert_file: Option<PathBuf>,

    /// A PEM file with the private key of the certificate
    #[arg(long, env = "TLS_KEY_FILE")]
    tls_key_file: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitArgs,

    /// Who may call.
    #[command(flatten)]
    pub auth: AuthArgs,

    #[command(flatten)]
    audit: AuditArgs,
}

/// The default of `RATE_LIMIT_PER_ADDRESS` beyond loopback: a proxy in front is one address, and an instance on two cores answers some
/// 30,000 writes a second.
const DEFAULT_RATE_PER_ADDRESS: u32 = 10_000;

/// The default of `RATE_LIMIT_PER_CALLER` beyond loopback: half of an address.
const DEFAULT_RATE_PER_CALLER: u32 = 5_000;

/// The default of `MAX_IN_FLIGHT_PER_CALLER` beyond loopback: a quarter of the places of a listener.
const DEFAULT_IN_FLIGHT_PER_CALLER: u32 = 4_096;

/// The settings of the limits on each client. Nothing set is the default, which on loopback is no limit, and so is 0.
#[derive(Debug, Clone, Default, Args)]
struct LimitArgs {
    /// Requests a second from one address (IPv6: one /64); more are answered 429; 0 for any number
    /// [default: 10000, on loopback any number]
    #[arg(long, env = "RATE_LIMIT_PER_ADDRESS", verbatim_doc_comment)]
    rate_limit_per_address: Option<u32>,

    /// Requests a second of one authenticated caller; more are answered 429; 0 for any number
    /// [default: 5000, on loopback any number]
    #[arg(long, env = "RATE_LIMIT_PER_CALLER", verbatim_doc_comment)]
    rate_limit_per_caller: Option<u32>,

    /// Requests of one authenticated caller that are answered at the same time; more are answered 429; 0 for any number
    /// [default: 4096, on loopback any number]
    #[arg(long, env = "MAX_IN_FLIGHT_PER_CALLER", verbatim_doc_comment)]
    max_in_flight_per_caller: Option<u32>,

    /// Connections from one address to a listener [default: three quarters of the listener's places, which is the most]
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections_per_address: Option<u32>,
}

impl LimitArgs {
    /// Returns the limits on an address and on a caller.
    fn of_clients(&self, is_loopback: bool) -> (ClientLimits, ClientLimits) {
        let limit =
            |value: Option<u32>, default| NonZeroU32::new(value.unwrap_or(if is_loopback { 0 } else { default }));
        // A connection has one request in flight, so the limit on connections is the one on an address's requests.
        let address =
            ClientLimits { rate: limit(self.rate_limit_per_address, DEFAULT_RATE_PER_ADDRESS), in_flight: None };
        let caller = ClientLimits {
            rate: limit(self.rate_limit_per_caller, DEFAULT_RATE_PER_CALLER),
            in_flight: limit(self.max_in_flight_per_caller, DEFAULT_IN_FLIGHT_PER_CALLER),
        };
        (address, caller)
    }
}

impl HttpArgs {
    /// Opens the audit file, if the settings name one, for [`HttpConfig::audit_file`] of all listeners.
    pub fn audit_file(&self) -> Result<Option<Arc<AuditFile>>, AuditError> {
        self.audit.open()
    }

    /// Returns the configuration of each of `listeners` on `address`, in a process that may have `descriptors` files open. The listeners
    /// have equal shares, so that the callers of one do not use up the connections of another. It has no authenticator and no
    /// audit file: [`auth`](HttpArgs::auth) and [`audit_file`](HttpArgs::audit_file) make one for all listeners. Fails if there is no certificate where the settings say.
    pub fn config(&self, descriptors: usize, listeners: usize, address: IpAddr) -> Result<HttpConfig, TlsError> {
        let free = descriptors - RESERVED_DESCRIPTORS.min(descriptors / 2);
        let max_connections = (free / listeners).saturating_sub(SPARE_CONNECTIONS).clamp(1, MAX_CONNECTIONS);
        let (address_limits, caller_limits) = self.limits.of_clients(address.to_canonical().is_loopback());
        let tls = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(cert), Some(key)) => Some(Tls::open(TlsFiles { cert: cert.clone(), key: key.clone() })?),
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::needs("TLS_CERT_FILE", "TLS_KEY_FILE")),
            (None, Some(_)) => return Err(TlsError::needs("TLS_KEY_FILE", "TLS_CERT_FILE")),
        };
        Ok(HttpConfig {
            cors: self.cors_allow_origin.clone(),
            allowed_hosts: self.allowed_hosts.clone().unwrap_or_default(),
            authenticator: None,
            tls,
            address_limits,
            caller_limits,
            audit_file: None,
            limits: ServeSettings {
                max_connections,
                max_connections_per_address: self.limits.max_connections_per_address.map(|most| most as usize),
                idle_timeout: Duration::from_secs(self.http_idle_timeout_seconds),
                ..ServeSettings::default()
            },
            keep_idempotency_keys: Duration::from_hours(self.idempotency_key_hours),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_limited_beyond_loopback_unless_a_setting_says_otherwise() {
        let limits = LimitArgs { rate_limit_per_caller: Some(7), ..LimitArgs::default() };
        let off = LimitArgs {
            rate_limit_per_address: Some(0),
            rate_limit_per_caller: Some(0),
            max_in_flight_per_caller: Some(0),
            ..LimitArgs::default()
        };
        let found = |limits: &LimitArgs, is_loopback| {
            let (address, caller) = limits.of_clients(is_loopback);
            [address.rate, caller.rate, caller.in_flight].map(|limit| limit.map_or(0, NonZeroU32::get))
        };
        assert_eq!(found(&LimitArgs::default(), true), [0; 3]);
        assert_eq!(found(&LimitArgs::default(), false), [10_000, 5_000, 4_096]);
        assert_eq!((found(&limits, true), found(&limits, false)), ([0, 7, 0], [10_000, 7, 4_096]));
        assert_eq!(found(&off, false), [0; 3]);
    }

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let args = HttpArgs {
            cors_allow_origin: None,
            allowed_hosts: None,
            http_idle_timeout_seconds: 1,
            idempotency_key_hours: 1,
            limits: LimitArgs::default(),
            tls_cert_file: None,
            tls_key_file: None,
            auth: AuthArgs::default(),
            audit: AuditArgs::default(),
        };
        for (descriptors, listeners, expected) in
            [(1_048_576, 2, MAX_CONNECTIONS), (1_024, 1, 736), (1_024, 2, 352), (1_024, 3, 224), (128, 2, 1), (0, 2, 1)]
        {
            let limits = args.config(descriptors, listeners, [127, 0, 0, 1].into()).unwrap().limits;
            assert_eq!(limits.max_connections, expected, "{descriptors} for {listeners}");
        }
    }
}
