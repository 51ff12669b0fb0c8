//! How long a revoked device stays connected while the gate is attacked: from before `doorward ca revoke` starts to the end
//! of the stream at the client.
//!
//! ```text
//! cargo bench --bench attack                     # every scenario, as root
//! cargo bench --bench attack -- crafted          # one of them
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench attack
//! ```
//!
//! | scenario | attack |
//! |---|---|
//! | `crafted` | the revoked device itself holds 4,000 connections, each with another order of eight certificates that have the authority's name |
//! | `strangers` | 400 connections a second from new addresses, each with such a chain and a leaf that no authority signed |
//! | `resolver` | a name server that never answers, and 50 connections a second to a passthrough route whose backend is a name |
//! | `descriptors` | a limit of 1,024 descriptors, and clients that hold all of them and stall both directions |
//!
//! It fails if the command does not prove that the revocation is in force, or if another device is cut. A p99 of a second or
//! more is a `MISS`. Each scenario starts its own gate; clients, attackers and gate share the machine.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/ca/home.rs"]
mod home;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::DEADLINE;
use common::backend::Backend;
use common::gate::{Gate, LOCAL};
use common::process::run;
use home::Home;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

const NAME: &str = "nas.home.example";
/// The passthrough route's name.
const MAIL: &str = "mail.home.example";
/// The promised p99.
const BOUND: Duration = Duration::from_secs(1);
/// The number of certificates in a crafted chain, without the leaf.
const JUNK: usize = 8;

/// The size of an attack.
struct Size {
    /// Connections of the crafted device.
    crafted: usize,
    /// Connections a second with crafted chains.
    strangers: u32,
    /// Connections a second to the route whose backend is a name.
    look_ups: u32,
    /// The limit of descriptors.
    descriptors: u64,
    /// Devices that are revoked one after the other, except in `crafted`.
    devices: usize,
    /// Sessions of each.
    sessions: usize,
    /// How long an attack lasts before the first revocation.
    lead: Duration,
}

impl Size {
    const FULL: Self = Self {
        crafted: 4000,
        strangers: 400,
        look_ups: 50,
        descriptors: 1024,
        devices: 10,
        sessions: 10,
        lead: Duration::from_secs(5),
    };
    const SMOKE: Self = Self {
        crafted: 40,
        strangers: 20,
        look_ups: 20,
        descriptors: 128,
        devices: 2,
        sessions: 2,
        lead: Duration::from_secs(1),
    };
}

const SCENARIOS: [&str; 4] = ["crafted", "strangers", "resolver", "descriptors"];

fn main() {
    let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
    let size = if smoke { Size::SMOKE } else { Size::FULL };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let unknown = wanted.iter().find(|name| !SCENARIOS.contains(&name.as_str()));
    assert!(unknown.is_none(), "no scenario is called {unknown:?}: {SCENARIOS:?}");
    println!(
        "\n| {:<12} | {:>8} | {:>9} | {:>9} | {:>9} | {:<10} |",
        "attack", "sessions", "p50", "p99", "worst", "p99 < 1 s"
    );
    println!("|{:-<14}|{:->9}:|{:->10}:|{:->10}:|{:->10}:|{:-<12}|", "", "", "", "", "", "");
    for name in SCENARIOS.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|one| one == name)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut lags = runtime.block_on(async {
            match name {
                "crafted" => crafted(&size).await,
                "strangers" => strangers(&size).await,
                "resolver" => resolver(&size).await,
                _ => descriptors(&size).await,
            }
        });
        lags.sort_unstable();
        let percent = |percent: usize| {
            let place = (lags.len() * percent).div_ceil(100).saturating_sub(1);
            lags.get(place).copied().unwrap_or_default()
        };
        let milliseconds = |lag: Duration| format!("{:.0} ms", lag.as_secs_f64() * 1000.0);
        println!(
            "| {name:<12} | {:>8} | {:>9} | {:>9} | {:>9} | {:<10} |",
            lags.len(),
            milliseconds(percent(50)),
            milliseconds(percent(99)),
            milliseconds(percent(100)),
            if percent(99) < BOUND { "ok" } else { "MISS" }
        );
    }
}

/// A home with a gate under attack.
struct Scene {
    home: Home,
    gate: Gate,
    _backend: Backend,
}

impl Scene {
    /// Issues certificates to `devices`, adds `routes` and `limits` to the configuration, and lets `change` modify the
    /// process.
    fn open(devices: &[String], routes: &str, limits: &str, change: impl FnOnce(&mut Command)) -> Self {
        let home = Home::with_authorities();
        for device in devices {
            home.ca(&["device", device]).success();
        }
        let backend = Backend::echo();
        let path = |file: &str| home.path(file).display().to_string();
        let gate = Gate::start_with(
            &format!(
                "{LOCAL}\n[control]\nsocket = \"control.sock\"\n[certificate]\nchain = {:?}\nkey = {:?}\n\
                 [client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n{limits}\n\
                 [[route]]\nname = \"nas\"\nserver_names = [{NAME:?}]\nbackends = [\"{}\"]\nallow = [\"any\"]\n{routes}",
                path("pki/server.pem"),
                path("pki/server-key.pem"),
                path("pki/clients.pem"),
                path("pki/clients.crl"),
                backend.address(),
            ),
            change,
        );
        Self { home, gate, _backend: backend }
    }

    fn pem(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.home.path(file)).unwrap()
    }

    fn device(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(&self.pem(&format!("devices/{name}.pem"))).unwrap();
        (certificate, PrivateKeyDer::from_pem_slice(&self.pem(&format!("devices/{name}-key.pem"))).unwrap())
    }

    fn config(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem("pki/server-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap())
    }

    /// A session of this client over which one byte was echoed.
    async fn enter(&self, source: Ipv4Addr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.gate.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.unwrap();
        tls.write_all(b"?").await.unwrap();
        timeout(DEADLINE, tls.read_exact(&mut [0])).await.expect("an answer").unwrap();
        tls
    }

    /// Runs `ca revoke` and waits until each of these sessions has ended. Returns the time for each.
    async fn revoke(&self, device: &str, sessions: Vec<TlsStream<TcpStream>>) -> Vec<Duration> {
        let ends: Vec<_> = sessions
            .into_iter()
            .map(|mut session| {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while matches!(timeout(DEADLINE, session.read(&mut byte)).await.expect("an end"), Ok(1)) {}
                    Instant::now()
                })
            })
            .collect();
        let config = self.gate.folder().join("doorward.toml");
        let begun = Instant::now();
        let mut command = self.home.doorward();
        command.args(["ca", "revoke", device, "--format", "json", "--config"]).arg(config);
        command.arg("--folder").arg(self.home.path("pki"));
        let said = tokio::task::spawn_blocking(move || run(&mut command).success()).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["in_force"], true, "{said}");
        let mut lags = Vec::new();
        for end in ends {
            lags.push(end.await.unwrap() - begun);
        }
        lags
    }

    /// Connects the devices, waits until the attack is running, and revokes them one after the other. One that is not
    /// revoked must stay connected.
    async fn revoke_each(&self, devices: &[String], size: &Size) -> Vec<Duration> {
        let mut held = Vec::new();
        for (number, device) in devices.iter().enumerate() {
            let (certificate, key) = self.device(device);
            let config = self.config(vec![certificate], key);
            let mut sessions = Vec::new();
            for _ in 0..size.sessions {
                sessions.push(self.enter(Ipv4Addr::new(127, 1, 0, u8::try_from(number + 1).unwrap()), &config).await);
            }
            held.push((device, sessions));
        }
        let (_, mut kept) = held.pop().unwrap();
        tokio::time::sleep(size.lead).await;
        let mut lags = Vec::new();
        for (device, sessions) in held {
            lags.extend(self.revoke(device, sessions).await);
        }
        for session in &mut kept {
            session.write_all(b"!").await.unwrap();
            timeout(DEADLINE, session.read_exact(&mut [0])).await.expect("an answer").unwrap();
        }
        lags
    }
}

fn devices(count: usize) -> Vec<String> {
    (0..=count).map(|number| format!("device-{number}")).collect()
}

async fn crafted(size: &Size) -> Vec<Duration> {
    let devices = ["mallory".to_owned(), "alice".to_owned()];
    let limits = "[limits]\nconnections_per_source = \"off\"\nconnection_rate_per_source = \"off\"\n";
    let scene = tokio::task::block_in_place(|| Scene::open(&devices, "", limits, |_| ()));
    let junk = Junk::new(&scene);
    let (certificate, key) = scene.device("mallory");
    let mut sessions = Vec::new();
    for number in 0..size.crafted {
        let chain = std::iter::once(certificate.clone()).chain(junk.ordered(number)).collect();
        let source = Ipv4Addr::from_bits(0x7f02_0001 + u32::try_from(number / 250).unwrap());
        sessions.push(scene.enter(source, &scene.config(chain, key.clone_key())).await);
    }
    let (certificate, key) = scene.device("alice");
    let mut alice = scene.enter(Ipv4Addr::new(127, 1, 0, 1), &scene.config(vec![certificate], key)).await;
    let lags = scene.revoke("mallory", sessions).await;
    alice.write_all(b"!").await.unwrap();
    timeout(DEADLINE, alice.read_exact(&mut [0])).await.expect("an answer").unwrap();
    drop(alice);
    tokio::task::block_in_place(|| drop(scene));
    lags
}

async fn strangers(size: &Size) -> Vec<Duration> {
    let devices = devices(size.devices);
    let scene = tokio::task::block_in_place(|| Scene::open(&devices, "", "", |_| ()));
    let junk = Junk::new(&scene);
    let (leaf, key) = junk.stranger();
    let configs: Vec<_> = (0..64)
        .map(|number| {
            let chain = std::iter::once(leaf.clone()).chain(junk.ordered(number)).collect();
            scene.config(chain, key.clone_key())
        })
        .collect();
    let address = scene.gate.address();
    let attack = Attack::start(size.strangers, move |turn, _| {
        let tls = ClientConnection::new(Arc::clone(&configs[turn as usize % configs.len()]), NAME.try_into().unwrap());
        let Ok(stream) = from(fresh(turn), address) else { return };
        let mut stream = rustls::StreamOwned::new(tls.unwrap(), stream);
        // The answer does not matter.
        let _ = stream.write_all(b"?").and_then(|()| std::io::Read::read(&mut stream, &mut [0]));
    });
    let lags = scene.revoke_each(&devices, size).await;
    attack.stop();
    tokio::task::block_in_place(|| drop(scene));
    lags
}

async fn resolver(size: &Size) -> Vec<Duration> {
    let mute = UdpSocket::bind("127.0.83.1:53").expect("root, to bind the name server's address");
    let devices = devices(size.devices);
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.83.1\n").unwrap();
    let route = format!(
        "[[route]]\nname = \"mail\"\nmode = \"passthrough\"\nserver_names = [{MAIL:?}]\nbackends = [\"mail.lan:993\"]\n"
    );
    let scene =
        tokio::task::block_in_place(|| Scene::open(&devices, &route, "", |command| in_namespace(command, &resolv)));
    let (hello, address) = (hello(), scene.gate.address());
    let attack = Attack::start(size.look_ups, move |turn, held| {
        if let Ok(mut stream) = from(fresh(turn), address)
            && stream.write_all(&hello).is_ok()
        {
            held.push(stream);
        }
        if held.len() > 50 {
            held.remove(0);
        }
    });
    let lags = scene.revoke_each(&devices, size).await;
    attack.stop();
    tokio::task::block_in_place(|| drop(scene));
    drop(mute);
    lags
}

async fn descriptors(size: &Size) -> Vec<Duration> {
    let devices = devices(size.devices);
    let stalled = Backend::mute();
    let route = format!(
        "[[route]]\nname = \"mail\"\nmode = \"passthrough\"\nserver_names = [{MAIL:?}]\nbackends = [\"{}\"]\n",
        stalled.address()
    );
    let limit = size.descriptors.to_string();
    let scene = tokio::task::block_in_place(|| {
        Scene::open(&devices, &route, "", |command| {
            wrap(command, "ulimit -n \"$1\"; shift; exec \"$@\"", &[limit.as_ref()])
        })
    });
    let (hello, address) = (hello(), scene.gate.address());
    let attack = Attack::start(200, move |turn, held| {
        let Ok(mut stream) = from(fresh(turn / 100 * 100), address) else { return };
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write_all(&hello);
        while stream.write(&[0; 65536]).is_ok_and(|written| written > 0) {}
        held.push(stream);
        if held.len() > 400 {
            held.remove(0);
        }
    });
    let lags = scene.revoke_each(&devices, size).await;
    attack.stop();
    // Stalled relays end with their backend.
    tokio::task::block_in_place(|| {
        drop(stalled);
        drop(scene);
    });
    lags
}

/// Attackers at a steady rate, on their own threads.
struct Attack {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Attack {
    /// Calls `knock` at this rate with an increasing number. The results are held until the end.
    fn start(rate: u32, knock: impl Fn(u32, &mut Vec<StdStream>) + Send + Sync + 'static) -> Self {
        const THREADS: usize = 8;
        let over = Arc::<AtomicBool>::default();
        let (knock, turns, begun) = (Arc::new(knock), Arc::<AtomicUsize>::default(), Instant::now());
        let threads = (0..THREADS)
            .map(|_| {
                let (over, knock, turns) = (Arc::clone(&over), Arc::clone(&knock), Arc::clone(&turns));
                thread::spawn(move || {
                    let mut held = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let turn = u32::try_from(turns.fetch_add(1, Ordering::Relaxed)).unwrap();
                        let due = begun + Duration::from_secs(1) * turn / rate;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        knock(turn, &mut held);
                    }
                })
            })
            .collect();
        Self { over, threads }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// A new address.
const fn fresh(turn: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0001 + turn)
}

fn from(source: Ipv4Addr, gate: SocketAddr) -> std::io::Result<StdStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&gate.into(), Duration::from_secs(5))?;
    let stream = StdStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// The first flight of a client of the passthrough route.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut bytes = Vec::new();
    let mut tls = ClientConnection::new(Arc::new(config), MAIL.try_into().unwrap()).unwrap();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// Runs the command in its own mount namespace, with another `/etc/resolv.conf`.
fn in_namespace(command: &mut Command, resolv: &std::path::Path) {
    wrap(command, "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"", &[resolv.as_os_str()]);
    let inner = std::mem::replace(command, Command::new("unshare"));
    command.arg("--mount").arg(inner.get_program()).args(inner.get_args());
}

/// Runs the command by a shell script, which gets these arguments first.
fn wrap(command: &mut Command, script: &str, arguments: &[&std::ffi::OsStr]) {
    let inner = std::mem::replace(command, Command::new("sh"));
    command.args(["-ec", script, "sh"]).args(arguments).arg(inner.get_program()).args(inner.get_args());
}

/// Certificates with the name of the gate's client authority that it did not issue.
struct Junk {
    name: String,
    authorities: Vec<CertificateDer<'static>>,
}

impl Junk {
    fn new(scene: &Scene) -> Self {
        let authority = CertificateDer::from_pem_slice(&scene.pem("pki/clients.pem")).unwrap();
        let (_, authority) = X509Certificate::from_der(&authority).unwrap();
        let name = authority.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
        let mut params = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let forger = Issuer::new(params.clone(), KeyPair::generate().unwrap());
        let forge = || params.signed_by(&KeyPair::generate().unwrap(), &forger).unwrap().der().clone();
        let authorities: Vec<_> = std::iter::repeat_with(forge).take(JUNK).collect();
        let (_, first) = X509Certificate::from_der(&authorities[0]).unwrap();
        assert_eq!(first.subject().as_raw(), authority.subject().as_raw(), "the authority's name, byte for byte");
        Self { name, authorities }
    }

    /// All of them, in the permutation of this number.
    fn ordered(&self, mut number: usize) -> Vec<CertificateDer<'static>> {
        let mut left = self.authorities.clone();
        let mut ordered = Vec::new();
        while !left.is_empty() {
            ordered.push(left.remove(number % left.len()));
            number /= left.len() + 1;
        }
        ordered
    }

    /// A certificate that claims to be the authority's.
    fn stranger(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let forger = Issuer::new(named(&self.name), KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = named("stranger").signed_by(&key, &forger).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
