//! Clients that reset the connection, at every stage: attacks.md row 20.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use doorward::model::rejection::Reason;

use crate::client::{Client, Hello, client, connect, reset};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::{House, verdicts};

const NAME: &str = "nas.home.example";
const EACH: usize = 50;

fn descriptors(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

#[test]
fn three_hundred_resets_leave_nothing_behind() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    let before = descriptors(&gate);
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let address = gate.address();
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record();
    let in_handshake = || {
        let client = Client::on(connect(address), &config, NAME);
        client.flush().unwrap();
        client
    };
    let ways: [&(dyn Fn() + Sync); 6] = [
        &|| reset(connect(address)),
        &|| {
            let mut stream = connect(address);
            stream.write_all(&hello[..60]).unwrap();
            reset(stream);
        },
        &|| in_handshake().reset(),
        &|| {
            let client = in_handshake();
            client.receive_some().unwrap();
            client.reset();
        },
        &|| Client::handshaken(address, &config, NAME).unwrap().reset(),
        &|| {
            let client = Client::admitted(address, &config, NAME).unwrap();
            client.send(&[7; 300_000]).unwrap();
            client.read_exact(&mut [0; 50_000]).unwrap();
            client.reset();
        },
    ];
    thread::scope(|scope| {
        for way in ways {
            scope.spawn(move || (0..EACH).for_each(|_| way()));
        }
    });
    let all = 6 * EACH;
    gate.wait_metric("doorward_connections_accepted_total", &[], all as f64);
    gate.settled();
    wait_until("all descriptors are closed", || (descriptors(&gate) == before).then_some(()));

    let verdicts = verdicts(&gate);
    assert_eq!(verdicts.len(), all);
    let count = |stage: &str, reason: &str| {
        verdicts.iter().filter(|line| (&line["stage"], &line["reason"]) == (&stage.into(), &reason.into())).count()
    };
    // Before, in and after its ClientHello; a hello that came whole before the reset may have been read or not.
    let early = count("client_hello", Reason::ClientHelloClosedEarly.label());
    let handshake = count("handshake", Reason::HandshakeClosedEarly.label());
    assert!((2 * EACH..=4 * EACH).contains(&early), "{early}");
    assert!((EACH..=3 * EACH).contains(&handshake), "{handshake}");
    let closed = verdicts.iter().filter(|line| line["event"] == "closed").count();
    assert!((EACH..=2 * EACH).contains(&closed), "{closed}");
    assert_eq!(early + handshake + closed, all, "and nothing else");

    Client::admitted(address, &config, NAME).unwrap();
}

/// The backend is told by a reset, too: what it got is not the whole.
#[test]
fn reset_in_mid_transfer_is_passed_on_as_one() {
    let pki = TestPki::new();
    for route in ["nas", "mail"] {
        let (told, tell) = std::sync::mpsc::channel();
        let backend = crate::backends::once(move |mut stream| {
            let mut buffer = [0; 4096];
            let end = loop {
                match std::io::Read::read(&mut stream, &mut buffer) {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(error.kind()),
                }
            };
            told.send(end).unwrap();
        });
        let gate = House::new(&pki).route("nas", backend).passthrough("mail", backend).open();
        if route == "nas" {
            let config = client(&pki, Some(&pki.client("alice-phone")));
            let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
            client.send(&[7; 100_000]).unwrap();
            gate.wait_metric("doorward_relay_bytes_total", &[("route", route)], 100_000.0);
            client.reset();
        } else {
            let mut stream = connect(gate.address());
            let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record();
            stream.write_all(&hello).unwrap();
            gate.wait_metric("doorward_relay_bytes_total", &[("route", route)], hello.len() as f64);
            reset(stream);
        }
        assert_eq!(tell.recv().unwrap(), Some(std::io::ErrorKind::ConnectionReset), "{route}");
        let line = gate.wait_closed(route, 1).remove(0);
        assert_eq!(line["reason"], "client_reset", "{line}");
    }
}

/// Passthrough relays hold pipes while bytes are under way; a few free ones are kept for the next.
#[test]
fn resets_of_passthrough_leave_only_a_few_pipes() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).passthrough("mail", echo.address()).open();
    let before = descriptors(&gate);
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record();
    for number in 0..100 {
        let mut stream = connect(gate.address());
        stream.write_all(&hello).unwrap();
        if number % 2 == 0 {
            // The echo is not read: the pipe is full when the reset comes.
            stream.set_write_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            let _ = stream.write_all(&vec![7; 4 << 20]);
        } else {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        reset(stream);
    }
    gate.settled();
    // Two descriptors each, and one connection at a time.
    wait_until("the rest is closed", || (descriptors(&gate) <= before + 2 * 8).then_some(()));
}
