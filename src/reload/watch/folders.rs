//! Which folders to watch for changes of a file: every folder on the way that its path and its links lead.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The folders in which there is an event when `file` is written, replaced, removed or created, or when a link on its path
/// gets another target: certbot keeps links in `live/` to files in `archive/`, Kubernetes a link to a folder of links.
pub(super) fn to_watch(file: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
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
            folders.insert(here.clone());
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
            folders.insert(here);
            break;
        }
        here = there;
    }
    folders
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
    }
}
