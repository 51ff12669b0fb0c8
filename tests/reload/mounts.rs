//! Files where inotify says nothing: a change in place must be seen all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use doorward::model::close::CloseReason;
use rcgen::SerialNumber;

use crate::NAS;
use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{after_script, mounting, run, tool, wait_until};
use crate::home::House;

const LIST: &str = "clients.crl";

/// A gate reads a revocation list from `seen_at/clients.crl`, which shows `written_to/clients.crl` once `mount` has run in
/// the gate's mount namespace. The list is replaced by one that revokes a device that is connected, and the gate must cut
/// it.
#[track_caller]
fn assert_change_is_seen(pki: &TestPki, written_to: &Path, seen_at: &Path, mount: &str, write: impl Fn(&Path, &str)) {
    let backend = Backend::echo();
    let list = |revoked: &[SerialNumber]| pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5));
    fs::write(written_to.join(LIST), list(&[])).unwrap();
    let mut params = Certified::for_clients("carol-phone");
    params.serial_number = Some(SerialNumber::from(77));
    let carol = client(pki, Some(&pki.clients.issue(params)));
    let lists = format!("revocation_lists = [{:?}]", seen_at.join(LIST));
    let config = House::new(pki).client_auth(&lists).route("nas", backend.address()).config();
    let gate = Gate::start_with(&config, |command| *command = after_script(mounting(), mount, command));
    let session = Client::admitted(gate.address(), &carol, NAS).unwrap();
    session.ping().unwrap();
    write(&written_to.join(LIST), &list(&[SerialNumber::from(77)]));
    gate.wait_for_line("an automatic reload", |line| line["cause"] == "watch" && line["event"] == "reloaded");
    assert_eq!(session.end(), End::of(CloseReason::Revoked));
}

fn in_place(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

fn renamed_over(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Two empty folders of this name.
fn folders(pki: &TestPki) -> [PathBuf; 2] {
    ["written-to", "seen-at"].map(|name| {
        let folder = pki.path(name);
        fs::create_dir(&folder).unwrap();
        folder
    })
}

#[test]
fn row_37_single_mounted_file_is_watched() {
    let pki = TestPki::new();
    let [written_to, seen_at] = folders(&pki);
    fs::write(seen_at.join(LIST), "").unwrap();
    let mount = format!("mount --bind '{}/{LIST}' '{}/{LIST}'", written_to.display(), seen_at.display());
    assert_change_is_seen(&pki, &written_to, &seen_at, &mount, in_place);
}

#[test]
fn row_37_file_below_an_overlay_is_watched() {
    let pki = TestPki::new();
    let [written_to, seen_at] = folders(&pki);
    fs::create_dir(pki.path("empty")).unwrap();
    let mount = format!(
        "mount -t overlay overlay -o lowerdir='{}:{}' '{}'",
        pki.path("empty").display(),
        written_to.display(),
        seen_at.display()
    );
    assert_change_is_seen(&pki, &written_to, &seen_at, &mount, in_place);
}

/// A FUSE file system that shows a folder at another place, until it is dropped.
struct Fuse {
    process: Child,
    at: PathBuf,
}

impl Fuse {
    fn mount(from: &Path, at: &Path) -> Self {
        let mut bindfs = tool("bindfs", "bindfs");
        // Attributes are kept for long, as by the client of a network's file system.
        bindfs.args(["-f", "-o", "attr_timeout=60,entry_timeout=60"]).arg(from).arg(at).stderr(Stdio::inherit());
        let mounted = Self { process: bindfs.spawn().unwrap(), at: at.to_owned() };
        let is_mounted =
            || fs::read_to_string("/proc/self/mounts").unwrap().contains(&format!(" {} fuse", at.display()));
        wait_until("bindfs has mounted the folder", || is_mounted().then_some(()));
        mounted
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        run(tool("umount", "util-linux").arg("-l").arg(&self.at));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn row_37_file_on_fuse_that_keeps_attributes_is_watched() {
    let pki = TestPki::new();
    for (number, write) in [in_place as fn(&Path, &str), renamed_over].into_iter().enumerate() {
        let pki = if number == 0 { &pki } else { &TestPki::new() };
        let [written_to, seen_at] = folders(pki);
        let _fuse = Fuse::mount(&written_to, &seen_at);
        assert_change_is_seen(pki, &written_to, &seen_at, ":", write);
    }
}
