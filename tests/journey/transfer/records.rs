//! Records of every size, and keys that change between them.

use std::thread;

use doorward::model::close::CloseReason;

use super::{Finish, MIB, NAME, Peer, SUITES, Way, assert_same, up, ways, with_suite};
use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::pki::TestPki;
use crate::home::{House, Watch};

#[test]
fn many_small_writes_each_a_record() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).passthrough("mail", echo.address()).open();
    for way in ways() {
        let peer = way.connect(&gate, &pki);
        let bytes = up(30_000);
        let (received, end) = thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = bytes;
                let mut length = 1;
                while !rest.is_empty() {
                    let (part, more) = rest.split_at(length.min(rest.len()));
                    peer.send(part);
                    rest = more;
                    length = length % 7 + 1;
                }
                peer.finish(Finish::CloseNotify);
            });
            peer.read_to_end()
        });
        assert_same(&way.name(), &received, &[&way.first(), bytes].concat());
        assert_eq!(end, End::Orderly, "{}", way.name());
    }
}

/// Every record of the client's stands alone in the sizes around the largest one.
#[test]
fn records_of_every_awkward_size() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    for way in SUITES.map(Way::Suite) {
        let Peer::Tls(client) = way.connect(&gate, &pki) else { unreachable!() };
        for size in [1, 2, 15, 16, 17, 255, 256, 1399, 4095, 4096, 16_383, 16_384, 16_385, 18_432, 32_768, 262_143] {
            client.send(up(size)).unwrap();
            let mut echo = vec![0; size];
            client.read_exact(&mut echo).unwrap();
            assert_same(&format!("{}, {size} bytes", way.name()), &echo, up(size));
        }
    }
}

/// A client may change its keys at any time, and ask for new ones in return.
#[test]
fn key_updates_in_the_middle_of_everything() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    for suite in &SUITES[..3] {
        let client = Client::admitted(gate.address(), &with_suite(&pki, *suite), NAME).unwrap();
        for _ in 0..50 {
            client.update_keys();
            client.ping().unwrap();
        }
        let bytes = up(4 * MIB);
        let mut received = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(|| {
                // rustls takes 32 answers without payload between them, and the echo may be late.
                for chunk in bytes.chunks(200_000) {
                    client.send(chunk).unwrap();
                    client.update_keys();
                }
            });
            client.read_exact(&mut received).unwrap();
        });
        assert_same("with new keys every 200 kB", &received, bytes);
        // Some without a byte of payload between them are one's good right; a flood of them is none.
        client.ping().unwrap();
        for _ in 0..16 {
            client.update_keys();
        }
        client.ping().unwrap();
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
    }
}

#[test]
fn flood_of_key_updates_is_cut_short() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let client = Client::admitted(gate.address(), &config, NAME).unwrap();
    let watch = Watch::begin(&gate);
    let end = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100_000 {
                if client.tls(|connection| connection.refresh_traffic_keys()).is_err() || client.flush().is_err() {
                    return;
                }
            }
        });
        client.read_to_end().1
    });
    drop(client);
    assert!(matches!(end, End::Alert(_) | End::Reset), "{end:?}");
    watch.closed(CloseReason::TlsError);
}
