//! What works with `openssl s_client` and stunnel works with `doorward connect`: certificates, keys, chains, versions and servers of every
//! kind. Each case is first done by one of them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use doorward::bundle::Bundle;
use rcgen::{KeyPair, SanType, SignatureAlgorithm};
use tempfile::TempDir;

use crate::common::backend::Backend;
use crate::common::bundle::bundle;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{Daemon, own_loopback, run_with_open_input, tool};
use crate::scene::{DEVICE, Scene, doorward, noise, route};

/// The server name of the route.
pub(crate) const NAME: &str = "echo.home.example";

pub(crate) const KINDS: [(&str, &SignatureAlgorithm); 4] = [
    ("P-256", &rcgen::PKCS_ECDSA_P256_SHA256),
    ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
    ("Ed25519", &rcgen::PKCS_ED25519),
    ("RSA", &rcgen::PKCS_RSA_SHA256),
];

pub(crate) const LENGTH: usize = 300_000;

/// In a certificate. Longer ones are refused.
const NAMES: usize = 120;

pub(crate) fn key(kind: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(kind).unwrap()
}

/// A key as OpenSSL 3.0 reads it: not with its public half behind it, as Ed25519's have here (RFC 8410 section 7).
fn first_version(der: &[u8]) -> Vec<u8> {
    const ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let has_more = der.first_chunk().is_some_and(|head| *head == *b"\x30\x51\x02\x01\x01");
    if has_more { [ED25519, &der[ED25519.len()..ED25519.len() + 32]].concat() } else { der.to_vec() }
}

/// Sends back what it has received when it has everything, and ends: both clients end then, although their input stays open.
pub(crate) fn service() -> Backend {
    Backend::serve("127.0.0.1:0", |mut stream, state| {
        let mut all = Vec::new();
        state.each_read(stream, |bytes| {
            all.extend_from_slice(bytes);
            all.len() < LENGTH
        });
        let _ = stream.write_all(&all);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// A device and where it dials.
pub(crate) struct Case<'a> {
    what: &'a str,
    pki: &'a TestPki,
    device: &'a Certified,
    server: SocketAddr,
    folder: TempDir,
}

impl<'a> Case<'a> {
    pub(crate) fn new(what: &'a str, pki: &'a TestPki, device: &'a Certified, server: SocketAddr) -> Self {
        Self { what, pki, device, server, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        bundle(self.pki, self.device, self.server, &["echo"])
    }

    pub(crate) fn connect(&self) -> Command {
        let file = self.folder.path().join("alice-laptop.doorward");
        fs::write(&file, self.bundle().to_text()).unwrap();
        doorward(&["connect", "echo"], &file)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn s_client(&self, options: &[&str]) -> Command {
        let chain = self.folder.path().join("chain.pem");
        let key = self.folder.path().join("key.pem");
        fs::write(&chain, self.device.chain_pem()).unwrap();
        fs::write(&key, pem::encode(&pem::Pem::new("PRIVATE KEY", first_version(self.device.key().secret_der()))))
            .unwrap();
        let mut openssl = tool("openssl", "openssl");
        openssl.args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-verify_hostname", NAME]);
        openssl.args(["-servername", NAME, "-connect", &self.server.to_string()]).args(options).arg("-CAfile");
        openssl.arg(self.pki.path("servers.pem")).arg("-cert").arg(&chain).arg("-key").arg(&key);
        openssl.arg("-cert_chain").arg(&chain);
        openssl
    }

    /// Moves bytes both ways with OpenSSL, and then with this program.
    #[track_caller]
    pub(crate) fn works(&self) {
        let sent = noise(LENGTH, 7);
        let openssl = run_with_open_input(&mut self.s_client(&[]), &sent);
        assert!(openssl.stdout == sent, "{}: {} bytes by OpenSSL: {openssl}", self.what, openssl.stdout.len());
        let connect = run_with_open_input(&mut self.connect(), &sent).success();
        assert!(connect.stdout == sent, "{}: {} bytes", self.what, connect.stdout.len());
        assert_eq!(connect.stderr, "", "{}", self.what);
    }
}

/// A gate with these lines, and one route.
fn gate(pki: &TestPki, listener: &str, top: &str, service: &Backend, keys: &str) -> Gate {
    let local = LOCAL.replace("name = \"public\"\n", &format!("name = \"public\"\n{listener}"));
    let local = if listener.contains("address") { local.replacen("address = \"127.0.0.1:0\"\n", "", 1) } else { local };
    Gate::start(&format!(
        "{top}{local}\n[limits]\npenalties = \"off\"\n{}{}{keys}",
        pki.config(),
        route("echo", service.address())
    ))
}

pub(crate) fn plain_gate(pki: &TestPki, service: &Backend) -> Gate {
    gate(pki, "", "", service, "")
}

#[test]
fn devices_with_keys_of_every_kind() {
    let (pki, service) = (TestPki::new(), service());
    let gate = plain_gate(&pki, &service);
    for (what, kind) in KINDS {
        let device = pki.clients.issue_for_key(Scene::device(), key(kind));
        Case::new(what, &pki, &device, gate.address()).works();
    }
}

#[test]
fn devices_below_intermediates() {
    let (pki, service) = (TestPki::new(), service());
    let gate = plain_gate(&pki, &service);
    let laptops = pki.clients.intermediate(Authority::for_authorities("Laptops of home.example"));
    let of_alice =
        laptops.intermediate_with_key(Authority::for_authorities("Laptops of Alice"), key(&rcgen::PKCS_RSA_SHA256));
    for (what, authority, count) in [("one", &laptops, 2), ("two", &of_alice, 3)] {
        let device = authority.issue(Scene::device());
        assert_eq!(device.chain().len(), count);
        Case::new(what, &pki, &device, gate.address()).works();
    }
}

#[test]
fn devices_with_long_certificates() {
    let (pki, service) = (TestPki::new(), service());
    let mut params = Scene::device();
    let name = |index: usize| format!("{index}.{}.alice-laptop.home.example", "x".repeat(50));
    params.subject_alt_names = (0..NAMES).map(|index| SanType::DnsName(name(index).try_into().unwrap())).collect();
    let laptops = pki.clients.intermediate(Authority::for_authorities("Laptops of home.example"));
    let device = laptops.issue(params);
    let length: usize = device.chain().iter().map(|one| one.len()).sum();
    assert!(length > 8 * 1024, "{length}");
    // By such names, it is not the one that the route admits.
    let route = route("echo", service.address()).replace("cn:alice-laptop", "any");
    let gate = Gate::start(&format!("{LOCAL}{}{route}", pki.config()));
    Case::new("long", &pki, &device, gate.address()).works();
}

#[test]
fn gates_with_keys_of_every_kind_and_below_intermediates() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    let names = ["home.example", "*.home.example"];
    let gates = pki.servers.intermediate(Authority::for_authorities("Gates of home.example"));
    for (what, authority, kind) in KINDS.into_iter().map(|(what, kind)| (what, &pki.servers, kind)).chain([(
        "below an intermediate",
        &gates,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    )]) {
        let server = authority.issue_for_key(Certified::for_servers(&names), key(kind));
        pki.write("server.pem", server.chain_pem());
        pki.write("server-key.pem", server.key_pem());
        let gate = plain_gate(&pki, &service);
        Case::new(what, &pki, &device, gate.address()).works();
    }
}

#[test]
fn gates_with_other_settings() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    for (what, listener, top, keys) in [
        ("IPv6", "address = \"[::1]:0\"\n", "", ""),
        ("256 bits", "", "strength = 256\n", ""),
        ("the kernel where it can", "", "kernel_tls = \"auto\"\n", ""),
        ("an application protocol", "", "", "application_protocols = [\"ssh\"]\n"),
        ("PostgreSQL's first bytes, which none of them sends", "", "", "starttls = \"postgres\"\n"),
    ] {
        let gate = gate(&pki, listener, top, &service, keys);
        Case::new(what, &pki, &device, gate.address()).works();
    }
}

#[test]
fn names_are_dialled_as_addresses_are() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    let gate = plain_gate(&pki, &service);
    let case = Case::new("localhost", &pki, &device, gate.address());
    let file = case.folder.path().join("named.doorward");
    // It has an IPv6 address as well, where nothing listens.
    fs::write(&file, Bundle { address: Some("localhost".to_owned()), ..case.bundle() }.to_text()).unwrap();
    let sent = noise(LENGTH, 8);
    assert!(run_with_open_input(&mut doorward(&["connect", "echo"], &file), &sent).success().stdout == sent);
}

#[test]
fn gates_behind_a_proxy() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    let gate = gate(&pki, "proxy_protocol_from = [\"127.0.0.0/8\"]\n", "", &service, "");
    let front = SocketAddrV4::new(own_loopback(), 8443);
    let case = Case::new("HAProxy with headers", &pki, &device, front.into());
    let config = format!(
        "defaults\nmode tcp\ntimeout connect 5s\ntimeout client 30s\ntimeout server 30s\n\
         listen front\nbind {front}\nserver gate {} send-proxy-v2\n",
        gate.address()
    );
    let file = case.folder.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let _haproxy = Daemon::start(tool("haproxy", "haproxy").arg("-db").arg("-f").arg(&file), front);
    case.works();
    let closed = gate.wait_closed("echo", 2);
    assert!(closed.iter().all(|line| line["source"].as_str().unwrap().starts_with("127.0.0.1:")), "{closed:?}");
}

#[test]
fn networks_that_deliver_byte_by_byte() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    let gate = plain_gate(&pki, &service);
    let address = gate.address();
    let slow = Backend::serve("127.0.0.1:0", move |client, state| {
        let gate = TcpStream::connect(address).unwrap();
        for stream in [client, &gate] {
            stream.set_nodelay(true).unwrap();
        }
        let (from, to) = (gate.try_clone().unwrap(), client.try_clone().unwrap());
        let back = thread::spawn(move || {
            drip(&from, &to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut left = 6000;
        state.each_read(client, |bytes| write_drops(&gate, bytes, &mut left));
        let _ = gate.shutdown(Shutdown::Write);
        back.join().unwrap();
    });
    Case::new("byte by byte", &pki, &device, slow.address()).works();
}

/// The first bytes one by one, which are the handshake.
fn drip(mut from: &TcpStream, to: &TcpStream) {
    let (mut left, mut buffer) = (6000, [0; 16 * 1024]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !write_drops(to, &buffer[..count], &mut left) {
            return;
        }
    }
}

fn write_drops(mut to: &TcpStream, bytes: &[u8], left: &mut usize) -> bool {
    let drops = bytes.len().min(*left);
    *left -= drops;
    bytes[..drops].iter().all(|byte| to.write_all(&[*byte]).is_ok()) && to.write_all(&bytes[drops..]).is_ok()
}
