//! Listeners are added, removed and moved, and open sessions do not notice.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use doorward::model::rejection::{Alert, Reason};
use serde_json::Value;

use crate::client::{Client, client};
use crate::common::backend::{Backend, kept_address};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::{House, assert_admitted, assert_refused};
use crate::{NAS, SSH, controlled, doorward, doorward_at_socket, reload};

/// `unrecognized_name` (RFC 8446 section 6.2).
const UNRECOGNIZED_NAME: Alert = Alert(112);

const ACCEPTED: &str = "doorward_connections_accepted_total";
const REJECTED: &str = "doorward_connections_rejected_total";

/// The configuration with one more listener.
fn and(config: &str, name: &str, address: impl ToString) -> String {
    format!("{config}\n[[listener]]\nname = \"{name}\"\naddress = \"{}\"\n", address.to_string())
}

/// Takes a configuration over and returns what `doorward reload` says in JSON.
#[track_caller]
fn reloaded(gate: &Gate, config: &str) -> Value {
    std::fs::write(gate.folder().join("doorward.toml"), config).unwrap();
    serde_json::from_str(&doorward(gate, &["reload", "--format", "json"]).success().text()).unwrap()
}

/// Name and address of each listener in a list of the answer.
fn doors(list: &Value) -> Vec<(String, SocketAddr)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let door = |door: &Value| (text(&door["name"]), text(&door["address"]).parse().unwrap());
    list.as_array().unwrap().iter().map(door).collect()
}

/// Where the gate says that it listens.
fn listening(gate: &Gate) -> Vec<(String, SocketAddr)> {
    let status = doorward(gate, &["status", "--format", "json"]).success().text();
    doors(&serde_json::from_str::<Value>(&status).unwrap()["listeners"])
}

#[track_caller]
fn assert_closed(address: SocketAddr) {
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
}

/// A configuration whose sandbox does not refuse ports that were not named at the start (tests/sandbox does that).
fn at_any_port(house: &House<'_>) -> String {
    format!("{}\n[sandbox]\nmode = \"off\"\n", controlled(house))
}

#[test]
fn listeners_are_added_moved_and_removed() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let config = at_any_port(&House::new(&pki).route("nas", backend.address()));
    let gate = Gate::start(&config);
    let first = Client::admitted(gate.address(), &alice, NAS).unwrap();

    let answer = reloaded(&gate, &and(&config, "second", "127.0.0.1:0"));
    let opened = doors(&answer["opened"]);
    let [(name, second)] = &opened[..] else { panic!("{answer}") };
    assert_eq!((name.as_str(), &answer["closed"]), ("second", &Value::from([0; 0])), "{answer}");
    assert_eq!(listening(&gate), [("public".to_owned(), gate.address()), ("second".to_owned(), *second)]);
    let line = gate.wait_for_line("that it listens", |line| line["listener"] == "second");
    assert_eq!((&line["event"], &line["address"]), (&"listening".into(), &second.to_string().into()));

    // It has its metrics from the start: connections through it are counted, admitted or refused.
    assert_eq!(gate.metrics().sum(REJECTED, &[("listener", "second")]), 0.0);
    let verdict = assert_admitted(&gate, || Client::admitted(*second, &alice, NAS));
    assert_eq!(verdict["listener"], "second");
    let refused = assert_refused(&gate, &backend, Reason::ServerNameUnknown, UNRECOGNIZED_NAME, || {
        Client::admitted(*second, &alice, SSH)
    });
    assert_eq!(refused["listener"], "second");
    let guest = Client::admitted(*second, &alice, NAS).unwrap();
    let metrics = gate.metrics();
    assert_eq!(metrics.sum(ACCEPTED, &[("listener", "second")]), 3.0);
    assert_eq!(metrics.sum(REJECTED, &[("listener", "second")]), 1.0);

    // To every address of the machine, although the narrow one is in the way; and back.
    let everywhere = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), second.port());
    for (from, to) in [(*second, everywhere), (everywhere, *second)] {
        let answer = reloaded(&gate, &and(&config, "second", to));
        assert_eq!(doors(&answer["opened"]), [("second".to_owned(), to)], "{answer}");
        assert_eq!(doors(&answer["closed"]), [("second".to_owned(), from)], "{answer}");
        assert_admitted(&gate, || Client::admitted(*second, &alice, NAS));
    }
    assert_closed(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), second.port()));

    // Its other keys are its own to the end: only this door is shut for this source.
    let denying = format!("{}deny_sources = [\"127.0.0.1\"]\n", and(&config, "second", second));
    let answer = reloaded(&gate, &denying);
    assert_eq!((doors(&answer["opened"]), doors(&answer["closed"])), (vec![], vec![]), "{answer}");
    drop(crate::client::connect(*second));
    assert_eq!(gate.wait_rejected("admission", "source_denied", 1)[0]["listener"], "second");
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));

    // Sessions of a removed listener stay open: only routes decide about access.
    let text = reload(&gate, &config).success().text();
    assert!(text.contains(&format!("Closed listener second on {second}\n")), "{text}");
    assert_closed(*second);
    let line = gate.wait_for_lines("that it does not listen", 3, |line| line["event"] == "listener_closed");
    assert_eq!((&line[2]["listener"], &line[2]["address"]), (&"second".into(), &second.to_string().into()));
    assert_eq!(listening(&gate), [("public".to_owned(), gate.address())]);
    guest.ping().unwrap();
    first.ping().unwrap();
    drop((guest, first));
    // What was counted stays counted.
    assert!(gate.settled().sum(ACCEPTED, &[("listener", "second")]) >= 6.0);
}

#[test]
fn address_in_use_refuses_the_whole_reload() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let config = at_any_port(&House::new(&pki).route("nas", backend.address()));
    let gate = Gate::start(&config);
    let guest = Client::admitted(gate.address(), &alice, NAS).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();

    // A free address stands before it; the first listener and the route are gone.
    let wanted = at_any_port(&House::new(&pki).route("ssh", backend.address()));
    let wanted = wanted.replace("name = \"public\"", "name = \"renamed\"");
    let free = kept_address(([127, 0, 0, 1], 0));
    let refused = reload(&gate, &and(&and(&wanted, "free", free), "taken", taken)).failure();
    assert_eq!(refused.status.code(), Some(3), "{refused}");
    let expected = format!("cannot listen on {taken} (listener \"taken\"): Address already in use");
    assert!(refused.stderr.contains(&expected), "{refused}");
    assert!(
        refused
            .stderr
            .contains("another process listens there (a second doorward run?): stop it, or choose another port"),
        "{refused}"
    );

    assert_closed(free);
    let status = doorward_at_socket(&gate, &["status"]).text();
    assert!(status.contains("latest reload was refused") && status.contains(&expected), "{status}");
    guest.ping().unwrap();
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    let unknown = || Client::admitted(gate.address(), &alice, SSH);
    assert_refused(&gate, &backend, Reason::ServerNameUnknown, UNRECOGNIZED_NAME, unknown);
    drop(guest);

    // Once the address is free, the reload succeeds.
    drop(other);
    reload(&gate, &and(&and(&wanted, "free", free), "taken", taken)).success();
    assert_closed(gate.address());
    for address in [free, taken] {
        assert_admitted(&gate, || Client::admitted(address, &alice, SSH));
    }
}
