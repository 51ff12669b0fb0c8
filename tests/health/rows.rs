//! attacks.md, rows 21 and 22, with checks that go on all the while.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::rejection::Reason;
use tokio::time::Instant;

use crate::client::{Client, End, client};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::pki::TestPki;
use crate::common::process::own_loopback;
use crate::home::{House, Watch};
use crate::service::{Service, keys};
use crate::{ANY, NAS};

/// A check that passes as soon as a connection is accepted, or fails late enough for a client to be dialled.
fn connects(fall: u32) -> String {
    format!("{ANY}\nhealth = {{ every = \"100ms\", timeout = \"30s\", fall = {fall} }}")
}

#[test]
fn row_21_dead_and_mute_backends_are_told_as_without_checks() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (full, mute) = (FullBacklog::new(), Backend::mute());
    let gate = House::new(&pki)
        .timeouts("dial = \"3s\"\nidle = \"2s\"")
        .route_with("refuses", &[&format!("{}:9", own_loopback())], &connects(100))
        .route_with("silent", &[&full.address.to_string()], &connects(100))
        .route_with("mute", &[&mute.address().to_string()], &connects(1))
        .open();
    for (name, reason) in [("refuses", Reason::BackendRefused), ("silent", Reason::BackendTimeout)] {
        let (watch, begun) = (Watch::begin(&gate), Instant::now());
        let name = format!("{name}.home.example");
        let end = Client::admitted(gate.address(), &alice, &name).map(|_| ()).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
        watch.rejected(reason, &end);
    }
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &alice, "mute.home.example").unwrap();
    client.send(b"anybody there?").unwrap();
    assert_eq!(client.end(), End::of(CloseReason::IdleTimeout));
    drop(client);
    watch.closed(CloseReason::IdleTimeout);
}

#[test]
fn row_21_half_close_is_kept_both_ways_while_checks_go_on() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let backend = Backend::serve(("127.0.0.1", 0), |mut stream, _| {
        let mut first = [0; 5];
        // A check says nothing.
        if stream.read_exact(&mut first).is_ok() {
            let _ = stream.write_all(b"hello");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut &*stream, &mut std::io::sink());
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    let gate = House::new(&pki).route_with("nas", &[&backend.address().to_string()], &connects(1)).open();
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &alice, NAS).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.read_to_end(), (b"hello".to_vec(), End::Orderly));
    for _ in 0..100 {
        client.send(&[7; 1000]).unwrap();
    }
    client.close_notify();
    drop(client);
    let line = watch.closed(CloseReason::BackendClosed);
    assert_eq!(line["bytes_to_backend"], 100_005, "{line}");
}

#[test]
fn row_22_every_byte_arrives_while_checks_fail_and_pass() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let service = Service::scripted("+-+--++-", true);
    let gate = House::new(&pki).route_with("nas", &[&service.address()], &keys(1, 1)).open();
    // Twice as much as row 22 asks for, in pieces, so that checks fall between them.
    let block: Vec<u8> =
        (0..10 * 1024 * 1024_u32 / 4).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_be_bytes()).collect();
    let session = loop {
        // It may be refused while the service is unhealthy.
        match Client::admitted(gate.address(), &alice, NAS) {
            Ok(session) => break session,
            Err(end) => assert!(matches!(end, End::Alert(_)), "{end:?}"),
        }
    };
    for _ in 0..4 {
        std::thread::scope(|scope| {
            scope.spawn(|| session.send(&block).unwrap());
            let mut echo = vec![0; block.len()];
            session.read_exact(&mut echo).unwrap();
            assert!(echo == block);
        });
        service.wait_checks(3);
    }
    session.close_notify();
    assert_eq!(session.end(), End::Orderly);
    let line = gate.wait_closed("nas", 1).remove(0);
    assert_eq!(line["bytes_to_backend"].as_u64().unwrap() % 1024, line["bytes_to_client"].as_u64().unwrap() % 1024);
    assert!(gate.lines().iter().filter(|line| line["event"] == "backend_unhealthy").count() >= 3);
}
