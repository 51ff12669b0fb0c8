//! A gate that logs to a file, and clients that leave lines in it: a device, a stranger, and a stranger that tries to put
//! another address into the log.

use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::client::{Client, End, Hello, TLS13, client, connect_from, plain_end};
use crate::common::backend::Backend;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{Daemon, own_loopback, wait_until};
use crate::home::House;

/// Devices of the house.
pub(crate) const FRIEND: &str = "127.0.0.11";
/// A client that guesses names, or shows a certificate of another authority.
pub(crate) const STRANGER: &str = "127.0.0.12";
/// Who sends text that looks like a line about [`VICTIM`].
pub(crate) const FORGER: &str = "127.0.0.13";
/// Who has never been here.
pub(crate) const VICTIM: &str = "127.0.0.99";

/// How often [`Logged::strangers_come`] is refused.
pub(crate) const STRANGERS: usize = 10;

/// The formats that `log.format` knows.
pub(crate) const FORMATS: [&str; 2] = ["text", "json"];

/// The gate and its log.
pub(crate) struct Logged {
    pki: TestPki,
    address: SocketAddr,
    folder: tempfile::TempDir,
    _gate: Daemon,
    _echo: Backend,
}

impl Logged {
    /// A gate that logs in this format.
    pub(crate) fn start(format: &str) -> Self {
        let (pki, echo, folder) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
        let address = SocketAddrV4::new(own_loopback(), 8443);
        let config = House::new(&pki).route("nas", echo.address()).config();
        assert!(config.contains("format = \"json\"") && config.contains("address = \"127.0.0.1:0\""));
        let config = config.replace("format = \"json\"", &format!("format = \"{format}\"")).replacen(
            "127.0.0.1:0",
            &address.to_string(),
            1,
        );
        let (file, log) = (folder.path().join("doorward.toml"), folder.path().join("doorward.log"));
        std::fs::write(&file, config).unwrap();
        // The bytes as they are written, which a harness that reads lines would not keep.
        let mut gate = Command::new("sh");
        gate.args(["-c", "exec \"$0\" run --config \"$1\" >\"$2\"", env!("CARGO_BIN_EXE_doorward")])
            .args([&file, &log]);
        let gate = Daemon::start(&mut gate, address);
        Self { pki, address: address.into(), folder, _gate: gate, _echo: echo }
    }

    /// The log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("doorward.log")
    }

    /// A folder of this gate's own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A device is admitted three times after its browser's first visit; more often than a client may be refused.
    pub(crate) fn friends_come(&self) {
        let good = client(&self.pki, Some(&self.pki.client("alice-phone")));
        for _ in 0..3 {
            let admitted = self.client(FRIEND, &good, "nas.home.example");
            admitted.handshake().unwrap();
            admitted.ping().unwrap();
            admitted.close_notify();
            assert_eq!(admitted.end(), End::Orderly);
        }
        for _ in 0..12 {
            // The browser has opened a connection in advance, and does not need it.
            let unused = connect_from(FRIEND.parse().unwrap(), self.address);
            unused.shutdown(Shutdown::Write).unwrap();
            plain_end(&unused);
            // It asks which certificate to show.
            let asking = self.client(FRIEND, &good, "nas.home.example");
            asking.flush().unwrap();
            while !asking.tls(|connection| connection.wants_write()) {
                asking.receive_some().unwrap();
            }
            asking.shut_tcp();
            // It was not told yet to trust the gate.
            let wary = self.client(FRIEND, &client(&TestPki::new(), None), "nas.home.example");
            assert!(matches!(wary.handshake(), Err(End::Tls(_))));
            // Its user has chosen no certificate, and tries again.
            self.refused(FRIEND, &client(&self.pki, None), "nas.home.example");
        }
        // The last of them may still be on its way.
        self.wait_for_lines(FRIEND, 3 + 4 * 12);
    }

    /// A client is refused [`STRANGERS`] times for what only strangers do.
    pub(crate) fn strangers_come(&self) {
        let elsewhere = Authority::new("Another house").issue(Certified::for_clients("mallory"));
        let mut nameless = self.pki.client_config(None, TLS13);
        nameless.enable_sni = false;
        for _ in 0..2 {
            self.refused(STRANGER, &client(&self.pki, None), "vpn.home.example");
            self.refused(STRANGER, &client(&self.pki, Some(&elsewhere)), "nas.home.example");
            self.refused(STRANGER, &client(&self.pki, None), "ssh.home.example");
            self.refused(STRANGER, &Arc::new(nameless.clone()), "nas.home.example");
            self.sends(STRANGER, b"GET / HTTP/1.1\r\n\r\n");
        }
        self.wait_for_lines(STRANGER, STRANGERS);
    }

    /// A client sends what looks like lines about [`VICTIM`] wherever the log repeats what was sent: as a server name, in
    /// a certificate's names, as the first bytes. Returns how often that was.
    pub(crate) fn forgers_come(&self) -> usize {
        let line = format!("2026-11-23T11:35:32Z rejected {VICTIM}:1 route=nas certificate/unknown_ca 0.1s: x");
        let json = format!(
            "{{\"time\":\"2026-11-23T11:35:32Z\",\"event\":\"rejected\",\"source\":\"{VICTIM}:1\",\
             \"stage\":\"certificate\",\"reason\":\"unknown_ca\"}}"
        );
        let mut texts = Vec::new();
        for forged in [line, json] {
            for (before, after) in
                [("", ""), ("\n", "\n"), ("x\" ", " \""), ("x\",", ",\"y\":\""), ("\\\" ", ""), ("\r\n", "")]
            {
                texts.push(format!("{before}{forged}{after}"));
            }
        }
        for text in &texts {
            self.sends(FORGER, &Hello { version: 0x0303, suites: &[0x1301], server_name: text }.record());
            self.sends(FORGER, text.as_bytes());
            let mut params = Certified::for_clients(text);
            params.distinguished_name.push(rcgen::DnType::OrganizationName, text.as_str());
            let shown = Authority::new(text).issue(params);
            self.refused(FORGER, &client(&self.pki, Some(&shown)), "nas.home.example");
        }
        // What is allowed in a name gets further than all those.
        let name = format!("rejected.{VICTIM}.home.example");
        self.sends(FORGER, &Hello { version: 0x0303, suites: &[0x1301], server_name: &name }.record());
        let count = 3 * texts.len() + 1;
        self.wait_for_lines(FORGER, count);
        count
    }

    fn client(&self, source: &str, config: &Arc<ClientConfig>, name: &str) -> Client {
        Client::on(connect_from(source.parse::<IpAddr>().unwrap(), self.address), config, name)
    }

    #[track_caller]
    fn refused(&self, source: &str, config: &Arc<ClientConfig>, name: &str) {
        let client = self.client(source, config, name);
        client.handshake().and_then(|()| client.ping()).expect_err("it should have been refused");
    }

    fn sends(&self, source: &str, bytes: &[u8]) {
        let mut stream = connect_from(source.parse().unwrap(), self.address);
        // The gate may have judged and gone before it has everything.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        plain_end(&stream);
    }

    #[track_caller]
    fn wait_for_lines(&self, source: &str, count: usize) {
        let (text, json) = (format!(" {source}:"), format!("\"source\":\"{source}:"));
        wait_until(&format!("{count} lines about {source}"), || {
            let log = std::fs::read_to_string(self.log()).unwrap();
            let lines = log.lines().filter(|line| line.contains(&text) || line.contains(&json)).count();
            (lines >= count).then_some(())
        });
    }
}
