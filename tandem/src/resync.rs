//! `tandem resync`: asks the running account service to publish the state of every account, and waits until it has.

use std::time::Duration;

use account_service::outbox::resync::{Progress, Resync};
use postgres::DatabaseUrl;
use tokio_util::sync::CancellationToken;

/// How often the progress is read.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How many polls in a row find no publisher before the command gives up: a failover takes five seconds.
const MAX_POLLS_WITHOUT_PUBLISHER: u32 = 28;

/// Requests a resync in the account database at `url` and reports its progress on stdout. Returns when the request is met, when no
/// instance publishes, or when `shutdown` is cancelled; an unmet request stays open.
pub(crate) async fn resync(url: &DatabaseUrl, shutdown: CancellationToken) -> anyhow::Result<()> {
    let resync = Resync::request(url).await?;
    println!("Asked for the state of every account to be published again.");
    let mut without_publisher = 0;
    loop {
        match resync.progress().await? {
            Progress::Done => {
                println!("Done: the event log has the state of every account.");
                return Ok(());
            }
            Progress::Waiting => without_publisher = 0,
            Progress::Standing => without_publisher += 1,
        }
        if without_publisher == MAX_POLLS_WITHOUT_PUBLISHER
            || (without_publisher > 0 && matches!(url, DatabaseUrl::Sqlite(_)))
        {
            println!("No account service runs on {url}: the next one to start will do it.");
            return Ok(());
        }
        tokio::select! {
            () = shutdown.cancelled() => {
                println!("The request stands: the account service goes on with it.");
                return Ok(());
            }
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}
