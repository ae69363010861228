//! The database of a test: a SQLite file in the test's folder, or, where `TANDEM_TEST_POSTGRES_URL` names a server, a
//! database of its own there.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};

/// The environment variable that moves the tests to PostgreSQL.
pub const POSTGRES_URL: &str = "TANDEM_TEST_POSTGRES_URL";

/// The URL of the database `name` of the test whose folder this is: the same at each call, so that a service which is
/// started again finds what it left.
pub fn database_url(folder: &Path, name: &str) -> String {
    let Ok(server) = std::env::var(POSTGRES_URL) else {
        return format!("sqlite:{}", folder.join(format!("{name}.db")).display());
    };
    let noted = folder.join(format!("{name}.url"));
    if let Ok(url) = std::fs::read_to_string(&noted) {
        return url;
    }
    let url = postgres_database(&server);
    std::fs::write(&noted, &url).expect("a folder to write in");
    url
}

/// A new, empty database on the PostgreSQL at `server`.
pub fn postgres_database(server: &str) -> String {
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_{}_{number}", std::process::id());
    with_postgres(server, async |client| {
        // The id of a process comes again, on a server that is kept.
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await
    });
    let (server, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{name}")
}

/// Copies the database at `from`, which may be in use, over the one at `to`. On PostgreSQL it closes the connections to both.
pub fn copy_database(from: &str, to: &str) {
    if let (Some(from), Some(to)) = (from.strip_prefix("sqlite:"), to.strip_prefix("sqlite:")) {
        for suffix in ["", "-wal", "-shm"] {
            // Which of them is there depends on how SQLite left it.
            let _ = std::fs::remove_file(format!("{to}{suffix}"));
        }
        if Path::new(&format!("{from}-wal")).exists() {
            let connection = rusqlite::Connection::open(from).expect("a database to copy");
            connection.execute("VACUUM INTO ?", [to]).expect("a place for the copy");
        } else {
            std::fs::copy(from, to).expect("a database to copy");
        }
        return;
    }
    let (server, from) = from.rsplit_once('/').expect("a URL with a database");
    let (_, to) = to.rsplit_once('/').expect("a URL with a database");
    with_postgres(&format!("{server}/postgres"), async |client| {
        let disconnect = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)")).await?;
        client.batch_execute(&format!("ALTER DATABASE {from} ALLOW_CONNECTIONS false")).await?;
        client.batch_execute(&disconnect).await?;
        client.batch_execute(&format!("CREATE DATABASE {to} TEMPLATE {from}")).await?;
        client.batch_execute(&format!("ALTER DATABASE {from} ALLOW_CONNECTIONS true")).await
    });
}

/// What `work` makes of a connection to the PostgreSQL at `url`.
pub fn with_postgres<T>(url: &str, work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        work(&client).await
    });
    outcome.unwrap_or_else(|error| panic!("{url}: {error:?}"))
}
