//! Which file descriptors are open: `fcntl(F_GETFD)` for each, which needs no `/proc`.

use std::os::raw::c_int;

/// Higher ones are not looked at: the kernel always gives the lowest that is free.
const LOOKED_AT: usize = 4096;

/// How many descriptors below `limit` the process has open.
pub fn held(limit: usize) -> usize {
    let highest = c_int::try_from(limit.min(LOOKED_AT)).unwrap_or(c_int::MAX);
    (0..highest).filter(|&descriptor| is_open(descriptor)).count()
}

fn is_open(descriptor: c_int) -> bool {
    #[expect(unsafe_code, reason = "there is no safe call that takes a descriptor that may not be open")]
    // SAFETY: F_GETFD takes no pointer, changes nothing, and answers EBADF where nothing is open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    flags != -1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_seen_when_they_are_open() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/dev/null").expect("a file");
        let descriptor = file.as_raw_fd();
        assert!(is_open(descriptor));
        assert!((1..=LOOKED_AT).contains(&held(usize::MAX)));
        assert_eq!(held(0), 0);
        assert!(!is_open(c_int::MAX));
    }
}
