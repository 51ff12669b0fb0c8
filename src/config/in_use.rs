//! Whether a running gate uses a configuration: it holds a lock on the file and on its folder (flock(2)), which shows whatever
//! namespaces the gate runs in, and whether or not it has a control socket.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// Commands hold the lock for an instant to see whether they can have it.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Shows that a configuration is in use, until it is dropped. The folder is marked as well: an editor may put another file in
/// the place of the one that was read.
#[derive(Debug)]
pub(crate) struct InUse {
    _marks: Vec<File>,
}

impl InUse {
    /// Marks `file` as far as that is possible.
    pub(crate) fn mark(file: &Path) -> Self {
        let marks = [file, folder(file)].into_iter().filter_map(|place| {
            let open = open(place).ok()?;
            taken(&open, FlockOperation::NonBlockingLockShared).ok()?.then_some(open)
        });
        Self { _marks: marks.collect() }
    }
}

/// Whether a gate runs with this configuration, or with another one in the same folder.
///
/// # Errors
/// If that cannot be seen.
pub(crate) fn is_in_use(file: &Path) -> io::Result<bool> {
    Ok(is_marked(file)? || is_marked(folder(file))?)
}

/// Whether a gate runs with this very file.
///
/// # Errors
/// If that cannot be seen.
pub(crate) fn is_file_in_use(file: &Path) -> io::Result<bool> {
    is_marked(file)
}

/// The process of this program that runs with this very file, by the kernel's table of locks (proc(5), `/proc/locks`); `None`
/// if there is none, or it is not visible from here.
pub(crate) fn process(file: &Path) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    let name = |process: &str| fs::read_to_string(format!("/proc/{process}/comm")).ok();
    let (own, own_name) = (std::process::id(), name("self")?);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "READ", process, place, ..] = *fields.as_slice() else { return None };
        // The number of the device may be another one than that of its files (btrfs).
        let (_, number) = place.rsplit_once(':')?;
        let pid = process.parse().ok().filter(|pid| *pid != own)?;
        (number.parse() == Ok(inode) && name(process)? == own_name).then_some(pid)
    })
}

fn is_marked(place: &Path) -> io::Result<bool> {
    Ok(!taken(&open(place)?, FlockOperation::NonBlockingLockExclusive)?)
}

/// Does not wait for a writer if the file is a FIFO.
fn open(place: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(place)
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn taken(file: &File, operation: FlockOperation) -> io::Result<bool> {
    for attempt in 1.. {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if attempt == TRIES => return Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => sleep(PAUSE),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_in_the_place_of_a_configuration_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("doorward.toml");
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("a FIFO");
        assert!(!is_in_use(&file).expect("it can be seen"));
        let mark = InUse::mark(&file);
        assert!(is_in_use(&file).expect("it can be seen"));
        drop(mark);
    }

    #[test]
    fn configuration_is_in_use_until_its_mark_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("doorward.toml");
        fs::write(&file, "").expect("a file");
        let in_use = || is_in_use(&file).expect("it can be seen");
        assert!(!in_use());
        let (one, other) = (InUse::mark(&file), InUse::mark(&file));
        assert!(in_use());
        drop(one);
        // Another file in its place changes nothing.
        fs::remove_file(&file).expect("removed");
        fs::write(&file, "").expect("a file");
        assert!(in_use());
        drop(other);
        assert!(!in_use());
        assert!(is_in_use(&folder.path().join("none.toml")).is_err());
    }
}
