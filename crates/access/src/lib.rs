//! Who may call (docs/api.md): scopes, callers, and the credentials that name callers.
//!
//! An [`Authenticator`] turns the `Authorization` header of a request into a [`Caller`] with its [`Scopes`]. What a route needs is an
//! [`Access`], which is declared with the route. This crate knows nothing of HTTP but that header's value.
//!
//! Invariant: no text from here, errors and `Debug` included, contains a secret or a token.

mod authenticator;
mod caller;
mod key;
mod scope;

pub use authenticator::{Authenticator, Refusal};
pub use caller::Caller;
pub use key::{Key, KeySet};
pub use scope::{Access, Scope, Scopes};
