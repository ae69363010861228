//! `DATABASE_URL`, as docs/api.md defines it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a database URL looks like, for whoever gave something else.
const EXPECTED: &str = "a database URL starts with sqlite: and a path, or with postgres://";

/// Where a service keeps its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH`, a file, made if it is missing.
    Sqlite(PathBuf),
    /// `postgres://…`, a server, which several instances share.
    Postgres(String),
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(DatabaseUrl::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:") {
            Some("") => Err("sqlite: needs a path behind it, as in sqlite:data/account.db".to_owned()),
            Some(path) => Ok(DatabaseUrl::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            // What follows the scheme may hold a password, so only the scheme is repeated.
            None => Err(match text.split_once(':') {
                Some((scheme, _)) => format!("{scheme}: is not supported: {EXPECTED}"),
                None => EXPECTED.to_owned(),
            }),
        }
    }
}

/// The URL as it may be shown: a user and a password may stand before the hosts, and as parameters behind the database.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let shown = |hosts: &str| hosts.split('?').next().unwrap_or_default().to_owned();
    match rest.rsplit_once('@') {
        // Either can hold a sign of the other.
        Some((before, _)) if before.contains('?') => format!("{scheme}://…"),
        Some((_, hosts)) => format!("{scheme}://…@{}", shown(hosts)),
        None => format!("{scheme}://{}", shown(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_scheme() {
        assert_eq!("sqlite:data/a.db".parse(), Ok(DatabaseUrl::Sqlite("data/a.db".into())));
        assert_eq!("sqlite:/data/a.db".parse(), Ok(DatabaseUrl::Sqlite("/data/a.db".into())));
        assert_eq!("sqlite:///data/a.db".parse(), Ok(DatabaseUrl::Sqlite("/data/a.db".into())));
    }

    #[test]
    fn a_password_is_not_shown() {
        let url: DatabaseUrl = "postgres://tandem:s3cret@db.example:5432/accounts".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://…@db.example:5432/accounts");
        for (url, shown) in [
            ("postgres://tandem:s3cret@one:1,two:2/db?target_session_attrs=read-write", "postgres://…@one:1,two:2/db"),
            ("postgres://one/db?user=tandem&password=s3cret", "postgres://one/db"),
            ("postgres://tandem@one/db?password=s3@cret", "postgres://…"),
            ("postgres://tandem:s3?cret@one/db", "postgres://…"),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn anything_else_is_named() {
        assert!("sqlite:".parse::<DatabaseUrl>().unwrap_err().contains("needs a path"));
        assert!("mysql://host/db".parse::<DatabaseUrl>().unwrap_err().contains("starts with sqlite:"));
    }
}
