//! Hours in a home, in which everything happens at once; at the end, the gate is as it was at the beginning.
//!
//! ```text
//! cargo bench --bench soak -- --minutes 60           # as root; about a fifth of a core
//! cargo bench --bench soak -- --minutes 60 --check   # fails if a bound is exceeded
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench soak    # 20 seconds with --check
//! ```
//!
//! Devices connect, resume, upload, download, hold idle sessions and ping; strangers, former devices and broken clients do what
//! they do; the owner reloads good and broken configurations, revokes and reinstates a device, denies one, cuts, rotates the
//! log; a service is closed and opened. Whatever a device receives is compared with what was sent.
//!
//! Memory is measured over the last three quarters of the time: heap is anonymous memory, and its growth the median slope
//! between two samples. At the end, every slot is taken once more, which shows that none was lost.
//!
//! `--upgrade` adds `doorward upgrade` in the first half of the time; sessions then last less than `timeouts.drain`, except for one
//! that is cut at it. Memory is that of the last process, from its beginning; it is compared with another process that an
//! upgrade has started. Counters and log are those of all processes.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the bench attack, and this one needs a part of it")]
#[path = "../attack/attackers.rs"]
mod attackers;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../../tests/common/mod.rs"]
mod common;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../../tests/ca/home.rs"]
mod home;
#[path = "../attack/junk.rs"]
mod junk;

mod backend;
mod ending;
mod good;
mod hostile;
mod log;
mod owner;
mod processes;
mod random;
mod sample;
mod scene;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use backend::Service;
use clap::Parser;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use sample::Sample;
use scene::{MAIL, NAS, Scene};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The number of certificates in a crafted chain, without the leaf.
const JUNK: usize = 8;

/// Good and hostile traffic for hours.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// 1 is about 35 connections a second
    #[arg(long, default_value_t = 1.0)]
    load: f64,
    /// Fail if a bound is exceeded, and not only say so
    #[arg(long)]
    check: bool,
    /// Also `doorward upgrade`, again and again
    #[arg(long)]
    upgrade: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Plan {
    fn read() -> Self {
        if std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1") {
            return Self { minutes: 0.3, load: 1.0, check: true, upgrade: false, bench: true };
        }
        let plan = Self::parse();
        assert!(plan.minutes > 0.0 && plan.load > 0.0, "nothing to do");
        plan
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// For how long there are upgrades.
    fn upgrades(&self) -> Duration {
        self.duration() / 2
    }

    /// Between two things that the owner does: each at least once.
    fn pause(&self) -> Duration {
        (self.duration() / 30).min(Duration::from_secs_f64(5.0 / self.load))
    }
}

fn main() {
    let plan = Plan::read();
    assert!(geteuid().is_root(), "only root sees the memory and the descriptors of a gate in its sandbox");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let wrong = runtime.block_on(soak(&plan));
    for line in &wrong {
        println!("MISS: {line}");
    }
    assert!(wrong.is_empty() || !plan.check, "{} bounds are exceeded", wrong.len());
}

/// Runs the bench, and returns what is wrong.
async fn soak(plan: &Plan) -> Vec<String> {
    let (steady, flaky) = (Service::open().await, Service::open().await);
    let scene = tokio::task::block_in_place(|| Scene::open(&steady, &flaky));
    let scene = Arc::new(scene);
    // One that stays revoked.
    scene.in_force(&["revoke", "mallory"]).await.unwrap();
    // What is needed once, such as threads and descriptors of the first connections, does not count.
    let mut random = random::Random::new(7);
    for route in [NAS, scene::FLAKY, scene::PAIR] {
        good::visit(&scene, "alice", &scene.fresh("alice"), route, &mut random).await.unwrap();
    }
    if plan.upgrade {
        // Also at the end it is a process that was not given everything that the first one has opened.
        owner::upgrade(&scene).await.unwrap();
        good::visit(&scene, "alice", &scene.fresh("alice"), NAS, &mut random).await.unwrap();
    }
    ending::settled(&scene).await.unwrap();
    let processes = ending::without_earlier(&scene).await.unwrap();
    let pid = scene.status().await.unwrap().pid;
    let begin = Sample::at_rest(pid).await;
    let descriptors = sample::descriptors(pid);

    let over = CancellationToken::new();
    let mut tasks = JoinSet::new();
    good::start(&scene, &over, plan, &mut tasks);
    hostile::start(&scene, &over, plan, &mut tasks);
    tasks.spawn(owner::work(Arc::clone(&scene), over.clone(), plan.clone(), flaky));
    let samples = watch(&scene, plan).await;
    over.cancel();
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap()
        }
    };
    timeout(Duration::from_secs(90), all).await.expect("what was begun does not end");
    let before = ending::Before { begin, descriptors, processes };
    ending::examine(scene, steady, before, &samples, plan).await
}

const SAMPLE: &str = "counters compared with those before";

/// No counter goes back, also not at an upgrade.
async fn watched(scene: &Scene, before: &mut [f64; 3]) -> Result<(), String> {
    let metrics = scene.metrics().await.map_err(|error| error.to_string())?;
    let now = ending::COUNTERS.map(|name| metrics.sum(name, &[]));
    let fallen = now.iter().zip(before.iter()).any(|(now, before)| now < before);
    let before = std::mem::replace(before, now);
    if fallen { Err(format!("accepted, rejected, closed: {now:?}, and {before:?} before")) } else { Ok(()) }
}

/// Samples until the time is over.
async fn watch(scene: &Scene, plan: &Plan) -> Vec<Sample> {
    let begun = Instant::now();
    let pause = (plan.duration() / 360).max(Duration::from_millis(500));
    let (mut samples, mut said, mut counters) = (Vec::new(), 0, [0.0; 3]);
    scene.tally.expect(SAMPLE);
    while begun.elapsed() < plan.duration() {
        sleep(pause).await;
        let counted = watched(scene, &mut counters).await;
        scene.tally.count(SAMPLE, counted);
        let Ok(status) = scene.status().await else { continue };
        // It may be replaced just now.
        let Some(sample) = Sample::of(status.pid) else { continue };
        let minutes = begun.elapsed().as_secs() / 60;
        if minutes >= said + 5 {
            said = minutes;
            println!(
                "{minutes:>4} min: process {}, {} earlier ones, PSS {} KiB, heap {} KiB, {} descriptors, {} threads, {:?} accepted, \
                 rejected, closed, {} open",
                sample.pid,
                status.earlier.len(),
                sample.pss_kib,
                sample.heap_kib,
                sample.descriptors,
                sample.threads,
                counters,
                status.sessions
            );
        }
        samples.push(sample);
    }
    samples
}
