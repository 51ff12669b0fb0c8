use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::config::checked::{Backend, Health};

/// A service for one connection, which goes when `serve` has returned.
fn service(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || serve(listener.accept().expect("a connection").0));
    address
}

fn check(backend: Backend, send: &str, expect: &str) -> Check {
    let (send, expect) = (send.as_bytes().to_vec(), expect.as_bytes().to_vec());
    let every = Duration::from_secs(60);
    let settings = Health { every, rise: 1, fall: 1, timeout: every, send, expect, tls: false };
    Check { backend, settings, header: b"", server_name: None, tls: None }
}

async fn ended(check: &Check) -> Result<(), CheckFailure> {
    match probe(check, &Resolver::system(1)).await {
        Ok(()) => Ok(()),
        Err(Failed::Backend(failure)) => Err(failure),
        Err(Failed::Gate) => panic!("out of descriptors"),
    }
}

fn answer(text: &str) -> Answer {
    Answer::new(text.as_bytes())
}

#[tokio::test]
async fn connection_alone_passes_and_is_closed() {
    let (end, ended_there) = mpsc::channel();
    let address = service(move |mut stream| {
        let _ = end.send(stream.read(&mut [0; 1]).expect("an end"));
    });
    assert_eq!(ended(&check(Backend::Address(address), "", "")).await, Ok(()));
    assert_eq!(ended_there.recv().expect("it was dialled"), 0);
}

#[tokio::test]
async fn beginning_of_the_answer_decides() {
    for (said, expect, result) in [
        ("SSH-2.0-OpenSSH_10.0\r\n", "SSH-", Ok(())),
        ("SSH-", "SSH-", Ok(())),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-", Err((true, "HTTP/1.1 400 Bad Request"))),
        ("SSH1", "SSH-", Err((true, "SSH1"))),
        ("SS", "SSH-", Err((false, "SS"))),
        ("", "SSH-", Err((false, ""))),
    ] {
        let address = service(move |mut stream| stream.write_all(said.as_bytes()).expect("it is sent"));
        let expected = answer(expect);
        let result = result.map_err(|(answered, received)| match answered {
            true => CheckFailure::Answered { received: answer(received), expected },
            false => CheckFailure::Closed { received: answer(received), expected: Some(expected), error: None },
        });
        assert_eq!(ended(&check(Backend::Address(address), "", expect)).await, result, "{said:?}");
    }
}

#[tokio::test]
async fn answer_may_come_in_pieces_and_is_asked_for() {
    let address = service(|mut stream| {
        stream.set_nodelay(true).expect("an option");
        let mut asked = [0; 11];
        stream.read_exact(&mut asked).expect("a question");
        assert_eq!(&asked, b"hello you\r\n");
        for byte in b"250 ok" {
            stream.write_all(&[*byte]).expect("it is sent");
        }
        // It need not say any more, and the check does not wait for it.
        let _ = stream.read(&mut [0; 1]);
    });
    assert_eq!(ended(&check(Backend::Address(address), "hello you\r\n", "250 ok")).await, Ok(()));
}

#[tokio::test]
async fn service_that_hangs_fails_within_the_time_limit() {
    let (held, hold) = mpsc::channel::<()>();
    let address = service(move |stream| drop((hold.recv(), stream)));
    let mut hanging = check(Backend::Address(address), "", "SSH-");
    hanging.settings.timeout = Duration::from_millis(200);
    let begun = Instant::now();
    let failure = CheckFailure::Silent { after: Duration::from_millis(200), expected: Some(answer("SSH-")) };
    assert_eq!(ended(&hanging).await, Err(failure));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    drop(held);
}

#[tokio::test]
async fn nothing_that_listens_is_told_as_for_a_dial() {
    let gone = crate::sys::test_port::kept();
    let failure = ended(&check(Backend::Address(gone), "", "")).await.expect_err("nothing listens");
    let CheckFailure::NotReached(error) = failure else { panic!("{failure:?}") };
    assert_eq!(error.kind, io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn header_comes_first_and_unix_sockets_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut received = [0; 19];
        stream.read_exact(&mut received).expect("a header");
        stream.write_all(b"ok").expect("it is sent");
        received
    });
    let mut it = check(Backend::Unix(path), "ping", "ok");
    it.header = b"PROXY UNKNOWN\r\n";
    assert_eq!(ended(&it).await, Ok(()));
    assert_eq!(&serving.join().expect("no panic"), b"PROXY UNKNOWN\r\nping");
}

/// A server of TLS that answers each connection with a line, and tells the name it was asked for.
fn tls_server(versions: &[&'static rustls::SupportedProtocolVersion]) -> (SocketAddr, mpsc::Receiver<Option<String>>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().expect("a key"))
        .expect("a certificate");
    let (tell, told) = mpsc::channel();
    let address = service(move |mut stream| {
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let _ = tls.write_all(b"220 mail\r\n");
        let _ = tell.send(tls.conn.server_name().map(str::to_owned));
        let _ = tls.read(&mut [0; 1]);
    });
    (address, told)
}

#[tokio::test]
async fn tls_handshake_takes_any_certificate_and_says_the_name() {
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        for name in [Some("mail.home.example"), None] {
            let (address, told) = tls_server(versions);
            let mut it = check(Backend::Address(address), "", "220 ");
            (it.settings.tls, it.server_name) = (true, name.map(str::to_owned));
            assert_eq!(ended(&it).await, Ok(()));
            assert_eq!(told.recv().expect("it was asked").as_deref(), name);
        }
    }
}

#[tokio::test]
async fn service_without_tls_fails_the_handshake() {
    let said = |text: &'static [u8]| {
        let address = service(move |mut stream| {
            stream.write_all(text).expect("it is sent");
            // The rest of the hello, so that the close is no reset.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut it = check(Backend::Address(address), "", "");
        it.settings.tls = true;
        it
    };
    let failure = ended(&said(b"220 mail\r\n")).await.expect_err("it speaks no TLS");
    assert!(matches!(failure, CheckFailure::Tls(_)), "{failure:?}");
    let failure = ended(&said(b"")).await.expect_err("it says nothing");
    assert_eq!(failure, CheckFailure::Closed { received: answer(""), expected: None, error: None });
    let (held, hold) = mpsc::channel::<()>();
    let mut mute = check(Backend::Address(service(move |stream| drop((hold.recv(), stream)))), "", "");
    (mute.settings.tls, mute.settings.timeout) = (true, Duration::from_millis(200));
    assert_eq!(ended(&mute).await, Err(CheckFailure::Silent { after: Duration::from_millis(200), expected: None }));
    drop(held);
}

/// Without an `Authorized` value, only a check connects, and its connection does not leave the file.
#[test]
fn connection_of_a_check_does_not_leave_the_probe() {
    fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    sources(&root, &mut all);
    let names = |path: &&std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source file");
        !path.ends_with("probe/tests.rs") && text.contains("connect_unasked")
    };
    let mut naming: Vec<_> = all
        .iter()
        .filter(names)
        .map(|path| path.strip_prefix(&root).expect("below src").display().to_string())
        .collect();
    naming.sort_unstable();
    assert_eq!(naming, ["backends/dial.rs", "backends/probe.rs"]);
    // What the file offers to others gives a result without a stream.
    let offered: Vec<&str> =
        include_str!("../probe.rs").lines().filter(|line| line.starts_with("pub") && line.contains("fn ")).collect();
    assert_eq!(offered, ["pub async fn probe(check: &Check, resolver: &Resolver) -> Result<(), Failed> {"]);
}
