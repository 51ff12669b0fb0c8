//! After the traffic: everything is as it was at the beginning.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorward::control::{Answer, Request};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::Plan;
use crate::backend::Service;
use crate::common::DEADLINE;
use crate::common::metrics::Metrics;
use crate::good::{OUTLIVED, session, visit};
use crate::owner::UPGRADE;
use crate::random::Random;
use crate::sample::{self, PIPE, Sample, growth_per_hour, without_pipes};
use crate::scene::{CONNECTIONS, Change, FLAKY, HANDSHAKES, NAS, PAIR, PER_SOURCE, Scene};

pub(super) const COUNTERS: [&str; 3] =
    ["doorward_connections_accepted_total", "doorward_connections_rejected_total", "doorward_connections_closed_total"];
const GAUGES: [&str; 2] = ["doorward_connections_active", "doorward_handshakes_in_progress"];

/// What the traffic has to be refused for.
const REASONS: [(&str, &str); 14] = [
    ("admission", "source_banned"),
    ("client_hello", "timeout"),
    ("client_hello", "closed_early"),
    ("client_hello", "not_tls"),
    ("client_hello", "malformed"),
    ("client_hello", "too_large"),
    ("route", "server_name_unknown"),
    ("handshake", "closed_early"),
    ("certificate", "required"),
    ("certificate", "unknown_ca"),
    ("certificate", "expired"),
    ("certificate", "revoked"),
    ("certificate", "denied"),
    ("backend", "refused"),
];

/// What a process says whose last connection has not ended within `timeouts.drain`.
const CUT_AT_DRAIN: &str = "stopped; cut because they did not end in time: 1 connection";

const BACKEND_UP: &str = "doorward_backend_up";

/// The most that the heap may grow in an hour, in KiB, if one process was measured for this many minutes or more. What the gate
/// has allocated and not freed is constant after two minutes (heaptrack). What the allocator keeps for its threads grows by
/// 1.7 MiB an hour in the first 20 minutes, and by 0.4 to 1 MiB in the rest of the hour.
const GROWTH_MAX: f64 = 2048.0;
const MEASURED_MIN: f64 = 25.0;
/// The most that the heap may be larger at the end, in KiB: 7 MiB of free buffers (`src/relay/buffers.rs`); 2 MiB of refusals,
/// penalties of some 2,300 sources, and history, each with a limit of its own; and what the allocator has not given back.
const HELD_MAX: u64 = 14 << 10;
/// The descriptors of the free pipes that the gate keeps for the next connections: `src/relay/pipes.rs`.
const FREE_PIPES: usize = 2 * 32;
/// The most CPU time in a second in which nothing happens.
const IDLE_MAX: Duration = Duration::from_millis(20);

/// Waits until no connection is active, and returns the metrics then.
pub(super) async fn settled(scene: &Scene) -> Result<Metrics, String> {
    let begun = Instant::now();
    loop {
        let metrics = scene.metrics().await.map_err(|error| error.to_string())?;
        let [accepted, rejected, closed] = COUNTERS.map(|name| metrics.sum(name, &[]));
        let active = GAUGES.map(|name| metrics.sum(name, &[]));
        if active == [0.0; 2] && accepted == rejected + closed {
            return Ok(metrics);
        }
        if begun.elapsed() > 3 * DEADLINE {
            return Err(format!(
                "accepted {accepted} = rejected {rejected} + closed {closed}? Active, and in the handshake: {active:?}"
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no process is left that an upgrade has replaced, and returns how many belong to the gate.
pub(super) async fn without_earlier(scene: &Scene) -> Result<usize, String> {
    let begun = Instant::now();
    loop {
        let earlier = scene.status().await?.earlier;
        let all = scene.processes();
        // The gate and its launcher.
        if earlier.is_empty() && all.len() <= 2 {
            return Ok(all.len());
        }
        if begun.elapsed() > DEADLINE {
            return Err(format!("the processes {all:?} run, and no session is left: {earlier:?}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// How the gate was before the traffic.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) begin: Sample,
    pub(super) descriptors: BTreeMap<String, usize>,
    pub(super) processes: usize,
}

/// Compares the gate with how it was at the beginning; what is wrong.
pub(super) async fn examine(
    scene: Arc<Scene>,
    steady: Service,
    Before { begin, descriptors, processes }: Before,
    samples: &[Sample],
    plan: &Plan,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let last_traffic = settled(&scene).await;
    match without_earlier(&scene).await {
        Ok(now) if now == processes => {}
        Ok(now) => wrong.push(format!("{now} processes, and {processes} at the beginning")),
        Err(why) => wrong.push(why),
    }
    let pid = scene.status().await.unwrap().pid;
    let end = Sample::settled(pid, &descriptors, begin.threads).await;
    sleep(Duration::from_secs(2)).await;
    let idle = Sample::now(pid);
    let idle = (idle.cpu - end.cpu).div_f64((idle.at - end.at).as_secs_f64());
    report_resources(begin, end, samples, plan, &mut wrong);
    let now = sample::descriptors(pid);
    let pipes = |kinds: &BTreeMap<String, usize>| kinds.get(PIPE).copied().unwrap_or_default();
    if without_pipes(&now) != without_pipes(&descriptors) || pipes(&now) > pipes(&descriptors) + FREE_PIPES {
        wrong.push(format!("the descriptors are {now:?}, and were {descriptors:?} at the beginning"));
    }
    println!("CPU time of the gate in an idle second: {} ms", idle.as_millis());
    if idle > IDLE_MAX {
        wrong.push(format!("{} ms of CPU time in an idle second", idle.as_millis()));
    }
    match last_traffic {
        Ok(metrics) => counters(&scene, &metrics, &mut wrong),
        Err(why) => wrong.push(why),
    }
    for (name, counts) in ["steady", "flaky"].iter().zip(&scene.counts) {
        let (open, strange) = (counts.open.load(Ordering::SeqCst), counts.strange.load(Ordering::SeqCst));
        if (open, strange) != (0, 0) {
            wrong.push(format!("the {name} service: {open} connections are open, {strange} were no device's"));
        }
    }
    if let Err(why) = slots(&scene).await {
        wrong.push(format!("not every slot is free: {why}"));
    }
    match settled(&scene).await {
        Ok(metrics) => stop(scene, &metrics, plan, &mut wrong).await,
        Err(why) => wrong.push(why),
    }
    drop(steady);
    wrong
}

fn report_resources(begin: Sample, end: Sample, samples: &[Sample], plan: &Plan, wrong: &mut Vec<String>) {
    let minutes = |samples: &[Sample]| {
        let [Some(first), Some(last)] = [samples.first(), samples.last()] else { return 0.0 };
        (last.at - first.at).as_secs_f64() / 60.0
    };
    if minutes(samples) < 0.8 * plan.minutes {
        wrong.push(format!("only {} samples in {:.1} minutes", samples.len(), minutes(samples)));
    }
    // The last process, if there were upgrades.
    let processes: Vec<&[Sample]> = samples.chunk_by(|one, next| one.pid == next.pid).collect();
    println!("\n| process | minutes | heap at its end, KiB |\n|--------:|--------:|---------------------:|");
    for samples in &processes {
        println!("| {:>7} | {:>7.1} | {:>20} |", samples[0].pid, minutes(samples), samples[samples.len() - 1].heap_kib);
    }
    let samples = processes.last().copied().unwrap_or_default();
    let minutes = minutes(samples);
    let warm = &samples[samples.len() / 4..];
    let row = |what: &str, figure: &dyn Fn(&Sample) -> u64| {
        let peak = samples.iter().map(figure).max().unwrap_or_default();
        println!(
            "| {what:<18} | {:>9} | {:>9} | {peak:>9} | {:>12.0} |",
            figure(&begin),
            figure(&end),
            growth_per_hour(warm, figure)
        );
    };
    println!("\n| of the gate        | beginning |       end |      most | growth, an h |");
    println!("|--------------------|----------:|----------:|----------:|-------------:|");
    row("RSS, KiB", &|sample| sample.rss_kib);
    row("PSS, KiB", &|sample| sample.pss_kib);
    row("heap, KiB", &|sample| sample.heap_kib);
    row("descriptors", &|sample| sample.descriptors as u64);
    row("threads", &|sample| sample.threads as u64);
    println!();
    let spent = samples.last().map_or(Duration::ZERO, |last| {
        last.cpu.saturating_sub(if last.pid == begin.pid { begin.cpu } else { Duration::ZERO })
    });
    println!("CPU time of the gate: {:.1} s in {minutes:.1} minutes", spent.as_secs_f64());
    let growth = growth_per_hour(warm, |sample| sample.heap_kib);
    if minutes >= MEASURED_MIN && growth > GROWTH_MAX {
        wrong.push(format!("the heap grows by {growth:.0} KiB an hour"));
    }
    let grown = end.heap_kib.saturating_sub(begin.heap_kib);
    if grown > HELD_MAX {
        wrong.push(format!("the heap has grown by {grown} KiB"));
    }
    if end.threads > begin.threads {
        wrong.push(format!("{} threads, and {} at the beginning", end.threads, begin.threads));
    }
}

/// What the counters say after the traffic.
fn counters(scene: &Scene, metrics: &Metrics, wrong: &mut Vec<String>) {
    let [accepted, rejected, closed] = COUNTERS.map(|name| metrics.sum(name, &[]));
    println!("accepted {accepted} = rejected {rejected} + closed {closed}, active 0\n");
    let (connected, begun) = scene.connections();
    if !(connected as f64..=begun as f64).contains(&accepted) {
        wrong.push(format!("{accepted} connections were accepted; clients have made {connected} of {begun}"));
    }
    for (stage, reason) in REASONS {
        if metrics.sum(COUNTERS[1], &[("stage", stage), ("reason", reason)]) == 0.0 {
            wrong.push(format!("nothing was refused for {stage}/{reason}"));
        }
    }
    if metrics.sum(COUNTERS[1], &[("stage", "internal")]) > 0.0 {
        wrong.push("the gate has refused connections for a mistake of its own".to_owned());
    }
    let resumed = metrics.sum("doorward_handshakes_total", &[("resumed", "true")]);
    for (what, value, expected) in [
        ("log lines lost", metrics.sum("doorward_log_lines_lost_total", &[]), 0.0),
        ("doorward_log_writable", metrics.sum("doorward_log_writable", &[]), 1.0),
        ("doorward_config_last_reload_successful", metrics.sum("doorward_config_last_reload_successful", &[]), 1.0),
        ("accept errors", metrics.sum("doorward_accept_errors_total", &[]), 0.0),
    ] {
        if value != expected {
            wrong.push(format!("{what}: {value} instead of {expected}"));
        }
    }
    if resumed < scene.tally.of("  of them resumed") as f64 {
        wrong.push(format!("{resumed} handshakes were resumed, and clients saw more"));
    }
    // What a service received went through a relay; a relay may count what a closed service did not read.
    let received: u64 = scene.counts.iter().map(|counts| counts.received.load(Ordering::SeqCst)).sum();
    let relayed = metrics.sum("doorward_relay_bytes_total", &[("direction", "client_to_backend")]);
    if relayed < received as f64 {
        wrong.push(format!("the services received {received} bytes, and {relayed} were counted"));
    }
}

/// Takes each slot once more: sessions up to the limit of each source and of all, then handshakes up to theirs.
async fn slots(scene: &Scene) -> Result<(), String> {
    let mut held = Vec::new();
    for device in ["alice", "bob", "carol"] {
        let config = scene.fresh(device);
        for number in 0..PER_SOURCE {
            let session = session(scene, device, &config, NAS).await;
            held.push(session.map_err(|why| format!("session {number} of {device}: {why}"))?);
        }
        if session(scene, device, &config, NAS).await.is_ok() {
            return Err(format!("{device} has more sessions than limits.connections_per_source"));
        }
    }
    assert_eq!(held.len(), CONNECTIONS);
    if session(scene, "dave", &scene.fresh("dave"), NAS).await.is_ok() {
        return Err("there are more sessions than limits.connections".to_owned());
    }
    drop(held);
    settled(scene).await?;
    scene.configure(Change { patient: true, ..Change::default() });
    match scene.ask(Request::Reload).await? {
        Answer::Reloaded(_) => {}
        other => return Err(format!("{other:?}")),
    }
    let mut begun = Vec::new();
    for number in 0..HANDSHAKES {
        let source = Ipv4Addr::new(127, 5, 0, u8::try_from(number + 1).unwrap());
        let mut stream = scene.connect(source).await.map_err(|error| error.to_string())?;
        stream.write_all(&[22, 3, 1]).await.map_err(|error| error.to_string())?;
        begun.push(stream);
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        let metrics = scene.metrics().await.map_err(|error| error.to_string())?;
        let now = metrics.sum("doorward_handshakes_in_progress", &[]);
        if now == HANDSHAKES as f64 {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{now} handshakes in progress, and {HANDSHAKES} were begun"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Ends the gate, and compares its log with the counters.
async fn stop(scene: Arc<Scene>, metrics: &Metrics, plan: &Plan, wrong: &mut Vec<String>) {
    // The flaky service may have been closed when it was dialled last.
    let (mut random, visits) = (Random::new(3), [FLAKY, PAIR]);
    for name in visits {
        if let Err(why) = visit(&scene, "frank", &scene.fresh("frank"), name, &mut random).await {
            wrong.push(format!("{name} does not answer at the end: {why}"));
        }
    }
    let serving = scene.status().await.unwrap().pid;
    match scene.metrics().await {
        Ok(now) => {
            let (up, all) = (now.sum(BACKEND_UP, &[]), now.label_values(BACKEND_UP, "backend").len());
            if up != all as f64 {
                wrong.push(format!("{up} of {all} backends are up at the end"));
            }
        }
        Err(error) => wrong.push(format!("no metrics at the end: {error}")),
    }
    let [accepted, ..] = COUNTERS.map(|name| metrics.sum(name, &[]));
    let Ok(scene) = Arc::try_unwrap(scene) else { return wrong.push("a task still uses the scene".to_owned()) };
    let (tally, told, stderr) = tokio::task::spawn_blocking(move || scene.stop(serving)).await.unwrap();
    // The start of each process warns of the service that has two routes.
    let lines = stderr.lines().filter(|line| !line.starts_with("warning: route["));
    let (cut, strange): (Vec<&str>, Vec<&str>) = lines.partition(|line| *line == CUT_AT_DRAIN);
    if !strange.is_empty() {
        wrong.push(format!("the gate has written to stderr: {strange:?}"));
    }
    if cut.len() as u64 != tally.of(OUTLIVED) {
        wrong.push(format!("{} processes have cut a connection, and {} were cut", cut.len(), tally.of(OUTLIVED)));
    }
    wrong.extend(told.report());
    // The last visits were after the metrics were read.
    let expected = accepted as u64 + visits.len() as u64;
    if told.verdicts() != expected {
        wrong.push(format!("the log tells of {} connections, and {expected} were accepted", told.verdicts()));
    }
    let upgrades = tally.of(UPGRADE) + u64::from(plan.upgrade);
    if told.of("upgraded") != upgrades {
        wrong.push(format!("{} lines \"upgraded\", and there were {upgrades} upgrades", told.of("upgraded")));
    }
    println!();
    wrong.extend(tally.report());
}
