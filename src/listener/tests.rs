//! Listeners on sockets of this machine.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::*;

fn settings(name: &str, address: &str) -> checked::Listener {
    checked::Listener {
        name: Name::parse(name).expect("a name"),
        address: address.parse().expect("an address"),
        proxy_protocol_from: Vec::new(),
        allow_sources: Vec::new(),
        deny_sources: Vec::new(),
    }
}

#[tokio::test]
async fn passed_socket_stays_open_for_the_next_start() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    // As systemd keeps it.
    let kept = socket.try_clone().expect("a copy");
    let wanted = [settings("public", &address.to_string())];
    let passed = |name: &str| vec![(name.to_owned(), Socket::from(socket.try_clone().expect("a copy")))];
    let adopted = Listener::adopt(passed("public"), &wanted).expect("adopted");
    let opened = Listener::open(adopted, &wanted).expect("nothing to bind");
    assert!(opened.len() == 1 && opened.iter().all(|opened| opened.passed), "nothing is bound");
    let listeners: Vec<Listener> =
        opened.into_iter().map(|opened| Listener::start(opened).expect("a listener")).collect();
    assert_accepts(listeners.first().expect("one"), address).await;
    listeners.iter().for_each(Listener::close);
    drop(listeners);
    let client = TcpStream::connect(address).await.expect("it waits for the next start");
    kept.set_nonblocking(false).expect("set");
    let (_, peer) = kept.accept().expect("the same connection");
    assert_eq!(peer, client.local_addr().expect("an address"));

    let refused = |name: &str, wanted: &[checked::Listener]| {
        Listener::adopt(passed(name), wanted).expect_err("it does not fit").to_string()
    };
    assert!(refused("other", &wanted).contains("no listener has this name"));
    assert!(refused("public", &[settings("public", "127.0.0.1:1")]).contains("the configuration has 127.0.0.1:1"));
    let twice = passed("public").into_iter().chain(passed("public")).collect();
    let error = Listener::adopt(twice, &wanted).expect_err("two").to_string();
    assert!(error.contains("another socket has this name"), "{error}");
}

/// The listener has heard of the connection, and is closed before it has accepted it.
#[tokio::test]
async fn connection_that_arrives_as_it_closes_waits_for_the_next_start() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let kept = socket.try_clone().expect("a copy");
    let wanted = [settings("public", &address.to_string())];
    let passed = vec![("public".to_owned(), Socket::from(socket))];
    let opened = Listener::adopt(passed, &wanted).expect("adopted").pop().expect("one");
    let listener = Listener::start(opened).expect("a listener");
    let mut accepting = pin!(listener.accept(|_, error| panic!("{error:?}")));
    assert!(poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx).is_pending())).await);
    // The runtime hears of both ends at once.
    let client = TcpStream::connect(address).await.expect("a connection");
    listener.close();
    assert!(accepting.await.is_none());
    kept.set_nonblocking(false).expect("set");
    let (_, peer) = kept.accept().expect("it waits");
    assert_eq!(peer, client.local_addr().expect("an address"));
}

async fn assert_accepts(listener: &Listener, at: SocketAddr) {
    let client = TcpStream::connect(at).await.expect("a connection");
    let accepted = listener.accept(|_, error| panic!("{error:?}")).await.expect("a connection");
    assert_eq!(accepted.peer, client.local_addr().expect("an address"));
}

#[tokio::test]
async fn accepted_sockets_have_nodelay_and_keep_alive() {
    let listener = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
    let client = TcpStream::connect(listener.address()).await.expect("a connection");
    let accepted = listener.accept(|_, error| panic!("{error:?}")).await.expect("a connection");
    let socket = accepted.stream.socket().expect("it is open");
    let socket = SockRef::from(&socket);
    assert!(socket.tcp_nodelay().expect("an option"));
    assert!(socket.keepalive().expect("an option"));
    assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
    drop(client);
}

#[tokio::test]
async fn closed_listener_refuses_connections() {
    let listener = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
    let waiting = TcpStream::connect(listener.address()).await.expect("a connection");
    listener.close();
    assert!(listener.accept(|_, error| panic!("{error:?}")).await.is_none());
    let refused = TcpStream::connect(listener.address()).await.expect_err("the listener is closed");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    waiting.readable().await.expect("an event");
    let reset = waiting.try_read(&mut [0]).expect_err("it was not accepted");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
}

/// A wider or narrower address, IPv4 or IPv6, or another name for the same address.
#[tokio::test]
async fn changed_listener_rebinds_its_port() {
    // A port that is free on this address may be another test's on another one.
    for _ in 0..20 {
        match rebind_through_all().await {
            Err(error) if error.error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.expect("the port is rebound"),
        }
    }
    panic!("every port is used elsewhere");
}

async fn rebind_through_all() -> Result<(), BindError> {
    let first = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
    let port = first.address().port();
    let mut bound = vec![Arc::new(first)];
    for (name, ip) in
        [("public", "[::]"), ("public", "0.0.0.0"), ("public", "127.0.0.1"), ("other", "127.0.0.1"), ("x", "[::]")]
    {
        let wanted = [settings(name, &format!("{ip}:{port}"))];
        let new = Listener::rebind(&bound, &wanted)?;
        assert!(!Arc::ptr_eq(&new[0], &bound[0]));
        bound[0].close();
        assert_accepts(&new[0], ([127, 0, 0, 1], port).into()).await;
        // A second gate on the same port gets an error.
        let second = Listener::bind(&settings(name, &format!("{ip}:{port}"))).expect_err("the port is used").error;
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        bound = new;
    }
    Ok(())
}

#[tokio::test]
async fn kept_listener_is_reused_and_used_port_is_an_error() {
    let bound = vec![Arc::new(Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener"))];
    let taken = Listener::bind(&settings("other", "127.0.0.1:0")).expect("a listener");
    let wanted = [settings("public", "127.0.0.1:0"), settings("second", "[::1]:0")];
    let new = Listener::rebind(&bound, &wanted).expect("both");
    assert!(Arc::ptr_eq(&new[0], &bound[0]));
    assert_accepts(&new[1], new[1].address()).await;

    let wanted = [settings("second", &taken.address().to_string())];
    let error = Listener::rebind(&bound, &wanted).expect_err("the port is used").to_string();
    let expected = format!("cannot listen on {} (listener \"second\"): Address already in use", taken.address());
    assert!(error.starts_with(&expected), "{error}");
    assert_accepts(&bound[0], bound[0].address()).await;
}

#[test]
fn only_a_tcp_socket_that_listens_is_taken_over() {
    let wanted = [settings("public", "127.0.0.1:0")];
    let taken = |socket: Socket| {
        let configured = wanted[0].address;
        Listener::take_over(vec![("public".to_owned(), configured, false, socket)], &wanted).map(|opened| opened.len())
    };
    let listens = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let connected = std::net::TcpStream::connect(listens.local_addr().expect("an address")).expect("connected");
    assert!(taken(connected.into()).is_err());
    assert!(taken(std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").into()).is_err());
    let folder = tempfile::tempdir().expect("a folder");
    let unix = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("bound");
    assert!(taken(unix.into()).is_err());
    assert_eq!(taken(listens.into()).expect("it listens"), 1);
}
