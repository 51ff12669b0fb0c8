//! The log as a file.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// Of a file that is made: the owner writes, the group reads, and nobody else learns who connected.
const MODE: u32 = 0o640;

/// How often it is looked whether the file still stands under its name.
const LOOKING: Duration = Duration::from_secs(1);

/// A file that is appended to, and opened anew when it was renamed or removed, as logrotate does it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, looked: Instant::now() })
    }

    /// Appends as much of these lines as there is room for.
    fn append(&mut self, lines: &[u8], now: Instant) -> io::Result<usize> {
        if now.saturating_duration_since(self.looked) >= LOOKING {
            self.looked = now;
            // Where no other file can be opened, the old one is better than none.
            if !self.stands_under_its_name()
                && let Ok(file) = open(&self.path)
            {
                self.file = file;
            }
        }
        self.file.write(lines)
    }

    fn stands_under_its_name(&self) -> bool {
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (named, open) = (fs::metadata(&self.path).map(id), self.file.metadata().map(id));
        named.is_ok_and(|named| open.is_ok_and(|open| open == named))
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.append(lines, Instant::now())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the umask: systemd's unit has one that would leave the group nothing.
            file.set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut file = options.open(path)?;
            // Whoever killed the last gate may have done so in the middle of a line. If that cannot be seen or mended, lines
            // can be written all the same.
            if ends_within_a_line(path).is_ok_and(|torn| torn) {
                let _ = file.write_all(b"\n");
            }
            Ok(file)
        }
        Err(error) => Err(error),
    }
}

fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("a file")
    }

    #[test]
    fn a_file_is_made_for_owner_and_group_and_one_that_is_there_is_appended_to_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (new, old) = (folder.path().join("new.log"), folder.path().join("old.log"));
        fs::write(&old, "before\n").expect("a file");
        fs::set_permissions(&old, Permissions::from_mode(0o600)).expect("permissions");
        for path in [&new, &old] {
            LogFile::open(path).expect("a log").write_all(b"a line\n").expect("written");
        }
        assert_eq!((text(&new).as_str(), text(&old).as_str()), ("a line\n", "before\na line\n"));
        let mode = |path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(&new), mode(&old)), (0o640, 0o600));
    }

    /// The gate was killed, or the machine went down, while the disk was full.
    #[test]
    fn half_a_line_of_the_last_run_does_not_swallow_the_first_one_of_this() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for (before, after) in [("whole\nha", "whole\nha\n1\n"), ("whole\n", "whole\n1\n"), ("", "1\n")] {
            fs::write(&path, before).expect("a file");
            LogFile::open(&path).expect("a log").write_all(b"1\n").expect("written");
            assert_eq!(text(&path), after);
        }
    }

    #[test]
    fn a_file_that_was_renamed_or_removed_is_followed_by_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut log = LogFile::open(&at("log")).expect("a log");
        let mut now = log.looked;
        let mut append = |lines: &str, milliseconds| {
            now += Duration::from_millis(milliseconds);
            log.append(lines.as_bytes(), now).expect("written");
        };
        append("1\n", 0);
        fs::rename(at("log"), at("log.1")).expect("renamed");
        append("2\n", 999);
        assert!(!at("log").exists(), "it is not looked at every line");
        append("3\n", 1);
        append("4\n", 5000);
        fs::remove_file(at("log.1")).expect("removed");
        append("5\n", 5000);
        assert_eq!(text(&at("log")), "3\n4\n5\n");

        // copytruncate, which other configurations of logrotate have.
        File::create(at("log")).expect("truncated");
        append("6\n", 5000);
        assert_eq!(text(&at("log")), "6\n");

        // Made anew by logrotate.
        fs::rename(at("log"), at("log.1")).expect("renamed");
        fs::write(at("log"), "").expect("a file");
        append("7\n", 5000);
        assert_eq!((text(&at("log")).as_str(), text(&at("log.1")).as_str()), ("7\n", "6\n"));
    }

    #[test]
    fn where_no_new_file_can_be_opened_the_old_one_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inner, moved) = (folder.path().join("inner"), folder.path().join("moved"));
        fs::create_dir(&inner).expect("a folder");
        let mut log = LogFile::open(&inner.join("log")).expect("a log");
        fs::rename(&inner, &moved).expect("renamed");
        let later = log.looked + LOOKING;
        log.append(b"1\n", later).expect("written");
        assert_eq!(text(&moved.join("log")), "1\n");
        fs::create_dir(&inner).expect("a folder");
        log.append(b"2\n", later + LOOKING).expect("written");
        assert_eq!(text(&inner.join("log")), "2\n");
    }
}
