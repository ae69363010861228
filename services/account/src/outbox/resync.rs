//! Requests a resync, that is, the publication of every account's state, from outside of the running service.
//!
//! The request is a row in the account database. The instance that publishes finds it there, or the next one that starts. The
//! relay ([`crate::outbox::relay`]) meets it.

use ::postgres::{DatabaseUrl, Postgres};
use group_commit::StoreError;
use rusqlite::Connection;
use sqlite_file::{SqliteFile, UseProbe};

use crate::outbox::ResyncRequest;
use crate::store::{postgres, sqlite};

/// A resync request, which stays open until it is met.
pub struct Resync {
    database: Database,
    request: ResyncRequest,
}

enum Database {
    Sqlite(Connection, UseProbe),
    Postgres(Postgres),
}

/// The progress of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The log has the state of every account after the request.
    Done,
    /// An instance publishes and will meet the request.
    Waiting,
    /// No instance publishes now. The next one meets the request.
    Standing,
}

impl Resync {
    /// Adds a request to the account database at `url`, which must exist with the schema of this version. It may be in use.
    pub async fn request(url: &DatabaseUrl) -> anyhow::Result<Self> {
        Ok(match url {
            DatabaseUrl::Sqlite(path) => {
                let connection = SqliteFile::connect_beside(path, &sqlite::SCHEMA)?;
                let request = sqlite::outbox::request_resync(&connection)?;
                Resync { database: Database::Sqlite(connection, UseProbe::open(path)?), request }
            }
            DatabaseUrl::Postgres(url) => {
                let database = Postgres::open_as_it_is(url, &postgres::SCHEMA).await?;
                let request = postgres::outbox::request_resync(&database).await?;
                Resync { database: Database::Postgres(database), request }
            }
        })
    }

    /// The progress now.
    pub async fn progress(&self) -> Result<Progress, StoreError> {
        let (requests, publishing) = match &self.database {
            Database::Sqlite(connection, probe) => (sqlite::outbox::resync_requests(connection)?, probe.is_in_use()),
            Database::Postgres(database) => postgres::outbox::resync_requests(database).await?,
        };
        Ok(match (requests.is_met(self.request), publishing) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Waiting,
            (false, false) => Progress::Standing,
        })
    }
}
