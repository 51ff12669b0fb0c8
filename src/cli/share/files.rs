//! The files of a device and its authorities, read from the folder that `doorward init` wrote.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{NotShared, command};
use crate::ca::inventory::{CertificateEntry, Kind, Store, now};
use crate::cli::exit;
use crate::enrolment::{Device, Form, Reachable, ServerTrust};
use crate::files::Folder;
use crate::handshake::suites::PROVIDER;
use crate::model::device_name::{DeviceName, is_called};
use crate::model::identity::Identity;
use crate::model::shell;
use crate::model::text::date;
use crate::pki::keys;
use crate::reload::policy_report::SampleClient;

/// Why the device trusts the gate. An error if the device's certificate is expired or revoked.
pub(super) fn trust(folder: &Path, device: &Device, reachable: &Reachable) -> Result<ServerTrust, NotShared> {
    let usage = |error: String| NotShared::new(exit::USAGE, error);
    let unexpected = |error: &dyn std::fmt::Display| NotShared::new(exit::UNEXPECTED, error);
    let root = |file: &Path| {
        let needed =
            |error| usage(format!("{error}\n  it is the certificate of the gate's authority, which devices need"));
        certificate(folder, file).map(ServerTrust::OwnAuthority).map_err(needed)
    };
    let (name, pki) = (&device.name, folder.join("pki"));
    let word = shell::word(name.as_str());
    let identity = Identity::from_certificate(&device.certificate, false).map_err(|error| unexpected(&error))?;
    if identity.not_after < now().unix_timestamp() {
        return Err(usage(format!(
            "the certificate of {name} expired on {}\n  to renew it: doorward ca renew {word} --folder {}",
            date(identity.not_after),
            shell::path(&pki)
        )));
    }
    let Some(inventory) = Store::read_inventory(&pki).map_err(|error| unexpected(&error))? else {
        // The authorities may be kept elsewhere, except for this certificate.
        let file = pki.join("server-ca.pem");
        return if reachable.is_public(file.exists()) { Ok(ServerTrust::Public) } else { root(&file) };
    };
    let serial = identity.serial.to_string();
    if inventory.certificates.iter().any(|entry| entry.serial == serial && entry.revoked_at.is_some()) {
        return Err(usage(format!(
            "the certificate of {name} is revoked\n  to issue a new one: doorward ca device {word} --force --folder {}",
            shell::path(&pki)
        )));
    }
    let authority = inventory.authority_for(Kind::Server);
    if reachable.is_public(authority.is_some()) {
        return Ok(ServerTrust::Public);
    }
    let authority = authority.ok_or_else(|| {
        let pki = pki.display();
        usage(format!("{pki} has no authority for the gate's certificate\n  to make one: doorward ca init --help"))
    })?;
    root(&Store::join(&pki, Path::new(&authority.certificate)))
}

/// The device as the gate sees it.
pub(super) fn holder(device: &Device) -> Result<SampleClient, NotShared> {
    let identity = Identity::from_certificate(&device.certificate, false);
    identity.map(SampleClient::holder_of).map_err(|error| NotShared::new(exit::UNEXPECTED, error))
}

/// The certificate and the key of a device.
pub(super) fn device(folder: &Path, name: &DeviceName) -> Result<Device, String> {
    let devices = folder.join("devices");
    let file = |form: Form| devices.join(form.file_name(name));
    let (certificate_file, key_file) = (file(Form::Certificate), file(Form::Key));
    if !certificate_file.exists() {
        return Err(no_device(folder, &devices, name));
    }
    let certificate = certificate(folder, &certificate_file)?;
    let (shown, word) = (key_file.display(), shell::path(&key_file));
    if !key_file.exists() {
        return Err(format!(
            "the key of {name} is missing: there is no file {shown}\n  to renew the certificate with a new key: doorward ca \
             renew {} --new-key --folder {}",
            shell::word(name.as_str()),
            shell::path(&folder.join("pki"))
        ));
    }
    let pem = Folder::read_beside(folder, &key_file).map_err(|error| cannot_read(&key_file, &error))?;
    if keys::is_encrypted(&pem) {
        return Err(format!("{shown} is encrypted\n  to decrypt it: {}", in_place("pkcs8", &word)));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| cannot_read(&key_file, &error))?;
    if !matches!(key, PrivateKeyDer::Pkcs8(_)) {
        return Err(format!("{shown} is not PKCS#8\n  to convert it: {}", in_place("pkcs8 -topk8 -nocrypt", &word)));
    }
    match CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &PROVIDER) {
        Ok(_) => Ok(Device { name: name.clone(), certificate, key }),
        Err(error) => Err(format!("{shown} is not the key of {}: {error}", certificate_file.display())),
    }
}

/// A command line that replaces a file with what OpenSSL makes of it.
fn in_place(command: &str, file: &str) -> String {
    format!("openssl {command} -in {file} -out {file}.new && mv {file}.new {file}")
}

/// Why there is no such device, and which devices there are.
fn no_device(folder: &Path, devices: &Path, name: &DeviceName) -> String {
    let word = shell::word(name.as_str());
    if !devices.is_dir() {
        // In the folder itself, a user may not know that it has to be given.
        let advice = if Path::new("devices").is_dir() && Path::new("pki").is_dir() {
            format!("in this folder: {}", command(name, Path::new(".")))
        } else {
            "give the folder that contains \"devices\" and \"pki\": --folder FOLDER".to_owned()
        };
        return format!("there is no folder {}\n  {advice}", devices.display());
    }
    let files = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix("-key.pem").map(str::to_owned)).collect();
    // The files have names in ASCII.
    if let Ok(Some(inventory)) = Store::read_inventory(&folder.join("pki")) {
        let is_device = |entry: &&CertificateEntry| entry.kind == Kind::Device;
        for file in &mut names {
            let entries = inventory.certificates.iter().rev();
            if let Some(entry) = entries.filter(is_device).find(|entry| is_called(&entry.name, file)) {
                file.clone_from(&entry.name);
            }
        }
    }
    names.sort_unstable();
    let there = if names.is_empty() { String::new() } else { format!("\n  there are: {}", names.join(", ")) };
    format!(
        "no device called {name} in {}{there}\n  files that were written elsewhere (--output) must be moved there first\n  to \
         issue a new device: doorward ca device {word} --folder {}",
        devices.display(),
        shell::path(&folder.join("pki"))
    )
}

fn certificate(folder: &Path, file: &Path) -> Result<CertificateDer<'static>, String> {
    let pem = Folder::read_beside(folder, file).map_err(|error| cannot_read(file, &error))?;
    CertificateDer::from_pem_slice(&pem).map_err(|error| cannot_read(file, &error))
}

fn cannot_read(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot read {}: {error}", file.display())
}
