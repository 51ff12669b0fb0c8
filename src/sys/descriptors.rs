//! Counts open file descriptors by `fcntl(F_GETFD)`, which needs no `/proc`.

use std::os::raw::c_int;

/// Higher descriptors are not counted: the kernel always assigns the lowest free one.
const HIGHEST: usize = 4096;

/// How many descriptors below `limit` the process has open.
pub fn count_open(limit: usize) -> usize {
    let highest = c_int::try_from(limit.min(HIGHEST)).unwrap_or(c_int::MAX);
    (0..highest).filter(|&descriptor| is_open(descriptor)).count()
}

fn is_open(descriptor: c_int) -> bool {
    #[expect(unsafe_code, reason = "no safe call takes a descriptor that may be closed")]
    // SAFETY: F_GETFD takes no pointer, changes nothing, and answers EBADF where nothing is open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    flags != -1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_counted() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/dev/null").expect("a file");
        let descriptor = file.as_raw_fd();
        assert!(is_open(descriptor));
        assert!((1..=HIGHEST).contains(&count_open(usize::MAX)));
        assert_eq!(count_open(0), 0);
        assert!(!is_open(c_int::MAX));
    }
}
