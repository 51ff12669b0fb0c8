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
#[path = "../../tests/common/mod.rs"]
mod common;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../../tests/ca/home.rs"]
mod home;

mod attackers;
mod junk;
mod scene;

use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use attackers::{Attack, fresh, from, hello, in_namespace, wrap};
use common::DEADLINE;
use common::backend::Backend;
use junk::Junk;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConnection;
use scene::Scene;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

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
