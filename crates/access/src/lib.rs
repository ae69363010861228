//! Who may call (docs/api.md): scopes, callers, and the credentials that name callers.
//!
//! An [`Authenticator`] turns the `Authorization` header of a request into a [`Caller`] with its [`Scopes`]. What a route needs is an
//! [`Access`], which is declared with the route. This crate knows nothing of HTTP but that header's value.
//!
//! Invariant: no text from here, errors and `Debug` included, contains a secret or a token.

mod authenticator;
mod caller;
mod jwks;
mod key;
mod key_editor;
mod keys_file;
mod refresh;
mod scope;
mod settings;
mod token_cache;
mod tokens;
mod verification_key;
mod watched_file;

pub use authenticator::{Authenticator, Refusal, StartError, TokenIssuer};
pub use caller::Caller;
pub use jwks::JwksUrl;
pub use key::{Key, KeySet};
pub use key_editor::{EditError, create_key, list_keys, revoke_key};
pub use keys_file::MAX_NAME_CHARS;
pub use refresh::RefreshTimes;
pub use scope::{Access, Scope, Scopes};
pub use settings::{AuthArgs, SettingsError};
