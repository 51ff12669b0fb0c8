//! A gate in a home: calm, in trouble, or new.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::DnType;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::{Client, Shown, VERSIONS, connect_from, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{run, tool};
use crate::home::Home;

pub(crate) const NAS: &str = "nas.home.example";
pub(crate) const FORGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
pub(crate) const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
const SCANNER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));
/// A name that a stranger chose.
pub(crate) const MARKUP: &str = "<script>alert('pwned')</script><img src=x onerror=alert(1)>\"'";

pub(crate) struct Scene {
    /// Connections that stay open. They end before the gate, which waits for them.
    open: Vec<Client>,
    pub(crate) home: Home,
    pki: TestPki,
    pub(crate) gate: Gate,
    /// The gate dials it.
    _backend: Backend,
}

impl Scene {
    /// No device has connected yet.
    pub(crate) fn new() -> Self {
        Self::with_devices(&[])
    }

    fn with_devices(devices: &[&str]) -> Self {
        let (home, pki, backend) = (Home::with_authorities(), TestPki::new(), Backend::echo());
        for device in devices {
            home.ca(&["device", device]).success();
        }
        let gate = Gate::start_with_control(&config(&home, &pki, &backend, "127.0.0.1:1"));
        Self { home, pki, gate, _backend: backend, open: Vec::new() }
    }

    /// A gate in this home, with its services at these addresses and these further tables, so many days ago.
    pub(crate) fn days_ago(days: u32, home: Home, pki: TestPki, backend: Backend, photos: &str, tables: &str) -> Self {
        let config =
            format!("{}\n[control]\nsocket = \"control.sock\"\n{tables}", config(&home, &pki, &backend, photos));
        let gate = Gate::start_with(&config, |command| shift(command, days));
        Self { home, pki, gate, _backend: backend, open: Vec::new() }
    }

    /// Ends its connections and its gate, and leaves the rest.
    pub(crate) fn end(self) -> (Home, TestPki, Backend) {
        let Self { open, home, pki, gate, _backend } = self;
        drop((open, gate));
        (home, pki, _backend)
    }

    /// A device is connected.
    pub(crate) fn calm() -> Self {
        let mut scene = Self::with_devices(&["alice-phone", "bob-laptop"]);
        scene.connect("alice-phone");
        scene
    }

    /// Everything that can go wrong in a home, the least important last: noise, a service that is down, a revoked and an expired
    /// device, and a forged certificate before all that.
    pub(crate) fn trouble() -> Self {
        let mut scene = Self::with_devices(&["alice-phone", "bob-tablet", "dave-phone"]);
        scene.forge("alice-phone");
        scene.expire("bob-tablet");
        scene.refused(&scene.device("bob-tablet"), DEVICE, NAS);
        let place = scene.home.path("pki").display().to_string();
        scene.home.ca(&["revoke", "dave-phone", "--folder", &place]);
        scene.gate.hang_up();
        scene.refused(&scene.device("dave-phone"), DEVICE, NAS);
        scene.refused(&scene.device("alice-phone"), DEVICE, "photos.home.example");
        scene.noise();
        scene.connect("alice-phone");
        scene
    }

    /// Somebody shows a certificate with the name of a device.
    pub(crate) fn forge(&self, device: &str) {
        let mut forged = Certified::for_clients(device);
        forged.distinguished_name.push(DnType::CommonName, device);
        let forged = Authority::new("Another house").issue(forged);
        self.refused(&showing(&self.pki, Shown::certificate(&forged), &VERSIONS), FORGER, NAS);
    }

    /// A device connects and stays.
    pub(crate) fn connect(&mut self, device: &str) {
        let client = Client::on(connect_from(DEVICE, self.gate.address()), &self.device(device), NAS);
        client.handshake().and_then(|()| client.ping()).unwrap();
        self.open.push(client);
    }

    /// A connection with a device's own files is admitted.
    pub(crate) fn is_admitted(&self, device: &str) -> bool {
        self.is_admitted_to(device, NAS)
    }

    /// A connection of a device to this name is admitted.
    pub(crate) fn is_admitted_to(&self, device: &str, name: &str) -> bool {
        let client = Client::on(connect_from(DEVICE, self.gate.address()), &self.device(device), name);
        client.handshake().and_then(|()| client.ping()).is_ok()
    }

    /// A device is refused at this name.
    #[track_caller]
    pub(crate) fn refuses(&self, device: &str, name: &str) {
        self.refused(&self.device(device), DEVICE, name);
    }

    /// The client with a device's own files.
    fn device(&self, name: &str) -> Arc<ClientConfig> {
        let read = |file: String| std::fs::read(self.home.path(&file)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&read(format!("devices/{name}.pem"))).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(&read(format!("devices/{name}-key.pem"))).unwrap();
        showing(&self.pki, Shown::new(chain, signing_key(key)), &VERSIONS)
    }

    /// Gives a device a certificate that its authority signed long ago.
    pub(crate) fn expire(&self, device: &str) {
        let (key, request) = (format!("devices/{device}-key.pem"), format!("devices/{device}.csr"));
        let subject = format!("/CN={device}");
        self.home.openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]).success();
        let extensions = self.home.path("extensions");
        std::fs::write(&extensions, "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n").unwrap();
        let mut faketime = tool("faketime", "faketime");
        faketime.current_dir(self.home.path("."));
        faketime.args([
            "-f",
            "-828d",
            "openssl",
            "x509",
            "-req",
            "-days",
            "825",
            "-set_serial",
            "4711",
            "-in",
            &request,
        ]);
        faketime.args(["-CA", "pki/clients.pem", "-CAkey", "pki/clients-key.pem", "-extfile"]).arg(extensions);
        run(faketime.args(["-out", &format!("devices/{device}.pem")])).success();
    }

    #[track_caller]
    fn refused(&self, config: &Arc<ClientConfig>, source: IpAddr, name: &str) {
        let client = Client::on(connect_from(source, self.gate.address()), config, name);
        client.handshake().and_then(|()| client.ping()).expect_err("it should have been refused");
        self.gate.settled();
    }

    /// Clients that have nothing to do with the devices, one of which chose a name to do harm with.
    pub(crate) fn noise(&self) {
        let mut named = Certified::for_clients(MARKUP);
        named.distinguished_name.push(DnType::CommonName, MARKUP);
        let named = Authority::new(MARKUP).issue(named);
        self.refused(&showing(&self.pki, Shown::certificate(&named), &VERSIONS), SCANNER, NAS);
        scan(self.gate.address());
        self.gate.settled();
    }

    /// The gate's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.pki.path("server.pem")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.gate.metrics_address())
    }

    pub(crate) fn page(&self) -> String {
        let (status, page) = self.gate.get("/");
        assert_eq!(status, 200);
        page
    }
}

/// One client that speaks something else, until it is refused.
pub(crate) fn scan(gate: SocketAddr) {
    let mut client = connect_from(SCANNER, gate);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = client.read(&mut [0]);
}

/// Debian's package `faketime`: a library that shifts the time of a program.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Has a program live so many days ago.
pub(crate) fn shift(command: &mut Command, days: u32) {
    if days > 0 {
        assert!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing: apt-get install faketime");
        // Timers use the monotonic clock.
        let variables = [("FAKETIME", format!("-{days}d")), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())];
        command.env("LD_PRELOAD", LIBRARY).envs(variables);
    }
}

fn config(home: &Home, pki: &TestPki, backend: &Backend, photos: &str) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    let local = LOCAL.replace("[metrics]\n", &format!("[metrics]\ninventory = {:?}\n", path("pki/inventory.toml")));
    let [chain, key] = ["server.pem", "server-key.pem"].map(|file| pki.path(file).display().to_string());
    format!(
        "{local}\n[limits]\npenalties = \"off\"\n[certificate]\nchain = {chain:?}\nkey = {key:?}\n[client_auth]\n\
         trust = [{:?}]\nrevocation_lists = [{:?}]\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"{NAS}\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
         [[route]]\nname = \"photos\"\nserver_names = [\"photos.home.example\"]\nbackends = [\"{photos}\"]\n\
         allow = [\"any\"]\n",
        path("pki/clients.pem"),
        path("pki/clients.crl"),
        backend.address(),
    )
}
