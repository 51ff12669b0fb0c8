//! Many devices with many sessions each, all of them talking all the time. Also what `benches/revoke.rs` measures with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use doorward::control::client::reload;
use rcgen::SerialNumber;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::DEADLINE;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};

const NAME: &str = "nas.home.example";
/// What a client says at once.
const WORDS: usize = 200;
/// How long it is silent then.
const PAUSE: Duration = Duration::from_millis(20);

/// A gate with all of them in it.
pub(crate) struct Crowd {
    pki: TestPki,
    pub(crate) gate: Gate,
    /// Sessions in which something was sent back already.
    talking: Arc<AtomicUsize>,
    /// The others stop.
    enough: Arc<AtomicBool>,
    guests: JoinSet<Guest>,
    _echo: JoinSet<()>,
}

/// How it went for one session.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Which device.
    pub(crate) device: u64,
    /// Bytes that were sent and have come back as they were.
    pub(crate) echoed: usize,
    /// When it was cut. `None` if it was in to the end, and every byte has come back.
    pub(crate) cut: Option<Instant>,
}

impl Crowd {
    /// Lets `sessions` of each of `devices` in, and waits until all of them talk.
    pub(crate) async fn gather(devices: u64, sessions: usize) -> Self {
        let pki = TestPki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        write_list(&pki, &[]);
        let config = format!(
            "watch = \"off\"\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n\
             [metrics]\naddress = \"127.0.0.1:0\"\n\n[log]\nformat = \"json\"\nsampling = \"off\"\n\n\
             [control]\nsocket = \"control.sock\"\n\n\
             [limits]\nconnections_per_source = \"off\"\nconnection_rate_per_source = \"off\"\n\n\
             {}revocation_lists = [{:?}]\n\n\
             [[route]]\nname = \"nas\"\nserver_names = [\"{NAME}\"]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n",
            pki.config(),
            pki.path("clients.crl"),
        );
        // The gate is a process; only its start blocks.
        let gate = tokio::task::block_in_place(|| Gate::start(&config));
        let (talking, enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut guests = JoinSet::new();
        for device in 1..=devices {
            let mut params = Certified::for_clients(&format!("device-{device}"));
            params.serial_number = Some(SerialNumber::from(device));
            let certified = pki.clients.issue(params);
            let config = Arc::new(pki.client_config(Some(&certified), &[&rustls::version::TLS13]));
            // One after the other: it is not the handshakes that are looked at here.
            for _ in 0..sessions {
                let stream = enter(gate.address(), &config).await;
                guests.spawn(talk(device, stream, Arc::clone(&talking), Arc::clone(&enough)));
            }
        }
        let all = usize::try_from(devices).unwrap() * sessions;
        let begun = Instant::now();
        while talking.load(Ordering::SeqCst) < all {
            assert!(begun.elapsed() < DEADLINE, "not all of them talk");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { pki, gate, talking, enough, guests, _echo: echo }
    }

    /// Revokes these devices together with those that were before, and returns when that was begun.
    pub(crate) async fn revoke(&self, devices: &[u64]) -> Instant {
        let (begun, socket) = (Instant::now(), self.socket());
        write_list(&self.pki, devices);
        tokio::task::spawn_blocking(move || reload(&socket).unwrap()).await.unwrap();
        begun
    }

    fn socket(&self) -> PathBuf {
        self.gate.folder().join("control.sock")
    }

    /// Waits until `count` more are gone, and says how it went for them.
    pub(crate) async fn gone(&mut self, count: usize) -> Vec<Guest> {
        let mut gone = Vec::new();
        while gone.len() < count {
            gone.push(timeout(DEADLINE, self.guests.join_next()).await.expect("they go").unwrap().unwrap());
        }
        gone
    }

    /// Lets the rest say their last words, and says how it went for them.
    pub(crate) async fn part(mut self) -> (Gate, Vec<Guest>) {
        // A session that is cut by mistake would have ended by now.
        let said = self.talking.load(Ordering::SeqCst) + self.guests.len();
        let begun = Instant::now();
        while self.talking.load(Ordering::SeqCst) < said && begun.elapsed() < DEADLINE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.enough.store(true, Ordering::SeqCst);
        let rest = self.guests.len();
        let guests = self.gone(rest).await;
        (self.gate, guests)
    }
}

/// A new list in the place of the old one.
fn write_list(pki: &TestPki, revoked: &[u64]) {
    let serials: Vec<SerialNumber> = revoked.iter().map(|serial| SerialNumber::from(*serial)).collect();
    let list = pki.clients.revocation_list(&serials, days_from_now(-1), days_from_now(5));
    std::fs::rename(pki.write("clients.crl.new", list), pki.path("clients.crl")).unwrap();
}

async fn enter(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = ServerName::try_from(NAME).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.unwrap()
}

/// Sends bytes and reads the echo, until stopped or disconnected.
async fn talk(
    device: u64,
    mut stream: TlsStream<TcpStream>,
    talking: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
) -> Guest {
    let mut echoed = 0;
    let mut heard = [0; WORDS];
    loop {
        let words: Vec<u8> = (0..WORDS).map(|place| (echoed + place * 7 + device as usize) as u8).collect();
        let last = enough.load(Ordering::SeqCst);
        let turn = async {
            stream.write_all(&words).await?;
            stream.read_exact(&mut heard).await
        };
        match timeout(DEADLINE, turn).await.expect("an answer, or an end") {
            Ok(_) => assert_eq!(heard[..], words[..], "device {device}: other bytes than it has sent"),
            Err(_) => return Guest { device, echoed, cut: Some(Instant::now()) },
        }
        talking.fetch_add(1, Ordering::SeqCst);
        echoed += WORDS;
        if last {
            let _ = stream.shutdown().await;
            return Guest { device, echoed, cut: None };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Of each device, how many sessions were cut, and how many not.
pub(crate) fn tally(guests: &[Guest]) -> BTreeMap<u64, (usize, usize)> {
    let mut tally = BTreeMap::new();
    for guest in guests {
        let (cut, kept) = tally.entry(guest.device).or_insert((0, 0));
        *if guest.cut.is_some() { cut } else { kept } += 1;
    }
    tally
}
