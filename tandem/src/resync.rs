//! `tandem resync`: asks the running account service to publish the state of every account, and waits until it has.

use std::time::Duration;

use account_service::outbox::resync::{Progress, Resync};
use postgres::DatabaseUrl;
use tokio_util::sync::CancellationToken;

/// How often it is asked how far it is.
const PACE: Duration = Duration::from_millis(250);

/// How many times in a row nobody publishes until that is believed: publishing moves to another instance in five seconds.
const BELIEVED_AFTER: u32 = 28;

/// Makes the request in the account database at `url` and tells on stdout what comes of it. Ends when it is met, when there
/// is nobody who would, or when `shutdown` is cancelled; it stands in either case.
pub(crate) async fn resync(url: &DatabaseUrl, shutdown: CancellationToken) -> anyhow::Result<()> {
    let resync = Resync::request(url).await?;
    println!("Asked for the state of every account to be published again.");
    let mut nobody = 0;
    loop {
        match resync.progress().await? {
            Progress::Done => {
                println!("Done: the event log has the state of every account.");
                return Ok(());
            }
            Progress::Waiting => nobody = 0,
            Progress::Standing => nobody += 1,
        }
        if nobody == BELIEVED_AFTER || (nobody > 0 && matches!(url, DatabaseUrl::Sqlite(_))) {
            println!("No account service runs on {url}: the next one to start will do it.");
            return Ok(());
        }
        tokio::select! {
            () = shutdown.cancelled() => {
                println!("The request stands: the account service goes on with it.");
                return Ok(());
            }
            () = tokio::time::sleep(PACE) => {}
        }
    }
}
