//! `DATABASE_URL`, as api.md defines it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a service keeps its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH`, a file, made if it is missing.
    Sqlite(PathBuf),
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("sqlite:") {
            Some("") => Err("sqlite: needs a path behind it, as in sqlite:data/account.db".to_owned()),
            Some(path) => Ok(DatabaseUrl::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            None => Err("a database URL starts with sqlite: and a path, as in sqlite:data/account.db".to_owned()),
        }
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
    fn anything_else_is_named() {
        assert!("sqlite:".parse::<DatabaseUrl>().unwrap_err().contains("needs a path"));
        assert!("mysql://host/db".parse::<DatabaseUrl>().unwrap_err().contains("starts with sqlite:"));
    }
}
