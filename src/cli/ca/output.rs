//! What commands print.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::CaError;
use super::folder::FOLDER;
use crate::ca::device_files::DeviceFiles;
use crate::ca::inventory::Store;
use crate::cli::{Format, share};
use crate::model::device_name::DeviceName;
use crate::model::shell;

/// Prints text for people to stderr, or JSON to stdout.
pub(super) fn print(format: Format, text: &str, json: &impl Serialize) -> Result<(), CaError> {
    match format {
        Format::Text => io::stderr().lock().write_all(text.as_bytes())?,
        Format::Json => print_json(json)?,
    }
    Ok(())
}

/// Prints JSON to stdout.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CaError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// The command that shares the files of a device by a link, if it would find them: they are in the default folder.
pub(super) fn share_command(authorities: &Path, output: Option<&Path>, name: &DeviceName) -> Option<String> {
    let found = output.is_none() && std::path::absolute(authorities).ok()?.ends_with(FOLDER);
    found.then(|| share::command(name, &Store::join(authorities, Path::new(".."))))
}

/// The command that writes the files of a device again, with a new certificate.
pub(super) fn renew_command(authorities: &Path, output: Option<&Path>, name: &DeviceName) -> String {
    let output = output.map(|output| format!(" --output {}", shell::path(output))).unwrap_or_default();
    format!("doorward ca renew {} --folder {}{output}", shell::word(name.as_str()), shell::path(authorities))
}

/// Where the files of a device are, and their password.
pub(super) fn device_text(files: &DeviceFiles, share: Option<&str>) -> String {
    let share = match share {
        Some(share) => format!("To send the files to the device by a link: {share}\n"),
        None => String::new(),
    };
    format!(
        "  {steps}\n    has the instructions; the files it names are in the same folder\n  the password of these files is  \
         {password}\n\n{share}The password is shown only now and stored nowhere. Files with a private key are secret: .p12, \
         .mobileconfig, .doorward and -key.pem.\n",
        steps = files.steps.display(),
        password = files.password,
    )
}
