//! Backends, good ones and bad ones: attacks.md row 21, several of them, and unix sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use tokio::time::Instant;

use crate::client::{Client, End, client, reset};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::pki::TestPki;
use crate::common::process::own_loopback;
use crate::home::{House, Watch, assert_admitted};

const NAME: &str = "nas.home.example";

/// A service for one connection, which is closed when `serve` returns. It holds no other handle of it, as [`Backend`]
/// does, so that it can also reset.
pub(crate) fn once(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    address
}

/// Dead in three ways; each is told within `timeouts.dial`, and never to the client as success.
#[test]
fn dead_backend_is_told_within_the_dial_timeout() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let full = FullBacklog::new();
    let gate = House::new(&pki)
        .timeouts("dial = \"4s\"")
        .route("refuses", format!("{}:9", own_loopback()))
        .route("silent", full.address)
        .route("nowhere", "unix:/nowhere/service.sock")
        .open();
    for (name, reason) in [
        ("refuses", Reason::BackendRefused),
        ("silent", Reason::BackendTimeout),
        ("nowhere", Reason::BackendUnreachable),
    ] {
        let watch = Watch::begin(&gate);
        let begun = Instant::now();
        let end = Client::admitted(gate.address(), &config, &format!("{name}.home.example")).map(|_| ()).unwrap_err();
        assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR), "{name}");
        // Less than twice.
        assert!(begun.elapsed() < Duration::from_secs(8), "{name}: {:?}", begun.elapsed());
        watch.rejected(reason, &end);
        let dials = [("route", name), ("outcome", "failed")];
        gate.wait_metric("doorward_backend_dial_duration_seconds_count", &dials, 1.0);
    }
}

/// A reset is passed on: what came before it arrives, and does not look complete.
#[test]
fn backend_reset_is_not_an_orderly_end() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for before in [0, 1, 5_000, 100_000] {
        let (arrived, all_there) = mpsc::channel::<()>();
        let backend = once(move |mut stream| {
            let _ = stream.read(&mut [0; 64]);
            stream.write_all(&vec![7; before]).unwrap();
            let _ = all_there.recv();
            reset(stream);
        });
        let gate = House::new(&pki).route("nas", backend).open();
        let watch = Watch::begin(&gate);
        let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
        client.send(b"please").unwrap();
        let mut payload = vec![0; before];
        client.read_exact(&mut payload).unwrap();
        arrived.send(()).unwrap();
        let end = client.end();
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
        drop(client);
        let line = watch.closed(CloseReason::BackendReset);
        assert_eq!(line["bytes_to_client"], before, "{line}");
    }
}

/// Bytes go on as they come; none waits for more of them.
#[test]
fn slow_backend_is_as_slow_as_it_is_and_no_slower() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let (next, wanted) = mpsc::channel::<u8>();
    let backend = once(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        for byte in wanted {
            stream.write_all(&[byte]).unwrap();
        }
    });
    let gate = House::new(&pki).route("nas", backend).open();
    let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
    for byte in 0..200 {
        next.send(byte).unwrap();
        // The backend sends nothing more before this one has arrived.
        let mut one = [0];
        client.read_exact(&mut one).unwrap();
        assert_eq!(one, [byte]);
    }
    drop(next);
    assert_eq!(client.end(), End::Orderly);
}

/// The backend has said all it had to say and goes on listening.
#[test]
fn half_close_of_the_backend_leaves_the_other_direction_open() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let (told, tell) = mpsc::channel();
    let backend = once(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        told.send(all).unwrap();
    });
    let gate = House::new(&pki).route("nas", backend).open();
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
    assert_eq!(client.read_to_end(), (b"hello".to_vec(), End::Orderly));
    // The TCP stream towards the client has ended; the one from it has not (RFC 8446 section 6.1).
    for _ in 0..100 {
        client.send(&[7; 1000]).unwrap();
    }
    client.close_notify();
    assert_eq!(tell.recv().unwrap(), vec![7; 100_000]);
    drop(client);
    watch.closed(CloseReason::BackendClosed);
}

/// It accepts and neither sends nor reads: the connection stays until one side ends it.
#[test]
fn mute_backend_holds_up_its_own_client_only() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let (mute, echo) = (Backend::mute(), Backend::echo());
    let gate =
        House::new(&pki).timeouts("idle = \"3s\"").route("mute", mute.address()).route("nas", echo.address()).open();
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &config, "mute.home.example").unwrap();
    client.send(b"anybody there?").unwrap();
    Client::admitted(gate.address(), &config, NAME).unwrap();
    assert_eq!(client.end(), End::of(CloseReason::IdleTimeout));
    drop(client);
    gate.wait_closed("mute", 1);
    drop(watch);
    gate.wait_metric("doorward_connections_closed_total", &[("route", "mute"), ("reason", "idle_timeout")], 1.0);
}

#[test]
fn first_answering_backend_in_configured_order_is_used() {
    let pki = TestPki::new();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let full = FullBacklog::new();
    let (second, third) = (Backend::echo(), Backend::echo());
    let dead = format!("{}:9", own_loopback());
    let (slow, two, three) = (full.address.to_string(), second.address().to_string(), third.address().to_string());
    let gate = House::new(&pki)
        .timeouts("dial = \"9s\"")
        .route_with("nas", &[&dead, &two, &three], "allow = [\"any\"]")
        .route_with("slow", &[&slow, &three, "unix:/nowhere/x"], "allow = [\"any\"]")
        .open();
    for _ in 0..3 {
        let line = assert_admitted(&gate, || Client::admitted(gate.address(), &config, NAME));
        assert_eq!(line["backend"], two.as_str(), "{line}");
    }
    assert_eq!((second.accepted(), third.accepted()), (3, 0));
    let up = |route, backend| gate.metrics().sum("doorward_backend_up", &[("route", route), ("backend", backend)]);
    assert_eq!((up("nas", &dead), up("nas", &two), up("nas", &three)), (0.0, 1.0, 1.0));
    // One that swallows packets has only its share of the time.
    let begun = Instant::now();
    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &config, "slow.home.example"));
    assert_eq!(line["backend"], three.as_str(), "{line}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!((up("slow", &slow), up("slow", &three)), (0.0, 1.0));

    // The order holds while the second is there; without it, the third.
    drop(second);
    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &config, NAME));
    assert_eq!(line["backend"], three.as_str(), "{line}");
    assert_eq!(up("nas", &two), 0.0);
}

#[test]
fn unix_sockets_are_backends_like_others() {
    let pki = TestPki::new();
    let path = pki.path("service.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let gate = House::new(&pki)
        .route("nas", format!("unix:{}", path.display()))
        .passthrough("mail", format!("unix:{}", path.display()))
        .open();
    let block: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..count]).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
            }
        });
        let watch = Watch::begin(&gate);
        let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
        thread::scope(|both| {
            both.spawn(|| {
                client.send(&block).unwrap();
                client.close_notify();
            });
            let (echo, end) = client.read_to_end();
            assert!(echo == block, "{} bytes", echo.len());
            assert_eq!(end, End::Orderly);
        });
        drop(client);
        let line = watch.closed(CloseReason::ClientClosed);
        assert_eq!(line["backend"], format!("unix:{}", path.display()), "{line}");

        let watch = Watch::begin(&gate);
        let hello = crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" };
        let mut stream = crate::client::connect(gate.address());
        stream.write_all(&hello.record()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).unwrap();
        assert_eq!(echo, hello.record());
        watch.closed(CloseReason::ClientClosed);
    });
}
