//! When the checkpoint of the view is written and loaded. [`format`](mod@format) defines the file (docs/decisions/0008).
//!
//! The feed orders a checkpoint at intervals and at the end, and [`CheckpointWriter`] writes it on a thread of its own. A start
//! loads the file and reads the log from the samples on. Once the samples show that the log is the same, the view counts, and the
//! deleted accounts in it are closed in the card database (ARCHITECTURE.md C4). Otherwise the log is read from its start.
//!
//! Instances may share a file: each writes a temporary file and renames it. Nothing is synced, because a torn file is detected.

pub(crate) mod samples;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use account_events::AccountId;
use event_log::Positions;
use parking_lot::Mutex;
use postgres::DatabaseUrl;
use sqlite_file::{create_folder, for_owner, warn_of_exposed};

use crate::accounts::checkpoint::samples::{Mark, Sample, Samples, Verdict};
use crate::accounts::view::format::{self, CardDatabase, Checkpoint, Unusable};
use crate::accounts::view::{AccountView, ViewWriter};

/// How often a checkpoint is written.
const INTERVAL: Duration = Duration::from_secs(300);

/// How long the last checkpoint may take when the service stops: less than [`LOOPS_DRAIN`](crate::LOOPS_DRAIN).
const LAST_TIME: Duration = Duration::from_secs(4);

/// The file's name in the data directory, with a database that is not a file.
const NAME: &str = "card-account-view.checkpoint";

/// The path of the checkpoint: beside the database's file, or else in `data_dir`.
pub(crate) fn path(database: &DatabaseUrl, data_dir: &Path) -> PathBuf {
    match database {
        DatabaseUrl::Sqlite(path) => with_suffix(path, ".view"),
        DatabaseUrl::Postgres(_) => data_dir.join(NAME),
    }
}

/// A checkpoint to write.
struct Order {
    mark: Mark,
    /// The positions of the feed, which may be ahead of the durable positions in `mark`.
    read: Positions,
    /// The last card at that time.
    last_card: u64,
    /// The deadline of the last checkpoint. `None` for others, which are abandoned when the service stops.
    until: Option<Instant>,
}

/// The side of the feed.
pub(crate) struct Checkpoints {
    path: PathBuf,
    orders: SyncSender<Order>,
    /// The positions of the checkpoint in the file.
    written: Arc<Mutex<Positions>>,
    due: Instant,
    samples: Samples,
    /// The mark of the loaded checkpoint until the samples show whether it belongs to this log.
    unproven: Option<Mark>,
    /// The start offsets of the log.
    starts: Positions,
    /// Which card database this service uses.
    database: Database,
    /// The last card in the file that was loaded, or at the last order.
    ordered_card: u64,
    /// The first shard of a verified checkpoint whose deleted accounts [`next_deleted`](Checkpoints::next_deleted) has not returned.
    unclosed: Option<usize>,
}

/// The side of the writing thread.
pub(crate) struct CheckpointWriter {
    path: PathBuf,
    orders: Receiver<Order>,
    written: Arc<Mutex<Positions>>,
    view: AccountView,
    database: Database,
    stopping: Arc<AtomicBool>,
}

/// The card database of this service.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) id: u64,
    /// The sequence of the last card.
    pub(crate) last_card: Arc<AtomicU64>,
}

/// The card database that the checkpoint in the file at `path` names, if the file can be read.
pub(crate) fn database_of(path: &Path) -> Option<CardDatabase> {
    format::read_database(&File::open(path).ok()?).ok()
}

/// Returns both sides.
pub(crate) fn checkpoints(
    path: PathBuf,
    view: AccountView,
    database: Database,
    stopping: Arc<AtomicBool>,
) -> (Checkpoints, CheckpointWriter) {
    let (sender, orders) = sync_channel(1);
    let written = Arc::default();
    let feed = Checkpoints {
        path: path.clone(),
        orders: sender,
        written: Arc::clone(&written),
        due: Instant::now() + INTERVAL,
        samples: Samples::default(),
        unproven: None,
        starts: Positions::new(),
        database: database.clone(),
        ordered_card: 0,
        unclosed: None,
    };
    (feed, CheckpointWriter { path, orders, written, view, database, stopping })
}

impl Checkpoints {
    /// Fills the empty view from the file, if it is usable, and returns the positions to read the log from.
    pub(crate) fn load(&mut self, view: &mut ViewWriter) -> Positions {
        let started = Instant::now();
        warn_of_exposed(&[&self.path]);
        match read(&self.path, self.database.id) {
            Ok(checkpoint) => {
                let mark = checkpoint.mark.clone();
                self.ordered_card = checkpoint.database.last_card;
                let accounts = view.restore(checkpoint);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(accounts, seconds, "the account view comes from its checkpoint");
                self.samples = Samples::expecting(mark.clone());
                *self.written.lock() = mark.positions();
                let start = mark.start();
                self.unproven = Some(mark);
                start
            }
            Err(reason) => {
                let path = self.path.display();
                match reason {
                    Unusable::Missing => tracing::debug!(%path, "there is no checkpoint of the account view"),
                    reason => tracing::warn!(%path, %reason, "{}", NOT_USED),
                }
                Positions::new()
            }
        }
    }

    /// Sets the start offsets of the log, and logs which partitions lost records.
    pub(crate) fn set_starts(&mut self, starts: Positions) {
        self.starts = starts;
        self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }

    /// Which partitions lost their first records, as texts.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let known = self.written.lock();
        let cut = self.starts.iter().filter(|(_, start)| **start > 0);
        cut.map(|(number, start)| {
            let what = match known.contains_key(number) {
                true => "the view keeps what its checkpoint has of them",
                false => "accounts that have not changed since may be missing",
            };
            format!(
                "partition {number} of the event log begins at offset {start}: older records were deleted, and {what}"
            )
        })
        .collect()
    }

    /// Adds samples, each with its partition, in the order of reading.
    pub(crate) fn add_samples(&mut self, samples: &[(u32, Sample)]) {
        samples.iter().for_each(|(partition, sample)| self.samples.add(*partition, *sample));
    }

    /// Forgets the samples of a log that was replaced.
    pub(crate) fn forget_samples(&mut self) {
        self.samples = Samples::default();
    }

    /// Clears the view if its checkpoint cannot belong to a log that ends at `ends`. Returns whether it did.
    pub(crate) fn clear_if_contradicted(&mut self, view: &mut ViewWriter, ends: &Positions) -> bool {
        match self.unproven.as_ref().and_then(|mark| mark.contradiction(ends)) {
            Some(reason) => self.give_up(view, &reason),
            None => false,
        }
    }

    /// Clears the view if the samples show that its checkpoint belongs to another log. Returns whether it did. The log was read up
    /// to `positions`, and to its end if `to_the_end`.
    pub(crate) fn clear_if_disproved(
        &mut self,
        view: &mut ViewWriter,
        positions: &Positions,
        to_the_end: bool,
    ) -> bool {
        if self.unproven.is_none() {
            return false;
        }
        match self.samples.verdict(positions, to_the_end, &self.starts) {
            Verdict::Open => false,
            Verdict::Proven => {
                (self.unproven, self.unclosed) = (None, Some(0));
                false
            }
            Verdict::Disproved(reason) => self.give_up(view, &reason),
        }
    }

    fn give_up(&mut self, view: &mut ViewWriter, reason: &str) -> bool {
        tracing::warn!(path = %self.path.display(), reason = format!("it is not of this event log: {reason}"), "{}", NOT_USED);
        view.clear();
        // The next checkpoint replaces a file that cannot be removed.
        let _ = fs::remove_file(&self.path);
        (self.samples, self.unproven) = (Samples::default(), None);
        *self.written.lock() = Positions::new();
        true
    }

    /// The positions of a loaded checkpoint that is not verified yet: the view includes the records before them.
    pub(crate) fn known(&self) -> Positions {
        self.unproven.as_ref().map(Mark::positions).unwrap_or_default()
    }

    /// The next accounts that are deleted in the checkpoint, which the card database may not know, being an older copy. `None` if all
    /// were returned, or if there was no checkpoint.
    pub(crate) fn next_deleted(&mut self, view: &ViewWriter) -> Option<Vec<AccountId>> {
        let shard = self.unclosed?;
        let deleted = view.deleted_accounts(shard);
        self.unclosed = deleted.as_ref().map(|_| shard + 1);
        deleted
    }

    /// Orders a checkpoint if one is due. `positions` returns the positions of the feed, and the durable positions of the log.
    pub(crate) fn write_if_due(&mut self, positions: impl FnOnce() -> (Positions, Positions)) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        if let Some(order) = self.order(positions(), None) {
            let last_card = order.last_card;
            // A full channel means that a checkpoint is being written.
            if self.orders.try_send(order).is_ok() {
                self.ordered_card = last_card;
            }
        }
    }

    /// Orders the last checkpoint.
    pub(crate) fn write_last(&mut self, positions: (Positions, Positions)) {
        if let Some(order) = self.order(positions, Some(Instant::now() + LAST_TIME)) {
            // Sending fails only if the writer panicked.
            let _ = self.orders.send(order);
        }
    }

    /// Returns `None` if no record was read and no card was created since the last checkpoint.
    fn order(&self, (read, durable): (Positions, Positions), until: Option<Instant>) -> Option<Order> {
        let last_card = self.database.last_card.load(Ordering::Relaxed);
        if read == *self.written.lock() && last_card == self.ordered_card {
            return None;
        }
        Some(Order { mark: self.samples.mark(&durable)?, read, last_card, until })
    }
}

const NOT_USED: &str = "the checkpoint of the account view is not used, and the event log is read from its start";

impl CheckpointWriter {
    /// Writes the checkpoints that the feed orders, until the feed ends.
    pub(crate) fn run(self) {
        remove_leftovers(&self.path);
        let mut failing = false;
        while let Ok(order) = self.orders.recv() {
            let started = Instant::now();
            let in_time = || match order.until {
                Some(until) => Instant::now() < until,
                None => !self.stopping.load(Ordering::Acquire),
            };
            let database = CardDatabase { id: self.database.id, last_card: order.last_card };
            match write(&self.path, &self.view, (&order.mark, database), &in_time) {
                Ok(true) => {
                    failing = false;
                    *self.written.lock() = order.read;
                    let seconds = started.elapsed().as_secs_f64();
                    tracing::debug!(seconds, "wrote a checkpoint of the account view");
                }
                Ok(false) => tracing::debug!("abandoned a checkpoint of the account view: the service is stopping"),
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "no checkpoint of the account view can be written: starts will take longer");
                }
                Err(_) => {}
            }
        }
    }
}

fn read(path: &Path, database: u64) -> Result<Checkpoint, Unusable> {
    let checkpoint = format::read(&File::open(path)?)?;
    if checkpoint.database.id == database { Ok(checkpoint) } else { Err(Unusable::OtherDatabase) }
}

/// Writes a temporary file and renames it to `path` when it is complete. Returns whether it is.
fn write(path: &Path, view: &AccountView, head: (&Mark, CardDatabase), go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let unfinished = with_suffix(path, &format!(".{:016x}{UNFINISHED}", RandomState::new().hash_one(path)));
    // The lock keeps other instances from removing the file.
    let mut file = for_owner().open(&unfinished)?;
    file.try_lock()?;
    let written = file.set_len(0).and_then(|()| format::write(view, head, &mut file, go_on)).and_then(|complete| {
        if complete {
            fs::rename(&unfinished, path)?;
        }
        Ok(complete)
    });
    if !matches!(written, Ok(true)) {
        // A file that cannot be removed now is removed at the next start.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// The suffix of temporary files.
const UNFINISHED: &str = ".unfinished";

/// Removes temporary files of instances that were killed.
fn remove_leftovers(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = |found: &str| found.starts_with(&format!("{name}.")) && found.ends_with(UNFINISHED);
        if entry.file_name().to_str().is_some_and(is_ours)
            && File::options().write(true).open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            // A file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
