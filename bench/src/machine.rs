//! What the machine says of itself: the processor time of a process, and how fast its disk syncs.

use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::figure::{Figure, Unit};

/// Linux counts processor time for programs in hundredths of a second, on every architecture that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// How long syncs are counted.
const SYNCING: Duration = Duration::from_secs(1);

/// Bytes written before each sync: a page of most file systems, and less than any commit writes.
const SYNCED_BYTES: usize = 4_096;

/// The processor time that the process has used so far, all its threads together, in programs and in the kernel.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the process stands in parentheses and may hold anything, a parenthesis too.
    let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat has no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next().context("no utime")??, times.next().context("no stime")??);
    Ok(TICK * (user + system))
}

/// The processor time that this thread has used since it began.
pub(crate) fn thread_time() -> anyhow::Result<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = told.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Bytes of a process's memory by the name that `/proc` has for them, which counts KiB; shared libraries included.
pub(crate) fn status_bytes(process: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").trim();
    Ok(kib.parse::<u64>()? * 1_024)
}

/// [`sync_rate`] as a line of the table, which every table has: disks differ more than anything else here.
pub(crate) fn syncs() -> anyhow::Result<Figure> {
    Ok(Figure::new("4 KiB written and synced, one after the other", sync_rate()?, Unit::PerSecond))
}

/// Writes and `fdatasync`s a second, one after the other on the disk that temporary files are on: nothing that is durable
/// one at a time is faster.
pub(crate) fn sync_rate() -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile()?;
    let bytes = [42; SYNCED_BYTES];
    let mut sync = || {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_data()
    };
    // The first one makes room for the file.
    sync()?;
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < SYNCING {
        sync()?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_processor_time() {
        let (before, thread_before) = (processor_time(std::process::id()).unwrap(), thread_time().unwrap());
        test_harness::wait_until("the time shows", || {
            let until = Instant::now() + TICK;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            (processor_time(std::process::id()).unwrap() > before).then_some(())
        });
        assert!(thread_time().unwrap() > thread_before);
    }
}
