//! What the owner does meanwhile, one thing after the other: reloads, revocations and their undoing, rotations of the log.
//! So does a service: it is closed and opened again.

use std::sync::Arc;
use std::time::Duration;

use doorward::control::{Answer, Request};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Plan;
use crate::backend::Service;
use crate::common::DEADLINE;
use crate::good::session;
use crate::scene::{Change, DRAIN, NAS, Scene, Session, finished, home_of};

/// How soon a session ends after its right is gone. The bench `attack` measures it; here the machine may be busy.
const CUT: Duration = Duration::from_secs(5);

/// The most processes that upgrades may have left (`doorward help operations`).
const EARLIER_MAX: usize = 4;

/// The steps, in this order, again and again.
#[derive(Clone, Copy)]
enum Step {
    Reload,
    Signal,
    Watch,
    Broken,
    Deny,
    Revoke,
    Cut,
    Rotate,
    Ask,
    Flap,
    Upgrade,
}

pub(super) const UPGRADE: &str = "upgrade";

const STEPS: [(&str, Step); 12] = [
    ("reload by the control socket", Step::Reload),
    ("device revoked, and given a new certificate", Step::Revoke),
    (UPGRADE, Step::Upgrade),
    ("service closed and opened", Step::Flap),
    ("reload by SIGHUP", Step::Signal),
    ("log rotated", Step::Rotate),
    ("broken configuration refused", Step::Broken),
    ("device denied, and allowed again", Step::Deny),
    (UPGRADE, Step::Upgrade),
    ("reload of a changed file", Step::Watch),
    ("sessions cut by hand", Step::Cut),
    ("status, sessions, why", Step::Ask),
];

/// Works until `over`; at the end the service is open and the configuration as it was.
pub(super) async fn work(scene: Arc<Scene>, over: CancellationToken, plan: Plan, mut flaky: Service) {
    let mut owner = Owner { scene: Arc::clone(&scene), route: false, rotated: 0 };
    let (begun, pause) = (Instant::now(), plan.pause());
    for (name, step) in STEPS {
        if plan.upgrade || !matches!(step, Step::Upgrade) {
            scene.tally.expect(name);
        }
    }
    for (number, (name, step)) in STEPS.iter().cycle().enumerate() {
        // On a slow machine, not before each was done once.
        if over.is_cancelled() && number >= STEPS.len() {
            break;
        }
        if matches!(step, Step::Upgrade) && (!plan.upgrade || begun.elapsed() > plan.upgrades()) {
            continue;
        }
        let result = owner.perform(*step, &mut flaky).await;
        scene.tally.count(name, result);
        tokio::select! { () = sleep(pause) => {}, () = over.cancelled() => {} }
    }
    owner.route = false;
    let result = owner.reload().await;
    scene.tally.count(STEPS[0].0, result.map(|_| ()));
    // The service has to listen until the bench has ended.
    std::mem::forget(flaky);
}

struct Owner {
    scene: Arc<Scene>,
    /// The configuration has one route more.
    route: bool,
    rotated: usize,
}

impl Owner {
    async fn perform(&mut self, step: Step, flaky: &mut Service) -> Result<(), String> {
        self.route = match step {
            Step::Reload => true,
            Step::Watch => false,
            _ => self.route,
        };
        match step {
            Step::Reload => match self.reload().await? {
                0 => Ok(()),
                cut => Err(format!("{cut} sessions were cut by a reload that takes no right away")),
            },
            Step::Signal => {
                let reloads = self.reloads().await?;
                self.signal(Signal::HUP).await?;
                self.reloaded_since(reloads).await
            }
            Step::Watch => {
                let reloads = self.reloads().await?;
                self.scene.configure(self.change());
                self.reloaded_since(reloads).await
            }
            Step::Broken => self.broken().await,
            Step::Deny => self.deny().await,
            Step::Revoke => self.revoke().await,
            Step::Cut => self.cut().await,
            Step::Rotate => self.rotate().await,
            Step::Ask => self.look().await,
            Step::Flap => {
                self.scene.flap();
                flaky.close().await;
                self.scene.flap();
                sleep(Duration::from_secs(2)).await;
                self.scene.flap();
                flaky.reopen();
                self.scene.flap();
                Ok(())
            }
            Step::Upgrade => self.upgrade().await,
        }
    }

    const fn change(&self) -> Change {
        Change { route: self.route, deny: false, broken: false, patient: false }
    }

    /// Reloads, and says how many sessions were cut.
    async fn reload(&self) -> Result<usize, String> {
        self.reload_to(self.change()).await
    }

    async fn reload_to(&self, change: Change) -> Result<usize, String> {
        self.scene.configure(change);
        match self.scene.ask(Request::Reload).await? {
            Answer::Reloaded(reloaded) => Ok(reloaded.sessions_cut),
            other => Err(format!("{other:?}")),
        }
    }

    async fn reloads(&self) -> Result<f64, String> {
        let metrics = self.scene.metrics().await.map_err(|error| error.to_string())?;
        Ok(metrics.sum("doorward_config_reloads_total", &[("outcome", "ok")]))
    }

    async fn reloaded_since(&self, before: f64) -> Result<(), String> {
        let begun = Instant::now();
        while self.reloads().await? <= before {
            if begun.elapsed() > DEADLINE {
                return Err("no reload".to_owned());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_raw(self.scene.status().await?.pid.cast_signed()).unwrap();
        kill_process(pid, signal).map_err(|error| error.to_string())
    }

    async fn broken(&self) -> Result<(), String> {
        self.scene.configure(Change { broken: true, ..self.change() });
        match self.scene.ask(Request::Reload).await? {
            Answer::NotReloaded { errors, .. } if errors.iter().any(|error| error.contains("no_such_key")) => {}
            other => return Err(format!("{other:?}")),
        }
        self.reload().await.map(|_| ())
    }

    /// A session of this device with the certificate that it has now.
    async fn session(&self, device: &str) -> Result<Session, String> {
        session(&self.scene, device, &self.scene.fresh(device), NAS).await
    }

    /// The device has no right any more: its session ends, and it does not get another one, for this reason.
    async fn gone(&self, device: &str, mut held: Session, reason: &str) -> Result<(), String> {
        ended(&mut held).await?;
        let stream = self.scene.connect(home_of(device)).await.map_err(|error| error.to_string())?;
        let client = stream.local_addr().unwrap();
        let config = self.scene.fresh(device);
        let entered = timeout(DEADLINE, Scene::shake_hands(stream, &config, NAS)).await;
        // Under TLS 1.3 the alert comes after the handshake.
        if let Ok(mut stream) = entered.map_err(|_| "no answer in time")? {
            match timeout(DEADLINE, stream.read(&mut [0])).await {
                Ok(Err(_)) => {}
                other => return Err(format!("{device} still gets in: {other:?}")),
            }
        }
        match self.scene.why(client).await? {
            why if why == reason => Ok(()),
            why => Err(format!("{device} is refused for {why:?}")),
        }
    }

    async fn deny(&self) -> Result<(), String> {
        let held = self.session("denied").await?;
        self.reload_to(Change { deny: true, ..self.change() }).await?;
        self.gone("denied", held, "denied").await?;
        self.reload().await?;
        self.session("denied").await.map(|_| ())
    }

    async fn revoke(&self) -> Result<(), String> {
        let held = self.session("victim").await?;
        self.scene.in_force(&["revoke", "victim"]).await?;
        self.gone("victim", held, "revoked").await?;
        self.scene.command(&["ca", "device", "victim", "--force"]).await?;
        self.session("victim").await.map(|_| ())
    }

    async fn cut(&self) -> Result<(), String> {
        let mut held = self.session("cut").await?;
        match self.scene.ask(Request::Cut { selector: "cut".to_owned() }).await? {
            Answer::Cut(cut) if cut.open == 1 => {}
            other => return Err(format!("{other:?}")),
        }
        ended(&mut held).await?;
        self.session("cut").await.map(|_| ())
    }

    async fn rotate(&mut self) -> Result<(), String> {
        self.rotated += 1;
        let log = self.scene.home.path("logs/doorward.log");
        let old = self.scene.home.path(&format!("logs/doorward.log.{}", self.rotated));
        std::fs::rename(&log, &old).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        // A process looks after its log once a second, if it has something to write: earlier ones may write to the old file
        // for a while.
        loop {
            let (scene, file) = (Arc::clone(&self.scene), old.clone());
            let writing = tokio::task::spawn_blocking(move || scene.with_open(&file)).await.unwrap();
            if log.exists() && writing.is_empty() {
                break;
            }
            if begun.elapsed() > DEADLINE {
                return Err(format!("{writing:?} still write to the log that was renamed"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.scene.count_log(&old);
        std::fs::remove_file(old).map_err(|error| error.to_string())
    }

    async fn look(&self) -> Result<(), String> {
        match self.scene.ask(Request::Sessions { count: 1000 }).await? {
            Answer::Sessions(sessions) if sessions.open == sessions.sessions.len() => {}
            other => return Err(format!("{other:?}")),
        }
        match self.scene.ask(Request::Why { wanted: "last".to_owned(), count: 100, ranked: false }).await? {
            Answer::Why(_) => {}
            other => return Err(format!("{other:?}")),
        }
        let mut status = self.scene.home.doorward();
        status.args(["status", "--format", "json"]);
        finished(status).await.map(|_| ())
    }

    /// `doorward upgrade`: another process takes over, and the sessions continue.
    async fn upgrade(&self) -> Result<(), String> {
        upgrade(&self.scene).await
    }
}

/// The same, when there is room for one more earlier process.
pub(super) async fn upgrade(scene: &Scene) -> Result<(), String> {
    let begun = Instant::now();
    let before = loop {
        let status = scene.status().await?;
        if status.earlier.len() < EARLIER_MAX {
            break status.pid;
        }
        if begun.elapsed() > DRAIN + DEADLINE {
            return Err(format!("{} earlier processes have not ended", status.earlier.len()));
        }
        sleep(Duration::from_millis(500)).await;
    };
    scene.replaces(before);
    let said = scene.command(&["upgrade"]).await?;
    // The command says so when the new process answers.
    let now = scene.status().await?.pid;
    if (&said["earlier_pid"], &said["pid"]) != (&before.into(), &now.into()) {
        return Err(format!("{now} is there after {before}: {said}"));
    }
    Ok(())
}

/// Waits until the gate ends this session.
async fn ended(held: &mut Session) -> Result<(), String> {
    match timeout(CUT, held.read(&mut [0])).await {
        Err(_) => Err(format!("not cut within {} s", CUT.as_secs())),
        Ok(Ok(1)) => Err("a byte that nothing sent".to_owned()),
        Ok(_) => Ok(()),
    }
}
