//! The extractor of a change's [`Precondition`] from `If-Match` and `If-None-Match`.

use std::convert::Infallible;

use account_events::Version;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use http_server::{EntityTags, if_match, if_none_match};

use crate::account::{Precondition, Versions};

impl<S: Sync> FromRequestParts<S> for Precondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self {
            required: if_match(&parts.headers).map(versions),
            excluded: if_none_match(&parts.headers).map(versions),
        })
    }
}

/// Returns the versions that `tags` stand for. Tags are compared as text, so `03` is not version 3.
fn versions(tags: EntityTags) -> Versions {
    let version = |tag: String| tag.parse::<Version>().ok().filter(|version| version.to_string() == tag);
    match tags {
        EntityTags::Any => Versions::Any,
        EntityTags::List(tags) => Versions::OneOf(tags.into_iter().filter_map(version).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_version_only_as_this_service_writes_it() {
        let tags = ["3", "03", "+3", "-3", "3.0", "abc", "", "99999999999999999999", "4"].map(str::to_owned);
        assert_eq!(versions(EntityTags::List(tags.into())), Versions::OneOf(vec![3, 4]));
        assert_eq!(versions(EntityTags::Any), Versions::Any);
    }
}
