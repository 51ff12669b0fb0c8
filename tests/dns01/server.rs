//! BIND and Knot, with configurations as the manual has them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::process::{Daemon, run, tool};

/// That of DNS.
pub(crate) const PORT: u16 = 53;

/// The zone of all tests.
pub(crate) const ZONE: &str = "home.example";

/// A DNS server for [`ZONE`], whose key is in a file.
pub(crate) struct Server {
    pub(crate) address: SocketAddrV4,
    pub(crate) key_file: PathBuf,
    folder: TempDir,
    kind: Kind,
    daemon: Option<Daemon>,
}

/// The program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Knot,
}

/// Both, for what must be true of either.
pub(crate) const BOTH: [Kind; 2] = [Kind::Bind, Kind::Knot];

/// A zone whose only server is at this address, and further records.
fn zone_file(server: Ipv4Addr, records: &[&str]) -> String {
    let mut zone = format!("$TTL 60\n@ SOA ns1 admin 1 86400 86400 604800 60\n@ NS ns1\nns1 A {server}\n");
    for record in records {
        zone += record;
        zone.push('\n');
    }
    zone
}

impl Server {
    /// The owner's server: takes changes that are signed with its key.
    pub(crate) fn primary(kind: Kind, host: Ipv4Addr) -> Self {
        Self::with(kind, SocketAddrV4::new(host, PORT), &[])
    }

    /// The same with further records in its zone.
    pub(crate) fn with(kind: Kind, address: SocketAddrV4, records: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let key = match kind {
            Kind::Bind => run(tool("tsig-keygen", "bind9").arg("doorward")),
            Kind::Knot => run(tool("keymgr", "knot").args(["-t", "doorward", "hmac-sha256"])),
        };
        let key_file = path.join("tsig.key");
        std::fs::write(&key_file, key.success().text()).unwrap();
        std::fs::write(path.join("home.example.zone"), zone_file(*address.ip(), records)).unwrap();
        let text = match kind {
            Kind::Bind => bind(path, address, BIND_PRIMARY),
            Kind::Knot => knot(path, address, KNOT_PRIMARY),
        };
        std::fs::write(path.join("server.conf"), text).unwrap();
        let mut server = Self { address, key_file, folder, kind, daemon: None };
        server.start();
        server
    }

    /// A server that takes the zone from `primary` when it is told to, and not before.
    pub(crate) fn secondary(primary: SocketAddrV4, host: Ipv4Addr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddrV4::new(host, PORT);
        let zone = format!(
            "remote:\n  - id: primary\n    address: {}@{}\nzone:\n  - domain: {ZONE}\n    master: primary\n",
            primary.ip(),
            primary.port()
        );
        std::fs::write(folder.path().join("server.conf"), knot(folder.path(), address, &zone)).unwrap();
        let mut server = Self { address, key_file: PathBuf::new(), folder, kind: Kind::Knot, daemon: None };
        server.start();
        server
    }

    /// Starts it, if it was stopped.
    pub(crate) fn start(&mut self) {
        let config = self.folder.path().join("server.conf");
        let mut command = match self.kind {
            Kind::Bind => tool("named", "bind9"),
            Kind::Knot => tool("knotd", "knot"),
        };
        match self.kind {
            // One thread: a test is no flood.
            Kind::Bind => command.args(["-g", "-n", "1", "-c"]).arg(&config),
            Kind::Knot => command.arg("-c").arg(&config),
        };
        command.current_dir(self.folder.path());
        self.daemon = Some(Daemon::start_until(&mut command, "it answers for the zone", || {
            self.answer("SOA", ZONE).lines().any(|line| line.contains("SOA"))
        }));
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it anew with another zone, which has this record. Only BIND.
    pub(crate) fn add_zone(&mut self, zone: &str, record: &str) {
        assert_eq!(self.kind, Kind::Bind);
        self.stop();
        let config = self.file("server.conf");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}zone \"{zone}\" {{ type primary; file \"{zone}.zone\"; }};\n")).unwrap();
        std::fs::write(self.file(&format!("{zone}.zone")), zone_file(*self.address.ip(), &[record])).unwrap();
        self.start();
    }

    /// What `dig` shows of a name.
    pub(crate) fn answer(&self, kind: &str, name: &str) -> String {
        let mut dig = tool("dig", "bind9-dnsutils");
        dig.args(["+noall", "+answer", "+norecurse", "+time=1", "+tries=1", "-p", &self.address.port().to_string()]);
        dig.arg(format!("@{}", self.address.ip())).args([name, kind]);
        run(&mut dig).text()
    }

    /// The TXT values of the challenge of a name, in order.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let answer = self.answer("TXT", &format!("_acme-challenge.{name}"));
        let mut texts: Vec<String> =
            answer.lines().filter_map(|line| Some(line.split_once("TXT\t")?.1.trim_matches('"').to_owned())).collect();
        texts.sort();
        texts
    }

    /// Has Knot ask its primary.
    pub(crate) fn refresh(&self) {
        let mut knotc = tool("knotc", "knot");
        knotc.arg("-c").arg(self.folder.path().join("server.conf")).args(["--blocking", "zone-refresh", ZONE]);
        run(&mut knotc).success();
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another key of the same name, which the server does not have.
    pub(crate) fn other_key(&self) -> PathBuf {
        let key = run(tool("tsig-keygen", "bind9").arg("doorward")).success().text();
        let file = self.file("other.key");
        std::fs::write(&file, key).unwrap();
        file
    }
}

/// As in the manual.
const BIND_PRIMARY: &str = r#"include "tsig.key";

zone "home.example" {
    type primary;
    file "home.example.zone";
    update-policy {
        grant doorward subdomain _acme-challenge.nas.home.example. TXT;
    };
};
"#;

/// As in the manual, but for a secondary that may take the zone.
const KNOT_PRIMARY: &str = r"include: tsig.key

acl:
  - id: doorward
    key: doorward
    action: update
    update-type: TXT
    update-owner: name
    update-owner-name: [_acme-challenge.nas]
  - id: secondary
    address: 127.0.0.0/8
    action: transfer

zone:
  - domain: home.example
    file: home.example.zone
    acl: [doorward, secondary]
";

fn bind(folder: &Path, address: SocketAddrV4, zones: &str) -> String {
    let (folder, ip, port) = (folder.display(), address.ip(), address.port());
    format!(
        "options {{ directory \"{folder}\"; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; pid-file none; \
         session-keyfile none; lock-file none; recursion no; notify no; dnssec-validation no; allow-transfer {{ any; }}; }};\n\
         controls {{ }};\n{zones}"
    )
}

fn knot(folder: &Path, address: SocketAddrV4, zones: &str) -> String {
    let (folder, ip, port) = (folder.display(), address.ip(), address.port());
    format!(
        "server:\n  rundir: {folder}\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {folder}\n  journal-db-max-size: 16M\ncontrol:\n  listen: {folder}/knot.sock\nlog:\n  - target: stderr\n    any: info\n\
         template:\n  - id: default\n    storage: {folder}\n\n{zones}"
    )
}
