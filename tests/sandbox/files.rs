//! Files that the gate reads and writes, and all others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::io::Errno;

use crate::attempt::{Outcome, Rule, Scene, write};

const DENIED: Outcome = Outcome::Failed(Errno::ACCESS);

/// No part of the gate makes such a call.
const UNKNOWN: Outcome = Outcome::Failed(Errno::NOSYS);

#[test]
fn file_outside_cannot_be_read() {
    Rule::of("files::file_outside_cannot_be_read").forbids(|scene| File::open(scene.outside()).map(drop), DENIED);
}

#[test]
fn folder_outside_cannot_be_listed() {
    let list = |scene: &Scene| fs::read_dir(scene.outside().parent().unwrap()).map(drop);
    Rule::of("files::folder_outside_cannot_be_listed").forbids(list, DENIED);
}

#[test]
fn link_inside_does_not_lead_outside() {
    // Links can be neither made nor followed.
    let make = |scene: &Scene| symlink(scene.outside(), scene.inside().with_file_name("link"));
    Rule::of("files::link_inside_does_not_lead_outside").forbids(make, UNKNOWN);
}

#[test]
fn other_process_cannot_be_looked_at() {
    let open = |_: &Scene| File::open("/proc/1/status").map(drop);
    Rule::of("files::other_process_cannot_be_looked_at").forbids(open, DENIED);
}

#[test]
fn configuration_can_be_replaced_and_read() {
    let read = |scene: &Scene| fs::read(scene.inside()).map(drop);
    Rule::of("files::configuration_can_be_replaced_and_read").allows(read);
}

#[test]
fn file_outside_cannot_be_written() {
    Rule::of("files::file_outside_cannot_be_written").log(APART).forbids(|scene| write(&scene.outside()), DENIED);
}

#[test]
fn configuration_cannot_be_written() {
    Rule::of("files::configuration_cannot_be_written").log(APART).forbids(|scene| write(&scene.inside()), DENIED);
}

#[test]
fn file_beside_the_configuration_cannot_be_made() {
    let make = |scene: &Scene| write(&scene.inside().with_file_name("new"));
    Rule::of("files::file_beside_the_configuration_cannot_be_made").log(APART).forbids(make, DENIED);
}

#[test]
fn file_cannot_be_removed() {
    Rule::of("files::file_cannot_be_removed").forbids(|scene| fs::remove_file(scene.inside()), DENIED);
}

#[test]
fn file_cannot_be_truncated() {
    let truncate = |scene: &Scene| {
        let path = std::ffi::CString::new(scene.outside().into_os_string().into_encoded_bytes())?;
        crate::system::call(libc::SYS_truncate, [path.as_ptr() as usize, 0, 0, 0, 0])
    };
    Rule::of("files::file_cannot_be_truncated").forbids(truncate, UNKNOWN);
}

#[test]
fn file_of_another_user_cannot_be_given_away() {
    let give = |scene: &Scene| -> io::Result<()> { std::os::unix::fs::chown(scene.outside(), Some(1), Some(1)) };
    Rule::of("files::file_of_another_user_cannot_be_given_away").forbids(give, UNKNOWN);
}

const LOG: &str = "./doorward.log";

/// A log in a folder of its own.
const APART: &str = "./logs/doorward.log";

#[test]
fn without_a_log_no_file_is_opened_to_be_changed() {
    // Whatever Landlock allows: some kernels have none.
    let change = |scene: &Scene| {
        let mut attempts = [OpenOptions::new(), OpenOptions::new(), OpenOptions::new()];
        attempts[0].write(true);
        attempts[1].read(true).write(true);
        attempts[2].read(true).custom_flags(libc::O_CREAT | libc::O_TRUNC);
        for attempt in attempts {
            match attempt.open(scene.inside()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
                other => return other.map(drop),
            }
        }
        Err(Errno::NOSYS.into())
    };
    Rule::of("files::without_a_log_no_file_is_opened_to_be_changed").forbids(change, UNKNOWN);
}

#[test]
fn without_a_log_no_mode_is_changed() {
    let change = |scene: &Scene| File::open(scene.inside())?.set_permissions(fs::Permissions::from_mode(0o666));
    Rule::of("files::without_a_log_no_mode_is_changed").forbids(change, UNKNOWN);
}

/// Writes a byte without truncating the file, which not even the log may be.
fn overwrite(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)?.write_all(b"x")
}

#[test]
fn log_in_a_folder_of_its_own_can_be_made_anew() {
    let rule = Rule::of("files::log_in_a_folder_of_its_own_can_be_made_anew").log(APART);
    rule.allows(|scene| {
        overwrite(&scene.inside().with_file_name(APART))?;
        overwrite(&scene.inside().with_file_name("logs/doorward.log.1"))
    });
}

#[test]
fn log_beside_the_configuration_can_be_written() {
    let rule = Rule::of("files::log_beside_the_configuration_can_be_written").log(LOG);
    rule.allows(|scene| overwrite(&scene.inside().with_file_name(LOG)));
}

#[test]
fn log_beside_the_configuration_does_not_open_it() {
    // A new process would read it, and may be told there to have no sandbox.
    let rule = Rule::of("files::log_beside_the_configuration_does_not_open_it").log(LOG);
    rule.forbids(|scene| overwrite(&scene.inside()), DENIED);
}

#[test]
fn log_beside_the_configuration_makes_no_file() {
    let rule = Rule::of("files::log_beside_the_configuration_makes_no_file").log(LOG);
    rule.forbids(|scene| overwrite(&scene.inside().with_file_name("new")), DENIED);
}

#[test]
fn socket_beside_the_configuration_removes_nothing_else() {
    let rule = Rule::of("files::socket_beside_the_configuration_removes_nothing_else").control("control.sock");
    rule.forbids(|scene| fs::remove_file(scene.inside()), DENIED);
}

#[test]
fn socket_in_a_folder_of_its_own_can_be_removed() {
    let rule = Rule::of("files::socket_in_a_folder_of_its_own_can_be_removed").control("run/control.sock");
    rule.allows(|scene| fs::remove_file(scene.inside().with_file_name("run/control.sock")));
}

#[test]
fn log_cannot_be_truncated() {
    let rule = Rule::of("files::log_cannot_be_truncated").log(APART);
    rule.forbids_since(3, |scene| write(&scene.inside().with_file_name(APART)), DENIED);
}

#[test]
fn log_cannot_be_removed() {
    let rule = Rule::of("files::log_cannot_be_removed").log(APART);
    rule.forbids(|scene| fs::remove_file(scene.inside().with_file_name(APART)), DENIED);
}
