//! One connection with its prepared statements, for a blocking thread such as a group commit's writer.

use std::time::{Duration, Instant};

use tokio::runtime::{self, Handle, Runtime};
use tokio_postgres::Client;

use super::{Postgres, within_deadline};
use group_commit::StoreError;

/// How long a transaction waits for a row that another one has locked. Every request behind the transaction waits, too. A commit
/// of another instance holds its locks for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// The lock timeout soon after a conflict, while a batch is halved to isolate the commands that need a locked row: with
/// [`LOCK_TIMEOUT`] ten halvings would take five seconds.
const LOCK_TIMEOUT_AFTER_CONFLICT: Duration = Duration::from_millis(100);

/// How long [`LOCK_TIMEOUT_AFTER_CONFLICT`] applies.
const AFTER_CONFLICT: Duration = Duration::from_secs(2);

/// A connection with its prepared statements `S`, for a blocking thread. The first use opens it. A server or connection error
/// closes it, and the next use opens another one; an error that the data caused only rolls back.
pub struct Session<S> {
    database: Postgres,
    driver: Driver,
    current: Option<S>,
    /// The lock timeout of the connection; zero before it is set.
    lock_timeout: Duration,
    conflicted: Option<Instant>,
}

/// What drives a session's connection.
enum Driver {
    /// The session's own thread, while it waits for an answer: an answer wakes only that thread, and does not queue behind
    /// requests on another runtime. Created on that thread, because a runtime must not be dropped on an async one.
    Own(Option<Runtime>),
    /// A task of a shared runtime, also while the session is not in use.
    Shared(Handle),
}

impl Driver {
    fn block_on<T>(&mut self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self {
            Driver::Shared(handle) => handle.block_on(work),
            Driver::Own(Some(runtime)) => runtime.block_on(work),
            Driver::Own(none) => {
                let made = runtime::Builder::new_current_thread().enable_all().build();
                let made = made.map_err(|error| StoreError::Unavailable(format!("cannot start a runtime: {error}")))?;
                none.insert(made).block_on(work)
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Do not wait for a running host name look-up.
        if let Driver::Own(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl<S: AsRef<Client>> Session<S> {
    /// A closed session. The thread that uses the session drives its connection.
    pub fn new(database: Postgres) -> Self {
        Session::with(database, Driver::Own(None))
    }

    /// A closed session. `runtime` drives its connection all the time, as LISTEN needs.
    pub fn driven_by(runtime: Handle, database: Postgres) -> Self {
        Session::with(database, Driver::Shared(runtime))
    }

    fn with(database: Postgres, driver: Driver) -> Self {
        let lock_timeout = Duration::ZERO;
        Session { database, driver, current: None, lock_timeout, conflicted: None }
    }

    /// Runs `work` on the session, which `open` opens if it is closed, within [`DEADLINE`](super::DEADLINE) altogether.
    pub fn run<T>(
        &mut self,
        open: impl AsyncFnOnce(&Postgres) -> Result<S, StoreError>,
        work: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Session { database, driver, current, lock_timeout, conflicted } = self;
        let has_conflicted = conflicted.is_some_and(|at| at.elapsed() < AFTER_CONFLICT);
        let wanted = if has_conflicted { LOCK_TIMEOUT_AFTER_CONFLICT } else { LOCK_TIMEOUT };
        driver.block_on(within_deadline(async {
            // A connection without a shared runtime is not driven between two uses. These two polls of the driver and of the
            // connection find out whether the server has closed it.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let session = match current.take() {
                Some(session) if !session.as_ref().is_closed() => session,
                _ => {
                    *lock_timeout = Duration::ZERO;
                    open(database).await?
                }
            };
            if *lock_timeout != wanted {
                session.as_ref().batch_execute(&format!("SET lock_timeout = {}", wanted.as_millis())).await?;
                *lock_timeout = wanted;
            }
            let result = work(&session).await;
            if let Err(error) = &result {
                match error {
                    StoreError::Conflict(_) => *conflicted = Some(Instant::now()),
                    StoreError::Rejected(_) | StoreError::Damaged(_) => {}
                    _ => return result,
                }
                // The connection is usable; its transaction is not.
                session.as_ref().batch_execute("ROLLBACK").await?;
            }
            *current = Some(session);
            result
        }))
    }

    /// Tests whether the server answers, so that an instance without writes notices an outage.
    pub fn check(&mut self, open: impl AsyncFnOnce(&Postgres) -> Result<S, StoreError>) -> Result<(), StoreError> {
        self.run(open, async |session| Ok(session.as_ref().batch_execute("").await?))
    }
}
