//! From the `Authorization` header to a caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tracing::{error, info, warn};

use crate::caller::Caller;
use crate::jwks::JwksUrl;
use crate::key::KeySet;
use crate::key_editor::key_set;
use crate::refresh::{Refresh, RefreshTimes};
use crate::tokens::Tokens;
use crate::verification_key::{VerificationKey, of_jwks, of_pem};
use crate::watched_file::WatchedFile;

/// How often a file is read again. A key that is revoked is refused within 5 seconds.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request has no credentials.
    Missing,
    /// The credentials are malformed, unknown, expired or revoked.
    Invalid,
    /// The credentials cannot be checked now: the keys of the issuer were not fetched yet.
    Unavailable,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    /// The `iss` of the tokens.
    pub issuer: String,
    /// A member of the `aud` of the tokens.
    pub audience: String,
}

/// Why there is no [`Authenticator`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be read, or its content is malformed.
    #[error("{setting}: {} {error}", path.display())]
    File {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        error: String,
    },
    /// The thread that keeps credentials up to date cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Knows which credentials are valid. The services of a process share one.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Credentials,
    warning: ArcSwapOption<String>,
}

#[derive(Debug)]
enum Credentials {
    Keys(ArcSwap<KeySet>),
    Tokens(Tokens),
}

impl Authenticator {
    /// Accepts the keys of `keys`.
    pub fn of_keys(keys: KeySet) -> Arc<Self> {
        Self::of(Credentials::Keys(ArcSwap::from_pointee(keys)))
    }

    /// Accepts the keys of the file at `path`, which is read again while the process runs.
    pub fn of_keys_file(path: PathBuf) -> Result<Arc<Self>, StartError> {
        Self::of_keys(KeySet::default()).watching(WatchedFile::new("API_KEYS_FILE", path), Self::load_keys)
    }

    /// Accepts tokens of `issuer` that the key in the PEM file at `path` verifies. The file is read again while the process runs.
    pub fn of_public_key_file(issuer: TokenIssuer, path: PathBuf) -> Result<Arc<Self>, StartError> {
        let tokens = Tokens::new(issuer.issuer, &issuer.audience, None);
        Self::of(Credentials::Tokens(tokens)).watching(WatchedFile::new("JWT_PUBLIC_KEY_FILE", path), Self::load_pem)
    }

    /// Accepts tokens of `issuer` that a key of the set at `url` verifies. The set is fetched by a thread: until it was fetched
    /// once, tokens are refused as [`Refusal::Unavailable`].
    pub fn of_jwks(issuer: TokenIssuer, url: JwksUrl, times: RefreshTimes) -> Result<Arc<Self>, StartError> {
        let refresh = Refresh::new(times);
        let tokens = Tokens::new(issuer.issuer, &issuer.audience, Some(Arc::clone(&refresh)));
        let authenticator = Self::of(Credentials::Tokens(tokens));
        let weak = Arc::downgrade(&authenticator);
        spawn(move || {
            let mut known = None;
            loop {
                let fetched = url.fetch();
                let Some(authenticator) = weak.upgrade() else { return };
                let outcome = fetched.and_then(|content| match known.as_ref() == Some(&content) {
                    true => Ok(()),
                    false => authenticator.load_jwks(&content).map(|()| known = Some(content)),
                });
                authenticator.report("JWT_JWKS_URL", &outcome);
                drop(authenticator);
                refresh.block_until_due(outcome.is_err());
            }
        })?;
        Ok(authenticator)
    }

    fn of(credentials: Credentials) -> Arc<Self> {
        Arc::new(Authenticator { credentials, warning: ArcSwapOption::empty() })
    }

    /// Returns the caller that `authorization`, the value of the header, names.
    pub async fn authenticate(self: &Arc<Self>, authorization: Option<&[u8]>) -> Result<Caller, Refusal> {
        let authorization = authorization.ok_or(Refusal::Missing)?;
        let token = bearer_token(authorization).ok_or(Refusal::Invalid)?;
        let (name, scopes) = match &self.credentials {
            Credentials::Keys(keys) => {
                let keys = keys.load();
                let key = keys.find(token, Timestamp::now()).ok_or(Refusal::Invalid)?;
                (Arc::clone(&key.name), key.scopes)
            }
            Credentials::Tokens(tokens) => {
                let verified = tokens.verify(token).await?;
                (verified.name, verified.scopes)
            }
        };
        Ok(Caller::new(name, scopes, authorization.into(), Arc::clone(self)))
    }

    /// Why credentials may be out of date, if so: a warning for operators, without folders and secrets.
    pub fn warning(&self) -> Option<String> {
        self.warning.load().as_deref().cloned()
    }

    /// Loads `file` with `load`, and again whenever its content changes.
    fn watching(
        self: Arc<Self>,
        mut file: WatchedFile,
        load: fn(&Self, &[u8]) -> Result<(), String>,
    ) -> Result<Arc<Self>, StartError> {
        let setting = file.setting;
        file.reload(|content| load(&self, content)).map_err(|error| StartError::File {
            setting,
            path: file.path.clone(),
            error,
        })?;
        let weak = Arc::downgrade(&self);
        spawn(move || {
            loop {
                thread::sleep(FILE_INTERVAL);
                let Some(authenticator) = weak.upgrade() else { return };
                let outcome = file.reload(|content| load(&authenticator, content));
                authenticator.report(setting, &outcome);
            }
        })?;
        Ok(self)
    }

    fn load_keys(&self, content: &[u8]) -> Result<(), String> {
        let set = key_set(content)?;
        if let Credentials::Keys(keys) = &self.credentials {
            keys.store(Arc::new(set));
        }
        Ok(())
    }

    fn load_pem(&self, content: &[u8]) -> Result<(), String> {
        self.set_token_keys(of_pem(content)?);
        Ok(())
    }

    fn load_jwks(&self, content: &[u8]) -> Result<(), String> {
        let keys = of_jwks(content)?;
        // An issuer that withdraws its only key may mean it.
        if keys.is_empty() {
            warn!("the set that JWT_JWKS_URL names has no key that can verify tokens: all tokens are refused");
        }
        self.set_token_keys(keys);
        Ok(())
    }

    fn set_token_keys(&self, keys: Vec<VerificationKey>) {
        if let Credentials::Tokens(tokens) = &self.credentials {
            tokens.set_keys(keys);
        }
    }

    /// Logs a failure and a recovery once, and keeps a failure as the warning.
    fn report(&self, setting: &str, outcome: &Result<(), String>) {
        let consequence = match &self.credentials {
            Credentials::Tokens(tokens) if !tokens.has_keys() => "tokens cannot be checked",
            _ => "the keys known until now stay valid",
        };
        let warning = outcome.as_ref().err().map(|error| Arc::new(format!("{setting} {error}; {consequence}")));
        let before = self.warning.swap(warning.clone());
        match (before, warning) {
            (before, Some(warning)) if before.as_ref() != Some(&warning) => error!("{warning}"),
            (Some(_), None) => info!("{setting} can be read again"),
            _ => {}
        }
    }
}

/// Starts the thread that keeps credentials up to date.
fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    thread::Builder::new().name("credentials".to_owned()).spawn(run)?;
    Ok(())
}

/// Returns the token of `Bearer <token>` (RFC 6750, 2.1). The scheme's case does not matter.
fn bearer_token(authorization: &[u8]) -> Option<&str> {
    let (scheme, token) = str::from_utf8(authorization).ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
