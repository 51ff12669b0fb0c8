//! What the owner's devices do. Everything that they receive is compared with what was sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Plan;
use crate::backend::{DIGEST, DOWNLOAD, ECHO, UPLOAD};
use crate::common::DEADLINE;
use crate::random::Random;
use crate::scene::{DRAIN, FLAKY, Flap, NAS, PAIR, Scene, Session, home_of};

const RESUMED: &str = "  of them resumed";
pub(super) const OUTLIVED: &str = "session cut when its process has to end";

/// The most bytes in a short exchange.
const SHORT: usize = 40_000;

fn text(error: io::Error) -> String {
    error.to_string()
}

/// Within the deadline, or an error.
async fn within<T>(what: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    timeout(DEADLINE, what).await.map_err(|_| "no answer in time".to_owned())?.map_err(text)
}

/// Sends bytes to the echo service and expects them back, and then the end.
pub(super) async fn echo(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &[u8]) -> Result<(), String> {
    let mut came = vec![0; bytes.len()];
    within(async {
        let (mut reader, mut writer) = tokio::io::split(&mut *stream);
        let send = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        tokio::try_join!(send, reader.read_exact(&mut came))
    })
    .await?;
    if came == bytes { Ok(()) } else { Err(format!("the echo of {} bytes is another one", bytes.len())) }
}

/// Ends a session from the client's side, and expects its end.
async fn close(mut stream: Session) -> Result<(), String> {
    within(stream.shutdown()).await?;
    match within(stream.read(&mut [0; 16])).await {
        Ok(0) => Ok(()),
        other => Err(format!("after close_notify: {other:?}")),
    }
}

/// A session on the echo service.
pub(super) async fn session(
    scene: &Scene,
    device: &str,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<Session, String> {
    let mut stream = scene.enter(home_of(device), config, name).await.map_err(text)?;
    within(stream.write_all(&[ECHO])).await?;
    echo(&mut stream, b"?").await?;
    Ok(stream)
}

/// Connects, exchanges a few bytes, and closes.
pub(super) async fn visit(
    scene: &Scene,
    device: &str,
    config: &Arc<ClientConfig>,
    name: &'static str,
    random: &mut Random,
) -> Result<HandshakeKind, String> {
    let mut stream = session(scene, device, config, name).await?;
    let count = random.below(SHORT);
    echo(&mut stream, &random.bytes(count)).await?;
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    close(stream).await?;
    Ok(kind)
}

/// Uploads as many bytes, and compares the checksum.
pub(super) async fn upload(
    scene: &Scene,
    config: &Arc<ClientConfig>,
    random: &mut Random,
    count: usize,
) -> Result<(), String> {
    let mut stream = scene.enter(home_of("dave"), config, NAS).await.map_err(text)?;
    let bytes = random.bytes(count);
    within(stream.write_all(&[UPLOAD])).await?;
    within(stream.write_u64(count as u64)).await?;
    within(stream.write_all(&bytes)).await?;
    let mut came = [0; DIGEST];
    within(stream.read_exact(&mut came)).await?;
    if came == *digest(&SHA256, &bytes).as_ref() { close(stream).await } else { Err("another checksum".to_owned()) }
}

/// Downloads as many bytes, after a pause in which nothing is read, and compares the checksum.
pub(super) async fn download(
    scene: &Scene,
    device: &str,
    config: &Arc<ClientConfig>,
    random: &mut Random,
    count: usize,
    pause: Duration,
) -> Result<(), String> {
    let mut stream = scene.enter(home_of(device), config, NAS).await.map_err(text)?;
    within(stream.write_all(&[DOWNLOAD])).await?;
    within(stream.write_u64(count as u64)).await?;
    within(stream.write_u64(random.next())).await?;
    sleep(pause).await;
    let mut came = vec![0; count + DIGEST];
    within(stream.read_exact(&mut came)).await?;
    let (bytes, sum) = came.split_at(count);
    if sum == digest(&SHA256, bytes).as_ref() { close(stream).await } else { Err("another checksum".to_owned()) }
}

/// Starts what the devices do, until `over`. The pauses are those of a load of 1.
pub(super) fn start(scene: &Arc<Scene>, over: &CancellationToken, plan: &Plan, tasks: &mut tokio::task::JoinSet<()>) {
    let every = |milliseconds: f64| Duration::from_secs_f64(milliseconds / 1000.0 / plan.load);
    // Each starts with other numbers.
    let mut seed = 0;
    let mut again = |name: &'static str, pause: Duration, work: Work| {
        seed += 1;
        // It takes half a minute.
        if !matches!(work, Work::Abandoned) || plan.minutes >= 2.0 {
            scene.tally.expect(name);
        }
        let (scene, over, mut random) = (Arc::clone(scene), over.clone(), Random::new(seed));
        tasks.spawn(async move {
            let state = State::new(&scene);
            while !over.is_cancelled() {
                let done = work_once(name, work, &scene, &state, &mut random);
                if matches!(work, Work::Abandoned) {
                    // It takes half a minute.
                    tokio::select! { () = done => {}, () = over.cancelled() => {} }
                } else {
                    done.await;
                }
                tokio::select! { () = sleep(pause) => {}, () = over.cancelled() => {} }
            }
        });
    };
    again("full handshake", every(150.0), Work::Full);
    again("TLS 1.3, resumed if possible", every(200.0), Work::Resumed);
    again("TLS 1.2, resumed if possible", every(300.0), Work::Resumed12);
    again("passthrough", every(250.0), Work::Passthrough);
    again("upload", every(1000.0), Work::Upload);
    again("download", every(1000.0), Work::Download);
    again("download that is read late", every(5000.0), Work::Late);
    again("route whose backend is closed at times", every(400.0), Work::Flaky);
    again("route with a second backend", every(400.0), Work::Pair);
    again("session until the idle timeout", every(20_000.0), Work::Abandoned);
    scene.tally.expect(RESUMED);
    // An earlier process that still has sessions at its drain deadline cuts them. Without upgrades they last the whole bench.
    let lasting = if plan.upgrade { DRAIN / 3 } else { Duration::MAX };
    let mut hold = |held: Held| {
        scene.tally.expect(held.name);
        tasks.spawn(hold(held, Arc::clone(scene), over.clone()));
    };
    for _ in 0..20 {
        hold(Held { name: "idle session", device: "bob", pause: every(12_000.0), size: 32, lasting });
    }
    for number in 0..10 {
        let pause = every(800.0 + 40.0 * f64::from(number));
        hold(Held { name: "session with pings", device: "carol", pause, size: 64, lasting });
    }
    if plan.upgrade {
        if plan.upgrades() > DRAIN + Duration::from_secs(60) {
            scene.tally.expect(OUTLIVED);
        }
        let (scene, over) = (Arc::clone(scene), over.clone());
        tasks.spawn(async move {
            while let Some(result) = over.run_until_cancelled(outlived(&scene)).await {
                scene.tally.count(OUTLIVED, result);
            }
        });
    }
}

/// What is done again and again.
#[derive(Clone, Copy)]
enum Work {
    Full,
    Resumed,
    Resumed12,
    Passthrough,
    Upload,
    Download,
    Late,
    Flaky,
    Pair,
    Abandoned,
}

/// The clients of one task.
struct State {
    full: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
    old: Arc<ClientConfig>,
    dave: Arc<ClientConfig>,
    erin: Arc<ClientConfig>,
    frank: Arc<ClientConfig>,
    hello: Vec<u8>,
}

impl State {
    fn new(scene: &Scene) -> Self {
        Self {
            full: scene.fresh("alice"),
            both: Arc::new(scene.device("alice", &[&rustls::version::TLS13])),
            old: Arc::new(scene.device("alice", &[&rustls::version::TLS12])),
            dave: Arc::new(scene.device("dave", rustls::ALL_VERSIONS)),
            erin: scene.fresh("erin"),
            frank: scene.fresh("frank"),
            hello: crate::attackers::hello(),
        }
    }
}

async fn work_once(name: &'static str, work: Work, scene: &Scene, state: &State, random: &mut Random) {
    let tally = &scene.tally;
    let result = match work {
        Work::Full => visit(scene, "alice", &state.full, NAS, random).await.map(|_| ()),
        Work::Resumed | Work::Resumed12 => {
            let config = if matches!(work, Work::Resumed) { &state.both } else { &state.old };
            let kind = visit(scene, "alice", config, NAS, random).await;
            if kind == Ok(HandshakeKind::Resumed) {
                tally.done(RESUMED);
            }
            kind.map(|_| ())
        }
        Work::Passthrough => passthrough(scene, &state.hello, random).await,
        Work::Upload => {
            let count = random.below(1 << 21);
            upload(scene, &state.dave, random, count).await
        }
        Work::Download => {
            let count = random.below(1 << 21);
            download(scene, "dave", &state.dave, random, count, Duration::ZERO).await
        }
        Work::Late => {
            let pause = Duration::from_millis(random.next() % 8000);
            download(scene, "erin", &state.erin, random, 8 << 20, pause).await
        }
        Work::Flaky | Work::Pair => {
            let before = scene.flaps();
            let route = if matches!(work, Work::Flaky) { FLAKY } else { PAIR };
            let result = visit(scene, "frank", &state.frank, route, random).await;
            let settled = before == scene.flaps();
            let closed = Flap::of(before) == Flap::Closed;
            match (work, result) {
                (_, Err(_)) if !settled || Flap::of(before).is_changing() => {
                    return tally.done("cut off by a backend that was closed");
                }
                (Work::Flaky, Err(_)) if closed => return tally.done("refused, since the backend is closed"),
                (Work::Flaky, Ok(_)) if closed && settled => Err("served by a closed backend".to_owned()),
                (_, result) => result.map(|_| ()),
            }
        }
        Work::Abandoned => abandoned(scene, &state.erin).await,
    };
    tally.count(name, result);
}

/// A client without a certificate on the passthrough route.
async fn passthrough(scene: &Scene, hello: &[u8], random: &mut Random) -> Result<(), String> {
    let mut stream = scene.connect(home_of("alice")).await.map_err(text)?;
    let count = random.below(SHORT);
    let bytes = [hello, &random.bytes(count)].concat();
    echo(&mut stream, &bytes).await?;
    within(stream.shutdown()).await?;
    match within(stream.read(&mut [0; 16])).await? {
        0 => Ok(()),
        count => Err(format!("{count} bytes more")),
    }
}

/// A session that does nothing is closed by the gate, at its idle timeout of 30 seconds.
async fn abandoned(scene: &Scene, config: &Arc<ClientConfig>) -> Result<(), String> {
    let mut stream = session(scene, "erin", config, NAS).await?;
    let begun = Instant::now();
    let end =
        timeout(Duration::from_secs(45), stream.read(&mut [0])).await.map_err(|_| "open after 45 s".to_owned())?;
    match (end, begun.elapsed().as_secs()) {
        (Ok(1), _) => Err("a byte that nothing sent".to_owned()),
        (_, 25..) => Ok(()),
        (end, seconds) => Err(format!("ended after {seconds} s: {end:?}")),
    }
}

/// A session that is never cut.
#[derive(Clone, Copy)]
struct Held {
    name: &'static str,
    device: &'static str,
    /// Between two exchanges of so many bytes.
    pause: Duration,
    size: usize,
    /// How long before the client closes it and begins another one.
    lasting: Duration,
}

async fn hold(held: Held, scene: Arc<Scene>, over: CancellationToken) {
    while !over.is_cancelled() {
        if let Err(why) = hold_once(held, &scene, &over).await {
            return scene.tally.failed(held.name, why);
        }
    }
}

async fn hold_once(held: Held, scene: &Scene, over: &CancellationToken) -> Result<(), String> {
    let Held { name, device, pause, size, lasting } = held;
    let mut random = Random::new(pause.as_micros() as u64);
    let mut stream = session(scene, device, &scene.fresh(device), NAS).await?;
    let begun = Instant::now();
    // Their idle timeout is 30 seconds.
    let pause = pause.min(Duration::from_secs(20));
    while !over.is_cancelled() && begun.elapsed() < lasting {
        tokio::select! { () = sleep(pause) => {}, () = over.cancelled() => {} }
        let bytes = random.bytes(size);
        echo(&mut stream, &bytes).await?;
        scene.tally.done(name);
    }
    close(stream).await
}

/// A session that goes on until the gate cuts it: `timeouts.drain` after its process was replaced, not before.
async fn outlived(scene: &Scene) -> Result<(), String> {
    const LATE: Duration = Duration::from_secs(10);
    let (mut stream, pid) = loop {
        let before = scene.status().await?.pid;
        let stream = session(scene, "frank", &scene.fresh("frank"), NAS).await?;
        // Otherwise it is not known which process serves it.
        if scene.status().await?.pid == before && scene.replaced(before).is_none() {
            break (stream, before);
        }
        close(stream).await?;
    };
    let mut random = Random::new(u64::from(pid));
    let why = loop {
        sleep(Duration::from_secs(1)).await;
        if let Err(why) = echo(&mut stream, &random.bytes(1000)).await {
            break why;
        }
        if scene.replaced(pid).is_some_and(|at| at.elapsed() > DRAIN + LATE) {
            return Err(format!("not cut {} s after the upgrade", (DRAIN + LATE).as_secs()));
        }
    };
    match scene.replaced(pid).map(|at| at.elapsed()) {
        Some(after) if after >= DRAIN => Ok(()),
        after => Err(format!("ended {after:?} after the upgrade: {why}")),
    }
}
