//! Requests that wait until the account view knows an account.
//!
//! A waiter registers and then looks at the view; the writer of the view applies a batch and then looks at the table. So one of the two
//! sees the other, and no wake-up is lost. A waiter that is woken looks at the view again. Nobody polls, and while nobody waits a batch
//! costs one atomic load.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use account_events::{AccountId, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::accounts::status::ViewStatus;
use crate::accounts::view::{AccountState, AccountView};
use crate::error::CardError;

/// How many requests may wait at once. Each holds a connection, a timer and an entry in the table.
pub(crate) const MAX_WAITERS: usize = 10_000;

/// The account view for requests that may wait for it.
pub(crate) struct Waiters {
    pub(crate) view: AccountView,
    pub(crate) status: Arc<ViewStatus>,
    /// The number of requests in `table`.
    count: AtomicUsize,
    table: Mutex<HashMap<AccountId, Waiting>>,
    /// Whether a waiter has found the view not ready since the last [`wake_ready`](Waiters::wake_ready).
    found_unready: AtomicBool,
}

/// The requests that wait for one account.
#[derive(Default)]
struct Waiting {
    requests: usize,
    changed: Arc<Notify>,
}

/// A request in the table, until it is dropped.
struct Waiter<'a> {
    waiters: &'a Waiters,
    account: AccountId,
    changed: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn new(view: AccountView, status: Arc<ViewStatus>) -> Self {
        let (count, table, found_unready) = Default::default();
        Waiters { view, status, count, table, found_unready }
    }

    /// The number of requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The account's state, if the view is ready and knows the account in `version` or a later one. A state without a version satisfies
    /// no version.
    pub(crate) fn known(&self, account: AccountId, version: Option<Version>) -> Option<AccountState> {
        // This check precedes the look-up: an account whose event has not been read yet must not be "not found" (C3).
        if self.status.unready().is_some() {
            return None;
        }
        self.view.get(account).filter(|state| version.is_none() || state.version >= version)
    }

    /// Waits until the account is [known](Waiters::known). Returns `None` if `end` completes first. Fails if too many requests wait.
    pub(crate) async fn until_known(
        &self,
        account: AccountId,
        version: Option<Version>,
        end: impl Future<Output = ()>,
    ) -> Result<Option<AccountState>, CardError> {
        let waiter = self.register(account)?;
        let mut end = pin!(end);
        loop {
            // It receives every wake-up from its creation on, so none between the look-up and the wait is lost.
            let changed = waiter.changed.notified();
            if self.status.unready().is_some() {
                self.found_unready.store(true, Ordering::SeqCst);
            }
            // Looks at the status again, which may have changed before the flag was set.
            if let Some(state) = self.known(account, version) {
                return Ok(Some(state));
            }
            tokio::select! {
                () = changed => {}
                () = &mut end => return Ok(None),
            }
        }
    }

    fn register(&self, account: AccountId) -> Result<Waiter<'_>, CardError> {
        let mut table = self.table.lock();
        if self.len() >= MAX_WAITERS {
            return Err(CardError::TooManyWaiting);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let waiting = table.entry(account).or_default();
        waiting.requests += 1;
        let changed = Arc::clone(&waiting.changed);
        drop(table);
        // Pairs with the fence of `wake`: the count is visible to a writer whose events this waiter does not see.
        fence(Ordering::SeqCst);
        Ok(Waiter { waiters: self, account, changed })
    }

    /// Wakes the waiters for `accounts`, whose events the view has now.
    pub(crate) fn wake(&self, accounts: impl IntoIterator<Item = AccountId>) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let table = self.table.lock();
        for account in accounts {
            if let Some(waiting) = table.get(&account) {
                waiting.changed.notify_waiters();
            }
        }
    }

    /// Wakes all waiters if the view is ready and one of them has found it not ready.
    pub(crate) fn wake_ready(&self) {
        let has_become_ready = self.found_unready.load(Ordering::SeqCst) && self.status.unready().is_none();
        if has_become_ready && self.found_unready.swap(false, Ordering::SeqCst) {
            self.table.lock().values().for_each(|waiting| waiting.changed.notify_waiters());
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut table = self.waiters.table.lock();
        if let Entry::Occupied(mut entry) = table.entry(self.account) {
            entry.get_mut().requests -= 1;
            if entry.get().requests == 0 {
                entry.remove();
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
