//! Closes deleted accounts in the card database (ARCHITECTURE.md C4), for the feed and for the card closer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use account_events::AccountId;
use group_commit::StoreError;

use crate::error::CardError;
use crate::store::Store;

/// The most accounts that one command closes.
const MAX_AT_ONCE: usize = 1_000;

/// While the card database fails, [`close`](Closing::close) fails above this number of accounts, so that the caller stops reading.
const MAX_WAITING: usize = 100_000;

/// The most commands of one attempt that fail: each may wait for a lock, and the caller reads no events meanwhile.
const MAX_FAILURES: usize = 16;

/// When accounts that failed alone are retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Deleted accounts that the card database has not closed yet.
///
/// A command with an account that the database cannot close, for example because a row is locked, fails as a whole. The next command
/// then has half as many accounts, until the account at fault fails alone and the others are closed.
pub(crate) struct Closing {
    store: Store,
    /// Accounts that failed alone come first.
    accounts: VecDeque<AccountId>,
    failed_alone: usize,
    retry_at: Instant,
    at_once: usize,
    /// The last error, until all accounts are closed.
    failure: Option<CardError>,
}

impl Closing {
    pub(crate) fn new(store: Store) -> Self {
        let (accounts, retry_at) = (VecDeque::new(), Instant::now());
        Closing { store, accounts, failed_alone: 0, retry_at, at_once: MAX_AT_ONCE, failure: None }
    }

    /// Adds accounts, which the next [`close`](Closing::close) closes.
    pub(crate) fn add(&mut self, accounts: impl IntoIterator<Item = AccountId>) {
        self.accounts.extend(accounts);
    }

    /// Whether all accounts are closed.
    pub(crate) fn is_done(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether no account is left that may be closed now: those that are left failed alone, and are retried later.
    pub(crate) fn is_settled(&self) -> bool {
        self.accounts.len() == self.failed_alone
    }

    /// Closes what can be closed now; the next call goes on. Fails if too many accounts wait. Blocks.
    pub(crate) fn close(&mut self) -> Result<(), CardError> {
        if self.failed_alone > 0 && Instant::now() >= self.retry_at {
            self.failed_alone = 0;
        }
        let mut failures = 0;
        while !self.is_settled() && failures < MAX_FAILURES {
            let rest = self.accounts.len().saturating_sub(self.at_once).max(self.failed_alone);
            let accounts: Vec<_> = self.accounts.range(rest..).copied().collect();
            let count = accounts.len();
            let Err(error) = self.store.close_accounts(accounts) else {
                self.accounts.truncate(rest);
                self.at_once = (self.at_once * 2).min(MAX_AT_ONCE);
                continue;
            };
            failures += 1;
            self.at_once = (count / 2).max(1);
            let is_of_accounts = is_of_accounts(&error);
            if count == 1 {
                self.accounts.rotate_right(1);
                // Later failures must not put off the retry of the first one.
                if self.failed_alone == 0 {
                    self.retry_at = Instant::now() + RETRY_INTERVAL;
                }
                self.failed_alone += usize::from(is_of_accounts);
            }
            if self.failure.is_none() {
                tracing::warn!(%error, waiting = self.accounts.len(), "deleted accounts cannot be closed yet, retrying");
            }
            self.failure = Some(error);
            if !is_of_accounts {
                break;
            }
        }
        if self.is_done() && self.failure.take().is_some() {
            tracing::info!("all deleted accounts are closed");
        }
        match &self.failure {
            Some(error) if self.accounts.len() > MAX_WAITING => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// Whether accounts of the command are at fault, and not the database as a whole.
fn is_of_accounts(error: &CardError) -> bool {
    matches!(error, CardError::Store(StoreError::Conflict(_) | StoreError::Rejected(_) | StoreError::Damaged(_)))
}
