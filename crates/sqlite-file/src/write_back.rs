//! Paced write-back: writes dirty pages of a file to the disk in small parts, before an fsync has to.
//!
//! An fsync waits for every dirty page of the file and delays other syncs of the same disk. PostgreSQL
//! (`checkpoint_flush_after`) and RocksDB (`bytes_per_sync`) pace their writes the same way. Write-back does not make
//! anything durable: the fsync after it does. Only Linux can write back a part of a file; elsewhere nothing happens here.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The number of parts of a file.
const PARTS: u64 = 128;

/// The pause after a part, as a multiple of its write's duration.
const PAUSE_FACTOR: u32 = 4;

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A shorter write most likely had no dirty page, and needs no pause.
const CLEAN: Duration = Duration::from_micros(50);

/// A length that means "to the end of the file" (`sync_file_range(2)`).
const TO_THE_END: u64 = 0;

/// Writes the dirty pages of `file` back with pauses, until all are written or `is_urgent`: then the next fsync writes the
/// rest. Returns the disk's error.
pub(crate) fn write_back_paced(file: &File, is_urgent: impl Fn() -> bool) -> io::Result<()> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let part = length.div_ceil(PARTS).max(1);
    for from in (0..length).step_by(usize::try_from(part).unwrap_or(usize::MAX)) {
        if is_urgent() {
            break;
        }
        let began = Instant::now();
        write_back(file, from, part)?;
        let took = began.elapsed();
        if took > CLEAN {
            thread::sleep((took * PAUSE_FACTOR).min(MAX_PAUSE));
        }
    }
    Ok(())
}

/// Writes all dirty pages of `file` back.
pub(crate) fn write_back_all(file: &File) -> io::Result<()> {
    write_back(file, 0, TO_THE_END)
}

/// Writes back the pages in `length` bytes after `from`, and waits until the disk has them.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn write_back(file: &File, from: u64, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let [from, length] = [from, length].map(|bytes| libc::off64_t::try_from(bytes).unwrap_or(libc::off64_t::MAX));
    // SAFETY: it takes integers, and the file is open.
    let result = unsafe {
        let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        libc::sync_file_range(file.as_raw_fd(), from, length, flags)
    };
    let error = io::Error::last_os_error();
    // Any other error means that the system lacks or forbids this call.
    let is_disk_error = matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT));
    if result != 0 && is_disk_error { Err(error) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn write_back(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn asked(file: &File, urgent_from: u64) -> u64 {
        let asked = Cell::new(0);
        let is_urgent = || {
            asked.set(asked.get() + 1);
            asked.get() >= urgent_from
        };
        write_back_paced(file, is_urgent).expect("the disk is there");
        asked.get()
    }

    #[test]
    fn all_parts_are_written_unless_it_is_urgent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = file.reopen().unwrap();
        assert_eq!(asked(&opened, u64::MAX), 0, "there is nothing");
        std::fs::write(file.path(), [42; 100_000]).unwrap();
        assert_eq!(asked(&opened, u64::MAX), PARTS);
        assert_eq!(asked(&opened, 3), 3);
        write_back_all(&opened).unwrap();
    }
}
