//! A PostgreSQL database that the instances of a service share: migrated when opened, written through one connection an
//! instance, read through a pool.
//!
//! Every wait has a bound: a request gets its answer or a 503, whatever the server does, and each side gives up a
//! connection that is of no more use, so the service recovers by itself.

use std::error::Error as _;
use std::str::FromStr;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime as PoolRuntime};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};

use crate::{OpenError, StoreError};

/// How long connecting may take, to all hosts of the URL together: the one that is there must have its turn when the one
/// before it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a start waits for a server that is not there yet, as when all is started at once.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long one try at anything may take, from the first statement to the last answer. A client is told 503 soon after.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Bounds for the server's end, in milliseconds: a statement that waits for a lock, and a transaction whose client is paused
/// or gone and which keeps its locks from everyone else. The second is shorter, so that whoever waits for such locks still
/// gets them in time.
const SERVER_TIMEOUTS: &str = "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=2000";

/// How long a session is not used until it is tried: so soon an instance that writes nothing notices that it could not.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// Read connections of an instance: as many look-ups as run at once.
const READ_CONNECTIONS: usize = 8;

/// A parameter of a statement.
pub type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Whose tables they are, and how they came to be.
#[derive(Debug, Clone, Copy)]
pub struct PostgresSchema {
    /// The schema that holds them, so that both services could share a server, or even a database.
    pub name: &'static str,
    /// The SQL of each version; a database at version `n` has had the first `n`. Never change one that has been released,
    /// and let the version before go on working on the new one: in an upgrade both run.
    pub migrations: &'static [&'static str],
}

/// The database, for one instance.
#[derive(Clone)]
pub struct Postgres {
    config: Config,
    pool: Pool,
}

impl Postgres {
    /// Connects to the database at `url`, waiting for it a while, and brings it to the last version of `schema`.
    pub async fn open(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let database = Postgres::at(url, schema)?;
        let mut client = database.connect_patiently().await?;
        migrate(&mut client, schema).await?;
        Ok(database)
    }

    /// Connects to the database at `url`, which must have exactly this schema.
    pub async fn open_as_it_is(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let database = Postgres::at(url, schema)?;
        let sql = "SELECT version FROM schema_version";
        let row = database.read(async |client| client.query_one(sql, &[]).await).await;
        let row = row.map_err(|error| OpenError::Refused(error.to_string()))?;
        let (found, known, name) = (row.get::<_, i32>(0) as usize, schema.migrations.len(), schema.name);
        if found != known {
            return Err(OpenError::Refused(format!(
                "the database has schema version {found} of {name}, and this binary needs {known}: use the services' version"
            )));
        }
        Ok(database)
    }

    fn at(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let mut config = Config::from_str(url).map_err(|error| OpenError::Refused(format!("DATABASE_URL: {error}")))?;
        let options = config.get_options().unwrap_or_default();
        let options =
            format!("{options} {SERVER_TIMEOUTS} -c jit=off -c synchronous_commit=on -c search_path={}", schema.name);
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        config.options(options.trim()).connect_timeout(CONNECT_TIMEOUT / hosts).keepalives_idle(DEADLINE);
        config.tcp_user_timeout(DEADLINE);
        if config.get_application_name().is_none() {
            config.application_name(format!("tandem {}", schema.name));
        }
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config.clone(), NoTls, manager_config))
            .max_size(READ_CONNECTIONS)
            .runtime(PoolRuntime::Tokio1)
            .create_timeout(Some(CONNECT_TIMEOUT))
            .wait_timeout(Some(DEADLINE))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| OpenError::Refused(error.to_string()))?;
        Ok(Postgres { config, pool })
    }

    /// A connection of one's own, driven in the background.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        let (client, connection) = self.connection().await?;
        tokio::spawn(async move {
            // A broken connection shows in the next use of its client.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// A connection of one's own that says so on `notified` when the server has notified it of something.
    pub async fn connect_listening(&self, notified: UnboundedSender<()>) -> Result<Client, StoreError> {
        let (client, mut connection) = self.connection().await?;
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) && notified.send(()).is_err() {
                    break;
                }
            }
        });
        Ok(client)
    }

    /// Runs `query` on a connection of the pool, within [`DEADLINE`].
    pub async fn read<T>(
        &self,
        query: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        within_deadline(async {
            let client = self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            Ok(query(&client).await?)
        })
        .await
    }

    async fn connection(&self) -> Result<(Client, Connection<Socket, tokio_postgres::tls::NoTlsStream>), StoreError> {
        within_deadline(async { Ok(self.config.connect(NoTls).await?) }).await
    }

    async fn connect_patiently(&self) -> Result<Client, OpenError> {
        let started = tokio::time::Instant::now();
        let mut said = false;
        loop {
            let error = match self.connect().await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if started.elapsed() >= START_PATIENCE {
                return Err(OpenError::Refused(format!("the database at DATABASE_URL cannot be used: {error}")));
            }
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(%error, "waiting for the database");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// How long [`Session::check`] hears what has arrived meanwhile.
const HEARING: Duration = Duration::from_millis(1);

/// A connection with what is prepared on it, for a thread that may block. It is made when it is first used, and given up
/// with whatever it had begun when anything goes wrong; the next use makes another.
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

    /// Runs `work`, on a session that `open` makes if there is none, within [`DEADLINE`] altogether.
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
            let result = work(&session).await?;
            *current = Some(session);
            Ok(result)
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

/// `work`, or an error when [`DEADLINE`] has passed. What it had begun is given up, and its connection with it.
pub async fn within_deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}

/// One instance migrates at a time; those that wait find the work done.
async fn migrate(client: &mut Client, schema: &PostgresSchema) -> Result<(), OpenError> {
    let failed =
        |error: tokio_postgres::Error| OpenError::Refused(format!("cannot migrate the database: {}", describe(&error)));
    let name = schema.name;
    let known = schema.migrations.len();
    let transaction = client.transaction().await.map_err(failed)?;
    let head = format!(
        "SET LOCAL statement_timeout = '60s';
         SELECT pg_advisory_xact_lock(hashtext('tandem migration {name}'));
         CREATE SCHEMA IF NOT EXISTS {name};
         CREATE TABLE IF NOT EXISTS {name}.schema_version (version int NOT NULL);"
    );
    transaction.batch_execute(&head).await.map_err(failed)?;
    let row =
        transaction.query_opt(&format!("SELECT version FROM {name}.schema_version"), &[]).await.map_err(failed)?;
    let version = row.as_ref().map_or(0, |row| row.get::<_, i32>(0)) as usize;
    if version > known {
        return Err(OpenError::Refused(format!(
            "the database has schema version {version} of {name}, and this binary knows up to {known}: start the newer binary"
        )));
    }
    for sql in &schema.migrations[version..] {
        transaction.batch_execute(sql).await.map_err(failed)?;
    }
    let note = match row {
        Some(_) => format!("UPDATE {name}.schema_version SET version = {known}"),
        None => format!("INSERT INTO {name}.schema_version VALUES ({known})"),
    };
    transaction.batch_execute(&note).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// The server's own words where it has some: the client's say only "db error", or what it was at and not what went wrong.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::Unavailable(describe(&error))
    }
}
