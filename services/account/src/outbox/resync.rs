//! A request that the event log be told the state of every account, made from outside of the running service.
//!
//! It is a row in the account database, so nothing but that needs to be reached, and nothing gets in the way of what runs:
//! whichever instance publishes finds it there, and so does the next one that starts if none runs. How it is met is the
//! relay's business ([`crate::outbox::relay`]).

use ::postgres::{DatabaseUrl, Postgres};
use group_commit::StoreError;
use rusqlite::Connection;
use sqlite_file::{SqliteFile, UseProbe};

use crate::outbox::ResyncRequest;
use crate::store::{postgres, sqlite};

/// A request that stands until it is met.
pub struct Resync {
    database: Database,
    request: ResyncRequest,
}

enum Database {
    Sqlite(Connection, UseProbe),
    Postgres(Postgres),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The log has the state of every account as of some moment after the request.
    Done,
    /// An instance publishes, and will get there.
    Waiting,
    /// No instance publishes now. The next one will meet the request.
    Standing,
}

impl Resync {
    /// Makes a request in the account database at `url`, which must be there and of this version. It may be in use.
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

    /// How far it is now.
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
