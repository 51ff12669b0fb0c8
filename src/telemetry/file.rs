//! The log as a file.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::log::Output;

/// The mode of a new file: the owner writes, the group reads, others have no access to addresses and names of clients.
const MODE: u32 = 0o640;

/// A file that is appended to, and opened anew when it was renamed or removed, as logrotate does it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// No name leads to the file any more, and no other one could be opened: what is written to it is lost.
    is_deleted: bool,
}

impl LogFile {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, is_deleted: false })
    }

    fn stands_under_its_name(&self) -> bool {
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (named, open) = (fs::metadata(&self.path).map(id), self.file.metadata().map(id));
        named.is_ok_and(|named| open.is_ok_and(|open| open == named))
    }
}

impl Output for LogFile {
    fn look(&mut self) -> Result<(), String> {
        if self.stands_under_its_name() {
            self.is_deleted = false;
            return Ok(());
        }
        match open(&self.path) {
            Ok(file) => {
                (self.file, self.is_deleted) = (file, false);
                Ok(())
            }
            Err(error) => {
                // While the old one has another name, it is better than none.
                self.is_deleted = self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
                let old = if self.is_deleted { "was deleted" } else { "has another name now, and is written to" };
                Err(format!(
                    "cannot open {}: {error}\n  the file that was there before {old}; lines go to stderr as well\n  if \
                     logrotate made it, write nocreate, copytruncate, or create with the user that doorward runs as",
                    self.path.display()
                ))
            }
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.is_deleted { Err(io::ErrorKind::NotFound.into()) } else { self.file.write(lines) }
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
            // Whatever the umask: systemd's unit has one that would leave the group nothing. Some file systems refuse it,
            // and have modes of their own.
            let _ = file.set_permissions(Permissions::from_mode(MODE));
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // To open a FIFO without a reader would wait for one.
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let mut file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
            fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
            // The last gate may have been killed in the middle of a line. If that cannot be seen or mended, lines can be
            // written all the same.
            if file.metadata()?.is_file() && ends_within_a_line(path).is_ok_and(|torn| torn) {
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
    fn new_file_is_for_owner_and_group_existing_one_is_appended() {
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
    fn torn_line_of_the_last_run_is_ended_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for (before, after) in [("whole\nha", "whole\nha\n1\n"), ("whole\n", "whole\n1\n"), ("", "1\n")] {
            fs::write(&path, before).expect("a file");
            LogFile::open(&path).expect("a log").write_all(b"1\n").expect("written");
            assert_eq!(text(&path), after);
        }
    }

    /// Looks after the file and appends to it.
    fn append(log: &mut LogFile, lines: &str) -> Result<(), String> {
        let looked = log.look();
        log.write_all(lines.as_bytes()).map_err(|error| error.to_string())?;
        looked
    }

    #[test]
    fn row_49_a_renamed_or_removed_file_is_followed_by_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut log = LogFile::open(&at("log")).expect("a log");
        let mut append = |lines| append(&mut log, lines).expect("written");
        append("1\n");
        fs::rename(at("log"), at("log.1")).expect("renamed");
        append("3\n");
        append("4\n");
        fs::remove_file(at("log.1")).expect("removed");
        append("5\n");
        assert_eq!(text(&at("log")), "3\n4\n5\n");

        // copytruncate, which other configurations of logrotate have.
        File::create(at("log")).expect("truncated");
        append("6\n");
        assert_eq!(text(&at("log")), "6\n", "no hole");

        // Made anew by logrotate.
        fs::rename(at("log"), at("log.1")).expect("renamed");
        fs::write(at("log"), "").expect("a file");
        append("7\n");
        assert_eq!((text(&at("log")).as_str(), text(&at("log.1")).as_str()), ("7\n", "6\n"));

        // Behind a symbolic link.
        fs::rename(at("log"), at("target")).expect("renamed");
        std::os::unix::fs::symlink(at("target"), at("log")).expect("a link");
        append("8\n");
        fs::write(at("other"), "").expect("a file");
        fs::remove_file(at("log")).expect("removed");
        std::os::unix::fs::symlink(at("other"), at("log")).expect("a link");
        append("9\n");
        assert_eq!((text(&at("target")).as_str(), text(&at("other")).as_str()), ("7\n8\n", "9\n"));
    }

    #[test]
    fn row_49_where_no_new_file_can_be_opened_that_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inner, moved) = (folder.path().join("inner"), folder.path().join("moved"));
        fs::create_dir(&inner).expect("a folder");
        let path = inner.join("log");
        let mut log = LogFile::open(&path).expect("a log");
        fs::rename(&inner, &moved).expect("renamed");
        let told = append(&mut log, "1\n").expect_err("its folder is gone");
        assert!(told.contains(&format!("cannot open {}: No such file", path.display())), "{told}");
        assert!(told.contains("has another name now"), "{told}");
        assert_eq!(text(&moved.join("log")), "1\n", "the old one is better than none");
        fs::remove_file(moved.join("log")).expect("removed");
        assert!(log.look().expect_err("there is none").contains("was deleted"));
        assert_eq!(log.write(b"2\n").expect_err("it would be lost").kind(), io::ErrorKind::NotFound);
        fs::create_dir(&inner).expect("a folder");
        append(&mut log, "3\n").expect("there is one again");
        assert_eq!(text(&path), "3\n");

        // Neither is a file, and to open the second one would wait for a reader.
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        assert!(log.look().expect_err("a folder").contains("Is a directory"));
        fs::remove_dir(&path).expect("removed");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
        assert!(log.look().expect_err("a FIFO").contains("No such device"));
        fs::remove_file(&path).expect("removed");
        append(&mut log, "4\n").expect("there is one again");
        assert_eq!(text(&path), "4\n");
    }
}
