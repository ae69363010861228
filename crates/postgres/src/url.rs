//! `DATABASE_URL`, as docs/api.md defines it.
//!
//! Invariant: no text from here, errors and `Debug` included, contains any part of a PostgreSQL URL except its hosts, ports
//! and database. Any other part may be a password, or a piece of one if the URL is malformed.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::tls::TlsParameters;

/// The end of an error about a URL of another kind.
const EXPECTED: &str = "a database URL starts with sqlite: and a path, or with postgres://";

/// The port of a URL without one.
const DEFAULT_PORT: u16 = 5432;

/// The location of a service's database. `Display` and `Debug` leave secrets out.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH`: a file, created if it is missing.
    Sqlite(PathBuf),
    /// `postgres://…`: a server, which several instances may share.
    Postgres(String),
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => match parse_postgres(url) {
                Ok((config, _)) => f.write_str(&hosts_and_database(&config)),
                Err(_) => f.write_str("postgres://…"),
            },
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Parses the whole URL, so that a malformed one stops the start. The error does not repeat the URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return parse_postgres(text).map(|_| DatabaseUrl::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:") {
            Some(path) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("sqlite: needs a path behind it, as in sqlite:data/account.db".to_owned()),
                path => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
            },
            None => Err(match text.split_once("://") {
                Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}: is not supported: {EXPECTED}"),
                _ => EXPECTED.to_owned(),
            }),
        }
    }
}

/// Whether `text` is a URL scheme, and not a secret that happens to be before `://`.
fn is_scheme(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_lowercase())
        && chars.all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "+.-".contains(char))
}

/// Parses `url`: the TLS parameters here, the rest with the driver. Checks what the driver would check only when it connects.
pub(crate) fn parse_postgres(url: &str) -> Result<(Config, TlsParameters), String> {
    check_separators(url)?;
    let (rest, tls) = TlsParameters::take(url)?;
    let mut config = Config::from_str(&rest).map_err(|error| cause(url, &error))?;
    config.ssl_mode(tls.driver_mode());
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs().len(), config.get_ports().len());
    if hosts.is_empty() && addresses == 0 {
        return Err("it names no host".to_owned());
    }
    let is_name =
        |host: &str| !host.is_empty() && host.chars().all(|char| char.is_alphanumeric() || ".-_:%".contains(char));
    if hosts.iter().any(|host| matches!(host, Host::Tcp(name) if !is_name(name))) {
        return Err("a host's name is empty, or has characters that no host's name has".to_owned());
    }
    if addresses > 0 && !hosts.is_empty() && addresses != hosts.len() {
        return Err("it has not as many addresses (hostaddr) as hosts".to_owned());
    }
    if ports > 1 && ports != hosts.len().max(addresses) {
        return Err("it has not as many ports as hosts".to_owned());
    }
    Ok((config, tls))
}

/// Refuses a URL with an unencoded separator in its user, password or parameters. The driver ends the password at the first
/// `@` and would take the rest for the host.
fn check_separators(url: &str) -> Result<(), String> {
    let (before, behind) = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).unwrap_or_default();
    if before.contains(['/', '?']) || behind.contains('@') {
        return Err(
            "in the user, the password and the parameters, @ must be written %40, / must be %2F, ? must be %3F"
                .to_owned(),
        );
    }
    Ok(())
}

/// Describes why the driver refuses `url`. The driver's own text contains nothing of the URL except a parameter's name, which
/// may be a piece of a password with a `&`.
fn cause(url: &str, error: &tokio_postgres::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_else(|| error.to_string());
    let Some(name) = cause.strip_prefix("unknown option `").and_then(|rest| rest.strip_suffix('`')) else {
        return cause;
    };
    let parameters = url.split_once('?').map(|(_, parameters)| parameters).unwrap_or_default();
    let place = parameters.split('&').position(|parameter| parameter.split('=').next() == Some(name));
    match place {
        Some(place) => format!("its parameter number {} is not supported", place + 1),
        None => "one of its parameters is not supported".to_owned(),
    }
}

fn hosts_and_database(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string().replace('/', "%2F"),
    });
    let mut hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() {
        hosts.extend(config.get_hostaddrs().iter().map(ToString::to_string));
    }
    let ports = config.get_ports();
    for (place, host) in hosts.iter_mut().enumerate() {
        let port = ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        if port != DEFAULT_PORT {
            // Writing to a string cannot fail.
            let _ = write!(host, ":{port}");
        }
    }
    let database = config.get_dbname().map(|name| format!("/{}", name.escape_debug())).unwrap_or_default();
    format!("postgres://{}{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_scheme() {
        assert_eq!("sqlite:data/a.db".parse(), Ok(DatabaseUrl::Sqlite("data/a.db".into())));
        assert_eq!("sqlite:/data/a.db".parse(), Ok(DatabaseUrl::Sqlite("/data/a.db".into())));
        assert_eq!("sqlite:///data/a.db\n".parse(), Ok(DatabaseUrl::Sqlite("/data/a.db".into())));
        for empty in ["sqlite:", "sqlite://"] {
            assert!(empty.parse::<DatabaseUrl>().unwrap_err().contains("needs a path"));
        }
    }

    #[test]
    fn hosts_ports_and_the_database_are_shown_and_nothing_else() {
        for (url, shown) in [
            ("postgres://bob:s3cret@db.example:5432/accounts", "postgres://db.example/accounts"),
            ("postgresql://bob:s3cret@one:1,two:2/db?target_session_attrs=read-write", "postgres://one:1,two:2/db"),
            ("postgres://one/db?user=bob&password=s3cret", "postgres://one/db"),
            ("postgres://bob:s3%40cret%3F%2F@one/db", "postgres://one/db"),
            ("postgres://bob:s3:cret#@[::1]:7/db", "postgres://[::1]:7/db"),
            ("postgres://bob:s3cret@%2Frun%2Fpg/db", "postgres://%2Frun%2Fpg/db"),
            ("postgres:///db?host=/run/pg&port=7&user=bob", "postgres://%2Frun%2Fpg:7/db"),
            ("postgres://bob@one", "postgres://one"),
            ("postgres:///db?hostaddr=127.0.0.1&options=-c%20bob=s3cret", "postgres://127.0.0.1/db"),
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((parsed.to_string(), format!("{parsed:?}")), (shown.to_owned(), shown.to_owned()));
        }
        assert_eq!(DatabaseUrl::Postgres("postgres://bob:s3@cret@x".to_owned()).to_string(), "postgres://…");
    }

    #[test]
    fn a_malformed_one_is_refused_with_the_cause_and_without_its_parts() {
        for (url, cause) in [
            ("postgres://bob:s3@cret@one/db", "@ must be written %40"),
            ("postgres://bob:s3/cret@one/db", "/ must be %2F"),
            ("postgres://bob:s3?cret@one/db", "? must be %3F"),
            ("postgres://bob:12?user=cret@one/db", "? must be %3F"),
            ("postgres://one/db?password=s3@cret", "@ must be written %40"),
            ("postgres://bob:s3cret@one/db?password=s3@cret", "@ must be written %40"),
            ("postgres://bob:s3cret/db", "invalid value for option `port`"),
            ("postgres://bob:s3cret@one:99999/db", "invalid value for option `port`"),
            ("postgres://bob:s3cret@one/db?sslmode=s3cret", "sslmode is disable, prefer"),
            ("postgres://bob:s3cret@one/db?user=x&s3cret=y", "parameter number 2 is not supported"),
            ("postgres://bob:s3cret@one/db?s3cr%65t=y", "parameters is not supported"),
            ("postgres://bob:s3cret@one/db?s3cret", "unterminated parameter"),
            ("postgres://s%FFcret@one/db", "invalid utf-8"),
            ("postgres://bob:s3cret@/db", "names no host"),
            ("postgres://bob:s3cret@one,/db", "a host's name is empty"),
            ("postgres://bob:s3cret@s3%40cret/db", "characters that no host's name has"),
            ("postgres://bob:s3cret@one/db?port=1,2", "as many ports as hosts"),
            ("postgres://bob:s3cret@one/db?hostaddr=127.0.0.1,127.0.0.2", "as many addresses"),
            ("postgres:bob:s3cret@one/db", "starts with sqlite:"),
            ("bob:s3cret@one/db", "starts with sqlite:"),
            ("Bob:s3cret://one/db", "starts with sqlite:"),
            ("user=bob password=s3cret host=::1 port=5432", "starts with sqlite:"),
            ("password=s3cret host=one application_name=x://y", "starts with sqlite:"),
            ("", "starts with sqlite:"),
        ] {
            let error = url.parse::<DatabaseUrl>().expect_err(url);
            assert!(error.contains(cause), "{url}: {error}");
            assert!(!error.contains("bob") && !error.contains("s3") && !error.contains("cret"), "{url}: {error}");
        }
        assert!("mysql://bob@host/db".parse::<DatabaseUrl>().unwrap_err().starts_with("mysql: is not supported"));
    }
}
