//! What strangers, former devices and broken clients do. None of them may receive a byte of a service.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Plan;
use crate::attackers::hello;
use crate::common::DEADLINE;
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::junk::Junk;
use crate::random::Random;
use crate::scene::{NAS, Scene, home_of};

/// How many are connected at once, so that they leave slots to the devices.
const AT_ONCE: usize = 40;

/// Addresses of strangers that come seldom enough not to be banned.
const SELDOM: usize = 2000;

/// Addresses of strangers that fail again and again.
const OFTEN: usize = 8;

/// The first ban of a source (`doorward help refusals`).
const BAN: Duration = Duration::from_secs(60);

const BANNED: &str = "ban of a source";
const BAN_ENDED: &str = "  of them ended after a minute";

/// How long a client waits for the end of a connection that the gate has to close: more than its timeouts.
const PATIENCE: Duration = Duration::from_secs(20);

/// The clients that are shown a certificate request.
struct Clients {
    none: Arc<ClientConfig>,
    stranger: Arc<ClientConfig>,
    crafted: Vec<Arc<ClientConfig>>,
    revoked: Arc<ClientConfig>,
    expired: Arc<ClientConfig>,
    hello: Vec<u8>,
}

impl Clients {
    fn new(scene: &Scene) -> Self {
        let junk = Junk::new(scene);
        let (leaf, key) = junk.stranger();
        let shown = |chain| Arc::new(scene.client(Some((chain, key.clone_key())), rustls::ALL_VERSIONS));
        let crafted =
            (0..16).map(|number| shown(std::iter::once(leaf.clone()).chain(junk.ordered(number)).collect())).collect();
        let pki = |file: &str| scene.home.path(&format!("pki/{file}"));
        let authority = Authority::read(Path::new(&pki("clients.pem")), Path::new(&pki("clients-key.pem")));
        let mut params = Certified::for_clients("expired");
        params.not_after = days_from_now(0) - time::Duration::HOUR;
        let expired = authority.issue(params);
        Self {
            none: Arc::new(scene.client(None, rustls::ALL_VERSIONS)),
            stranger: shown(vec![leaf.clone()]),
            crafted,
            revoked: scene.fresh("mallory"),
            expired: Arc::new(scene.client(Some((expired.chain(), expired.key())), rustls::ALL_VERSIONS)),
            hello: hello(),
        }
    }
}

/// Something hostile.
#[derive(Clone, Copy)]
enum Act {
    NotTls,
    NoCertificate,
    WrongAuthority,
    Crafted,
    Revoked,
    Expired,
    HalfHello,
    HalfHelloReset,
    Reset,
    ResetInHandshake,
    UnknownName,
    Malformed,
    TooLarge,
    Silent,
    UnreadPassthrough,
}

const ACTS: [(&str, Act); 15] = [
    ("hostile: not TLS", Act::NotTls),
    ("hostile: no certificate", Act::NoCertificate),
    ("hostile: certificate of another authority", Act::WrongAuthority),
    ("hostile: crafted chain", Act::Crafted),
    ("hostile: revoked device", Act::Revoked),
    ("hostile: expired certificate", Act::Expired),
    ("hostile: half a ClientHello", Act::HalfHello),
    ("hostile: half a ClientHello, then a reset", Act::HalfHelloReset),
    ("hostile: reset after the connect", Act::Reset),
    ("hostile: reset in the handshake", Act::ResetInHandshake),
    ("hostile: unknown server name", Act::UnknownName),
    ("hostile: malformed ClientHello", Act::Malformed),
    ("hostile: endless ClientHello", Act::TooLarge),
    ("hostile: silent connection", Act::Silent),
    ("hostile: passthrough without reading", Act::UnreadPassthrough),
];

/// Starts the strangers, until `over`.
pub(super) fn start(scene: &Arc<Scene>, over: &CancellationToken, plan: &Plan, tasks: &mut JoinSet<()>) {
    let clients = Arc::new(Clients::new(scene));
    let pause = Duration::from_secs_f64(0.06 / plan.load);
    for (name, _) in ACTS {
        scene.tally.expect(name);
    }
    scene.tally.expect(BANNED);
    if plan.minutes >= 2.0 {
        scene.tally.expect(BAN_ENDED);
    }
    let (attacked, ending) = (Arc::clone(scene), over.clone());
    tasks.spawn(async move {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let (mut random, mut running, mut number) = (Random::new(99), JoinSet::new(), 0);
        while !ending.is_cancelled() {
            tokio::select! { () = sleep(pause) => {}, () = ending.cancelled() => break }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            while running.try_join_next().is_some() {}
            // Each once, and then at random.
            let ((name, act), source) = match ACTS.get(number) {
                Some(act) => (*act, seldom(number)),
                None => (ACTS[random.below(ACTS.len())], source(&mut random)),
            };
            number += 1;
            let (scene, clients, mut random) =
                (Arc::clone(&attacked), Arc::clone(&clients), Random::new(random.next()));
            running.spawn(async move {
                let result = perform(act, source, &scene, &clients, &mut random).await;
                scene.tally.count(name, result);
                drop(slot);
            });
        }
        while running.join_next().await.is_some() {}
    });
    tasks.spawn(bans(Arc::clone(scene), over.clone()));
}

/// Where a stranger comes from: mostly from anywhere, sometimes from one of a few addresses or from a device's own.
fn source(random: &mut Random) -> Ipv4Addr {
    match random.below(20) {
        0..=2 => Ipv4Addr::from_bits(0x7f03_0001 + random.below(OFTEN) as u32),
        3 => home_of(["alice", "bob", "carol", "dave"][random.below(4)]),
        _ => seldom(random.below(SELDOM)),
    }
}

const fn seldom(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0001 + number as u32)
}

/// An error is a broken promise: the gate sent more than TLS, or kept the connection.
async fn perform(
    act: Act,
    source: Ipv4Addr,
    scene: &Scene,
    clients: &Clients,
    random: &mut Random,
) -> Result<(), String> {
    let config = match act {
        Act::NoCertificate => Some(&clients.none),
        Act::WrongAuthority => Some(&clients.stranger),
        Act::Crafted => Some(&clients.crafted[random.below(clients.crafted.len())]),
        Act::Revoked => Some(&clients.revoked),
        Act::Expired => Some(&clients.expired),
        _ => None,
    };
    if let Some(config) = config {
        return refused(scene, source, config, NAS).await;
    }
    let name = "nothing.home.example";
    if matches!(act, Act::UnknownName) {
        return refused(scene, source, &clients.none, name).await;
    }
    let mut stream = reach(scene, source).await?;
    let half = 1 + random.below(clients.hello.len() - 1);
    let sent = match act {
        Act::NotTls => stream.write_all(b"GET / HTTP/1.1\r\nHost: nas\r\n\r\n").await,
        Act::HalfHello | Act::HalfHelloReset => stream.write_all(&clients.hello[..half]).await,
        Act::Malformed => {
            let mut bytes = [&[22, 3, 1, 0, 64, 1, 0, 0, 60][..], &random.bytes(60)].concat();
            bytes[9] = 3;
            stream.write_all(&bytes).await
        }
        // A ClientHello of 16 MiB.
        Act::TooLarge => stream.write_all(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]).await,
        Act::ResetInHandshake => {
            let hello = clients.hello_for_nas();
            stream.write_all(&hello).await
        }
        Act::UnreadPassthrough => {
            let bytes = [&clients.hello[..], &random.bytes(200_000)].concat();
            // The service echoes, and the echo is not read: the connection stalls.
            let _ = timeout(Duration::from_secs(2), stream.write_all(&bytes)).await;
            return reset(stream);
        }
        _ => Ok(()),
    };
    if sent.is_err() {
        return Ok(());
    }
    if matches!(act, Act::HalfHelloReset | Act::Reset | Act::ResetInHandshake) {
        sleep(Duration::from_millis(random.next() % 20)).await;
        return reset(stream);
    }
    plain_end(stream).await
}

impl Clients {
    /// The first flight of a client of the route that asks for a certificate.
    fn hello_for_nas(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut tls = rustls::ClientConnection::new(Arc::clone(&self.none), NAS.try_into().unwrap()).unwrap();
        tls.write_tls(&mut bytes).unwrap();
        bytes
    }
}

fn reset(stream: TcpStream) -> Result<(), String> {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|error| error.to_string())
}

/// Connects. The kernel does so for everybody, also while the gate is replaced.
async fn reach(scene: &Scene, source: Ipv4Addr) -> Result<TcpStream, String> {
    scene.connect(source).await.map_err(|error| format!("cannot connect: {error}"))
}

/// A TLS client that must not be served.
async fn refused(
    scene: &Scene,
    source: Ipv4Addr,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<(), String> {
    let stream = reach(scene, source).await?;
    let Ok(Ok(mut stream)) = timeout(DEADLINE, Scene::shake_hands(stream, config, name)).await else { return Ok(()) };
    let _ = stream.write_all(b"e?").await;
    match timeout(PATIENCE, stream.read(&mut [0; 16])).await {
        Ok(Ok(count @ 1..)) => Err(format!("{count} bytes of the service")),
        Ok(_) => Ok(()),
        Err(_) => Err("the connection is still open".to_owned()),
    }
}

/// The gate may answer with an alert, and has to close.
async fn plain_end(mut stream: TcpStream) -> Result<(), String> {
    let mut answer = Vec::new();
    let read: Result<io::Result<usize>, _> = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    match (read, answer.first()) {
        (Err(_), _) => Err("the connection is still open".to_owned()),
        (Ok(_), None | Some(21)) => Ok(()),
        (Ok(_), Some(_)) => Err(format!("{} bytes that are no alert", answer.len())),
    }
}

/// A source is banned, and the ban ends.
async fn bans(scene: Arc<Scene>, over: CancellationToken) {
    for number in 1..250 {
        let source = Ipv4Addr::new(127, 4, 0, number);
        let banned = async {
            let begun = Instant::now();
            while reason_of(&scene, source).await? != "source_banned" {
                if begun.elapsed() > PATIENCE {
                    return Err("it is not banned".to_owned());
                }
            }
            Ok(Instant::now())
        };
        let banned: Result<Instant, String> = banned.await;
        let at = match banned {
            Ok(at) => at,
            Err(why) => return scene.tally.failed(BANNED, why),
        };
        scene.tally.done(BANNED);
        tokio::select! {
            () = tokio::time::sleep_until(at + BAN + Duration::from_secs(2)) => {}
            () = over.cancelled() => return,
        }
        let after = match reason_of(&scene, source).await.as_deref() {
            Ok("not_tls") => Ok(()),
            other => Err(format!("{other:?} after {} s", at.elapsed().as_secs())),
        };
        scene.tally.count(BAN_ENDED, after);
    }
}

/// Why the gate refuses this source now.
async fn reason_of(scene: &Scene, source: Ipv4Addr) -> Result<String, String> {
    let mut stream = reach(scene, source).await?;
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let client = stream.local_addr().unwrap();
    plain_end(stream).await?;
    scene.why(client).await
}
