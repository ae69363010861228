//! Start checks: waits for the server, checks its configuration and the pooler, and migrates.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Error};

use super::fault::{may_pass, message};
use super::{DEADLINE, OpenError, Postgres, PostgresSchema, execute_with_defaults, set_session_parameters};
use group_commit::postgres_message;

/// How long a start waits for the server, which may start at the same time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why an attempt to start failed, and whether the next one may succeed.
struct Failure {
    text: String,
    may_pass: bool,
}

impl Failure {
    fn permanent(text: impl Into<String>) -> Self {
        Failure { text: text.into(), may_pass: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { text: format!("the database cannot be used: {}", message(&error)), may_pass: may_pass(&error) }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        OpenError(failure.text)
    }
}

/// Waits for the server and migrates the database to the last version of `schema`.
pub(super) async fn start(database: &Postgres, schema: &PostgresSchema) -> Result<(), OpenError> {
    let started = Instant::now();
    let mut is_logged = false;
    loop {
        let migrated = async { migrate(&mut connect(database).await?, schema).await };
        let failure = match migrated.await {
            Ok(()) => return Ok(()),
            Err(failure) if !failure.may_pass || started.elapsed() >= PATIENCE => return Err(failure.into()),
            Err(failure) => failure,
        };
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(error = failure.text, "waiting for the database");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Checks that the database has exactly this schema.
pub(super) async fn check(database: &Postgres, schema: &PostgresSchema) -> Result<(), OpenError> {
    let client = connect(database).await?;
    let (known, name) = (schema.migrations.len(), schema.name);
    let row = client.query_one(&format!("SELECT version FROM {name}.schema_version"), &[]).await;
    let found = row.map_err(Failure::from)?.get::<_, i32>(0) as usize;
    if found != known {
        return Err(OpenError(format!(
            "the database has schema version {found} of {name}, and this binary needs {known}: use the services' version"
        )));
    }
    Ok(())
}

/// Opens a connection, with session parameters set, to a server that meets the requirements.
async fn connect(database: &Postgres) -> Result<Client, Failure> {
    let no_answer = |_| Failure { text: "the database cannot be used: no answer in time".to_owned(), may_pass: true };
    timeout(2 * DEADLINE, async {
        let client = check_pooling(database).await?;
        set_session_parameters(&client).await?;
        check_server(&client).await?;
        Ok(client)
    })
    .await
    .unwrap_or_else(|elapsed| Err(no_answer(elapsed)))
}

/// Refuses a pooler that may use another server connection for each transaction or statement: prepared statements, session
/// parameters and LISTEN belong to a server connection. Returns a connection on success.
///
/// The test is whether a notification reaches a listening client outside of a transaction. There such a pooler has no server
/// connection for the client, so it cannot deliver one. The test runs before session parameters are set, which would
/// otherwise stay behind in server connections that other applications get.
async fn check_pooling(database: &Postgres) -> Result<Client, Failure> {
    // A random name, because a server connection may still LISTEN for an earlier start.
    let channel = format!("tandem_start_{:x}", RandomState::new().hash_one(()));
    let (notified, mut notifications) = unbounded_channel();
    let expected = channel.clone();
    let on_notification = move |channel: &str| {
        if channel == expected {
            // The receiver is gone after the first notification.
            let _ = notified.send(());
        }
    };
    let listening = database.connect_unprepared(on_notification).await?;
    let client = database.connect_unprepared(|_| ()).await?;
    execute_with_defaults(&listening, &format!("LISTEN {channel}")).await?;
    execute_with_defaults(&client, &format!("SELECT set_config('lock_timeout', '0', true); NOTIFY {channel}")).await?;
    match timeout(DEADLINE, notifications.recv()).await {
        Ok(Some(())) => Ok(client),
        Ok(None) => Err(Failure { text: "the database closed a connection".to_owned(), may_pass: true }),
        Err(_) => Err(Failure::permanent(
            "the connection pooler in front of PostgreSQL does not pool sessions, which prepared statements and LISTEN \
             need: set pool_mode=session for this database, or connect to PostgreSQL itself",
        )),
    }
}

/// Checks the settings of the server that a session cannot change.
async fn check_server(client: &Client) -> Result<(), Failure> {
    let sql = "SELECT current_setting('server_encoding'), current_database(), current_setting('fsync')";
    let row = client.query_one(sql, &[]).await?;
    let [encoding, name, fsync] = [row.get::<_, &str>(0), row.get(1), row.get(2)];
    if encoding != "UTF8" {
        return Err(Failure::permanent(format!(
            "the database {name:?} has the encoding {encoding}, in which not every name can be stored: create it with \
             ENCODING 'UTF8'"
        )));
    }
    if fsync != "on" {
        tracing::warn!("fsync is off in PostgreSQL: a power cut may lose acknowledged writes, or the whole database");
    }
    Ok(())
}

/// Migrates the database in one transaction. A lock admits one instance at a time; the others then find nothing to do.
async fn migrate(client: &mut Client, schema: &PostgresSchema) -> Result<(), Failure> {
    let failed = |error: Error| Failure {
        text: format!("cannot migrate the database: {}", postgres_message(&error)),
        may_pass: may_pass(&error),
    };
    let name = schema.name;
    let known = schema.migrations.len();
    let transaction = client.transaction().await.map_err(failed)?;
    let head = format!(
        "SET LOCAL synchronous_commit = on;
         SET LOCAL statement_timeout = '60s';
         SELECT pg_advisory_xact_lock(hashtext('tandem migration {name}'));
         CREATE SCHEMA IF NOT EXISTS {name};
         CREATE TABLE IF NOT EXISTS {name}.schema_version (version int NOT NULL);"
    );
    transaction.batch_execute(&head).await.map_err(failed)?;
    let row =
        transaction.query_opt(&format!("SELECT version FROM {name}.schema_version"), &[]).await.map_err(failed)?;
    let version = row.as_ref().map_or(0, |row| row.get::<_, i32>(0)) as usize;
    if version > known {
        return Err(Failure::permanent(format!(
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
