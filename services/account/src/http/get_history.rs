//! `GET /account/history?id=&limit=&after=`: a page of what happened to an account, newest first.

use std::sync::Arc;

use account_events::Version;
use axum::Json;
use axum::extract::State;
use http_server::{ApiError, QueryParams, parse_limit};
use serde::{Deserialize, Serialize};

use crate::error::AccountError;
use crate::history::HistoryEntry;
use crate::http::response::AccountQuery;
use crate::store::Store;

#[derive(Deserialize)]
pub(crate) struct PageQuery {
    limit: Option<String>,
    after: Option<String>,
}

/// A page. `next` is the version of its last entry, if older entries follow.
#[derive(Serialize)]
pub(crate) struct History {
    changes: Vec<HistoryEntry>,
    next: Option<String>,
}

pub(crate) async fn get_history(
    State(store): State<Arc<Store>>,
    QueryParams(account): QueryParams<AccountQuery>,
    QueryParams(page): QueryParams<PageQuery>,
) -> Result<Json<History>, ApiError> {
    let id = account.id()?;
    let limit = parse_limit(page.limit.as_deref())? as usize;
    let before =
        page.after.map_or(Ok(Version::MAX), |after| parse_version(&after).ok_or(AccountError::InvalidAfter))?;
    // One more than requested shows whether more follow.
    let mut changes = store.history(id, before, limit + 1).await?;
    let has_more = changes.len() > limit;
    changes.truncate(limit);
    let next = changes.last().filter(|_| has_more).map(|entry| entry.version.to_string());
    Ok(Json(History { changes, next }))
}

/// A version in digits; `parse` accepts a sign.
fn parse_version(text: &str) -> Option<Version> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
