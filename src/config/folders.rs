//! The folders on the way that the path of a file and its links lead: where to watch for its changes, and where its next contents
//! may be.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A folder on the way to a file.
struct Stop {
    folder: PathBuf,
    /// Whether the next part of the path is a link that leads out of this folder.
    leaves: bool,
    /// Whether the file itself, or a link in its place, is in this folder.
    is_last: bool,
}

/// The folders in which there is an event when `file` is written, replaced, removed or created, or when a link on its path
/// gets another target: certbot keeps links in `live/` to files in `archive/`, Kubernetes a link to a folder of links.
pub(crate) fn to_watch(file: &Path) -> BTreeSet<PathBuf> {
    stops(file).into_iter().map(|stop| stop.folder).collect()
}

/// The folders in which the contents of `file` may be after it, or a link to it, is replaced. The folder of a link that leads
/// elsewhere on the way, such as `/var` for `/var/run/doorward/key.pem`, is none of them.
pub(crate) fn to_read(file: &Path) -> BTreeSet<PathBuf> {
    stops(file).into_iter().filter(|stop| stop.is_last || !stop.leaves).map(|stop| stop.folder).collect()
}

/// Whether `file` is in `folder` or below it, which contains no links.
pub(crate) fn is_above(folder: &Path, file: &Path) -> bool {
    to_read(file).iter().any(|at| at.starts_with(folder))
}

fn stops(file: &Path) -> Vec<Stop> {
    let mut stops = Vec::new();
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut ahead: VecDeque<OsString> = absolute.components().map(|part| part.as_os_str().to_owned()).collect();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        let there = match Path::new(&part).components().next() {
            Some(Component::RootDir) => PathBuf::from("/"),
            // `here` contains no links, so `..` is its parent.
            Some(Component::ParentDir) => here.parent().unwrap_or(&here).to_owned(),
            _ => here.join(&part),
        };
        if let Ok(target) = fs::read_link(&there) {
            let stays = target.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            stops.push(Stop { folder: here.clone(), leaves: !stays, is_last: ahead.is_empty() });
            links += 1;
            if links > LINKS_MAX {
                break;
            }
            for part in target.components().rev() {
                ahead.push_front(part.as_os_str().to_owned());
            }
            continue;
        }
        if ahead.is_empty() || !there.exists() {
            // The file, or the first missing part of the path, which may be created.
            stops.push(Stop { folder: here, leaves: false, is_last: true });
            break;
        }
        here = there;
    }
    stops
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_behind_links_are_watched() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        let found = |name: &str| {
            let found = to_watch(&at(name));
            // The temporary folder may be behind links as well.
            found.into_iter().filter(|folder| folder.starts_with(root.path())).collect::<Vec<_>>()
        };
        for folder in ["plain", "live/home", "archive/home", "k8s/..2026_11", "deep/er"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        for file in ["plain/key.pem", "archive/home/key1.pem", "k8s/..2026_11/key.pem", "deep/er/key.pem"] {
            fs::write(at(file), "key").expect("a file");
        }
        symlink("../../archive/home/key1.pem", at("live/home/key.pem")).expect("a link");
        symlink("..2026_11", at("k8s/..data")).expect("a link");
        symlink("..data/key.pem", at("k8s/key.pem")).expect("a link");
        symlink(at("deep"), at("plain/shallow")).expect("a link");
        symlink("loop", at("plain/loop")).expect("a link");

        assert_eq!(found("plain/key.pem"), [at("plain")]);
        assert_eq!(found("live/home/key.pem"), [at("archive/home"), at("live/home")]);
        assert_eq!(found("k8s/key.pem"), [at("k8s"), at("k8s/..2026_11")]);
        assert_eq!(found("plain/shallow/er/key.pem"), [at("deep/er"), at("plain")]);
        assert_eq!(found("plain/loop"), [at("plain")]);
        // A missing file may be created.
        assert_eq!(found("plain/none.pem"), [at("plain")]);
        assert_eq!(found("plain/none/none.pem"), [at("plain")]);

        let read = |name: &str| {
            let found = to_read(&at(name));
            found.into_iter().filter(|folder| folder.starts_with(root.path())).collect::<Vec<_>>()
        };
        assert_eq!(read("live/home/key.pem"), [at("archive/home"), at("live/home")]);
        assert_eq!(read("k8s/key.pem"), [at("k8s"), at("k8s/..2026_11")]);
        for (folder, above) in
            [("plain", false), ("live", true), ("archive", true), ("archive/home", true), ("k8s", false)]
        {
            assert_eq!(is_above(&at(folder), &at("live/home/key.pem")), above, "{folder}");
        }
        // The link on the way leads to another folder, which is read; the one that it is in is not.
        assert_eq!(read("plain/shallow/er/key.pem"), [at("deep/er")]);
    }
}
