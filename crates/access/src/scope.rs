//! What a caller may do.

use std::fmt;
use std::str::FromStr;

/// A set of operations. The names are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// `accounts:read`
    AccountsRead,
    /// `accounts:write`
    AccountsWrite,
    /// `cards:read`
    CardsRead,
    /// `cards:write`
    CardsWrite,
    /// `events:read`
    EventsRead,
    /// `metrics:read`
    MetricsRead,
    /// `admin`, which includes all others
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 7] = [
        Scope::AccountsRead,
        Scope::AccountsWrite,
        Scope::CardsRead,
        Scope::CardsWrite,
        Scope::EventsRead,
        Scope::MetricsRead,
        Scope::Admin,
    ];

    /// The scope's name in credentials.
    pub fn name(self) -> &'static str {
        match self {
            Scope::AccountsRead => "accounts:read",
            Scope::AccountsWrite => "accounts:write",
            Scope::CardsRead => "cards:read",
            Scope::CardsWrite => "cards:write",
            Scope::EventsRead => "events:read",
            Scope::MetricsRead => "metrics:read",
            Scope::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| {
            format!("`{}` is no scope: expected {}", text.escape_debug(), Scope::ALL.map(Scope::name).join(", "))
        })
    }
}

/// The scopes of a caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether a caller with these scopes may do what needs `scope`.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// The scopes, one by one. `admin` stands for itself alone.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// The scopes that `names` name. Other names are left out: a token may have scopes of other services.
    pub fn of_known<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl FromStr for Scopes {
    type Err = String;

    /// Parses names with commas between them; at least one.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|name| name.trim().parse::<Scope>()).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Scope::name).collect::<Vec<_>>().join(","))
    }
}

/// What a route needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone may call.
    Open,
    /// A caller with this scope may call.
    Needs(Scope),
}

impl From<Scope> for Access {
    fn from(scope: Scope) -> Self {
        Access::Needs(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_admin_allows_all() {
        for scope in Scope::ALL {
            let scopes = Scopes::from_iter([scope]);
            let allowed: Vec<_> = Scope::ALL.into_iter().filter(|other| scopes.allow(*other)).collect();
            assert_eq!(allowed, if scope == Scope::Admin { Scope::ALL.to_vec() } else { vec![scope] });
            assert!(!Scopes::default().allow(scope));
            assert_eq!(scope.name().parse(), Ok(scope));
        }
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let scopes: Scopes = "cards:write, accounts:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "accounts:read,cards:write");
        assert_eq!(Scopes::of_known(["openid", "cards:write", "accounts:read"]), scopes);
        for text in ["", "cards:write,", "cards", "Admin"] {
            assert!(text.parse::<Scopes>().unwrap_err().contains("is no scope: expected accounts:read"), "{text}");
        }
    }
}
