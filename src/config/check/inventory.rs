//! `inventory` of `[metrics]`: the devices that `doorward ca` has given certificates.

use crate::config::checked::{Device, Inventory};
use crate::config::files;
use crate::config::report::{Given, Problem, Report};
use crate::pki::inventory::{self, Kind};

/// The devices, if they are to be shown. Nothing in the file's folder is touched.
pub(super) fn check(given: &Given<String>, report: &mut Report) -> Option<Option<Inventory>> {
    let text = match given {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(text) => text,
    };
    let file = files::read(text, report)?;
    let content = std::str::from_utf8(&file.bytes).ok().map(toml::from_str::<inventory::Inventory>);
    let Some(Ok(content)) = content else {
        let problem = Problem::new(
            format!("{} is not what \"doorward ca\" writes about the certificates it has issued", file.path.display()),
            "write the path of inventory.toml in the folder of your authorities, as in \"pki/inventory.toml\"",
        );
        report.problem(&text.place, problem);
        return None;
    };
    let mut devices: Vec<Device> = Vec::new();
    for entry in content.certificates.iter().rev().filter(|entry| entry.kind == Kind::Device) {
        let current = content.current(&entry.name, Kind::Device).is_some_and(|current| current.serial == entry.serial);
        if let Some(end) = entry.not_after.filter(|_| current) {
            devices.push(Device { name: entry.name.clone(), not_after: end.unix_timestamp() });
        }
    }
    devices.reverse();
    Some(Some(Inventory { file: file.path, devices }))
}
