//! Certificates that are renewed without the owner, by the authority that is for that alone.

mod device;
mod fenced;
mod forged;
mod issued;
mod left;
mod stopped;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use toml::Table;

use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::wait_until;
use crate::home::Home;
use crate::house::{Answer, House};
use doorward::model::identity::{Origin, Serial, Sha256};
use doorward::pki::Parts;

/// What the owner writes under `[renewal]`, with the key where the gate does not look.
pub(crate) fn issuer(home: &Home, more: &str) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    format!(
        "issuer = {{ certificate = {:?}, key = {:?}{more} }}\n",
        path("pki/renewals.pem"),
        path("issuer/renewals-key.pem")
    )
}

/// Authorities, one that renews among them, whose key is in a folder of its own; and devices with certificates for so many days.
pub(crate) fn home(devices: &[&str], days: i64) -> Home {
    let home = Home::with_authorities();
    for device in devices {
        home.ca(&["device", device]).success();
        shorten(&home, device, days);
    }
    make_issuer(&home, &[]);
    home
}

pub(crate) fn make_issuer(home: &Home, more: &[&str]) {
    home.ca(&[&["renewal"], more].concat()).success();
    let _ = fs::create_dir(home.path("issuer"));
    fs::set_permissions(home.path("issuer"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(home.path("pki/renewals-key.pem"), home.path("issuer/renewals-key.pem")).unwrap();
}

/// A house whose gate renews the certificates of these devices, which have ten days left, for thirty.
pub(crate) fn house(devices: &[&str]) -> House {
    house_with(devices, ", days = 30")
}

pub(crate) fn house_with(devices: &[&str], more: &str) -> House {
    let home = home(devices, 10);
    let issuer = issuer(&home, more);
    let house = House::at(home, &issuer);
    ready(&house.gate);
    house
}

/// Waits until the process runs.
pub(crate) fn ready(gate: &Gate) {
    wait_until("the process that renews", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", gate.pid())).unwrap_or_default();
        let mut all: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
        for child in all.clone() {
            let text = fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap_or_default();
            all.extend(text.split_whitespace().map(str::to_owned));
        }
        all.iter().any(|pid| is_renewer(pid)).then_some(())
    });
}

pub(crate) fn is_renewer(pid: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"renewer"))
}

/// Gives a device a certificate that ends in so many days: of the same authority, for the same key, in the inventory.
pub(crate) fn shorten(home: &Home, device: &str, days: i64) {
    let authority = Authority::read(&home.path("pki/clients.pem"), &home.path("pki/clients-key.pem"));
    let key = fs::read_to_string(home.path(&format!("devices/{device}-key.pem"))).unwrap();
    let mut params = Certified::for_clients(device);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, device);
    // In the last third of its life.
    (params.not_before, params.not_after) = (days_from_now(-3 * days), days_from_now(days));
    let serial = Serial::parse(&Sha256::of(format!("{device} {days}").as_bytes()).to_string()[..30]).unwrap();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    let pem = authority.issue_for_key(params, KeyPair::from_pem(&key).unwrap()).chain_pem();
    let end = days_from_now(days).format(&time::format_description::well_known::Rfc3339).unwrap();
    let file = home.path("pki/inventory.toml");
    let mut inventory: Table = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let entries = inventory["certificate"].as_array_mut().unwrap();
    let entry = entries.iter_mut().rev().find(|entry| entry["name"].as_str() == Some(device)).unwrap();
    let entry = entry.as_table_mut().unwrap();
    entry.insert("serial".to_owned(), serial.to_string().into());
    entry.insert("fingerprint".to_owned(), Sha256::of(&der(&pem)).to_string().into());
    entry.insert("not_after".to_owned(), end.into());
    fs::write(&file, toml::to_string(&inventory).unwrap()).unwrap();
    fs::write(home.path(&format!("devices/{device}.pem")), pem).unwrap();
}

pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// What a device has got, as a device of its own: `devices/NAME.pem` with the key of `device`.
pub(crate) fn take(house: &House, answer: &Answer, device: &str, name: &str) -> CertificateDer<'static> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    keep(house, &house.issued(answer), device, name)
}

pub(crate) fn keep(house: &House, pem: &str, device: &str, name: &str) -> CertificateDer<'static> {
    fs::write(house.home.path(&format!("devices/{name}.pem")), pem).unwrap();
    let key = |name: &str| house.home.path(&format!("devices/{name}-key.pem"));
    fs::copy(key(device), key(name)).unwrap();
    der(pem)
}

/// The certificate of a device.
pub(crate) fn of_device(house: &House, device: &str) -> CertificateDer<'static> {
    der(&fs::read_to_string(house.home.path(&format!("devices/{device}.pem"))).unwrap())
}

/// What a certificate of the owner's authority is descended from as.
pub(crate) fn origin_of(house: &House, device: &str) -> Origin {
    let (certificate, authority) = (of_device(house, device), fs::read_to_string(house.home.path("pki/clients.pem")));
    Origin {
        authority: Sha256::of(Parts::read(&der(&authority.unwrap())).unwrap().key),
        serial: Serial::from_be_bytes(Parts::read(&certificate).unwrap().serial),
        fingerprint: Sha256::of(&certificate),
    }
}

/// Whether a device gets in.
pub(crate) fn gets_in(house: &House, device: &str) -> bool {
    let mut curl = house.curl(Some(device), crate::house::RENEW, "/.well-known/est/cacerts");
    let finished = crate::common::process::run(&mut curl);
    finished.status.success() && finished.text().contains(" 200 ")
}

/// Sends a request with the key of the device, as often as that takes: a certificate that would not last longer is not issued.
pub(crate) fn renewed(house: &House, device: &str, name: &str) -> CertificateDer<'static> {
    let request = house.request(&format!("devices/{device}-key.pem"));
    let answer =
        wait_until("a certificate", || Some(house.send(device, &request)).filter(|answer| answer.status == 200));
    take(house, &answer, device, name)
}

/// The lines about requests with this outcome.
pub(crate) fn outcomes(house: &House, outcome: &str) -> Vec<Value> {
    let lines = house.gate.lines();
    lines.into_iter().filter(|line| line["event"] == "renewal_request" && line["outcome"] == outcome).collect()
}

/// A certificate of the renewal authority, made by somebody who has its key: with these parameters, for this key.
pub(crate) fn stolen(home: &Home, params: CertificateParams, key: &Path) -> String {
    let authority = Authority::read(&home.path("pki/renewals.pem"), &home.path("issuer/renewals-key.pem"));
    let key = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    authority.issue_for_key(params, key).chain_pem()
}

/// The file of a device in the folder of requests.
pub(crate) fn file_of(house: &House, device: &str, ending: &str) -> PathBuf {
    let digits = Sha256::of(device.as_bytes()).to_string();
    house.folder().join(format!("{}.{ending}", &digits[..32]))
}

/// Stores this as the request of a device, and has a process look at it that is started for that: what it says.
pub(crate) fn look(house: &House, device: &str, text: &str) -> Result<Value, String> {
    let _ = fs::remove_file(file_of(house, device, "answer"));
    fs::write(file_of(house, device, "request"), text).unwrap();
    Renewer::start(house).look(device).expect("an answer")
}

/// The process, started by a test in the place of a gate.
pub(crate) struct Renewer {
    child: Child,
    end: OwnedFd,
}

impl Renewer {
    pub(crate) fn start(house: &House) -> Self {
        Self::try_start(house, |command| command).expect("it runs")
    }

    /// `None` if it has ended before it could be asked.
    pub(crate) fn try_start(house: &House, change: impl FnOnce(Command) -> Command) -> Option<Self> {
        let (end, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("renewer").arg("--config").arg(house.gate.folder().join("doorward.toml"));
        let mut command = change(command);
        let child = command.stdin(Stdio::from(other)).stdout(Stdio::null()).spawn().unwrap();
        // The other end is the process's alone.
        drop(command);
        let renewer = Self { child, end };
        (renewer.receive()? == "started").then_some(renewer)
    }

    fn receive(&self) -> Option<Value> {
        let mut message = vec![0; 16 * 1024];
        let (_, count) = recv(&self.end, message.as_mut_slice(), RecvFlags::empty()).ok()?;
        serde_json::from_slice(&message[..count]).ok()
    }

    /// What it says about the request of a device; `None` if it ends.
    pub(crate) fn look(&self, device: &str) -> Option<Result<Value, String>> {
        let message = serde_json::json!({ "look": { "device": device } }).to_string();
        send(&self.end, message.as_bytes(), SendFlags::NOSIGNAL).ok()?;
        let said = self.receive()?["done"]["done"].clone();
        let why = |key: &str, field: &str| said[key][field].as_str().map(str::to_owned);
        Some(match why("left", "why").or_else(|| why("failed", "error")) {
            None => Ok(said["issued"].clone()),
            Some(why) => Err(why),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Revokes a device where the authority is, with nothing but its folder: the gate notices that the list is another one.
pub(crate) fn revoke(house: &House, device: &str) {
    let revoked = house.home.ca(&["revoke", device, "--folder", &house.home.path("pki").display().to_string()]);
    // It is not told whether a gate uses the list.
    assert!(matches!(revoked.status.code(), Some(0 | 10)), "{revoked}");
    assert!(revoked.stderr.contains("is revoked."), "{revoked}");
}
