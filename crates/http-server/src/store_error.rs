//! A database's failures as answers. Its own message is for the log, not for the caller.

use axum::http::StatusCode;
use group_commit::StoreError;

use crate::error::ApiError;

/// How long a caller should wait before another try, in seconds: a queue empties and a server restarts in about that.
const RETRY_AFTER_S: u32 = 1;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, text) = match error {
            StoreError::Rejected(_) => {
                let text = "the database does not accept this request; the logs tell more";
                return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_rejected", text);
            }
            StoreError::Overloaded => ("overloaded", "too many requests are waiting, try again"),
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                ("storage_unavailable", "the database is unavailable, try again")
            }
            StoreError::Stopping => ("stopping", "the service is stopping, try again"),
        };
        ApiError::unavailable(code, text, RETRY_AFTER_S)
    }
}
