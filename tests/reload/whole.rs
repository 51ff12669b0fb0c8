//! A configuration is applied whole or not at all, and `doorward reload` shows the result.

use std::fs;

use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use serde_json::Value;

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::text::escaped;
use crate::home::{House, assert_admitted, assert_refused};
use crate::{NAS, SSH, controlled, doorward, doorward_at_socket, reload};

const RELOADS: &str = "doorward_config_reloads_total";
const LAST: &str = "doorward_config_last_reload_successful";
const EXPIRY: &str = "doorward_certificate_expiry_timestamp_seconds";

/// `access_denied`, `certificate_revoked`, `unknown_ca`, `unrecognized_name` (RFC 8446 section 6.2).
const ACCESS_DENIED: Alert = Alert(49);
const REVOKED: Alert = Alert(44);
const UNKNOWN_CA: Alert = Alert(48);
const UNRECOGNIZED_NAME: Alert = Alert(112);

#[test]
fn each_part_of_the_configuration_is_reloaded() {
    let pki = TestPki::new();
    let (nas, ssh) = (Backend::echo(), Backend::echo());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let bob = client(&pki, Some(&pki.client("bob-laptop")));
    // The second backend is never needed, but the sandbox allows its port from now on.
    let both = [nas.address().to_string(), ssh.address().to_string()];
    let before = House::new(&pki).route_with("nas", &[&both[0], &both[1]], "allow = [\"any\"]");
    let gate = Gate::start(&controlled(&before));
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    assert_refused(&gate, &ssh, Reason::ServerNameUnknown, UNRECOGNIZED_NAME, || {
        Client::admitted(gate.address(), &alice, SSH)
    });

    // A route more, over SIGHUP, and one that lets in fewer.
    let house = House::new(&pki).route_with("nas", &[&nas.address().to_string()], "allow = [\"alice-phone\"]");
    let house = house.route("ssh", ssh.address());
    let output = gate.reload(&controlled(&house));
    assert_eq!((&output["event"], output["after_restart"].is_null()), (&"reloaded".into(), true), "{output}");
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    assert_admitted(&gate, || Client::admitted(gate.address(), &bob, SSH));
    assert_refused(&gate, &nas, Reason::IdentityNotAllowed, ACCESS_DENIED, || {
        Client::admitted(gate.address(), &bob, NAS)
    });
    let status: Value =
        serde_json::from_str(&doorward(&gate, &["status", "--format", "json"]).success().text()).unwrap();
    let routes: Vec<&str> =
        status["routes"].as_array().unwrap().iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(routes, ["nas", "ssh"]);
    assert_eq!(gate.metrics().sum("doorward_connections_closed_total", &[("route", "ssh")]), 1.0);

    // Another certificate of the gate's own, other limits, a revocation list; by command, and one route less.
    let carol = client(&pki, Some(&pki.clients.issue(numbered("carol-phone", 77))));
    assert_admitted(&gate, || Client::admitted(gate.address(), &carol, SSH));
    let list = pki.clients.revocation_list(&[SerialNumber::from(77)], days_from_now(-1), days_from_now(5));
    let list = pki.write("clients.crl", list);
    let server = pki.servers.issue(Certified::for_servers(&["home.example", "*.home.example"]));
    pki.write("server.pem", server.chain_pem());
    pki.write("server-key.pem", server.key_pem());
    let house = House::new(&pki)
        .client_auth(&format!("revocation_lists = [{list:?}]"))
        .listener("deny_sources = [\"127.0.0.99/32\"]")
        .route("ssh", ssh.address());
    reload(&gate, &controlled(&house)).success();
    assert_refused(&gate, &ssh, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &carol, SSH));
    assert_refused(&gate, &nas, Reason::ServerNameUnknown, UNRECOGNIZED_NAME, || {
        Client::admitted(gate.address(), &alice, NAS)
    });
    let guest = Client::admitted(gate.address(), &alice, SSH).unwrap();
    let shown = guest.tls(|connection| connection.peer_certificates().unwrap()[0].clone());
    assert_eq!(shown, server.chain()[0], "the gate shows its new certificate");
    drop(guest);
    gate.settled();
    let denied = crate::client::connect_from("127.0.0.99".parse().unwrap(), gate.address());
    gate.wait_rejected("admission", "source_denied", 1);
    drop(denied);

    // What is shown of certificates and lists is what there is now, and what was counted stays counted.
    let metrics = gate.metrics();
    assert!(metrics.label_values(EXPIRY, "name").contains(&list.to_str().unwrap()), "{metrics:?}");
    assert_eq!(metrics.label_values("doorward_backend_up", "route"), ["ssh"]);
    assert!(metrics.sum("doorward_connections_closed_total", &[("route", "nas")]) > 0.0);
    assert_eq!((metrics.sum(RELOADS, &[("outcome", "ok")]), metrics.sum(LAST, &[])), (2.0, 1.0));

    // Other authorities.
    let others = Authority::new("Others");
    pki.write("clients.pem", others.pem());
    reload(&gate, &controlled(&House::new(&pki).route("ssh", ssh.address()))).success();
    assert_refused(&gate, &ssh, Reason::UnknownCa, UNKNOWN_CA, || Client::admitted(gate.address(), &alice, SSH));
    let dave = client(&pki, Some(&others.issue(Certified::for_clients("dave"))));
    assert_admitted(&gate, || Client::admitted(gate.address(), &dave, SSH));
}

/// A client certificate with this serial number.
fn numbered(name: &str, serial: u64) -> rcgen::CertificateParams {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// attacks.md row 24, and the messages about broken lists of row 12.
#[test]
fn broken_configuration_changes_nothing_and_errors_match_check() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let revoked = client(&pki, Some(&pki.clients.issue(numbered("carol-phone", 77))));
    let list = pki.clients.revocation_list(&[SerialNumber::from(77)], days_from_now(-1), days_from_now(5));
    let list_file = pki.write("clients.crl", &list);
    let house =
        || House::new(&pki).client_auth(&format!("revocation_lists = [{list_file:?}]")).route("nas", backend.address());
    let good = controlled(&house());
    let gate = Gate::start(&good);
    let guest = Client::admitted(gate.address(), &alice, NAS).unwrap();

    let keep = |name: &str| fs::read(pki.path(name)).unwrap();
    let (key, trust) = (keep("server-key.pem"), keep("clients.pem"));
    let other_key = pki.client("other").key_pem();
    let truncated = &list[..list.len() / 2];
    type Broken<'a> = (&'a str, String, Vec<(&'a str, Option<&'a [u8]>)>);
    let broken: Vec<Broken<'_>> = vec![
        ("no TOML", good.replace("[limits]", "[limits"), vec![]),
        ("an unknown key", good.replace("[limits]", "[limits]\nconections = 3"), vec![]),
        ("two mistakes", good.replace("[limits]", "[limits]\nhandshakes = -3\nconections = 3"), vec![]),
        ("a key that does not fit", good.clone(), vec![("server-key.pem", Some(other_key.as_bytes()))]),
        ("no authority in the file", good.clone(), vec![("clients.pem", Some(b""))]),
        ("a file that is gone", good.clone(), vec![("clients.pem", None)]),
        ("a truncated list", good.clone(), vec![("clients.crl", Some(truncated.as_bytes()))]),
        (
            "a list of rubbish",
            good.clone(),
            vec![("clients.crl", Some(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))],
        ),
        ("no list", good.clone(), vec![("clients.crl", None)]),
    ];
    let mut failed = 0.0;
    for (what, config, files) in broken {
        for (name, contents) in &files {
            match contents {
                Some(contents) => drop(pki.write(name, contents)),
                None => fs::remove_file(pki.path(name)).unwrap(),
            }
        }
        let output = reload(&gate, &config).failure();
        assert_eq!(output.status.code(), Some(3), "{what}: {output}");
        // The same texts, every error, and each once.
        let checked = doorward(&gate, &["check"]).failure();
        let (_, errors) = checked.stderr.split_once(":\n").unwrap();
        assert!(output.stderr.ends_with(errors), "{what}: {output}\n{checked}");
        let line = gate.hang_up();
        assert_eq!(line["event"], "reload_failed", "{what}: {line}");
        assert_eq!(line["errors"].as_array().unwrap().len(), checked.stderr.matches("wrong: ").count(), "{line}");
        failed += 2.0;
        let metrics = gate.metrics();
        assert_eq!((metrics.sum(RELOADS, &[("outcome", "failed")]), metrics.sum(LAST, &[])), (failed, 0.0), "{what}");

        let status = doorward_at_socket(&gate, &["status"]).text();
        assert!(status.contains("latest reload was refused") && status.contains(errors.trim()), "{what}: {status}");
        let page = gate.get("/").1;
        let shown =
            line["errors"].as_array().unwrap().iter().filter(|error| page.contains(&escaped(error.as_str().unwrap())));
        assert_eq!(shown.count(), line["errors"].as_array().unwrap().len(), "{what}: {page}");
        assert!(page.contains("The changed configuration is not in force"), "{what}: {page}");

        // Nothing has changed: the session is open, the device is admitted, the revoked one refused.
        guest.ping().unwrap();
        assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
        assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &revoked, NAS));
        for (name, contents) in
            [("server-key.pem", &key[..]), ("clients.pem", &trust), ("clients.crl", list.as_bytes())]
        {
            pki.write(name, contents);
        }
    }

    let output = reload(&gate, &good).success();
    let status = doorward_at_socket(&gate, &["status"]).text();
    assert!(!status.contains("reload was refused"), "{status}");
    assert!(!gate.get("/").1.contains("is not in force"));
    assert!(output.text().contains("kept: 1. Cut, because they are no longer admitted: 0."), "{output}");
    let metrics = gate.metrics();
    assert_eq!((metrics.sum(RELOADS, &[("outcome", "ok")]), metrics.sum(LAST, &[])), (1.0, 1.0));
    guest.ping().unwrap();
    drop(guest);
}

#[test]
fn reload_lists_what_needs_a_restart_and_applies_the_rest() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let house = House::new(&pki).route("nas", backend.address());
    let gate = Gate::start(&controlled(&house));
    let house = house.route("ssh", backend.address());
    let config = controlled(&house)
        .replace("format = \"json\"", "format = \"text\"")
        .replace("control.sock", "elsewhere.sock")
        .replace("[[listener]]", "kernel_tls = \"auto\"\n[[listener]]");
    fs::write(gate.folder().join("doorward.toml"), config).unwrap();
    let socket = gate.folder().join("control.sock");
    let arguments = ["reload", "--format", "json", "--socket", socket.to_str().unwrap()];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    let output = crate::run(command.args(arguments)).success();
    let output: Value = serde_json::from_str(&output.text()).unwrap();
    let expected = ["kernel_tls", "control.socket", "[log]"];
    assert_eq!(output["after_restart"], Value::from(expected.to_vec()), "{output}");
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, SSH));
}

#[test]
fn reload_reports_access_gained_and_lost() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let lost = pki.client("carol-phone");
    let fingerprint = Sha256::of(&lost.chain()[0]);
    let lists = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let keys = format!("revocation_lists = [{:?}]", lists(&[]));
    let house = |keys: &str, ssh: &str| {
        let house = House::new(&pki).client_auth(keys).route("nas", &address);
        house.route_with("ssh", &[&address], &format!("allow = {ssh}"))
    };
    let gate = Gate::start(&controlled(&house(&keys, "[\"alice-phone\"]")));
    let guest = Client::admitted(gate.address(), &client(&pki, Some(&lost)), NAS).unwrap();
    let difference = |config: &str| -> [Vec<(String, String)>; 2] {
        fs::write(gate.folder().join("doorward.toml"), config).unwrap();
        let output = doorward(&gate, &["reload", "--format", "json"]).success();
        let output: Value = serde_json::from_str(&output.text()).unwrap();
        ["gained", "lost"].map(|what| {
            let changes = output[what].as_array().unwrap().iter();
            changes.map(|change| (change["who"].as_str().unwrap().to_owned(), change["routes"].to_string())).collect()
        })
    };
    let expect = |changes: &[(&str, &str)]| -> Vec<(String, String)> {
        changes.iter().map(|(who, routes)| ((*who).to_owned(), (*routes).to_owned())).collect()
    };
    const NAS_ONLY: &str = "[\"nas\"]";
    const SSH_ONLY: &str = "[\"ssh\"]";
    const BOTH: &str = "[\"nas\",\"ssh\"]";

    // One device gains access, one loses it, and one that never connected is revoked.
    lists(&[SerialNumber::from(77)]);
    let denying = format!("{keys}\ndeny = [\"sha256:{fingerprint}\"]");
    let [gained, lost] = difference(&controlled(&house(&denying, "[\"bob-laptop\", \"alice-phone\"]")));
    assert_eq!(gained, expect(&[("bob-laptop", SSH_ONLY)]));
    let by_print = format!("sha256:{fingerprint}");
    let by_number = ("serial:4d of CN=Clients of home.example", BOTH);
    assert_eq!(lost, expect(&[(&by_print, NAS_ONLY), ("carol-phone", NAS_ONLY), by_number]));
    assert_eq!(guest.end(), End::of(CloseReason::Denied));

    // As text, and the same configuration again: no change.
    let text = doorward(&gate, &["reload"]).success().text();
    assert!(text.contains("Access is unchanged.\n"), "{text}");
    fs::write(gate.folder().join("doorward.toml"), controlled(&house(&denying, "[\"bob-laptop\"]"))).unwrap();
    let text = doorward(&gate, &["reload"]).success().text();
    assert!(text.contains("Access lost:\n  alice-phone  ssh\n"), "{text}");
    assert!(!text.contains("Access gained"), "{text}");

    // The revoked device is accepted again, and another authority is trusted.
    lists(&[]);
    let others = pki.write("others.pem", Authority::new("Others").pem());
    let config = controlled(&house(&denying, "[\"bob-laptop\"]"));
    let both = config.replace("trust = [", &format!("trust = [{others:?}, "));
    let [gained, lost] = difference(&both);
    assert_eq!(gained, expect(&[("certificates issued by Others", BOTH), by_number]));
    assert_eq!(lost, []);
    let [gained, lost] = difference(&config);
    assert_eq!((gained, lost), (vec![], expect(&[("certificates issued by Others", BOTH)])));

    // Another route that every client can reach. The log reports it as well.
    let line = gate.reload(&controlled(&house(&denying, "[\"bob-laptop\"]").passthrough("mail", &address)));
    let gained: Vec<&str> = line["gained"].as_array().unwrap().iter().map(|who| who.as_str().unwrap()).collect();
    assert!(gained.contains(&"no certificate (mail)") && gained.contains(&"bob-laptop (mail)"), "{line}");
    assert!(line["lost"].is_null(), "{line}");
}

/// As after a restored backup. The list is accepted, since that may be intended, with a warning in the log.
#[test]
fn list_older_than_the_one_in_force_causes_a_warning() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let list = |made: i64, revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(made), days_from_now(5)))
    };
    let lists = format!("revocation_lists = [{:?}]", list(-3, &[]));
    let config = controlled(&House::new(&pki).client_auth(&lists).route("nas", backend.address()));
    let gate = Gate::start(&config);
    let warned = |of: &str| {
        let line = gate.hang_up();
        line["warnings"].as_array().unwrap().iter().filter(|one| one.as_str().unwrap().contains(of)).count()
    };
    list(-1, &[SerialNumber::from(77)]);
    assert_eq!(warned("accepted again"), 0);
    list(-2, &[]);
    assert_eq!(warned("accepted again"), 1);
    assert_eq!(warned("accepted again"), 0);
    // Other warnings are in the log as well.
    pki.write("clients.crl", pki.clients.revocation_list(&[], days_from_now(-2), days_from_now(-1)));
    assert_eq!(warned("expired on"), 1);
}

/// With thousands of devices, the report of access takes seconds. No session stays open longer because of that.
#[test]
fn sessions_are_cut_before_the_access_report_is_made() {
    const DEVICES: usize = 3000;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let names = |first: usize| (first..first + DEVICES).map(|number| format!("device-{number}")).collect::<Vec<_>>();
    let config = |first| {
        let keys = format!("allow = {:?}", names(first));
        controlled(&House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys))
    };
    let gate = Gate::start(&config(0));
    let device = client(&pki, Some(&pki.client("device-0")));
    let guest = Client::admitted(gate.address(), &device, NAS).unwrap();
    let line = gate.reload(&config(1));
    assert_eq!((&line["event"], &line["sessions_cut"]), (&"reloaded".into(), &1.into()), "{line}");
    let lines = gate.lines();
    let at = |event: &str| lines.iter().position(|line| line["event"] == event);
    assert!(at("closed").is_some_and(|closed| Some(closed) < at("reloaded")), "{lines:?}");
    assert_eq!(line["lost"], serde_json::json!(["device-0 (nas)"]));
    drop(guest);
}

/// The state of sources is not part of the configuration.
#[test]
fn ban_outlasts_a_reload() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = |limits: &str| {
        let house = House::new(&pki).limits(&format!("connection_rate_per_source = \"off\"\n{limits}"));
        controlled(&house.route("nas", backend.address()))
    };
    let gate = Gate::start(&house("penalties = \"on\""));
    let knock = || {
        let stream = crate::client::connect_from("127.0.0.77".parse().unwrap(), gate.address());
        crate::client::refused_plainly(&stream, b"GET / HTTP/1.1\r\nHost: nas\r\n\r\n");
    };
    // Each costs two seconds of sixty, and some milliseconds have passed.
    (0..31).for_each(|_| knock());
    gate.wait_rejected("client_hello", "not_tls", 31);
    knock();
    gate.wait_rejected("admission", "source_banned", 1);
    reload(&gate, &house("penalties = \"on\"\nconnections = 77")).success();
    knock();
    gate.wait_rejected("admission", "source_banned", 2);
    // The new limit applies.
    reload(&gate, &house("penalties = \"on\"\nconnections = 1")).success();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    gate.settled();
    let guest = Client::admitted(gate.address(), &alice, NAS).unwrap();
    drop(crate::client::connect(gate.address()));
    gate.wait_rejected("admission", "connection_limit", 1);
    guest.ping().unwrap();
    drop(guest);
}
