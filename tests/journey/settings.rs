//! Every setting by which two routes may differ in what they let in, for tests of sessions that go from one to another
//! (attacks.md row 41).

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use doorward::model::identity::Sha256;
use doorward::model::rejection::Alert;
use rcgen::SerialNumber;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

use crate::client::{Client, End, Shown, showing};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::run;

/// What a device is told: nothing, or this alert.
pub(crate) type Told = Option<Alert>;

/// Keys of a route, and what they make of each of the [`Devices`].
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) keys: String,
    pub(crate) own: Told,
    pub(crate) strange: Told,
}

/// One device of the owner's, and one of another authority.
pub(crate) struct Devices {
    pub(crate) own: Certified,
    pub(crate) strange: Certified,
}

/// All settings, from lax to strict, with the files that they name.
pub(crate) fn settings(pki: &TestPki) -> (Devices, Vec<Setting>) {
    let mut own = Certified::for_clients("alice-phone");
    own.serial_number = Some(SerialNumber::from(7));
    let own = pki.clients.issue(own);
    let other = Authority::new("Another house");
    let trust = pki.write("other.pem", other.pem());
    let list = |name: &str, revoked: &[u64], days| {
        let revoked: Vec<SerialNumber> = revoked.iter().map(|number| SerialNumber::from(*number)).collect();
        pki.write(name, pki.clients.revocation_list(&revoked, days_from_now(-9), days_from_now(days)))
    };
    let (revoked, current) = (list("revoked.crl", &[7], 5), list("current.crl", &[8], 5));
    let expired = list("expired.crl", &[8], -1);
    let server = pki.servers.issue(Certified::for_servers(&["home.example", "*.home.example"]));
    let (chain, key) = (pki.write("server2.pem", server.chain_pem()), pki.write("server2-key.pem", server.key_pem()));
    let digest = Sha256::of(&own.chain()[0]);
    let any = "allow = [\"any\"]";
    let auth = |keys: &str| format!("{any}\n[route.client_auth]\n{keys}");
    let unknown = Some(Alert::UNKNOWN_CA);
    let unverified = |mode: &str| format!("allow = [\"unverified\"]\n[route.client_auth]\nmode = {mode:?}");
    let settings = [
        ("request", unverified("request"), None, None),
        ("require", unverified("require"), None, None),
        (
            "given",
            "allow = [\"any\", \"unverified\"]\n[route.client_auth]\nmode = \"verify_if_given\"".to_owned(),
            None,
            unknown,
        ),
        ("plain", any.to_owned(), None, unknown),
        ("silent", auth("announce_trust = \"off\""), None, unknown),
        ("keep", auth("expired_session = \"keep\""), None, unknown),
        ("warn", auth(&format!("revocation_lists = [{expired:?}]\nexpired_revocation_list = \"warn\"")), None, unknown),
        ("listed", auth(&format!("revocation_lists = [{current:?}]")), None, unknown),
        ("imap", format!("{any}\napplication_protocols = [\"imap\"]"), None, unknown),
        ("alice", "allow = [\"alice-phone\"]".to_owned(), None, unknown),
        ("pair", "allow = [\"alice-phone\", \"bob-laptop\"]".to_owned(), None, unknown),
        ("leaf", auth("revocation_check = \"leaf\""), None, unknown),
        ("denies", auth("deny = [\"serial:08\"]"), None, unknown),
        ("server", format!("{any}\n[route.certificate]\nchain = {chain:?}\nkey = {key:?}"), None, unknown),
        ("other", auth(&format!("trust = [{trust:?}]")), unknown, None),
        ("both", auth(&format!("trust = [{trust:?}, {:?}]", pki.path("clients.pem"))), None, None),
        ("http", format!("{any}\napplication_protocols = [\"http/1.1\"]"), Some(Alert::NO_APPLICATION_PROTOCOL), None),
        ("bob", "allow = [\"bob-laptop\"]".to_owned(), Some(Alert::ACCESS_DENIED), unknown),
        ("denied", auth(&format!("deny = [\"sha256:{digest}\"]")), Some(Alert::ACCESS_DENIED), unknown),
        ("revoked", auth(&format!("revocation_lists = [{revoked:?}]")), Some(Alert::CERTIFICATE_REVOKED), unknown),
        ("expired", auth(&format!("revocation_lists = [{expired:?}]")), unknown, unknown),
    ];
    let settings = settings.map(|(name, keys, own, strange)| {
        // Protocols come first.
        let strange = if name == "http" { own } else { strange };
        Setting { name, keys, own, strange }
    });
    (Devices { own, strange: other.issue(Certified::for_clients("alice-phone")) }, settings.into())
}

/// A new file for `[tickets] keys`.
pub(crate) fn shared_key(pki: &TestPki) -> PathBuf {
    let file = pki.path("tickets.key");
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["generate", "ticket-key"]).arg(&file)).success();
    file
}

/// A client that shows this certificate, speaks this version and the protocol imap, and keeps its sessions in `resumption`.
pub(crate) fn device(
    pki: &TestPki,
    certified: &Certified,
    version: &'static SupportedProtocolVersion,
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let config = showing(pki, Shown::certificate(certified) as Arc<dyn ResolvesClientCert>, &[version]);
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"imap".to_vec()];
    config.resumption = resumption;
    Arc::new(config)
}

/// Goes to a server name: what the device is told, and whether a session was resumed there.
#[track_caller]
pub(crate) fn visit(gate: &Gate, device: &Arc<ClientConfig>, server_name: &str) -> (Told, bool) {
    match Client::admitted(gate.address(), device, server_name) {
        Ok(client) => {
            let resumed = client.tls(|connection| connection.handshake_kind()) == Some(HandshakeKind::Resumed);
            client.close_notify();
            client.end();
            (None, resumed)
        }
        Err(End::Alert(alert)) => (Some(alert), false),
        Err(end) => panic!("{server_name}: {end:?}"),
    }
}
