//! The HTTP settings that every binary has, to be flattened into its own.

use std::time::Duration;

use clap::Args;

use crate::cors::CorsOrigin;
use crate::guard::AllowedHosts;
use crate::server::{MAX_CONNECTIONS, SPARE_CONNECTIONS, ServeSettings};

/// The file descriptors that are no connection's: 5 for each SQLite database with its readers and its lock, up to 10
/// connections to each PostgreSQL, a connection to every Kafka broker for each of a handful of clients, files that are
/// written and renamed, and the runtime's own. It is rounded up, because a database that cannot open a file fails
/// requests, where a connection too many only waits.
const RESERVED_DESCRIPTORS: usize = 256;

/// How a service answers HTTP.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// Which pages of other origins may call; none if `None`.
    pub cors: Option<CorsOrigin>,
    /// What `Host` may name on loopback, beside IP addresses and `localhost`.
    pub allowed_hosts: AllowedHosts,
    /// The server's bounds.
    pub limits: ServeSettings,
}

/// How a process answers HTTP.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// The origin whose web pages may call, several with commas between them, or *; none if it is not set
    #[arg(long, env = "CORS_ALLOW_ORIGIN")]
    cors_allow_origin: Option<CorsOrigin>,

    /// Host names, with commas between them, under which a service on loopback may be called beside localhost: those
    /// that a proxy on the same machine sends
    #[arg(long, env = "ALLOWED_HOSTS")]
    allowed_hosts: Option<AllowedHosts>,

    /// How long a connection may be idle, in seconds; longer than a proxy in front keeps it
    #[arg(long, env = "HTTP_IDLE_TIMEOUT_SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    http_idle_timeout_seconds: u64,
}

impl HttpArgs {
    /// The configuration of each of `listeners` in a process that may have `descriptors` files open. The listeners have
    /// equal shares, so that the callers of one do not take the places of another.
    pub fn config(&self, descriptors: usize, listeners: usize) -> HttpConfig {
        let free = descriptors - RESERVED_DESCRIPTORS.min(descriptors / 2);
        let max_connections = (free / listeners).saturating_sub(SPARE_CONNECTIONS).clamp(1, MAX_CONNECTIONS);
        HttpConfig {
            cors: self.cors_allow_origin.clone(),
            allowed_hosts: self.allowed_hosts.clone().unwrap_or_default(),
            limits: ServeSettings {
                max_connections,
                idle_timeout: Duration::from_secs(self.http_idle_timeout_seconds),
                ..ServeSettings::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let args = HttpArgs { cors_allow_origin: None, allowed_hosts: None, http_idle_timeout_seconds: 1 };
        for (descriptors, listeners, expected) in
            [(1_048_576, 2, MAX_CONNECTIONS), (1_024, 1, 736), (1_024, 2, 352), (1_024, 3, 224), (128, 2, 1), (0, 2, 1)]
        {
            let limits = args.config(descriptors, listeners).limits;
            assert_eq!(limits.max_connections, expected, "{descriptors} for {listeners}");
        }
    }
}
