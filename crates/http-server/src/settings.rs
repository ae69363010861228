//! The HTTP settings of every binary, which flattens [`HttpArgs`] into its own arguments.

use std::sync::Arc;
use std::time::Duration;

use access::Authenticator;
use clap::Args;

use crate::cors::CorsOrigin;
use crate::guard::AllowedHosts;
use crate::server::{MAX_CONNECTIONS, SPARE_CONNECTIONS, ServeSettings};

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
    /// The server's bounds.
    pub limits: ServeSettings,
    /// How long an idempotency key is kept.
    pub keep_idempotency_keys: Duration,
}

/// How long an idempotency key is kept by default, in hours: a client retries within a day, or a person looks into it.
const KEEP_KEYS_HOURS: u64 = 24;

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            cors: None,
            allowed_hosts: AllowedHosts::default(),
            authenticator: None,
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
}

impl HttpArgs {
    /// Returns the configuration of each of `listeners` in a process that may have `descriptors` files open. The listeners
    /// have equal shares, so that the callers of one do not use up the connections of another.
    pub fn config(&self, descriptors: usize, listeners: usize) -> HttpConfig {
        let free = descriptors - RESERVED_DESCRIPTORS.min(descriptors / 2);
        let max_connections = (free / listeners).saturating_sub(SPARE_CONNECTIONS).clamp(1, MAX_CONNECTIONS);
        HttpConfig {
            cors: self.cors_allow_origin.clone(),
            allowed_hosts: self.allowed_hosts.clone().unwrap_or_default(),
            authenticator: None,
            limits: ServeSettings {
                max_connections,
                idle_timeout: Duration::from_secs(self.http_idle_timeout_seconds),
                ..ServeSettings::default()
            },
            keep_idempotency_keys: Duration::from_hours(self.idempotency_key_hours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let args = HttpArgs {
            cors_allow_origin: None,
            allowed_hosts: None,
            http_idle_timeout_seconds: 1,
            idempotency_key_hours: 1,
        };
        for (descriptors, listeners, expected) in
            [(1_048_576, 2, MAX_CONNECTIONS), (1_024, 1, 736), (1_024, 2, 352), (1_024, 3, 224), (128, 2, 1), (0, 2, 1)]
        {
            let limits = args.config(descriptors, listeners).limits;
            assert_eq!(limits.max_connections, expected, "{descriptors} for {listeners}");
        }
    }
}
