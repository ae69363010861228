//! The checkpoint file: where it is, when it is written and by whom, and what becomes of it at a start.
//!
//! The feed takes a mark of how far it has read now and then, which costs it nothing, and hands it to a thread of its own,
//! [`CheckpointWriter`], which writes the view. At a start the feed loads the file and reads on from its samples. Only when
//! they have shown that the log is the same one does the view count, and are the deleted accounts in it closed anew
//! (ARCHITECTURE.md C4). In any other case the log is read from its start, and a line says why.
//!
//! Instances may share a file: each writes one of its own and renames it, and any of them is as good as another. Nothing is
//! synced: a torn file is noticed.

pub(crate) mod samples;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_log::Positions;
use postgres::DatabaseUrl;
use sqlite_file::{create_folder, for_owner, warn_of_exposed};

use crate::accounts::checkpoint::samples::{Mark, Sample, Samples, Verdict};
use crate::accounts::view::format::{self, Checkpoint, Unusable};
use crate::accounts::view::{AccountView, ViewWriter};
use crate::http::error::CardError;
use crate::store::Store;

/// How long what was read is not in any checkpoint, at most, while the view is ready.
const INTERVAL: Duration = Duration::from_secs(300);

/// How long the last checkpoint may take, when the service ends: less than the end waits for its loops.
const LAST_TIME: Duration = Duration::from_secs(4);

/// The file's name, where the cards are not in a file beside which it could be.
const NAME: &str = "card-account-view.checkpoint";

/// Where the checkpoint is: beside the database's file, or else in `data_dir`.
pub(crate) fn path(database: &DatabaseUrl, data_dir: &Path) -> PathBuf {
    match database {
        DatabaseUrl::Sqlite(path) => with_suffix(path, ".view"),
        DatabaseUrl::Postgres(_) => data_dir.join(NAME),
    }
}

/// What is to be written.
struct Order {
    mark: Mark,
    /// How far the log was read by then, which may be farther than it is durable.
    read: Positions,
    /// Until when, if it is the last one; others are given up when the service ends.
    until: Option<Instant>,
}

/// The feed's side.
pub(crate) struct Checkpoints {
    path: PathBuf,
    orders: SyncSender<Order>,
    /// How far the log was read for the checkpoint that is there.
    written: Arc<Mutex<Positions>>,
    due: Instant,
    samples: Samples,
    /// Whether the view is that of a checkpoint of which it is not known yet that it is of this log.
    unproven: Option<Mark>,
    /// Where the log's partitions begin.
    starts: Positions,
    /// The first shard whose deleted accounts are still to be closed.
    unclosed: Option<usize>,
}

/// The side of the thread that writes.
pub(crate) struct CheckpointWriter {
    path: PathBuf,
    orders: Receiver<Order>,
    written: Arc<Mutex<Positions>>,
    view: AccountView,
    stopping: Arc<AtomicBool>,
}

/// Both sides.
pub(crate) fn checkpoints(
    path: PathBuf,
    view: AccountView,
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
        unclosed: None,
    };
    (feed, CheckpointWriter { path, orders, written, view, stopping })
}

impl Checkpoints {
    /// Fills the empty view from the file, if that can be, and returns where to read on.
    pub(crate) fn load(&mut self, view: &mut ViewWriter) -> Positions {
        let started = Instant::now();
        warn_of_exposed(&[&self.path]);
        match read(&self.path) {
            Ok(checkpoint) => {
                let mark = checkpoint.mark.clone();
                let accounts = view.restore(checkpoint);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(accounts, seconds, "the account view comes from its checkpoint");
                self.samples = Samples::expecting(mark.clone());
                *lock(&self.written) = mark.positions();
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

    /// Takes note of where the log's partitions begin.
    pub(crate) fn note_starts(&mut self, starts: Positions) {
        self.starts = starts;
        self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }

    /// What the log no longer has, each as a line for a person.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let known = lock(&self.written);
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

    /// Takes samples of the log, each with its partition, in the order of reading.
    pub(crate) fn take(&mut self, samples: &[(u32, Sample)]) {
        samples.iter().for_each(|(partition, sample)| self.samples.take(*partition, *sample));
    }

    /// Clears the view if it is another log's that ends at `ends`; returns whether it was so.
    pub(crate) fn contradicted(&mut self, view: &mut ViewWriter, ends: &Positions) -> bool {
        match self.unproven.as_ref().and_then(|mark| mark.contradiction(ends)) {
            Some(reason) => self.give_up(view, &reason),
            None => false,
        }
    }

    /// Clears the view if the log, read up to `positions`, and `to_the_end` or not, is found to be another one than that of
    /// the checkpoint; returns whether it was so.
    pub(crate) fn disproved(&mut self, view: &mut ViewWriter, positions: &Positions, to_the_end: bool) -> bool {
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
        // Another log may come to look like the one that it was made of. If it cannot be removed, it is replaced at the end.
        let _ = fs::remove_file(&self.path);
        (self.samples, self.unproven) = (Samples::default(), None);
        *lock(&self.written) = Positions::new();
        true
    }

    /// How far the log was read when the checkpoint was made, while it is not known whether it was this log: what is before
    /// that is in the view.
    pub(crate) fn known(&self) -> Positions {
        self.unproven.as_ref().map(Mark::positions).unwrap_or_default()
    }

    /// Has the accounts that are deleted in the checkpoint closed in the card database, which may be an older copy that does
    /// not know, as long as it may `go_on`. Returns whether all are; called again, it goes on.
    pub(crate) fn close_deleted(
        &mut self,
        view: &ViewWriter,
        store: &Store,
        at_once: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Result<bool, CardError> {
        if self.unproven.is_some() {
            return Ok(false);
        }
        while let Some(shard) = self.unclosed
            && go_on()
        {
            let closed = view.each_deleted(shard, at_once, |accounts| store.close_accounts(accounts)).transpose()?;
            self.unclosed = closed.map(|()| shard + 1);
        }
        Ok(self.unclosed.is_none())
    }

    /// Has a checkpoint written, if it is time for one: of the log that was read up to the first of the `positions`, and is
    /// durable up to the second.
    pub(crate) fn write_if_due(&mut self, positions: impl FnOnce() -> (Positions, Positions)) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        if let Some(order) = self.order(positions(), None) {
            // One that is still being written makes up for it.
            let _ = self.orders.try_send(order);
        }
    }

    /// Has the last checkpoint written, of the same.
    pub(crate) fn write_last(&mut self, positions: (Positions, Positions)) {
        if let Some(order) = self.order(positions, Some(Instant::now() + LAST_TIME)) {
            // The writer is there, unless it panicked and has said so.
            let _ = self.orders.send(order);
        }
    }

    /// None if nothing was read since the last one.
    fn order(&self, (read, durable): (Positions, Positions), until: Option<Instant>) -> Option<Order> {
        if read == *lock(&self.written) {
            return None;
        }
        Some(Order { mark: self.samples.mark(&durable)?, read, until })
    }
}

const NOT_USED: &str = "the checkpoint of the account view is not used, and the event log is read from its start";

impl CheckpointWriter {
    /// Writes what the feed orders, until there is no feed.
    pub(crate) fn run(self) {
        remove_leftovers(&self.path);
        let mut failing = false;
        while let Ok(order) = self.orders.recv() {
            let started = Instant::now();
            let in_time = || match order.until {
                Some(until) => Instant::now() < until,
                None => !self.stopping.load(Ordering::Acquire),
            };
            match write(&self.path, &self.view, &order.mark, &in_time) {
                Ok(true) => {
                    failing = false;
                    *lock(&self.written) = order.read;
                    let seconds = started.elapsed().as_secs_f64();
                    tracing::debug!(seconds, "wrote a checkpoint of the account view");
                }
                Ok(false) => tracing::debug!("gave up a checkpoint of the account view, to end in time"),
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "no checkpoint of the account view can be written: starts will take longer");
                }
                Err(_) => {}
            }
        }
    }
}

fn read(path: &Path) -> Result<Checkpoint, Unusable> {
    format::read(&File::open(path)?)
}

/// Writes beside `path`, and takes its place when it is complete. Returns whether it is.
fn write(path: &Path, view: &AccountView, mark: &Mark, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let unfinished = with_suffix(path, &format!(".{:016x}{UNFINISHED}", RandomState::new().hash_one(path)));
    // Locked, so that no other instance takes it for a leftover.
    let mut file = for_owner().open(&unfinished)?;
    file.try_lock()?;
    let written = file.set_len(0).and_then(|()| format::write(view, mark, &mut file, go_on)).and_then(|complete| {
        if complete {
            fs::rename(&unfinished, path)?;
        }
        Ok(complete)
    });
    if !matches!(written, Ok(true)) {
        // A leftover is removed at the next start.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// What the name of a file that is being written ends with.
const UNFINISHED: &str = ".unfinished";

/// Removes what an instance that was killed has not finished.
fn remove_leftovers(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = |found: &str| found.starts_with(&format!("{name}.")) && found.ends_with(UNFINISHED);
        if entry.file_name().to_str().is_some_and(is_ours)
            && File::options().write(true).open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            // If it cannot be removed it is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn lock(written: &Mutex<Positions>) -> std::sync::MutexGuard<'_, Positions> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
