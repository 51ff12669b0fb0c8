//! The running gate: its listeners, and what all of its connections share.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::BuildError;
use rustls::pki_types::UnixTime;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::admin::{Admin, Monitored};
use crate::admission::Admission;
use crate::admission::descriptors::{Budget, Descriptors, TooFew};
use crate::backends::resolver::Resolver;
use crate::config::checked::{Config, ControlSocket, KernelTls};
use crate::connection;
use crate::control::{self, Control, Facts};
use crate::gate::Gate;
use crate::listener::{self, AcceptError, BindError, Listener};
use crate::model::close::CloseReason;
use crate::relay::{Order, Support};
use crate::reload::watch::watch;
use crate::reload::{Current, Lane, Reloader};
use crate::snapshot::{InvalidRoute, Snapshot};
use crate::sys::{ktls, splice};
use crate::telemetry::log::{Event, Log};
use crate::telemetry::metrics::Metrics;

/// How often what piles up between connections is tidied.
const TIDY: Duration = Duration::from_secs(5);

/// A gate whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    gate: Arc<Gate>,
    admin: Option<Admin>,
    control: Option<Control>,
    without_control: Option<StartError>,
    reloader: Reloader,
    /// Threads for what takes rights away, apart from those that serve connections.
    watching: Lane,
    answering: Lane,
    /// How many clients may be connected at once, those included that are about to be refused.
    clients: usize,
    warning: Option<String>,
}

/// Why a gate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A route cannot be used.
    #[error(transparent)]
    Route(InvalidRoute),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(BindError),
    /// The control socket cannot be made.
    #[error("cannot make the control socket {socket}: {error}")]
    Control {
        /// Where.
        socket: PathBuf,
        /// Why.
        error: control::BindError,
    },
    /// There are too few file descriptors.
    #[error(transparent)]
    Descriptors(TooFew),
    /// The metrics cannot be registered.
    #[error(transparent)]
    Metrics(BuildError),
    /// `kernel_tls = "require"`, and the kernel cannot take over all that a client may negotiate: this is missing.
    #[error(
        "kernel_tls = \"require\", but the kernel does not take over:{}\n  load its modules: modprobe tls, and for \
         chacha20poly1305 and gcm alike if only they are missing\n  for every start to come: echo tls > \
         /etc/modules-load.d/tls.conf\n  a kernel without that module has no TLS: write kernel_tls = \"auto\"",
        .0.iter().map(|what| format!("\n    {what}")).collect::<String>()
    )]
    KernelTls(Vec<String>),
    /// The runtime or the log cannot be set up.
    #[error(transparent)]
    Io(io::Error),
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut because they did not end within `timeouts.drain`.
    pub cut: usize,
}

impl Server {
    /// Builds everything and binds every address, or changes nothing.
    pub fn bind(config: Config, log: Arc<Log>) -> Result<Self, StartError> {
        let kernel = match config.kernel_tls {
            KernelTls::Off => Support::none(),
            KernelTls::Auto | KernelTls::Require => {
                let probe = ktls::probe();
                debug!(suites = ?probe.suites, changes_keys = probe.changes_keys, "probed kernel TLS");
                Support::found(probe)
            }
        };
        if config.kernel_tls == KernelTls::Require && !kernel.missing().is_empty() {
            return Err(StartError::KernelTls(kernel.missing().to_vec()));
        }
        let snapshot = Snapshot::build(&config).map_err(StartError::Route)?;
        let descriptors = Descriptors::raise();
        let warning = descriptors.warning(&config);
        let budget = descriptors.budget(&config).map_err(StartError::Descriptors)?;
        let Budget { clients, pipes, metrics: admin_connections, look_ups, .. } = budget;
        splice::allow_pipes(pipes);
        let metrics = Arc::new(Metrics::new(&config).map_err(StartError::Metrics)?);
        let listeners = Listener::rebind(&[], &config.listeners).map_err(StartError::Bind)?;
        metrics.descriptors(descriptors.limit());
        let admission = Admission::new(budget.limits(&config.limits));
        let mut gate = Gate::new(snapshot, admission, kernel, metrics, log);
        (gate.descriptors, gate.resolver) = (descriptors, Resolver::system(look_ups));
        let gate = Arc::new(gate);
        let admin = match config.metrics.address {
            None => None,
            Some(address) => {
                let admin = Admin::bind(address, monitored(&gate), admin_connections);
                let what = "metrics".to_owned();
                Some(admin.map_err(|error| StartError::Bind(BindError { address, what, error }))?)
            }
        };
        let runtime_folders = std::env::var_os("RUNTIME_DIRECTORY");
        let mut without_control = None;
        let control = match config.control.socket.path(runtime_folders.as_deref()) {
            None => None,
            Some(socket) => {
                let metrics = admin.as_ref().map(Admin::local_address);
                let bound = Control::bind(&socket, Facts::of(&config, metrics));
                match bound.map_err(|error| StartError::Control { socket, error }) {
                    Ok(control) => Some(control),
                    Err(error) if matches!(config.control.socket, ControlSocket::Auto(_)) => {
                        without_control = Some(error);
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let reloader = Reloader::new(Arc::clone(&gate), config, listeners).map_err(StartError::Io)?;
        let [watching, answering] = ["watch", "control"].map(Lane::start);
        let (watching, answering) = (watching.map_err(StartError::Io)?, answering.map_err(StartError::Io)?);
        Ok(Self { gate, admin, control, without_control, reloader, watching, answering, clients, warning })
    }

    /// Where the listeners are bound, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.reloader.current().borrow().listeners.iter().map(|listener| listener.address()).collect()
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_address)
    }

    /// What the owner has to know about the listeners.
    pub fn warnings(&self) -> Vec<String> {
        self.reloader.current().borrow().listeners.iter().filter_map(|listener| listener.warning()).collect()
    }

    /// Why it has no control socket, where it was left to the gate whether it can have one.
    pub const fn without_control(&self) -> Option<&StartError> {
        self.without_control.as_ref()
    }

    /// What to tell its owner about the limit of open files.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// What lets it take another configuration over while it runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The metrics, as `/metrics` shows them.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.gate.metrics)
    }

    /// Takes connections until `stop` is cancelled, then lets those that are open end for `timeouts.drain`, then cuts
    /// the rest. A second word, `now`, ends the wait.
    pub async fn run(self, stop: CancellationToken, now: CancellationToken) -> Stopped {
        let Self { gate, mut admin, control, reloader, watching, answering, clients, .. } = self;
        let connections = TaskTracker::new();
        // The few tasks that last as long as the gate; dropped, they end.
        let mut lasting = JoinSet::new();
        for listener in &reloader.current().borrow().listeners {
            gate.log.event(&Event::Listening { listener: listener.name().to_string(), address: listener.address() });
        }
        lasting.spawn(keep_listening(reloader.current(), Arc::clone(&gate), connections.clone(), clients));
        // Answers for as long as it is here.
        if let Some(admin) = &mut admin {
            gate.log.event(&Event::Metrics { address: admin.local_address() });
            admin.start(stop.clone());
        }
        // Before the gate calls itself ready.
        let mut apart = vec![watching.run(watch(reloader.clone())).await];
        if let Some(control) = control {
            gate.log.event(&Event::Control { socket: control.path().display().to_string() });
            apart.push(answering.run(control.run(Arc::clone(&gate), reloader.clone())).await);
        }
        lasting.spawn(tidy(Arc::clone(&gate)));
        lasting.spawn(watch_dates(Arc::clone(&gate)));
        gate.log.event(&Event::Ready);

        stop.cancelled().await;
        gate.log.event(&Event::Draining);
        gate.draining.cancel();
        // In this order: a reload that opens others looks whether the gate is draining when it has put them there.
        reloader.current().borrow().close();
        connections.close();
        let drain = gate.snapshot.load().timeouts.drain;
        let ended = now.run_until_cancelled(timeout(drain, connections.wait())).await;
        let mut cut = 0;
        if !matches!(ended, Some(Ok(()))) {
            cut = connections.len();
            gate.sessions.end(&Order { reason: CloseReason::DrainDeadline, cause: None, at: Instant::now() });
            // Each ends at its next turn.
            let _ = timeout(Duration::from_secs(5), connections.wait()).await;
        }
        // It was answered to the last, and the socket's file goes with it.
        for running in apart {
            running.end().await;
        }
        Stopped { cut }
    }
}

/// What the metrics listener shows of a gate.
fn monitored(gate: &Gate) -> Monitored {
    Monitored {
        metrics: Arc::clone(&gate.metrics),
        refusals: Arc::clone(&gate.refusals),
        sessions: Arc::clone(&gate.sessions),
        tally: Arc::clone(&gate.tally),
    }
}

/// Has connections taken wherever the gate listens at the time.
async fn keep_listening(mut current: Receiver<Current>, gate: Arc<Gate>, connections: TaskTracker, clients: usize) {
    let (clients, shortage) = (Arc::new(Semaphore::new(clients)), Arc::<Shortage>::default());
    let mut known: Vec<Arc<Listener>> = Vec::new();
    let mut taking = JoinSet::new();
    loop {
        let now = current.borrow_and_update().listeners.clone();
        for listener in now.iter().filter(|new| !known.iter().any(|old| Arc::ptr_eq(old, new))) {
            let taken = (Arc::clone(&clients), Arc::clone(&shortage));
            taking.spawn(take_connections(Arc::clone(listener), Arc::clone(&gate), connections.clone(), taken));
        }
        known = now;
        while taking.try_join_next().is_some() {}
        if current.changed().await.is_err() {
            return;
        }
    }
}

async fn take_connections(
    listener: Arc<Listener>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    (clients, shortage): (Arc<Semaphore>, Arc<Shortage>),
) {
    let failed = |kind, error: &io::Error| {
        gate.metrics.accept_failed(kind);
        if kind == AcceptError::Resources
            && let Some(failures) = shortage.to_be_told(Instant::now())
        {
            let listener = listener.name().to_string();
            gate.log.event(&Event::AcceptFailed { listener, failures, error: listener::explained(error) });
        }
    };
    // Before it is accepted: a socket that is about to be refused takes a descriptor as well.
    while let Ok(place) = Arc::clone(&clients).acquire_owned().await
        && let Some(accepted) = listener.accept(failed).await
    {
        let serving = connection::serve(accepted, Arc::clone(&gate));
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }
}

/// Accepts that failed for want of descriptors or memory: one line a minute tells of them.
#[derive(Debug, Default)]
struct Shortage(Mutex<(Option<Instant>, u64)>);

impl Shortage {
    /// Notes one more, and says how many there were since the last line if it is time for another.
    fn to_be_told(&self, now: Instant) -> Option<u64> {
        const PAUSE: Duration = Duration::from_secs(60);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, failures) = &mut *state;
        *failures += 1;
        if told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(failures))
    }
}

async fn tidy(gate: Arc<Gate>) {
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        ticks.tick().await;
        gate.metrics.tidy();
        gate.admission.tidy();
        gate.withdraw_expired(UnixTime::now());
        gate.log.tidy();
    }
}

/// Ends sessions whose certificate expires.
async fn watch_dates(gate: Arc<Gate>) {
    loop {
        gate.sessions.wait_for_dates(UnixTime::now().as_secs()).await;
        gate.end_expired(UnixTime::now());
    }
}
