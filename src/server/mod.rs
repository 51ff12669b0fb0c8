//! Starts the gate, runs its listeners, and drains it.

pub(crate) mod service_manager;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::BuildError;
use rustls::pki_types::UnixTime;
use socket2::Socket;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::service_manager::{Heartbeat, Message, report, tell};
use crate::admin::{Admin, Monitored};
use crate::admission::Admission;
use crate::admission::descriptors::{Budget, Descriptors, TooFew};
use crate::backends::resolver::Resolver;
use crate::config::checked::{Config, ControlSocket, KernelTls};
use crate::connection;
use crate::control::{self, Control, Permitted, StaticFacts};
use crate::gate::Gate;
use crate::listener::{self, AcceptError, BindError, Listener};
use crate::model::close::CloseReason;
use crate::relay::{Order, Support};
use crate::reload::watch::watch;
use crate::reload::{Current, Reloader, TaskThread};
use crate::sandbox::{Incomplete, Restrictions, Sandbox};
use crate::snapshot::{InvalidRoute, Snapshot};
use crate::sys::{activation, ktls, splice};
use crate::telemetry::log::{Event, Log};
use crate::telemetry::metrics::Metrics;

/// How often expired state is removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// The metrics listener in an error.
const METRICS: &str = "metrics";

/// A gate whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    gate: Arc<Gate>,
    admin: Option<Admin>,
    control: Option<Control>,
    facts: StaticFacts,
    sandbox: Arc<Sandbox>,
    control_error: Option<StartError>,
    reloader: Reloader,
    /// Threads of their own, so that connections cannot delay a revocation.
    watch_thread: TaskThread,
    control_thread: TaskThread,
    /// How many clients may be connected at once, including those about to be refused.
    clients: usize,
    warning: Option<String>,
}

/// What a gate opens before it starts threads and gives up rights: sockets, and what the kernel and its limits are like.
#[derive(Debug)]
pub struct Opened {
    kernel: Support,
    descriptors: Descriptors,
    budget: Budget,
    listeners: Vec<listener::Opened>,
    metrics: Option<(SocketAddr, Socket)>,
    control: Option<Control>,
    control_error: Option<StartError>,
}

/// Why a gate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The handshakes of a route cannot be configured.
    #[error(transparent)]
    Route(InvalidRoute),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(BindError),
    /// The control socket cannot be created.
    #[error("cannot create the control socket {socket}: {error}")]
    Control {
        /// Its path.
        socket: PathBuf,
        /// The error.
        error: control::BindError,
    },
    /// The limit of open files is too low.
    #[error(transparent)]
    Descriptors(TooFew),
    /// The metrics cannot be registered.
    #[error(transparent)]
    Metrics(BuildError),
    /// `kernel_tls = "require"`, and the kernel lacks these of the cipher suites that a client may negotiate.
    #[error(
        "kernel_tls = \"require\", but the kernel does not support:{}\n  load the modules: modprobe tls (and chacha20poly1305, \
         gcm if only these are missing)\n  at every boot: echo tls > /etc/modules-load.d/tls.conf\n  if the kernel has no such \
         module, remove kernel_tls: the gate then encrypts",
        .0.iter().map(|what| format!("\n    {what}")).collect::<String>()
    )]
    KernelTls(Vec<String>),
    /// `[sandbox] mode = "require"`, and not all of it is in force.
    #[error(transparent)]
    Sandbox(Incomplete),
    /// The runtime or the log cannot be set up.
    #[error(transparent)]
    Io(io::Error),
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that did not end within `timeouts.drain` and were cut.
    pub cut: usize,
}

impl Opened {
    /// Opens what a gate with this configuration needs.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn new(config: &Config) -> Result<Self, StartError> {
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
        let descriptors = Descriptors::raise();
        let budget = descriptors.budget(config).map_err(StartError::Descriptors)?;
        let passed = activation::take().map_err(StartError::Io)?;
        let listeners = Listener::open(passed, &config.listeners).map_err(StartError::Bind)?;
        let metrics = config.metrics.address.map(|address| match Admin::open(address) {
            Ok(socket) => Ok((address, socket)),
            Err(error) => Err(StartError::Bind(BindError { address, what: METRICS.to_owned(), error })),
        });
        let metrics = metrics.transpose()?;
        let runtime_folders = std::env::var_os("RUNTIME_DIRECTORY");
        let mut control_error = None;
        let control = match config.control.socket.path(runtime_folders.as_deref()) {
            None => None,
            Some(socket) => {
                let permitted = Permitted::at(&socket, runtime_folders.as_deref());
                match Control::bind(&socket, permitted).map_err(|error| StartError::Control { socket, error }) {
                    Ok(control) => Some(control),
                    Err(error) if matches!(config.control.socket, ControlSocket::Auto(_)) => {
                        control_error = Some(error);
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Self { kernel, descriptors, budget, listeners, metrics, control, control_error })
    }
}

impl Server {
    /// Builds everything, on what was opened, for a process with these rights.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn new(config: Config, log: Arc<Log>, opened: Opened, sandbox: Arc<Sandbox>) -> Result<Self, StartError> {
        let Opened { kernel, descriptors, budget, listeners, metrics: admin, control, control_error } = opened;
        let snapshot = Snapshot::build(&config).map_err(StartError::Route)?;
        let warning = descriptors.warning(&config);
        let Budget { clients, pipes, metrics: admin_connections, look_ups, .. } = budget;
        splice::allow_pipes(pipes);
        let metrics = Arc::new(Metrics::new(&config).map_err(StartError::Metrics)?);
        let listeners = listeners.into_iter().map(|opened| Listener::start(opened).map(Arc::new));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().map_err(StartError::Bind)?;
        metrics.descriptors(descriptors.limit());
        let admission = Admission::new(budget.limits(&config.limits));
        let mut gate = Gate::new(snapshot, admission, kernel, metrics, log);
        (gate.descriptors, gate.resolver) = (descriptors, Resolver::system(look_ups));
        let gate = Arc::new(gate);
        let admin = match admin {
            None => None,
            Some((address, socket)) => {
                let admin = Admin::new(socket, monitored(&gate), admin_connections);
                let what = METRICS.to_owned();
                Some(admin.map_err(|error| StartError::Bind(BindError { address, what, error }))?)
            }
        };
        let facts = StaticFacts::of(&config, admin.as_ref().map(Admin::local_address), Arc::clone(&sandbox));
        let reloader =
            Reloader::new(Arc::clone(&gate), config, listeners, Arc::clone(&sandbox)).map_err(StartError::Io)?;
        let watch_thread = TaskThread::start("watch").map_err(StartError::Io)?;
        let control_thread = TaskThread::start("control").map_err(StartError::Io)?;
        Ok(Self {
            gate,
            admin,
            control,
            facts,
            sandbox,
            control_error,
            reloader,
            watch_thread,
            control_thread,
            clients,
            warning,
        })
    }

    /// The addresses of the listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.reloader.current().borrow().listeners.iter().map(|listener| listener.address()).collect()
    }

    /// The address of the metrics listener.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_address)
    }

    /// Warnings about the listeners.
    pub fn warnings(&self) -> Vec<String> {
        self.reloader.current().borrow().listeners.iter().filter_map(|listener| listener.warning()).collect()
    }

    /// Why there is no control socket, with `control.socket = "auto"`.
    pub const fn control_error(&self) -> Option<&StartError> {
        self.control_error.as_ref()
    }

    /// The warning about the limit of open files.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The handle that reloads the configuration while the gate runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The metrics that `/metrics` shows.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.gate.metrics)
    }

    /// Accepts connections until `stop` is cancelled, waits up to `timeouts.drain` for the open ones to end, then cuts the
    /// rest. `now` ends the wait.
    pub async fn run(self, stop: CancellationToken, now: CancellationToken) -> Stopped {
        let Self { gate, mut admin, control, facts, sandbox, reloader, watch_thread, control_thread, clients, .. } =
            self;
        let connections = TaskTracker::new();
        // Tasks that run as long as the gate. Dropping the set ends them.
        let mut tasks = JoinSet::new();
        for listener in &reloader.current().borrow().listeners {
            gate.log.event(&Event::Listening { listener: listener.name().to_string(), address: listener.address() });
        }
        tasks.spawn(accept_on_current_listeners(reloader.current(), Arc::clone(&gate), connections.clone(), clients));
        if let Some(admin) = &mut admin {
            gate.log.event(&Event::Metrics { address: admin.local_address() });
            admin.start(stop.clone());
        }
        // Before the gate logs that it is ready.
        let mut running = vec![watch_thread.run(watch(reloader.clone())).await];
        let mut heartbeat = None;
        if let Some(control) = control {
            gate.log.event(&Event::Control { socket: control.path().display().to_string() });
            let beat = Arc::<Heartbeat>::default();
            heartbeat = Some(Arc::clone(&beat));
            let (serve, beat) = (control.run(Arc::clone(&gate), reloader.clone(), facts), beat.beat());
            running.push(control_thread.run(async { _ = tokio::join!(serve, beat) }).await);
        }
        if let Some(event) = sandbox_event(sandbox.in_force()) {
            gate.log.event(&event);
        }
        tasks.spawn(tidy(Arc::clone(&gate)));
        tasks.spawn(cut_expired(Arc::clone(&gate)));
        tasks.spawn(report(Arc::clone(&gate), reloader.current(), heartbeat));
        gate.log.event(&Event::Ready);
        tell(Message::Ready).await;

        stop.cancelled().await;
        gate.log.event(&Event::Draining);
        gate.draining.cancel();
        // After `draining` is cancelled: a reload that opens listeners later sees that, and closes them itself.
        reloader.current().borrow().close();
        connections.close();
        let drain = gate.snapshot.load().timeouts.drain;
        tell(Message::Stopping { drain }).await;
        let ended = now.run_until_cancelled(timeout(drain, connections.wait())).await;
        let mut cut = 0;
        if !matches!(ended, Some(Ok(()))) {
            cut = connections.len();
            gate.sessions.end_all(&Order { reason: CloseReason::DrainDeadline, cause: None, at: Instant::now() });
            // Each session ends when its task runs next.
            let _ = timeout(Duration::from_secs(5), connections.wait()).await;
        }
        // Last: the control socket answers until here. Its file is removed with it.
        for task in running {
            task.end().await;
        }
        Stopped { cut }
    }
}

/// The line of the log about the sandbox.
fn sandbox_event(in_force: &Restrictions) -> Option<Event> {
    let Restrictions { mode, parts, capabilities, lacks, .. } = in_force.clone();
    mode.map(|mode| Event::Sandbox { mode, in_force: parts, capabilities, missing: lacks })
}

/// What the metrics listener shows.
fn monitored(gate: &Gate) -> Monitored {
    Monitored {
        metrics: Arc::clone(&gate.metrics),
        refusals: Arc::clone(&gate.refusals),
        sessions: Arc::clone(&gate.sessions),
    }
}

/// Accepts connections on the current listeners, across reloads.
async fn accept_on_current_listeners(
    mut current: Receiver<Current>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    clients: usize,
) {
    let (clients, failures) = (Arc::new(Semaphore::new(clients)), Arc::<AcceptFailures>::default());
    let mut known: Vec<Arc<Listener>> = Vec::new();
    let mut accepting = JoinSet::new();
    loop {
        let now = current.borrow_and_update().listeners.clone();
        for listener in now.iter().filter(|new| !known.iter().any(|old| Arc::ptr_eq(old, new))) {
            let shared = (Arc::clone(&clients), Arc::clone(&failures));
            accepting.spawn(accept_connections(Arc::clone(listener), Arc::clone(&gate), connections.clone(), shared));
        }
        known = now;
        while accepting.try_join_next().is_some() {}
        if current.changed().await.is_err() {
            return;
        }
    }
}

async fn accept_connections(
    listener: Arc<Listener>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    (clients, failures): (Arc<Semaphore>, Arc<AcceptFailures>),
) {
    let failed = |kind, error: &io::Error| {
        gate.metrics.accept_failed(kind);
        if kind == AcceptError::Resources
            && let Some(failures) = failures.count_and_report(Instant::now())
        {
            let listener = listener.name().to_string();
            gate.log.event(&Event::AcceptFailed { listener, failures, error: listener::describe_accept_error(error) });
        }
    };
    // The permit comes first: a connection that is about to be refused needs a descriptor as well.
    while let Ok(permit) = Arc::clone(&clients).acquire_owned().await
        && let Some(accepted) = listener.accept(failed).await
    {
        let serving = connection::serve(accepted, Arc::clone(&gate));
        connections.spawn(async move {
            serving.await;
            drop(permit);
        });
    }
}

/// Counts accepts that failed for lack of descriptors or memory, for one log line a minute.
#[derive(Debug, Default)]
struct AcceptFailures(Mutex<(Option<Instant>, u64)>);

impl AcceptFailures {
    /// Counts a failure. Returns how many there were since the last line if another one is due.
    fn count_and_report(&self, now: Instant) -> Option<u64> {
        const INTERVAL: Duration = Duration::from_secs(60);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reported, failures) = &mut *state;
        *failures += 1;
        if reported.is_some_and(|reported| now.saturating_duration_since(reported) < INTERVAL) {
            return None;
        }
        *reported = Some(now);
        Some(std::mem::take(failures))
    }
}

async fn tidy(gate: Arc<Gate>) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    loop {
        ticks.tick().await;
        gate.metrics.tidy();
        gate.admission.tidy();
        gate.withdraw_expired_vouchers(UnixTime::now());
        gate.log.tidy();
    }
}

/// Cuts sessions whose certificate expires.
async fn cut_expired(gate: Arc<Gate>) {
    loop {
        gate.sessions.wait_for_expiry(UnixTime::now().as_secs()).await;
        gate.cut_expired(UnixTime::now());
    }
}
