//! How many files and connections the process may have open.

use std::io;

use tracing::warn;

/// Raises the soft limit on open file descriptors to the hard limit, and returns the limit in force. The soft limit is
/// 1,024 by custom, for programs that use `select`, which this one does not.
#[expect(unsafe_code, reason = "the standard library knows no resource limits")]
pub fn raise_descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes to the struct that it is given a pointer to, and to nothing else. It does not fail for this resource.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: setrlimit reads the struct that it is given a pointer to, and nothing else.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    } else {
        warn!(error = %io::Error::last_os_error(), limit = limit.rlim_cur, "the limit on open files is not raised");
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}
