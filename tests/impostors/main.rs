//! Row 42: clients that pretend to be a device of the inventory, and clients that take a bait, are said to be impostors on
//! every surface. A device's own certificate is not, whatever else is wrong with it.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;

#[expect(dead_code, reason = "shared with tests/ca")]
#[path = "../ca/home.rs"]
mod home;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use doorward::model::identity::{Identity, Serial};
use doorward::model::rejection::Alert;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, SerialNumber};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use client::{Client, End, Shown, VERSIONS, connect_from, showing, signing_key};
use common::backend::Backend;
use common::gate::{Gate, LOCAL};
use common::pki::{Authority, Certified, TestPki, days_from_now};
use home::Home;

const NAS: &str = "nas.home.example";
const CANARY: &str = "vault-admin.home.example";
const FORGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));

/// A gate for the devices of a folder that `doorward ca` wrote.
struct Scene {
    home: Home,
    pki: TestPki,
    gate: Gate,
    backend: Backend,
}

fn config(home: &Home, pki: &TestPki, backend: &Backend) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    let local = LOCAL.replace("[metrics]\n", &format!("[metrics]\ninventory = {:?}\n", path("pki/inventory.toml")));
    let [chain, key] = ["server.pem", "server-key.pem"].map(|file| pki.path(file).display().to_string());
    format!(
        "{local}\n[limits]\npenalties = \"off\"\n[certificate]\nchain = {chain:?}\nkey = {key:?}\n[client_auth]\n\
         trust = [{:?}]\nrevocation_lists = [{:?}]\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"{NAS}\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
         [[route]]\nname = \"trap\"\ncanary = true\nserver_names = [\"{CANARY}\"]\n",
        path("pki/clients.pem"),
        path("pki/clients.crl"),
        backend.address(),
    )
}

impl Scene {
    fn new() -> Self {
        let (home, pki, backend) = (Home::with_authorities(), TestPki::new(), Backend::echo());
        for device in ["alice-phone", "bob-laptop", "tablet"] {
            home.ca(&["device", device]).success();
        }
        let gate = Gate::start_with_control(&config(&home, &pki, &backend));
        Self { home, pki, gate, backend }
    }

    /// The client with a device's own files.
    fn device(&self, name: &str) -> Arc<ClientConfig> {
        device(&self.home, &self.pki, name)
    }

    fn forged(&self, change: impl FnOnce(&mut CertificateParams)) -> Arc<ClientConfig> {
        let mut params = Certified::for_clients("nothing of yours");
        change(&mut params);
        let forged = Authority::new("Doorward devices").issue(params);
        showing(&self.pki, Shown::certificate(&forged), &VERSIONS)
    }

    #[track_caller]
    fn refused(&self, config: &Arc<ClientConfig>, source: IpAddr, name: &str) -> End {
        let before = self.backend.accepted();
        let client = Client::on(connect_from(source, self.gate.address()), config, name);
        let end = client.handshake().and_then(|()| client.ping()).expect_err("it should have been refused");
        assert_eq!(self.backend.accepted(), before);
        self.gate.settled();
        end
    }

    /// Checks that the forger's address is banned: a connection that shows no valid certificate is closed.
    #[track_caller]
    fn assert_banned(&self) {
        let mut stream = connect_from(FORGER, self.gate.address());
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stream.read_to_end(&mut Vec::new()));
        self.gate.settled();
        assert_eq!(self.why("last")[0]["reason"], "source_banned");
    }

    fn why(&self, wanted: &str) -> Vec<Value> {
        let said = self.gate.ask(&["why", wanted, "--count", "20", "--format", "json"]).success();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        said["refusals"].as_array().unwrap().clone()
    }

    fn impostors(&self, route: &str) -> f64 {
        self.gate.settled().sum("doorward_impostors_total", &[("route", route)])
    }

    /// Checks that the last refusal is told as this impostor by the log, `why`, the page and the metric.
    #[track_caller]
    fn assert_impostor(&self, name: &str, claim: &str, sentence: &str, counted: f64) {
        let expected = json!({ "name": name, "claim": claim });
        let last = self.why("last").remove(0);
        assert_eq!(last["impostor"], expected, "{last}");
        assert!(last["explanation"].as_str().unwrap().starts_with(sentence), "{last}");
        let line = self.gate.wait_for_line("the line", |line| line["id"] == last["id"] && line["event"] == "rejected");
        assert_eq!(line["impostor"], expected, "{line}");
        let named = self.why(name);
        assert!(named.iter().any(|refusal| refusal["impostor"] == expected), "{named:?}");
        let (_, page) = self.gate.get("/");
        let headline = match claim {
            "canary" => format!("Somebody used the canary {name}"),
            "canary_route" => format!("Somebody asked for the canary route {name}"),
            _ => format!("Somebody pretended to be {name}"),
        };
        assert!(
            page.contains(&format!("<title>home.example: s{} ", &headline[1..])),
            "{headline:?} is not on the page"
        );
        let routes = if claim == "canary_route" { "trap" } else { "nas" };
        assert_eq!(self.impostors(routes), counted, "{claim}");
    }
}

fn device(home: &Home, pki: &TestPki, name: &str) -> Arc<ClientConfig> {
    let read = |file: String| std::fs::read(home.path(&file)).unwrap();
    let chain = CertificateDer::pem_slice_iter(&read(format!("devices/{name}.pem"))).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&read(format!("devices/{name}-key.pem"))).unwrap();
    showing(pki, Shown::new(chain, signing_key(key)), &VERSIONS)
}

fn email(address: &str) -> SanType {
    SanType::Rfc822Name(address.to_owned().try_into().unwrap())
}

#[test]
fn row_42_forged_certificates_are_said_to_be_impostors() {
    let scene = Scene::new();
    let listed = scene.home.list();
    let alice = listed.iter().find(|entry| entry["name"] == "alice-phone").unwrap();
    let serial = Serial::parse(alice["serial"].as_str().unwrap()).unwrap();
    let pretended = "Somebody at 127.0.0.66 pretended to be alice-phone";
    let common_name = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
    };
    let forgeries = [
        ("name", scene.forged(|params| common_name(params, "alice-phone"))),
        ("name", scene.forged(|params| common_name(params, "Alice-PHONE"))),
        ("name", scene.forged(|params| params.subject_alt_names = vec![email("alice-phone")])),
        (
            "name",
            scene.forged(|params| {
                common_name(params, "alice-phone");
                (params.not_before, params.not_after) = (days_from_now(-9), days_from_now(-2));
            }),
        ),
        (
            "name",
            scene.forged(|params| {
                common_name(params, "alice-phone");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        ("serial", scene.forged(|params| params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes())))),
    ];
    for (number, (claim, forged)) in (1_u32..).zip(&forgeries) {
        let end = scene.refused(forged, FORGER, NAS);
        assert!(matches!(end, End::Alert(_)), "{end:?}");
        scene.assert_impostor("alice-phone", claim, pretended, number.into());
    }
    // Self-signed, by OpenSSL.
    let made = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
        "-subj",
        "/CN=alice-phone",
        "-keyout",
        "devices/forged-key.pem",
        "-out",
        "devices/forged.pem",
    ];
    scene.home.openssl(&made).success();
    scene.refused(&scene.device("forged"), FORGER, NAS);
    scene.assert_impostor("alice-phone", "name", pretended, 7.0);

    // A forgery that the owner denies by its fingerprint, as from the log, is one all the same.
    let file = scene.gate.folder().join("doorward.toml");
    let shown = scene.why("last")[0]["certificate"]["fingerprint"].as_str().unwrap().to_owned();
    let config = std::fs::read_to_string(file).unwrap();
    let denied = config.replace("[client_auth]\n", &format!("[client_auth]\ndeny = [\"sha256:{shown}\"]\n"));
    assert_eq!(scene.gate.reload(&denied)["event"], "reloaded");
    scene.refused(&scene.device("forged"), FORGER, NAS);
    scene.assert_impostor("alice-phone", "name", pretended, 8.0);

    // The device itself is not affected, and its own refusals come first.
    scene.home.ca(&["revoke", "alice-phone", "--folder", &scene.home.path("pki").display().to_string()]);
    scene.gate.hang_up();
    assert_eq!(scene.refused(&scene.device("alice-phone"), DEVICE, NAS), End::Alert(Alert::CERTIFICATE_REVOKED));
    scene.refused(&scene.device("forged"), FORGER, NAS);
    let told = scene.why("alice-phone");
    assert_eq!((&told[0]["reason"], &told[0]["impostor"]), (&"revoked".into(), &Value::Null), "{told:?}");
    assert_eq!(told[1]["impostor"]["claim"], "name");
    let text = scene.gate.ask(&["why", "alice-phone"]).success().text();
    assert!(text.starts_with("alice-phone's certificate was revoked"), "{text}");
}

/// The name of an authority is no secret: only its signature tells its certificates from forged ones.
#[test]
fn row_42_forgery_that_names_an_authority_of_the_owner_is_an_impostor() {
    let scene = Scene::new();
    let authority = std::fs::read(scene.home.path("pki/clients.pem")).unwrap();
    let authority = CertificateDer::from_pem_slice(&authority).unwrap();
    let name = Identity::from_certificate(&authority, true).unwrap().common_name.unwrap();
    let forged = Authority::new(&name).issue(Certified::for_clients("alice-phone"));
    scene.refused(&showing(&scene.pki, Shown::certificate(&forged), &VERSIONS), FORGER, NAS);
    let certificate = scene.why("last").remove(0)["certificate"].clone();
    assert_eq!(certificate["issuer"], format!("CN={name}"), "{certificate}");
    scene.assert_impostor("alice-phone", "name", "Somebody at 127.0.0.66 pretended to be alice-phone", 1.0);
}

#[test]
fn row_42_own_certificates_of_former_authorities_are_no_impostors() {
    let scene = Scene::new();
    // One of before, one of another authority in use, and one of no authority that is known.
    let old = scene.device("alice-phone");
    let others = Home::with_authorities();
    others.ca(&["device", "alice-phone"]).success();
    let elsewhere = device(&others, &scene.pki, "alice-phone");
    scene.home.ca(&["init", "--domain", "home.example", "--force"]).success();
    scene.home.ca(&["device", "alice-phone", "--force"]).success();
    scene.gate.hang_up();

    assert_eq!(scene.refused(&old, DEVICE, NAS), End::Alert(Alert::UNKNOWN_CA));
    let last = scene.why("last").remove(0);
    assert_eq!(last["impostor"], Value::Null, "{last}");
    let told = last["explanation"].as_str().unwrap();
    assert!(told.starts_with("alice-phone's certificate is from an authority of yours"), "{told}");
    assert_eq!(scene.impostors("nas"), 0.0);

    assert_eq!(scene.refused(&elsewhere, FORGER, NAS), End::Alert(Alert::UNKNOWN_CA));
    scene.assert_impostor("alice-phone", "name", "Somebody at 127.0.0.66 pretended to be alice-phone", 1.0);

    // Another route trusts the other authority: there the certificate is good, here it is the owner's and no forgery.
    for file in ["clients.pem", "clients.crl"] {
        // Into a folder that the gate's sandbox lets it read.
        std::fs::copy(others.path(&format!("pki/{file}")), scene.home.path(&format!("pki/other-{file}"))).unwrap();
    }
    let file = scene.gate.folder().join("doorward.toml");
    let was = std::fs::read_to_string(&file).unwrap();
    let route = format!(
        "[[route]]\nname = \"ssh\"\nserver_names = [\"ssh.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
         [route.client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n",
        scene.backend.address(),
        scene.home.path("pki/other-clients.pem").display().to_string(),
        scene.home.path("pki/other-clients.crl").display().to_string(),
    );
    let reloaded = scene.gate.reload(&was.replacen("[[route]]", &format!("{route}[[route]]"), 1));
    assert_eq!(reloaded["event"], "reloaded", "{reloaded}");
    assert_eq!(scene.refused(&elsewhere, DEVICE, NAS), End::Alert(Alert::UNKNOWN_CA));
    assert_eq!(scene.why("last")[0]["impostor"], Value::Null);
    assert_eq!(scene.impostors("nas"), 1.0);
}

#[test]
fn row_42_canary_certificate_is_refused_reported_and_banned() {
    let scene = Scene::new();
    let folder = scene.home.path("pki").display().to_string();
    let file = scene.gate.folder().join("doorward.toml").display().to_string();
    let made = scene.home.ca(&["device", "spare-phone", "--canary", "--config", &file, "--folder", &folder]);
    let made = made.success();
    assert!(made.stderr.contains("spare-phone is a canary"), "{made}");
    scene.gate.hang_up();
    let canary = scene.device("spare-phone");
    assert_eq!(scene.refused(&canary, FORGER, NAS), End::Alert(Alert::CERTIFICATE_REVOKED));
    scene.assert_impostor(
        "spare-phone",
        "canary",
        "Somebody at 127.0.0.66 used the certificate of spare-phone, which is a canary",
        1.0,
    );
    // Its source is banned, although penalties are off; devices of other sources are not.
    scene.assert_banned();
    let alice = Client::on(connect_from(DEVICE, scene.gate.address()), &scene.device("alice-phone"), NAS);
    alice.handshake().and_then(|()| alice.ping()).unwrap();
}

#[test]
fn row_42_canary_is_refused_although_its_list_is_not_in_force() {
    let scene = Scene::new();
    let file = scene.gate.folder().join("doorward.toml");
    let config = std::fs::read_to_string(&file).unwrap().replace("revocation_lists", "# revocation_lists");
    scene.gate.reload(&config);
    let folder = scene.home.path("pki").display().to_string();
    let nowhere = scene.home.path("none.toml").display().to_string();
    // The gate is not told, but reads the inventory.
    scene.home.ca(&["device", "spare-phone", "--canary", "--config", &nowhere, "--folder", &folder]);
    scene.gate.hang_up();
    scene.refused(&scene.device("spare-phone"), FORGER, NAS);
    scene.assert_impostor("spare-phone", "canary", "Somebody at 127.0.0.66 used the certificate of spare-phone", 1.0);
    assert_eq!(scene.why("last")[0]["reason"], "denied");
}

#[test]
fn row_42_canary_route_answers_as_an_unknown_name_and_bans() {
    let scene = Scene::new();
    let alice = scene.device("alice-phone");
    let unknown = scene.refused(&alice, DEVICE, "nowhere.home.example");
    assert_eq!(scene.impostors("trap"), 0.0);
    assert_eq!(scene.refused(&alice, FORGER, CANARY), unknown);
    assert_eq!(unknown, End::Alert(Alert::UNRECOGNIZED_NAME));
    scene.assert_impostor("trap", "canary_route", &format!("Somebody at 127.0.0.66 asked for {CANARY}."), 1.0);
    scene.assert_banned();
}

#[test]
fn strangers_whose_certificates_claim_nothing_are_no_impostors() {
    let scene = Scene::new();
    scene.refused(&scene.forged(|_| ()), FORGER, NAS);
    let short = scene.forged(|params| params.serial_number = Some(SerialNumber::from(1)));
    scene.refused(&short, FORGER, NAS);
    assert!(scene.why("127.0.0.66").iter().all(|refusal| refusal["impostor"].is_null()));
    assert_eq!(scene.impostors("nas") + scene.impostors("trap"), 0.0);
}
