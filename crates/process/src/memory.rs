//! Memory that the system provides before it is written to.

use std::mem::MaybeUninit;

/// Has the system provide all pages of `memory` at once, which is about to be filled: for pieces of some hundred KiB and more, for
/// which it would be called once a page otherwise.
///
/// Where it cannot (only Linux can, since 5.14), pages come as they are written to.
#[cfg_attr(target_os = "linux", expect(unsafe_code, reason = "the standard library has no such call"))]
pub fn provide_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: sysconf takes an integer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Some(page) = usize::try_from(page).ok().filter(|page| page.is_power_of_two()) else { return };
        let before_first = memory.as_ptr().cast::<u8>().align_offset(page);
        let length = size_of_val(memory).saturating_sub(before_first) / page * page;
        if length == 0 {
            return;
        }
        let first = memory.as_mut_ptr().wrapping_byte_add(before_first);
        // SAFETY: the pages lie in `memory`, and what is in them stays as it is.
        unsafe { libc::madvise(first.cast(), length, libc::MADV_POPULATE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Page faults of this thread so far.
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    fn faults() -> libc::c_long {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: it fills the structure, of which zeros are a value.
        unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init().ru_minflt
        }
    }

    /// Memory that was filled, and how often the system was called for pages meanwhile.
    fn filled(provide: impl FnOnce(&mut [MaybeUninit<u64>])) -> (Vec<u64>, libc::c_long) {
        const LENGTH: usize = 64 << 20;
        let mut memory = Vec::<u64>::with_capacity(LENGTH / size_of::<u64>());
        provide(memory.spare_capacity_mut());
        let before = faults();
        memory.resize(memory.capacity(), 1);
        let faults = faults() - before;
        assert!(memory.iter().all(|word| *word == 1));
        (memory, faults)
    }

    #[test]
    fn pages_are_there_before_they_are_written_to() {
        // Both are held at once, so that neither has the other one's pages.
        let (_first, without) = filled(|_| ());
        let (_second, with) = filled(provide_pages);
        // Where pages are huge ones, there are few either way.
        assert!(with * 10 < without || without < 1_000, "{with} and {without}");
    }

    #[test]
    fn what_has_no_whole_page_is_left_alone() {
        provide_pages(&mut [MaybeUninit::<u8>::uninit(); 10]);
        provide_pages::<u8>(&mut []);
    }
}
