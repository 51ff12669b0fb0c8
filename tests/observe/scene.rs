//! One gate on which every rejection can be brought about, whatever else goes on there.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use doorward::model::rejection::Reason;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
use rustix::process::Signal;
use rustls::ClientConfig;
use serde_json::Value;

use crate::client::{Client, End, Hello, Shown, TLS13, client, connect, connect_from, plain_end, showing, signing_key};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::own_loopback;
use crate::home::House;

/// The limits of [`Scene`]: small enough to be reached, and large enough for everything else.
const CONNECTIONS: usize = 30;
const PER_SOURCE: usize = 20;
const HANDSHAKES: usize = 8;

/// What the certificates, lists and services have to be for every reason, and the gate.
pub(crate) struct Scene {
    pub(crate) gate: Gate,
    pki: TestPki,
    /// Its certificates are good, and no revocation list speaks of them.
    without_list: Authority,
    /// Its revocation list has expired.
    with_old_list: Authority,
    lost: Certified,
    _echo: Backend,
    _full: FullBacklog,
}

/// The packets go where no machine is (RFC 5737).
const ASLEEP: &str =
    "allow = [\"any\"]\nwake = { mac = \"3e:ec:ef:12:34:56\", broadcast = \"192.0.2.255:9\", timeout = \"1s\" }";

impl Scene {
    /// Opens a gate with three listeners (`public`, `denying`, `behind-proxy`) and a route for each of what can go wrong.
    pub(crate) fn open() -> Self {
        let pki = TestPki::new();
        let (without_list, with_old_list) = (Authority::new("No list"), Authority::new("An old list"));
        let lost = pki.client("lost-phone");
        pki.write("clients.pem", [pki.clients.pem(), without_list.pem(), with_old_list.pem()].concat());
        let (before, now) = (days_from_now(-2), days_from_now(0));
        let good = pki.clients.revocation_list(&[0x4a01_u64.into()], before, days_from_now(7));
        let old = with_old_list.revocation_list(&[], before, now - time::Duration::HOUR);
        let (good, old) = (pki.write("good.crl", good), pki.write("old.crl", old));
        let (echo, full) = (Backend::echo(), FullBacklog::new());
        let echo_address = echo.address().to_string();
        let digest = doorward::model::identity::Sha256::of(&lost.chain()[0]);
        let house = House::new(&pki)
            .listener(
                "\n[[listener]]\nname = \"denying\"\naddress = \"127.0.0.1:0\"\ndeny_sources = [\"127.0.0.0/8\"]\n\n\
                 [[listener]]\nname = \"behind-proxy\"\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1\"]",
            )
            .limits(&format!(
                "connections = {CONNECTIONS}\nconnections_per_source = {PER_SOURCE}\nhandshakes = {HANDSHAKES}\n\
                 connection_rate_per_source = \"100/m\"\npenalties = \"on\""
            ))
            .timeouts("client_hello = \"2s\"\nhandshake = \"3s\"\ndial = \"2s\"\ndrain = \"10m\"")
            .client_auth(&format!("revocation_lists = [{good:?}, {old:?}]\ndeny = [\"sha256:{digest}\"]"))
            .route("nas", &echo_address)
            .route_with("pages", &[&echo_address], "allow = [\"any\"]\napplication_protocols = [\"http/1.1\"]")
            .route_with("bobs", &[&echo_address], "allow = [\"bob\"]")
            .route("refused", format!("{}:9", own_loopback()))
            .route("slow", full.address)
            .route("gone", "unix:/nowhere/service.sock")
            // RFC 6761 section 6.4: no such name exists.
            .route("unresolved", "no-such-host.invalid:22")
            .route_with("unhealthy", &["unix:/nowhere/checked.sock"], "allow = [\"any\"]\nhealth = { every = \"100ms\" }")
            .route_with("full", &[&echo_address], "allow = [\"any\"]\nconnections_per_backend = 1")
            .route_with("asleep", &["no-such-host.invalid:23"], ASLEEP)
            // It speaks no TLS.
            .route_with(
                "untls",
                &[&echo_address],
                &format!("allow = [\"any\"]\nbackend_tls = {{ trust = \"sha256:{}\" }}", "00".repeat(32)),
            );
        let gate = Gate::start_with_control(&house.config());
        Self { gate, pki, without_list, with_old_list, lost, _echo: echo, _full: full }
    }

    fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    fn good(&self) -> Arc<ClientConfig> {
        client(&self.pki, Some(&self.pki.client("alice-phone")))
    }

    /// A client that is admitted, sends, receives and closes; then the same client with its ticket.
    pub(crate) fn admit(&self) {
        for version in [TLS13, &[&rustls::version::TLS12]] {
            let config = Arc::new(self.pki.client_config(Some(&self.pki.client("alice-phone")), version));
            for _ in 0..2 {
                let client = Client::admitted(self.address(), &config, "nas.home.example").unwrap();
                client.close_notify();
                assert_eq!(client.end(), End::Orderly);
            }
        }
    }

    /// Whether this can be brought about from outside. A fault of the gate cannot: a unit test in
    /// `src/connection/log/tests.rs` puts one in, and finds it where everything here is read from.
    pub(crate) const fn can_be_provoked(reason: Reason) -> bool {
        !matches!(reason, Reason::Internal)
    }

    /// Brings about every rejection that leaves the gate as it was, all but [`Reason::Draining`], and hands each to `look`
    /// with its line of the log.
    pub(crate) fn provoke_every_reason(&self, mut look: impl FnMut(Reason, &Value)) {
        for &reason in Reason::ALL {
            if Self::can_be_provoked(reason) && reason != Reason::Draining {
                // What the one before has left behind takes places that this one may need.
                self.gate.settled();
                let is_it = |line: &Value| line["stage"] == reason.stage().label() && line["reason"] == reason.label();
                let before = self.gate.lines().iter().filter(|line| is_it(line)).count();
                self.provoke(reason);
                let lines = self.gate.wait_for_lines(&format!("{reason} in the log"), before + 1, is_it);
                look(reason, &lines[before]);
            }
        }
    }

    /// Stops the gate, which stays to be asked for as long as the client lives that is returned. Returns as well the line
    /// about the connection that was on its way in.
    pub(crate) fn drain(&self) -> (Client, Value) {
        self.gate.settled();
        let held = Client::admitted(self.address(), &self.good(), "nas.home.example").unwrap();
        let _half = self.in_handshake(Ipv4Addr::LOCALHOST);
        self.gate.signal(Signal::TERM);
        let line = self.gate.wait_rejected("admission", "draining", 1).remove(0);
        (held, line)
    }

    fn provoke(&self, reason: Reason) {
        let hello = |version, suites| Hello { version, suites, server_name: "nas.home.example" }.record();
        match reason {
            Reason::ConnectionLimit => {
                let _held: Vec<Client> = (0..CONNECTIONS)
                    .map(|number| self.admitted_from(if number < PER_SOURCE { [127, 0, 0, 3] } else { [127, 0, 0, 4] }))
                    .collect();
                plain_end(&connect_from([127, 0, 0, 4].into(), self.address()));
            }
            Reason::HandshakeLimit => {
                let _held: Vec<Client> = (0..=HANDSHAKES).map(|_| self.in_handshake([127, 0, 0, 5].into())).collect();
                self.gate.wait_for_line("room was made", |line| line["reason"] == "handshake_limit");
            }
            Reason::SourceLimit => {
                let _held: Vec<Client> = (0..PER_SOURCE).map(|_| self.admitted_from([127, 0, 0, 6])).collect();
                plain_end(&connect_from([127, 0, 0, 6].into(), self.address()));
            }
            Reason::SourceRate => {
                for _ in 0..=100 {
                    let stream = connect_from([127, 0, 0, 7].into(), self.address());
                    let _ = stream.shutdown(Shutdown::Write);
                    plain_end(&stream);
                }
            }
            Reason::SourceBanned => {
                // Each costs two seconds, some of which pass meanwhile.
                while !self.gate.lines().iter().any(|line| line["reason"] == reason.label()) {
                    let mut stream = connect_from([127, 0, 0, 8].into(), self.address());
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                    plain_end(&stream);
                }
            }
            Reason::SourceDenied => drop(connect(self.gate.listener("denying"))),
            Reason::ProxyHeaderMissing => {
                self.send_to(self.gate.listener("behind-proxy"), &hello(0x0303, &[0x1301]));
            }
            Reason::ProxyHeaderInvalid => {
                self.send_to(self.gate.listener("behind-proxy"), b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n");
            }
            Reason::Draining | Reason::Internal => {}
            Reason::ClientHelloTimeout => drop(plain_end(&connect(self.address()))),
            Reason::ClientHelloClosedEarly => {
                let mut stream = connect(self.address());
                stream.write_all(&hello(0x0303, &[0x1301])[..40]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                plain_end(&stream);
            }
            Reason::NotTls => self.send_to(self.address(), b"GET / HTTP/1.1\r\n\r\n"),
            Reason::Malformed => {
                let mut broken = hello(0x0303, &[0x1301]);
                // The extensions end beyond the message.
                let length = broken.len();
                broken.truncate(length - 1);
                broken[4] -= 1;
                broken[8] -= 1;
                self.send_to(self.address(), &broken);
            }
            Reason::TooLarge => self.send_to(self.address(), &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]),
            Reason::ServerNameMissing => {
                let mut nameless = self.pki.client_config(None, TLS13);
                nameless.enable_sni = false;
                self.refused(&Arc::new(nameless), "nas");
            }
            Reason::ServerNameUnknown => self.refused(&self.good(), "nowhere"),
            Reason::ProtocolVersion => self.send_to(self.address(), &hello(0x0302, &[0xc013, 0x002f])),
            Reason::NoSharedParameters => self.send_to(self.address(), &hello(0x0303, &[0x002f, 0x0002])),
            Reason::NoApplicationProtocol => {
                let mut other = self.pki.client_config(None, TLS13);
                other.alpn_protocols = vec![b"imap".to_vec()];
                self.refused(&Arc::new(other), "pages");
            }
            Reason::Misbehaved => {
                let client = self.in_handshake(Ipv4Addr::LOCALHOST);
                // A handshake message in the clear, where a sealed one should be.
                client.tcp().write_all(&[22, 3, 3, 0, 4, 20, 0, 0, 0]).unwrap();
                client.receive_some().unwrap_err();
            }
            Reason::PeerAlert => {
                let stranger = client(&TestPki::new(), None);
                let stranger = Client::on(connect(self.address()), &stranger, "nas.home.example");
                assert!(matches!(stranger.handshake(), Err(End::Tls(_))));
            }
            Reason::HandshakeTimeout => {
                let waiting = self.in_handshake(Ipv4Addr::LOCALHOST);
                self.gate.wait_for_line("the end of its patience", |line| {
                    line["stage"] == "handshake" && line["reason"] == "timeout"
                });
                drop(waiting);
            }
            Reason::HandshakeClosedEarly => self.in_handshake(Ipv4Addr::LOCALHOST).shut_tcp(),
            Reason::CertificateRequired => self.refused(&client(&self.pki, None), "nas"),
            Reason::UnknownCa => self.shows(&Authority::new("Another house"), |_| ()),
            Reason::Expired => self.shows(&self.pki.clients, |params| {
                params.not_after = days_from_now(0) - time::Duration::MINUTE;
            }),
            Reason::NotYetValid => self.shows(&self.pki.clients, |params| params.not_before = days_from_now(1)),
            Reason::Revoked => self.shows(&self.pki.clients, |params| params.serial_number = Some(0x4a01_u64.into())),
            Reason::RevocationUnknown => self.shows(&self.without_list, |_| ()),
            Reason::RevocationListExpired => self.shows(&self.with_old_list, |_| ()),
            Reason::Denied => self.refused(&client(&self.pki, Some(&self.lost)), "nas"),
            Reason::WrongPurpose => self.shows(&self.pki.clients, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            Reason::CertificateInvalid => self.shows(&self.pki.clients, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            Reason::UnsupportedKey => {
                let small = self.pki.clients.issue_for_small_rsa(Certified::for_clients("alice-phone"));
                let shown = Shown::new(small.chain(), signing_key(small.key()));
                self.refused(&showing(&self.pki, shown, TLS13), "nas");
            }
            Reason::BadSignature => {
                let other = signing_key(self.pki.client("mallory").key());
                let stolen = Shown::new(self.pki.client("alice-phone").chain(), other);
                self.refused(&showing(&self.pki, stolen, TLS13), "nas");
            }
            Reason::IdentityNotAllowed => self.refused(&self.good(), "bobs"),
            Reason::BackendRefused => self.refused(&self.good(), "refused"),
            Reason::BackendTimeout => self.refused(&self.good(), "slow"),
            Reason::BackendUnreachable => self.refused(&self.good(), "gone"),
            Reason::BackendUnresolved => self.refused(&self.good(), "unresolved"),
            Reason::BackendWakeTimeout => self.refused(&self.good(), "asleep"),
            Reason::BackendTls => self.refused(&self.good(), "untls"),
            Reason::BackendUnhealthy => {
                self.gate.wait_metric("doorward_backend_healthy", &[("route", "unhealthy")], 0.0);
                self.refused(&self.good(), "unhealthy");
            }
            Reason::BackendFull => {
                let held = Client::admitted(self.address(), &self.good(), "full.home.example").unwrap();
                held.ping().unwrap();
                self.refused(&self.good(), "full");
            }
        }
    }

    #[track_caller]
    fn refused(&self, config: &Arc<ClientConfig>, route: &str) {
        let name = format!("{route}.home.example");
        Client::admitted(self.address(), config, &name).expect_err("it should have been refused");
    }

    /// A client with a certificate of this authority, changed so.
    #[track_caller]
    fn shows(&self, authority: &Authority, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = Certified::for_clients("alice-phone");
        params.serial_number = Some(0x4a02_u64.into());
        change(&mut params);
        self.refused(&client(&self.pki, Some(&authority.issue(params))), "nas");
    }

    fn send_to(&self, address: SocketAddr, bytes: &[u8]) {
        let mut stream: &TcpStream = &connect(address);
        stream.write_all(bytes).unwrap();
        plain_end(stream);
    }

    fn admitted_from(&self, source: [u8; 4]) -> Client {
        let tcp = connect_from(source.into(), self.address());
        let client = Client::on(tcp, &self.good(), "nas.home.example");
        client.handshake().unwrap();
        client.ping().unwrap();
        client
    }

    /// A client that has the gate's flight and has not answered it.
    fn in_handshake(&self, source: Ipv4Addr) -> Client {
        let tcp = connect_from(IpAddr::V4(source), self.address());
        let client = Client::on(tcp, &self.good(), "nas.home.example");
        client.flush().unwrap();
        while !client.tls(|connection| connection.wants_write()) {
            client.receive_some().unwrap();
        }
        client
    }
}
