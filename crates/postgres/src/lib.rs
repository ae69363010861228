//! A PostgreSQL database that the instances of a service share: migrated when opened, written through one connection an
//! instance, read through a pool.
//!
//! Every wait has a bound: a request gets its answer or a 503, whatever the server does, and each side gives up a
//! connection that is of no more use, so the service recovers by itself.
//!
//! Nothing depends on the defaults of the database, the role or a pooler. Names are schema-qualified, the session
//! parameters that the services rely on are set when a connection is opened, and `synchronous_commit`, on which
//! durability rests, is set again in each transaction ([`BEGIN`], [`SYNCED`]).

mod batch;
mod fault;
mod session;
mod start;
mod url;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime as PoolRuntime,
};
use group_commit::{Health, StoreError, postgres_message};
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

pub use self::batch::commit_isolated;
use self::fault::is_about_tls;
pub use self::session::Session;
pub use self::url::DatabaseUrl;

/// How long connecting may take, to all hosts of the URL together: the one that is there must have its turn when the one
/// before it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one try at anything may take, from the first statement to the last answer. A client is told 503 soon after.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Read connections of an instance: as many look-ups as run at once.
const READ_CONNECTIONS: usize = 8;

/// How often a failed read is followed by a probe until the server answers. No request is spent on it, because `/readyz` may keep
/// requests away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Sets the session parameters that the services rely on. They are not sent as the startup parameter `options`, which
/// PgBouncer refuses.
///
/// `statement_timeout` comes first and alone, because a default of a millisecond would cancel the rest. `search_path` has
/// no schema of the services: a name that is not qualified fails in every test. The timeouts of a statement and of an idle
/// transaction, in milliseconds, free locks that a paused or dead client holds; the second is shorter, so that whoever
/// waits for such a lock gets it in time. Timeouts that a server does not know are left out.
const SESSION_PARAMETERS: &str = "
    SET statement_timeout = 5000;
    SELECT set_config(name, value, false) FROM (VALUES
        ('search_path', 'pg_catalog'),
        ('client_encoding', 'UTF8'),
        ('default_transaction_isolation', 'read committed'),
        ('default_transaction_read_only', 'off'),
        ('default_transaction_deferrable', 'off'),
        ('synchronous_commit', 'on'),
        ('lock_timeout', '0'),
        ('idle_in_transaction_session_timeout', '2000'),
        ('idle_session_timeout', '0'),
        ('transaction_timeout', '0'),
        ('jit', 'off')
    ) AS parameter (name, value) WHERE current_setting(name, true) IS NOT NULL";

/// How often [`SESSION_PARAMETERS`] is tried: a `statement_timeout` of a millisecond in the defaults of the database may
/// cancel the statement that raises it.
const PARAMETER_TRIES: usize = 5;

/// Begins a transaction whose isolation and durability are its own, whatever its session's are.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit = on";

/// A column that makes the transaction of its statement durable when it is answered: for a statement that is a transaction
/// of its own.
pub const SYNCED: &str = "set_config('synchronous_commit', 'on', true)";

/// Why `sslmode=require` stops a start.
const NO_TLS: &str = "the database URL asks for TLS, which this build does not have for PostgreSQL: on a network that you \
                      trust, set sslmode=disable and no channel_binding";

/// Why the database cannot be used, in one line: the server cannot be reached, or its settings or schema do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

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
    /// The outcomes of reads.
    health: Arc<Health>,
}

impl Postgres {
    /// Connects to the database at `url`, waiting for it a while, and brings it to the last version of `schema`. Fails at
    /// once where waiting does not help: on a wrong setting, a pooler that does not pool sessions, or a database that is
    /// not UTF-8.
    pub async fn open(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let database = Postgres::at(url, schema)?;
        start::start(&database, schema).await?;
        Ok(database)
    }

    /// Connects to the database at `url`, which must have exactly this schema.
    pub async fn open_as_it_is(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let database = Postgres::at(url, schema)?;
        start::check(&database, schema).await?;
        Ok(database)
    }

    fn at(url: &str, schema: &PostgresSchema) -> Result<Self, OpenError> {
        let mut config = Config::from_str(url).map_err(|error| {
            OpenError(if is_about_tls(&error) { NO_TLS.to_owned() } else { format!("DATABASE_URL: {error}") })
        })?;
        if config.get_ssl_mode() == SslMode::Require || config.get_channel_binding() == ChannelBinding::Require {
            return Err(OpenError(NO_TLS.to_owned()));
        }
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        config.connect_timeout(CONNECT_TIMEOUT / hosts).keepalives_idle(DEADLINE).tcp_user_timeout(DEADLINE);
        if config.get_application_name().is_none() {
            config.application_name(format!("tandem {}", schema.name));
        }
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let set_parameters = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move { set_session_parameters(client).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(Manager::from_config(config.clone(), NoTls, manager_config))
            .max_size(READ_CONNECTIONS)
            .post_create(set_parameters)
            .runtime(PoolRuntime::Tokio1)
            .create_timeout(Some(CONNECT_TIMEOUT))
            .wait_timeout(Some(DEADLINE))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| OpenError(error.to_string()))?;
        let health = Arc::new(Health::new("a read of the database failed", "the database can be read again"));
        Ok(Postgres { config, pool, health })
    }

    /// A connection of one's own, driven in the background.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        self.connect_listening(|_| ()).await
    }

    /// A connection of one's own that calls `hear` with the channel of each notification.
    pub async fn connect_listening(&self, hear: impl FnMut(&str) + Send + 'static) -> Result<Client, StoreError> {
        within_deadline(async {
            let client = self.connect_unprepared(hear).await?;
            set_session_parameters(&client).await?;
            Ok(client)
        })
        .await
    }

    /// A connection with the session parameters of the database's defaults.
    async fn connect_unprepared(
        &self,
        mut hear: impl FnMut(&str) + Send + 'static,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            // A broken connection shows in the next use of its client.
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    hear(notification.channel());
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
        let result = self.read_once(query).await;
        if self.health.note(result.as_ref()) {
            tokio::spawn(probe(self.clone()));
        }
        result
    }

    /// Why nothing can be read now, if so.
    pub fn failure(&self) -> Option<String> {
        self.health.failure()
    }

    /// Why some reads fail, if so.
    pub fn warning(&self) -> Option<String> {
        self.health.warning()
    }

    async fn read_once<T>(
        &self,
        query: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        within_deadline(async {
            let client = self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            // No data of the caller's is at fault here, whatever the SQLSTATE is: nothing is written.
            query(&client).await.map_err(|error| StoreError::Unavailable(postgres_message(&error)))
        })
        .await
    }
}

/// Asks the server until it answers.
async fn probe(database: Postgres) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let answered = database.read_once(async |client| client.batch_execute("").await).await;
        database.health.note(answered.as_ref());
        if answered.is_ok() {
            return;
        }
    }
}

async fn set_session_parameters(client: &Client) -> Result<(), tokio_postgres::Error> {
    let mut tries = 1..PARAMETER_TRIES;
    loop {
        match client.batch_execute(SESSION_PARAMETERS).await {
            Err(error) if fault::is_cancelled(&error) && tries.next().is_some() => {}
            result => return result,
        }
    }
}

/// `work`, or an error when [`DEADLINE`] has passed. What it had begun is given up, and its connection with it.
pub async fn within_deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}
