//! What the operating system says about the machine, and about the processes that are measured.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Linux reports processor time in hundredths of a second, on every architecture that Rust supports.
const TICK: Duration = Duration::from_millis(10);

/// How long [`sync_rate`] measures.
const SYNCING: Duration = Duration::from_secs(1);

/// The processor time of a process so far: all its threads, user and kernel.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the process stands in parentheses and may hold anything, a parenthesis too.
    let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat has no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next().context("no utime")??, times.next().context("no stime")??);
    Ok(TICK * (user + system))
}

/// The resident memory of a process, shared libraries included, in MiB.
pub(crate) fn resident_mebibytes(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1_024.0)
}

/// The processor, the kernel, how busy the machine was before the run, and how fast the disk under temporary files syncs.
pub(crate) fn description() -> anyhow::Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let syncs = sync_rate(&std::env::temp_dir())?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = kernel.trim();
    Ok(format!(
        "{model}, {cores} cores, Linux {kernel}; before the run: load average {load}, {syncs:.0} syncs of 4 KiB a second"
    ))
}

/// The commit that is checked out.
pub(crate) fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = output.ok().filter(|output| output.status.success());
    commit.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes of 4 KiB with `fdatasync` a second, one after the other.
fn sync_rate(folder: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < SYNCING {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[42; 4_096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
