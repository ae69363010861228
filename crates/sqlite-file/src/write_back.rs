//! Paced write-back: hands written pages of a file to the disk a few at a time, before anybody waits for them.
//!
//! An fsync waits for every page of the file that is still to be written, and delays other syncs of the same disk: for
//! thousands of pages, tens of milliseconds. PostgreSQL (`checkpoint_flush_after`) and RocksDB (`bytes_per_sync`) pace the
//! same way. Write-back promises nothing: only the fsync after it makes the pages durable.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Into so many parts a file is divided.
const PARTS: u64 = 128;

/// The pause after a part, in multiples of the time that its write took.
const PAUSE: u32 = 4;

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A part that took less had most likely no page to be written.
const NOTHING: Duration = Duration::from_micros(50);

/// A file whose pages are written back.
pub(super) struct WriteBack(pub(super) Arc<File>);

impl WriteBack {
    /// Writes back what has been written so far, until all of it is on disk or `is_urgent`: then the next fsync takes the
    /// rest. Only Linux can write back a part of a file. An error says that the disk did not take a page.
    pub(super) fn spread(&self, is_urgent: impl Fn() -> bool) -> io::Result<()> {
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        let part = length.div_ceil(PARTS).max(1);
        for from in (0..length).step_by(usize::try_from(part).unwrap_or(usize::MAX)) {
            if is_urgent() {
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
    use super::*;
    use std::cell::Cell;

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
        let write_back = WriteBack(Arc::new(file.reopen().unwrap()));
        assert_eq!(asked(&write_back, u64::MAX), 0, "there is nothing");
        std::fs::write(file.path(), [42; 100_000]).unwrap();
        assert_eq!(asked(&write_back, u64::MAX), PARTS);
        assert_eq!(asked(&write_back, 3), 3);
        write_back.all().unwrap();
    }
}
