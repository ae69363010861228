//! A PostgreSQL database that the instances of a service share: migrated at the start, written through one connection per
//! instance, read through a pool.
//!
//! Every wait has a bound, so a request gets its answer or a 503 whatever the server does. Both sides close connections that
//! are no longer usable, so the service recovers without help.
//!
//! The services do not rely on defaults of the database, the role or a pooler. Names are schema-qualified, session
//! parameters are set when a connection is opened, and `synchronous_commit`, on which durability rests, is set again in each
//! transaction ([`BEGIN`], [`SYNCED`]).

mod fault;
mod key_claims;
mod session;
mod start;
mod tls;
mod url;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime as PoolRuntime,
};
use group_commit::{Health, StoreError, postgres_message};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Row, Statement};

pub use self::key_claims::{KeyClaims, KeyColumns};
pub use self::session::Session;
use self::tls::Connector;
pub use self::url::DatabaseUrl;

/// The time to connect to any host of the URL. The hosts share it, so that a dead one leaves time for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for one attempt at an operation, from the first statement to the last answer. The client gets a 503 after it.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The number of concurrent reads of an instance.
const READ_CONNECTIONS: usize = 8;

/// How often a failed read is followed by a probe until the server answers. No request is spent on it, because `/readyz` may keep
/// requests away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Sets the session parameters that the services rely on. PgBouncer refuses them as the startup parameter `options`.
///
/// `statement_timeout` comes first and alone, because a default of a millisecond would cancel the rest. `search_path`
/// contains no schema of the services, so that an unqualified name fails in every test. The timeouts of a statement and of
/// an idle transaction, in milliseconds, release the locks of a paused or dead client. A [`Session`] sets its own
/// `lock_timeout`. Parameters that a server does not know are left out.
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

/// The number of attempts at [`SESSION_PARAMETERS`]: a default `statement_timeout` of a millisecond may cancel the statement
/// that raises it.
const PARAMETER_TRIES: usize = 5;

/// Begins a transaction with its own isolation and durability, whatever the session parameters are.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit = on";

/// A column that makes a single-statement transaction durable before its answer.
pub const SYNCED: &str = "set_config('synchronous_commit', 'on', true)";

/// Why the database cannot be used, in one line: the server cannot be reached, or its settings or schema do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// A statement parameter.
pub type Parameter<'a> = &'a (dyn ToSql + Sync);

/// The rows of `statement` if it is `wanted`; otherwise none, without a request.
pub async fn query_if<const N: usize>(
    wanted: bool,
    client: &Client,
    statement: &Statement,
    parameters: [Parameter<'_>; N],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    match wanted {
        true => client.query(statement, &parameters).await,
        false => Ok(Vec::new()),
    }
}

/// The tables of a service.
#[derive(Debug, Clone, Copy)]
pub struct PostgresSchema {
    /// The name of the PostgreSQL schema, so that both services can share a database.
    pub name: &'static str,
    /// The SQL of each version, in order: `schema_version` counts those that a database has. A released migration never
    /// changes, and the previous release must work on the new schema: during an upgrade both run.
    pub migrations: &'static [&'static str],
}

/// One instance's access to the database. Clones share the pool.
#[derive(Clone)]
pub struct Postgres {
    config: Config,
    tls: Connector,
    pool: Pool,
    /// The outcomes of reads.
    health: Arc<Health>,
}

impl Postgres {
    /// Connects to the database at `url`, waiting for the server for a while, and migrates it to the last version of
    /// `schema`. Fails at once if waiting cannot help: on a wrong setting, a pooler that does not pool sessions, or an
    /// encoding other than UTF-8.
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
        let invalid = |error| OpenError(format!("DATABASE_URL: {error}"));
        let (mut config, tls) = url::parse_postgres(url).map_err(invalid)?;
        let tls = Connector::open(tls).map_err(|error| invalid(error.to_string()))?;
        if config.get_hosts().is_empty() {
            // The driver knows no server name for TLS otherwise.
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
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
        let pool = Pool::builder(Manager::from_config(config.clone(), tls.clone(), manager_config))
            .max_size(READ_CONNECTIONS)
            .post_create(set_parameters)
            .runtime(PoolRuntime::Tokio1)
            .create_timeout(Some(CONNECT_TIMEOUT))
            .wait_timeout(Some(DEADLINE))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| OpenError(error.to_string()))?;
        let health = Arc::new(Health::new("a read of the database failed", "the database can be read again"));
        Ok(Postgres { config, tls, pool, health })
    }

    /// Opens a connection outside of the pool, driven by a task of the current runtime.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        self.connect_listening(|_| ()).await
    }

    /// Like [`connect`](Postgres::connect). Calls `on_notification` with the channel of each notification.
    pub async fn connect_listening(
        &self,
        on_notification: impl FnMut(&str) + Send + 'static,
    ) -> Result<Client, StoreError> {
        within_deadline(async {
            let client = self.connect_unprepared(on_notification).await?;
            set_session_parameters(&client).await?;
            Ok(client)
        })
        .await
    }

    /// Opens a connection without setting session parameters.
    async fn connect_unprepared(
        &self,
        mut on_notification: impl FnMut(&str) + Send + 'static,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            // The next use of the client reports a broken connection.
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    on_notification(notification.channel());
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
        if self.health.record(result.as_ref()) {
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
            let client = self.pool.get().await.map_err(|error| {
                StoreError::Unavailable(match &error {
                    PoolError::Backend(cause) => fault::message(cause),
                    _ => error.to_string(),
                })
            })?;
            // Nothing is written, so no SQLSTATE means that a command is at fault.
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
        database.health.record(answered.as_ref());
        if answered.is_ok() {
            return;
        }
    }
}

async fn set_session_parameters(client: &Client) -> Result<(), tokio_postgres::Error> {
    execute_with_defaults(client, SESSION_PARAMETERS).await
}

/// Runs `sql` with the default session parameters, whose `statement_timeout` may be very short.
async fn execute_with_defaults(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    let mut tries = 1..PARAMETER_TRIES;
    loop {
        match client.batch_execute(sql).await {
            Err(error) if fault::is_cancelled(&error) && tries.next().is_some() => {}
            result => return result,
        }
    }
}

/// Runs `work` within [`DEADLINE`]. After that, drops it with its connection and returns an error.
pub async fn within_deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}
