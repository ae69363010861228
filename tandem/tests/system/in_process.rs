//! Services in the test's own process, where a test puts something between a service and its event log, or needs several.

use std::path::Path;
use std::sync::Arc;

use database::DatabaseUrl;
use event_log::EventLog;
use process::Clock;
use test_harness::{InProcess, wait_until};

/// An account service with its database in `folder`, ready.
pub(crate) fn account_service(folder: &Path, log: Arc<dyn EventLog>) -> InProcess {
    let database = DatabaseUrl::Sqlite(folder.join("account.db"));
    let config = account_service::Config { database, cors: None, clock: Clock::system() };
    ready(InProcess::start(|listener, shutdown| account_service::run(config, listener, log, shutdown)))
}

/// A card service with its database in `folder`, a member of the default group, ready.
pub(crate) fn card_service(folder: &Path, log: Arc<dyn EventLog>) -> InProcess {
    let config = card_service::Config {
        database: DatabaseUrl::Sqlite(folder.join("card.db")),
        group: card_service::DEFAULT_GROUP.to_owned(),
        view_max_age: None,
        cors: None,
        clock: Clock::system(),
    };
    ready(InProcess::start(|listener, shutdown| card_service::run(config, listener, log, shutdown)))
}

fn ready(service: InProcess) -> InProcess {
    wait_until("the service is ready", || (service.http().get("/readyz").status == 200).then_some(()));
    service
}
