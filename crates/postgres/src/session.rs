//! One connection with what is prepared on it, for a thread that may block.

use std::time::{Duration, Instant};

use tokio::runtime::{self, Handle, Runtime};
use tokio_postgres::Client;

use super::{Postgres, within_deadline};
use group_commit::StoreError;

/// How long a session is not used until it is tried: so soon an instance that writes nothing notices that it could not.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How long [`Session::check`] hears what has arrived meanwhile.
const HEARING: Duration = Duration::from_millis(1);

/// A connection with what is prepared on it, for a thread that may block. The first use opens it. An error of the server or
/// of the connection closes it, and the next use opens another; an error that the data caused only rolls back.
pub struct Session<S> {
    database: Postgres,
    driver: Driver,
    current: Option<S>,
    used: Instant,
}

/// What moves bytes on a session's connection.
enum Driver {
    /// The session's own thread, while it waits for an answer: so an answer wakes the one thread that it is for, and does not
    /// stand behind requests in the queue of another. Made by that thread, since only there it may be dropped.
    Own(Option<Runtime>),
    /// A runtime's other threads, also while the session is not used.
    Shared(Handle),
}

impl Driver {
    fn block_on<T>(&mut self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self {
            Driver::Shared(handle) => handle.block_on(work),
            Driver::Own(Some(runtime)) => runtime.block_on(work),
            Driver::Own(none) => {
                let made = runtime::Builder::new_current_thread().enable_all().build();
                let made = made.map_err(|error| StoreError::Unavailable(format!("no connections: {error}")))?;
                none.insert(made).block_on(work)
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Whoever still looks up a host's name there is not waited for.
        if let Driver::Own(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl<S: AsRef<Client>> Session<S> {
    /// None yet. The thread that uses the session moves what is sent and received, while it waits for that.
    pub fn new(database: Postgres) -> Self {
        Session { database, driver: Driver::Own(None), current: None, used: Instant::now() }
    }

    /// None yet. `runtime` drives the connections, also while the session is not used: for one that listens.
    pub fn driven_by(runtime: Handle, database: Postgres) -> Self {
        Session { database, driver: Driver::Shared(runtime), current: None, used: Instant::now() }
    }

    /// Runs `work`, on a session that `open` makes if there is none, within [`DEADLINE`](super::DEADLINE) altogether.
    pub fn run<T>(
        &mut self,
        open: impl AsyncFnOnce(&Postgres) -> Result<S, StoreError>,
        work: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Session { database, driver, current, used } = self;
        *used = Instant::now();
        driver.block_on(within_deadline(async {
            // Between two uses nobody moves bytes on a connection of one's own: first its driver is asked, and then the
            // connection, whether the server has closed it.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let session = match current.take() {
                Some(session) if !session.as_ref().is_closed() => session,
                _ => open(database).await?,
            };
            let result = work(&session).await;
            match result {
                Ok(_) => {}
                // The connection is in order; what it had begun is not.
                Err(StoreError::Rejected(_) | StoreError::Conflict(_)) => {
                    session.as_ref().batch_execute("ROLLBACK").await?;
                }
                Err(error) => return Err(error),
            }
            *current = Some(session);
            result
        }))
    }

    /// To be called while there is nothing to do: hears whether the connection has ended, and tells now and then whether the
    /// server answers.
    pub fn check(&mut self, open: impl AsyncFnOnce(&Postgres) -> Result<S, StoreError>) -> Result<(), StoreError> {
        if self.used.elapsed() < IDLE_CHECK {
            return self.driver.block_on(async {
                tokio::time::sleep(HEARING).await;
                Ok(())
            });
        }
        self.run(open, async |session| Ok(session.as_ref().batch_execute("").await?))
    }
}
