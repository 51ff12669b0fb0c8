//! The running gate: its listeners, and what all of its connections share.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::BuildError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::UnixTime;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Watched};
use crate::admission::Admission;
use crate::close::CloseReason;
use crate::config::checked::{Config, ControlSocket, KernelTls};
use crate::connection;
use crate::control::{self, Control, Facts};
use crate::gate::Gate;
use crate::listener::{BindError, Listener};
use crate::relay::{Order, Support};
use crate::reload::{Current, Lane, Reloader};
use crate::snapshot::{InvalidRoute, Snapshot};
use crate::sys::ktls;
use crate::telemetry::log::{Event, Log};
use crate::telemetry::metrics::Metrics;
use crate::watch::watch;

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
}

/// Why a gate cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A route cannot be used.
    Route(InvalidRoute),
    /// An address cannot be bound.
    Bind(BindError),
    /// The control socket cannot be made.
    Control {
        /// Where.
        socket: PathBuf,
        /// Why.
        error: control::BindError,
    },
    /// The metrics cannot be registered.
    Metrics(BuildError),
    /// `kernel_tls = "require"`, and the kernel cannot take over all that a client may negotiate: this is missing.
    KernelTls(Vec<String>),
    /// The runtime or the log cannot be set up.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Control { socket, error } => {
                write!(f, "cannot make the control socket {}: {error}", socket.display())
            }
            Self::Metrics(error) => error.fmt(f),
            Self::KernelTls(missing) => {
                f.write_str("kernel_tls = \"require\", but the kernel does not take over:")?;
                for what in missing {
                    write!(f, "\n    {what}")?;
                }
                f.write_str(
                    "\n  load its modules: modprobe tls, and for chacha20poly1305 and gcm alike if only they are missing\n  \
                     for every start to come: echo tls > /etc/modules-load.d/tls.conf\n  a kernel without that module has \
                     no TLS: write kernel_tls = \"auto\"",
                )
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

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
            KernelTls::Auto | KernelTls::Require => Support::found(ktls::probe()),
        };
        if config.kernel_tls == KernelTls::Require && !kernel.missing().is_empty() {
            return Err(StartError::KernelTls(kernel.missing().to_vec()));
        }
        let snapshot = Snapshot::build(&config).map_err(StartError::Route)?;
        raise_descriptor_limit();
        let metrics = Arc::new(Metrics::new(&config).map_err(StartError::Metrics)?);
        let listeners = Listener::rebind(&[], &config.listeners).map_err(StartError::Bind)?;
        let gate = Arc::new(Gate::new(snapshot, Admission::new(config.limits.clone()), kernel, metrics, log));
        let admin = match config.metrics.address {
            None => None,
            Some(address) => {
                let admin = Admin::bind(address, watched(&gate));
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
        Ok(Self { gate, admin, control, without_control, reloader, watching, answering })
    }

    /// Where the listeners are bound, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.reloader.current().borrow().listeners.iter().map(|listener| listener.address()).collect()
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_address)
    }

    /// Why it has no control socket, where it was left to the gate whether it can have one.
    pub const fn without_control(&self) -> Option<&StartError> {
        self.without_control.as_ref()
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
        let Self { gate, mut admin, control, reloader, watching, answering, .. } = self;
        let connections = TaskTracker::new();
        // The few tasks that last as long as the gate; dropped, they end.
        let mut lasting = JoinSet::new();
        for listener in &reloader.current().borrow().listeners {
            gate.log.event(&Event::Listening { listener: listener.name().to_string(), address: listener.address() });
        }
        lasting.spawn(keep_listening(reloader.current(), Arc::clone(&gate), connections.clone()));
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
            gate.sessions.end(&Order { reason: CloseReason::DrainDeadline, detail: None, at: Instant::now() });
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
fn watched(gate: &Gate) -> Watched {
    Watched {
        metrics: Arc::clone(&gate.metrics),
        refusals: Arc::clone(&gate.refusals),
        sessions: Arc::clone(&gate.sessions),
        tally: Arc::clone(&gate.tally),
    }
}

/// Lets the process open as many descriptors as it may: a connection takes two, and the usual soft limit of 1024, which is
/// kept low for programs that use select(2), would be reached long before `limits.connections`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused or not, the gate runs; accept() and dial say so when descriptors run out.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Has connections taken wherever the gate listens at the time.
async fn keep_listening(mut current: Receiver<Current>, gate: Arc<Gate>, connections: TaskTracker) {
    let mut known: Vec<Arc<Listener>> = Vec::new();
    let mut taking = JoinSet::new();
    loop {
        let now = current.borrow_and_update().listeners.clone();
        for listener in now.iter().filter(|new| !known.iter().any(|old| Arc::ptr_eq(old, new))) {
            taking.spawn(take_connections(Arc::clone(listener), Arc::clone(&gate), connections.clone()));
        }
        known = now;
        while taking.try_join_next().is_some() {}
        if current.changed().await.is_err() {
            return;
        }
    }
}

async fn take_connections(listener: Arc<Listener>, gate: Arc<Gate>, connections: TaskTracker) {
    while let Some(accepted) = listener.accept(|error| gate.metrics.accept_failed(error)).await {
        connections.spawn(connection::serve(accepted, Arc::clone(&gate)));
    }
}

async fn tidy(gate: Arc<Gate>) {
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        ticks.tick().await;
        gate.metrics.tidy();
        gate.admission.tidy();
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
