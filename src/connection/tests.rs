//! A connection that is given up on the way in: what its client is told.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::timeout;

use self::home::{CERTIFICATES, Home};
use super::*;
use crate::config::checked;
use crate::model::close::Ending;

mod challenge;
mod home;

const NAME: &str = "nas.home.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A gate, and a device that may reach a backend which never answers.
struct Scene {
    config: checked::Config,
    home: Home,
    _backend: (Socket, Vec<Socket>),
}

impl Scene {
    fn new() -> Self {
        let home = Home::new(NAME);
        let (address, backend) = mute_backend();
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{CERTIFICATES}[timeouts]\ndial = \"60s\"\n[[route]]\nname = \"nas\"\n\
             server_names = [\"{NAME}\"]\nbackends = [\"{address}\"]\nallow = [\"any\"]\n"
        );
        Self { config: home.config(&text), home, _backend: backend }
    }

    /// The device connects. Gives the gate's side, and what the device sees in the end.
    async fn connect(&self, version: &'static SupportedProtocolVersion) -> (Accepted, JoinHandle<Seen>) {
        let mut roots = RootCertStore::empty();
        roots.add(self.home.authority.clone()).expect("a trust anchor");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (certificate, key) = self.home.device.clone();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::try_from(key).expect("a key"))
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = thread::spawn(move || look(address, Arc::new(config)));
        let (stream, peer) = listener.accept().await.expect("a connection");
        let listener = Arc::new(self.config.listeners.first().expect("a listener").clone());
        (Accepted { stream: stream.into(), peer, listener, at: Instant::now() }, client)
    }
}

/// Its backlog is full: who connects waits.
fn mute_backend() -> (SocketAddr, (Socket, Vec<Socket>)) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    listener.listen(0).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let waiting = (0..4).map(|_| {
        let socket = socket();
        socket.set_nonblocking(true).expect("a socket");
        // In progress, until the test is over.
        let _ = socket.connect(&address);
        socket
    });
    (address.as_socket().expect("an address"), (listener, waiting.collect()))
}

/// What a client has seen of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Alert(AlertDescription),
    CloseNotify,
    /// The stream ended between two records.
    End,
    /// It ended in the middle of one.
    Truncated,
    Reset,
}

/// Makes a handshake and reads to the end.
fn look(address: SocketAddr, config: Arc<ClientConfig>) -> Seen {
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut tls = ClientConnection::new(config, NAME.try_into().expect("a name")).expect("a client");
    let (mut all, mut room) = (Vec::new(), [0; 4096]);
    loop {
        while tls.wants_write() {
            let mut out = Vec::new();
            tls.write_tls(&mut out).expect("memory");
            // Where that fails, what was received says why.
            let _ = stream.write_all(&out);
        }
        let read = match stream.read(&mut room) {
            Ok(0) if ends_whole(&all) => return Seen::End,
            Ok(0) => return Seen::Truncated,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Seen::Reset,
            Err(error) => panic!("{error}"),
        };
        let mut rest = room.get(..read).expect("what was read");
        all.extend_from_slice(rest);
        while !rest.is_empty() {
            tls.read_tls(&mut rest).expect("memory");
            match tls.process_new_packets() {
                Ok(state) if state.peer_has_closed() => return Seen::CloseNotify,
                Ok(_) => {}
                Err(rustls::Error::AlertReceived(alert)) => return Seen::Alert(alert),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Whether these are whole records.
fn ends_whole(mut records: &[u8]) -> bool {
    while let Some((&[_, _, _, high, low], rest)) = records.split_first_chunk::<5>() {
        let Some((_, next)) = rest.split_at_checked(u16::from_be_bytes([high, low]).into()) else { return false };
        records = next;
    }
    records.is_empty()
}

/// How a connection is given up.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Dropped,
    DroppedByAPanic,
    Drained,
}

/// Whether the connection's future was polled so often.
#[derive(PartialEq, Eq)]
enum Polled {
    Enough,
    /// It waits for its backend, and for nothing else.
    Waits,
}

async fn poll_times(mut future: Pin<&mut impl Future>, gate: &Gate, times: usize) -> Polled {
    let mut left = times;
    let mut polls = Box::pin(poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending(), "the backend does not answer");
        left -= 1;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    }));
    loop {
        if timeout(Duration::from_millis(300), &mut polls).await.is_ok() {
            return Polled::Enough;
        }
        if is_held(gate) {
            return Polled::Waits;
        }
    }
}

/// Whether a connection of the gate has its permit.
fn is_held(gate: &Gate) -> bool {
    !gate.sessions.newest(1).0.is_empty()
}

/// Gives a connection up after so many polls. Returns how far it was, whether it had its permit, and what its client saw.
async fn give_up(
    scene: &Scene,
    version: &'static SupportedProtocolVersion,
    fate: Fate,
    times: usize,
) -> (Polled, bool, Seen) {
    let gate = Gate::testing(&scene.config);
    let (accepted, client) = scene.connect(version).await;
    let mut connection = Box::pin(begin(accepted, Arc::clone(&gate)));
    let polled = poll_times(connection.as_mut(), &gate, times).await;
    let held = is_held(&gate);
    match fate {
        Fate::Dropped => drop(connection),
        Fate::DroppedByAPanic => {
            let dropped = catch_unwind(AssertUnwindSafe(move || {
                let _connection = connection;
                std::panic::resume_unwind(Box::new("a fault"));
            }));
            assert!(dropped.is_err());
        }
        Fate::Drained => {
            gate.draining.cancel();
            if let Some(rest) = connection.await {
                rest.await;
            }
        }
    }
    assert!(!is_held(&gate), "nothing is left of it");
    (polled, held, client.join().expect("a client"))
}

#[tokio::test]
async fn client_given_up_with_its_permit_gets_an_alert() {
    let scene = Scene::new();
    for version in VERSIONS {
        for fate in [Fate::Dropped, Fate::DroppedByAPanic, Fate::Drained] {
            let mut with_permit = 0;
            for times in 1.. {
                let (polled, held, seen) = give_up(&scene, version, fate, times).await;
                let what = format!("{:?} {fate:?} after {times} polls: {seen:?}", version.version);
                if held {
                    assert_eq!(seen, Seen::Alert(AlertDescription::InternalError), "{what}");
                    with_permit += 1;
                } else {
                    // None is owed yet, and none is begun.
                    let fits = matches!(seen, Seen::Alert(AlertDescription::InternalError) | Seen::End | Seen::Reset);
                    assert!(fits, "{what}");
                }
                if polled == Polled::Waits {
                    break;
                }
            }
            assert!(with_permit > 0);
        }
    }
}

#[tokio::test]
async fn client_cut_while_its_backend_is_dialled_gets_the_alert_of_a_session() {
    let scene = Scene::new();
    for version in VERSIONS {
        for &reason in CloseReason::CUT {
            let gate = Gate::testing(&scene.config);
            let (accepted, client) = scene.connect(version).await;
            let mut connection = Box::pin(begin(accepted, Arc::clone(&gate)));
            assert!(poll_times(connection.as_mut(), &gate, usize::MAX).await == Polled::Waits);
            let (sessions, _) = gate.sessions.newest(1);
            let session = sessions.first().expect("a session");
            assert!(session.relay.order(Order { reason, cause: None, at: Instant::now() }));
            if let Some(rest) = connection.await {
                rest.await;
            }
            let Ending::Alert(alert) = reason.ending() else { panic!("{reason:?} has no alert") };
            assert_eq!(client.join().expect("a client"), Seen::Alert(alert.0.into()), "{reason:?}");
        }
    }
}

/// A connection whose ClientHello is known.
async fn greeted(scene: &Scene, gate: &Gate) -> (client_hello::Greeted, JoinHandle<Seen>) {
    let (accepted, client) = scene.connect(VERSIONS[0]).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let admitted = gate.admission.admit(accepted, deadline, 0, |_| ()).await.expect("room");
    (client_hello::peek(admitted, None).await.expect("a ClientHello"), client)
}

#[tokio::test]
async fn client_given_up_after_its_hello_gets_an_alert() {
    let scene = Scene::new();
    let gate = Gate::testing(&scene.config);
    let (given_up, client) = greeted(&scene, &gate).await;
    drop(given_up);
    assert_eq!(client.join().expect("a client"), Seen::Alert(AlertDescription::InternalError));

    // The gate may have sent records under keys by then, and the client of a passthrough route talks with its backend.
    let (mut answered, client) = greeted(&scene, &gate).await;
    answered.answered = true;
    drop(answered);
    assert_eq!(client.join().expect("a client"), Seen::End);
    let (decided, client) = greeted(&scene, &gate).await;
    drop(decided.decide());
    assert_eq!(client.join().expect("a client"), Seen::Reset, "its ClientHello was not read");
}
