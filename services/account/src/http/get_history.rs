//! `GET /account/history?id=&limit=&after=`: a page of what happened to an account, newest first.

use std::sync::Arc;

use account_events::Version;
use axum::Json;
use axum::extract::State;
use http_server::{ApiError, Content, Operation, QueryParams, parse_limit};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::error::AccountError;
use crate::history::HistoryEntry;
use crate::http::response::{AccountQuery, STORE_READ};
use crate::store::Store;

#[derive(Deserialize, IntoParams)]
pub(crate) struct PageQuery {
    /// The size of the page.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// The `next` of the page before.
    #[param(value_type = u32, required = false)]
    after: Option<String>,
}

/// A page. `next` is the version of its last entry, if older entries follow.
#[derive(Serialize, ToSchema)]
pub(crate) struct History {
    changes: Vec<HistoryEntry>,
    #[schema(required)]
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

pub(crate) fn get_history_operation() -> Operation {
    let created = json!({
        "version": 1, "type": "created", "fields": [], "status": "ACTIVE", "at": "2026-11-30T10:30:00.123Z", "caller": null,
    });
    let blocked = json!({
        "version": 2, "type": "status_changed", "fields": ["beholder_name"], "status": "BLOCKED",
        "at": "2026-11-30T11:30:00.123Z", "caller": null,
    });
    let page = Content::json::<History>(json!({ "changes": [blocked, created], "next": null }));
    Operation::new("get_account_history", "Accounts", "Lists what happened to an account, newest first.")
        .query::<AccountQuery>()
        .query::<PageQuery>()
        .answer(200, "A page.", page, &[])
        .errors(&["missing_id", "invalid_id", "invalid_limit", "invalid_after", "account_not_found"])
        .errors(&STORE_READ)
}

/// A version in digits; `parse` accepts a sign.
fn parse_version(text: &str) -> Option<Version> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
