//! Brings to disk, bit by bit, what has been written to a file and nobody waits for yet.
//!
//! Whoever syncs a file waits for all that was written to it, and so does everyone else's sync that the disk is given meanwhile: for
//! thousands of pages, tens of milliseconds. Here they go a few at a time, with pauses in which the disk is free, so that little
//! is left for that sync. It promises nothing: what is durable is told by a sync alone, which comes after it.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The parts of a file that are written one after the other.
const PARTS: u64 = 128;

/// The disk is left alone for so many times what a part took.
const PAUSE: u32 = 4;

/// For so long at most.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A part that took less had most likely nothing to be written.
const NOTHING: Duration = Duration::from_micros(50);

/// A file whose pages are brought to disk.
///
/// It is never closed: that would take away the locks that SQLite has on the file in this process
/// (sqlite.org/howtocorrupt.html, 2.2).
pub(super) struct WriteBack(ManuallyDrop<File>);

impl WriteBack {
    /// Of the file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(WriteBack(ManuallyDrop::new(File::open(path)?)))
    }

    /// Hands to the disk what has been written so far, until all of it is there or the rest `is_urgent`. Where the system has no call for
    /// a part of a file (only Linux has), all of it waits for the next sync. An error says that the disk did not take something.
    pub(super) fn spread(&self, is_urgent: impl Fn() -> bool) -> io::Result<()> {
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        let part = length.div_ceil(PARTS).max(1);
        for from in (0..length).step_by(usize::try_from(part).unwrap_or(usize::MAX)) {
            if is_urgent() {
                // Whoever syncs it takes it all at once.
                break;
            }
            let began = Instant::now();
            write_part(&self.0, from, part)?;
            let took = began.elapsed();
            if took > NOTHING {
                thread::sleep((took * PAUSE).min(MAX_PAUSE));
            }
        }
        Ok(())
    }

    /// As [`spread`](WriteBack::spread), all at once.
    pub(super) fn all(&self) -> io::Result<()> {
        write_part(&self.0, 0, TO_THE_END)
    }
}

/// A length, as the system calls it.
const TO_THE_END: u64 = 0;

/// Writes the pages of `file` that lie in `length` bytes from `from` on, and waits for that.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn write_part(file: &File, from: u64, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let [from, length] = [from, length].map(|bytes| libc::off64_t::try_from(bytes).unwrap_or(libc::off64_t::MAX));
    // SAFETY: it takes integers, and the file is open.
    let result = unsafe {
        let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        libc::sync_file_range(file.as_raw_fd(), from, length, flags)
    };
    let error = io::Error::last_os_error();
    // Other errors are of a system without this call, or one that forbids it.
    let is_of_disk = matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT));
    if result != 0 && is_of_disk { Err(error) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn write_part(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::cell::Cell;
    use std::os::fd::AsRawFd;

    use super::*;

    fn asked(write_back: &WriteBack, urgent_from: u64) -> u64 {
        let asked = Cell::new(0);
        let is_urgent = || {
            asked.set(asked.get() + 1);
            asked.get() >= urgent_from
        };
        write_back.spread(is_urgent).expect("the disk is there");
        asked.get()
    }

    #[test]
    fn all_parts_are_written_unless_it_is_urgent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write_back = WriteBack::open(file.path()).unwrap();
        assert_eq!(asked(&write_back, u64::MAX), 0, "there is nothing");
        std::fs::write(file.path(), [42; 100_000]).unwrap();
        assert_eq!(asked(&write_back, u64::MAX), PARTS);
        assert_eq!(asked(&write_back, 3), 3);
        write_back.all().unwrap();
    }

    /// Whether this process holds a lock on `file` by another descriptor of it.
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    fn is_locked(file: &File) -> bool {
        let [kind, whence] = [libc::F_WRLCK, libc::SEEK_SET].map(|value| value as libc::c_short);
        let mut lock = libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
        // SAFETY: it fills the structure, and the file is open.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        lock.l_type != libc::F_UNLCK as libc::c_short
    }

    #[test]
    fn sqlites_locks_are_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let looking = file.as_file();
        let connection = rusqlite::Connection::open(file.path()).unwrap();
        connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(is_locked(looking));
        {
            let _write_back = WriteBack::open(file.path()).unwrap();
        }
        assert!(is_locked(looking), "closing it would take the lock away");
        drop(File::open(file.path()).unwrap());
        assert!(!is_locked(looking), "as this does");
    }
}
