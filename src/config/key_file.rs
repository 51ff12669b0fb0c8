//! The file of a private key: a path, or a credential that a service manager hands over.

use std::path::PathBuf;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::credentials::{NotFound, credential_name};
use super::files::{NamedFile, folder_of, read, read_at, read_named};
use super::report::{Problem, Report, Text, quoted};

/// Reads the file of a private key, which may be a credential of the service, or reports why not.
pub(super) fn read_key(text: &Text, report: &mut Report) -> Option<NamedFile> {
    let Some(name) = credential_name(&text.value) else {
        let path = folder_of(report.file()).join(&text.value);
        let copy = report.credentials.owners_copy(&path);
        if let Some(copy) = copy.filter(|_| access(&path, Access::READ_OK) == Err(Errno::ACCESS)) {
            let why = format!("only the gate and root may read {}", path.display());
            let Ok(file) = read_named(&copy) else {
                report.error(&text.place, why, "run this command as root: sudo doorward check");
                return None;
            };
            report.warn(
                &text.place,
                format!(
                    "{why}, so its copy {} was checked instead; to check the one that the gate uses: sudo doorward check",
                    copy.display()
                ),
            );
            return Some(NamedFile { path, ..file });
        }
        return read(text, report);
    };
    let found = report.credentials.find(name).map_err(|why| no_credential(name, why));
    match report.taken(&text.place, found)? {
        // With the rights that systemd gives it.
        (path, Some(bytes)) => Some(NamedFile { path, bytes, owner: 0, mode: 0o400 }),
        (path, None) => read_at(path, text, report),
    }
}

/// Reads a file that holds one line with a secret, or reports why not.
pub(super) fn read_line(text: &Text, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<String> {
    let (path, secret) = read_secret(text, report)?;
    let line = secret.as_deref().map(str::trim).filter(|line| !line.is_empty());
    let Some(line) = line.filter(|line| line.lines().count() == 1) else {
        report.error(
            &text.place,
            format!("{} does not hold one line of text", path.display()),
            "put the secret into it, and nothing else",
        );
        return None;
    };
    files.push(path);
    Some(line.to_owned())
}

/// Reads a file that holds a secret, or reports why not. Its text is `None` if it is not UTF-8.
pub(super) fn read_secret(text: &Text, report: &mut Report) -> Option<(PathBuf, Option<String>)> {
    let file = read_key(text, report)?;
    if file.is_world_readable() {
        report.warn(
            &text.place,
            format!(
                "every user of this machine may read {0}, which holds a secret: chmod 600 {0}",
                file.path.display()
            ),
        );
    }
    Some((file.path, String::from_utf8(file.bytes).ok()))
}

/// Why there is no credential of this name.
fn no_credential(name: &str, why: NotFound) -> Problem {
    let shown = quoted(name);
    match why {
        NotFound::NoName => Problem::new(
            format!("{shown} cannot be the name of a credential"),
            "write credential: and the name that LoadCredential= gives it in the unit, as in \"credential:gate.key\"",
        ),
        NotFound::OutsideOfTheService => Problem::new(
            format!("the credential {shown} exists only in the service, and this command does not run in it"),
            format!(
                "run it as root while the service runs: sudo doorward check; or name a folder that has it: --credentials \
                 FOLDER. The service gets it by a line of its unit: LoadCredential={name}:FILE"
            ),
        ),
        NotFound::NotHandedOver => Problem::new(
            format!("the service has no credential {shown}"),
            format!(
                "add a line to the unit (systemctl edit doorward): LoadCredential={name}:FILE; and restart the service, since \
                 systemd hands credentials over when a service starts"
            ),
        ),
    }
}
