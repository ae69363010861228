//! `tandem recover`: joins a restored account database with the event log (docs/operations/recover.md).

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;

use account_service::recover::{Lost, Report, recover};
use event_log::EventLog;
use postgres::DatabaseUrl;

use crate::settings::{LostAccounts, RecoverArgs};

/// Recovers the account database at `url` against `log`, and prints what was done, or with `--dry-run` what would be done.
pub(crate) async fn run(url: DatabaseUrl, log: Arc<dyn EventLog>, arguments: &RecoverArgs) -> anyhow::Result<()> {
    println!("Recovering the account database {url} against {}.", log.describe());
    let lost = match arguments.lost {
        LostAccounts::Keep => Lost::Keep,
        LostAccounts::Block => Lost::Block,
    };
    let shows_progress = stderr().is_terminal();
    let progress = move |what: &str, count| {
        if shows_progress {
            // A terminal that cannot be written to shows no progress.
            let _ = write!(stderr(), "\r{count} {what}");
        }
    };
    let report = recover(url, log, arguments.dry_run, lost, progress).await?;
    if shows_progress {
        eprintln!();
    }
    print(&report, arguments.dry_run);
    Ok(())
}

fn print(report: &Report, dry_run: bool) {
    let Report { accounts, in_log, adopted, published, only_in_log, blocked, lost } = report;
    println!("{accounts} accounts in the table, {in_log} in the event log.");
    println!("{adopted} accounts {} the newer state of the event log.", if dry_run { "would take" } else { "took" });
    let when = if dry_run { "would be published" } else { "are published when the account service starts" };
    println!("{published} accounts that the event log lacks, or has in an older state, {when}.");
    if *only_in_log > 0 {
        println!("{only_in_log} accounts are in the event log only: their rows are lost.");
        lost.iter().for_each(|id| println!("  {id}"));
        if let Some(more @ 1..) = only_in_log.checked_sub(lost.len() as u64) {
            println!("  and {more} more");
        }
        match blocked {
            0 => println!("They stay as they are. With --lost=block the active ones get no more cards."),
            _ => println!("{blocked} of them {} blocked.", if dry_run { "would be" } else { "are" }),
        }
    }
    if dry_run {
        println!("Nothing was written. Run without --dry-run to recover.");
    } else {
        println!("Done: the account service takes writes again.");
    }
}
