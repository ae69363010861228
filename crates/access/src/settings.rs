//! The settings that say who may call.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::authenticator::{Authenticator, StartError, TokenIssuer};
use crate::jwks::JwksUrl;
use crate::refresh::RefreshTimes;

/// How callers are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    /// Anyone may call
    Off,
    /// By an API key, of API_KEYS_FILE
    Keys,
    /// By a JSON Web Token of JWT_ISSUER
    Jwt,
}

/// The settings of authentication.
#[derive(Debug, Clone, Default, Args)]
pub struct AuthArgs {
    /// How callers are authenticated; it must be set if BIND_ADDR is not a loopback address [default: off]
    #[arg(long, env = "AUTH")]
    auth: Option<Auth>,

    /// The file of API keys, which `tandem keys` makes; with AUTH=keys
    #[arg(long, env = "API_KEYS_FILE")]
    api_keys_file: Option<PathBuf>,

    /// Where the issuer publishes its public keys (JWKS): https, or http to loopback; with AUTH=jwt
    #[arg(long, env = "JWT_JWKS_URL", hide_env_values = true)]
    jwt_jwks_url: Option<JwksUrl>,

    /// The PEM file of the issuer's public key, instead of JWT_JWKS_URL; with AUTH=jwt
    #[arg(long, env = "JWT_PUBLIC_KEY_FILE")]
    jwt_public_key_file: Option<PathBuf>,

    /// The issuer that tokens must name in `iss`; with AUTH=jwt
    #[arg(long, env = "JWT_ISSUER")]
    jwt_issuer: Option<String>,

    /// The audience that tokens must name in `aud`; with AUTH=jwt
    #[arg(long, env = "JWT_AUDIENCE")]
    jwt_audience: Option<String>,
}

/// Why the settings are refused, in one line that names one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Anyone could call without an operator having said so.
    #[error(
        "AUTH is not set, and BIND_ADDR {0} is not a loopback address: set AUTH=keys or AUTH=jwt, or AUTH=off to let anyone call who \
         reaches the port"
    )]
    Exposed(IpAddr),
    /// A setting is of another mode.
    #[error("{0} is set, but AUTH={1} is not")]
    OfOtherMode(&'static str, &'static str),
    /// A setting is missing.
    #[error("AUTH={0} needs {1}")]
    Missing(&'static str, &'static str),
    /// Two settings exclude each other.
    #[error("JWT_JWKS_URL and JWT_PUBLIC_KEY_FILE are both set: only one can say where the issuer's keys are")]
    TwoSources,
    /// The credentials cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl AuthArgs {
    /// Returns what authenticates callers of listeners on `address`; `None` if anyone may call.
    pub fn authenticator(&self, address: IpAddr) -> Result<Option<Arc<Authenticator>>, SettingsError> {
        let auth = match self.auth {
            None if !address.to_canonical().is_loopback() => return Err(SettingsError::Exposed(address)),
            auth => auth.unwrap_or(Auth::Off),
        };
        let of_keys = [("API_KEYS_FILE", self.api_keys_file.is_some())];
        let of_jwt = [
            ("JWT_JWKS_URL", self.jwt_jwks_url.is_some()),
            ("JWT_PUBLIC_KEY_FILE", self.jwt_public_key_file.is_some()),
            ("JWT_ISSUER", self.jwt_issuer.is_some()),
            ("JWT_AUDIENCE", self.jwt_audience.is_some()),
        ];
        for (mode, name, settings) in [(Auth::Keys, "keys", &of_keys[..]), (Auth::Jwt, "jwt", &of_jwt)] {
            if let Some((setting, _)) = settings.iter().find(|(_, is_set)| *is_set && auth != mode) {
                return Err(SettingsError::OfOtherMode(setting, name));
            }
        }
        match auth {
            Auth::Off => Ok(None),
            Auth::Keys => {
                let path = self.api_keys_file.clone().ok_or(SettingsError::Missing("keys", "API_KEYS_FILE"))?;
                Ok(Some(Authenticator::of_keys_file(path)?))
            }
            Auth::Jwt => self.of_tokens().map(Some),
        }
    }

    fn of_tokens(&self) -> Result<Arc<Authenticator>, SettingsError> {
        let needed = |value: &Option<String>, setting| value.clone().ok_or(SettingsError::Missing("jwt", setting));
        let issuer = TokenIssuer {
            issuer: needed(&self.jwt_issuer, "JWT_ISSUER")?,
            audience: needed(&self.jwt_audience, "JWT_AUDIENCE")?,
        };
        let authenticator = match (self.jwt_jwks_url.clone(), self.jwt_public_key_file.clone()) {
            (Some(_), Some(_)) => return Err(SettingsError::TwoSources),
            (None, None) => return Err(SettingsError::Missing("jwt", "JWT_JWKS_URL or JWT_PUBLIC_KEY_FILE")),
            (Some(url), None) => Authenticator::of_jwks(issuer, url, RefreshTimes::default()),
            (None, Some(path)) => Authenticator::of_public_key_file(issuer, path),
        };
        Ok(authenticator?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        auth: AuthArgs,
    }

    fn refusal(address: &str, arguments: &str) -> String {
        let command = Command::try_parse_from(["test"].into_iter().chain(arguments.split_whitespace())).unwrap();
        command.auth.authenticator(address.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn settings_that_do_not_say_who_may_call_are_refused() {
        for (address, arguments, error) in [
            ("0.0.0.0", "", "AUTH is not set, and BIND_ADDR 0.0.0.0"),
            ("::", "", "AUTH is not set, and BIND_ADDR ::"),
            ("127.0.0.1", "--api-keys-file k", "API_KEYS_FILE is set, but AUTH=keys is not"),
            ("127.0.0.1", "--auth off --api-keys-file k", "API_KEYS_FILE is set, but AUTH=keys is not"),
            ("127.0.0.1", "--auth jwt --api-keys-file k", "API_KEYS_FILE is set, but AUTH=keys is not"),
            ("127.0.0.1", "--jwt-issuer i", "JWT_ISSUER is set, but AUTH=jwt is not"),
            ("127.0.0.1", "--auth keys --jwt-audience a", "JWT_AUDIENCE is set, but AUTH=jwt is not"),
            ("127.0.0.1", "--auth keys --jwt-jwks-url https://a", "JWT_JWKS_URL is set, but AUTH=jwt is not"),
            ("127.0.0.1", "--auth keys", "AUTH=keys needs API_KEYS_FILE"),
            ("127.0.0.1", "--auth keys --api-keys-file /nowhere", "API_KEYS_FILE: /nowhere cannot be read"),
            ("127.0.0.1", "--auth jwt", "AUTH=jwt needs JWT_ISSUER"),
            ("127.0.0.1", "--auth jwt --jwt-issuer i", "AUTH=jwt needs JWT_AUDIENCE"),
            ("127.0.0.1", "--auth jwt --jwt-issuer i --jwt-audience a", "AUTH=jwt needs JWT_JWKS_URL or JWT_PUBLIC"),
            (
                "127.0.0.1",
                "--auth jwt --jwt-issuer i --jwt-audience a --jwt-jwks-url https://a --jwt-public-key-file f",
                "JWT_JWKS_URL and JWT_PUBLIC_KEY_FILE are both set",
            ),
            (
                "127.0.0.1",
                "--auth jwt --jwt-issuer i --jwt-audience a --jwt-public-key-file /nowhere",
                "JWT_PUBLIC_KEY_FILE: /nowhere cannot be read",
            ),
        ] {
            let line = refusal(address, arguments);
            assert!(line.starts_with(error), "{address} {arguments}: {line}");
        }
    }

    #[test]
    fn anyone_may_call_where_that_is_the_default_or_said() {
        for (address, arguments) in [("127.0.0.1", ""), ("::ffff:127.0.0.1", ""), ("0.0.0.0", "--auth=off")] {
            let command = Command::try_parse_from(["test"].into_iter().chain(arguments.split_whitespace())).unwrap();
            assert!(command.auth.authenticator(address.parse().unwrap()).unwrap().is_none(), "{address}");
        }
    }
}
