use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::backend_tls;
use crate::config::checked::Strategy;

/// The size of a PROXY header that no socket buffer holds.
const HEADER: usize = 64 * 1024 * 1024;

fn lost() -> Rejection {
    Rejection::silent(Cause::Revoked)
}

fn first(header: &[u8]) -> First<'_> {
    First { header, protocol: None, payload_waits: false }
}

/// A backend that does not read yet.
fn backend() -> (std::net::TcpListener, Backend) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, Backend::Address(address))
}

/// How many bytes a backend receives, and whether the connection ends in a reset.
fn received(listener: &std::net::TcpListener) -> (usize, bool) {
    let (mut stream, _) = listener.accept().expect("it was dialled");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let (mut bytes, mut buffer) = (0, vec![0; 1024 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, false),
            Ok(count) => bytes += count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return (bytes, true),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn row_39_right_lost_during_the_header_resets_the_dial() {
    let (listener, backend) = backend();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Asked before the connection, before the header, and once for each write of it.
    let asked = Cell::new(0);
    let allowed = || {
        asked.set(asked.get() + 1);
        if asked.get() > 2 { Err(lost()) } else { Ok(()) }
    };
    let header = vec![7; HEADER];
    let backends = Backends::new([backend.clone(), backend], Strategy::First);
    let dialed =
        dial(Authorized::testing(), &backends, first(&header), deadline, &Directory::new(1), allowed, |_, _| {}).await;
    assert_eq!(dialed.map(|_| ()), Err(lost()));
    let (bytes, reset) = received(&listener);
    assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
    listener.set_nonblocking(true).expect("an option");
    assert!(listener.accept().is_err(), "the next backend was dialled");
}

#[tokio::test]
async fn row_39_dial_dropped_during_the_header_is_reset() {
    let (listener, backend) = backend();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (header, asked) = (vec![7; HEADER], Cell::new(0));
    let allowed = || {
        asked.set(asked.get() + 1);
        Ok(())
    };
    let (backends, directory) = (Backends::new([backend], Strategy::First), Directory::new(1));
    {
        let mut dialing = std::pin::pin!(dial(
            Authorized::testing(),
            &backends,
            first(&header),
            deadline,
            &directory,
            allowed,
            |_, _| {}
        ));
        // Until the socket's buffer is full.
        while asked.get() < 3 {
            let _ = tokio::time::timeout(Duration::from_millis(50), &mut dialing).await;
        }
    }
    let (bytes, reset) = received(&listener);
    assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
}

#[tokio::test]
async fn right_lost_before_the_header_sends_nothing() {
    let (listener, backend) = backend();
    let deadline = Instant::now() + Duration::from_secs(30);
    let asked = Cell::new(0);
    let allowed = || {
        asked.set(asked.get() + 1);
        if asked.get() > 1 { Err(lost()) } else { Ok(()) }
    };
    let dialed = dial(
        Authorized::testing(),
        &Backends::new([backend], Strategy::First),
        first(b"alice"),
        deadline,
        &Directory::new(1),
        allowed,
        |_, _| {},
    )
    .await;
    assert_eq!(dialed.map(|_| ()), Err(lost()));
    assert_eq!(received(&listener), (0, true));
}

#[tokio::test]
async fn row_39_right_lost_during_tls_with_the_backend_ends_the_dial() {
    let identity = backend_tls::testing::Identity::self_signed(|_| {});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let backend = Backend::Address(listener.local_addr().expect("an address"));
    let server = identity.server();
    let inside = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("it was dialled");
        let mut stream = backend_tls::testing::accept(stream, server).await.expect("a handshake");
        let mut received = Vec::new();
        // The end may be a reset.
        let _ = stream.read_to_end(&mut received).await;
        received
    });
    let tls = Some(backend_tls::testing::pinning(&identity));
    let backends = Backends::new([backend], Strategy::First).with_tls(tls);
    let deadline = Instant::now() + Duration::from_secs(30);
    // Asked before the connection, before the ClientHello, and when the handshake is over.
    let asked = Cell::new(0);
    let allowed = || {
        asked.set(asked.get() + 1);
        if asked.get() > 2 { Err(lost()) } else { Ok(()) }
    };
    let dialed =
        dial(Authorized::testing(), &backends, first(b""), deadline, &Directory::new(1), allowed, |_, _| {}).await;
    assert_eq!(dialed.map(|_| ()), Err(lost()));
    assert_eq!(inside.await.expect("a task"), b"", "the backend got something of the client");
}
