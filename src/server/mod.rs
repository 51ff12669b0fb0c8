//! Starts the gate, runs its listeners, drains it, and hands it over to a new process.
//!
//! | file | does |
//! |---|---|
//! | `opened` | what is opened before there are threads, and before the sandbox |
//! | `accept` | accepts connections |
//! | `running` | from the start to the drain |
//! | `upgrade` | replaces this process by a new one |
//! | `retired` | what this process does after that |
//! | `successor` | the new process: takes over from the one before |
//! | `second_run` | says that the gate is running already |
//! | `service_manager` | systemd |
//! | `certificates` | follows the process that orders public certificates |
//! | `renewals` | follows the process that renews certificates of devices |
//! | `notices` | hands messages to the owner over to the processes that send them |

mod accept;
mod certificates;
mod manager_socket;
mod notices;
mod opened;
mod renewals;
mod retired;
mod running;
mod second_run;
pub(crate) mod service_manager;
mod successor;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::BuildError;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use self::opened::METRICS;
pub use self::opened::{Inherited, Opened};
use crate::admin::Admin;
use crate::admission::Admission;
use crate::admission::descriptors::{Budget, TooFew};
use crate::backends::dial::Directory;
use crate::config::checked::Config;
use crate::control::earlier::EarlierProcesses;
use crate::control::upgrades::{UpgradeRequest, Upgrades};
use crate::control::{self, Context, Control, StaticFacts};
use crate::gate::Gate;
use crate::handover::{Channel, Launcher, Predecessor, Unavailable};
use crate::listener::{BindError, Listener};
use crate::overview::Overview;
use crate::reload::{Reloader, TaskThread, Trigger};
use crate::sandbox::{Incomplete, Sandbox};
use crate::snapshot::{InvalidRoute, Snapshot};
use crate::sys::splice;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

/// A gate whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    upgrades: mpsc::Receiver<UpgradeRequest>,
    launcher: Result<Launcher, Unavailable>,
    /// The gate that this process replaces.
    predecessor: Option<Predecessor>,
    /// The channel to it, once it has handed everything over.
    channel: Option<Channel>,
    admin: Option<Admin>,
    /// Its address in the configuration.
    admin_configured: Option<SocketAddr>,
    control: Option<Control>,
    /// That of the gate that this process replaces, if it is elsewhere.
    former_control: Option<Control>,
    control_error: Option<StartError>,
    /// Threads of their own, so that connections cannot delay a revocation.
    watch_thread: TaskThread,
    control_thread: TaskThread,
    /// How many clients may be connected at once, including those about to be refused.
    clients: usize,
    warning: Option<String>,
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
    /// The gate itself is running.
    #[error(
        "this gate is running already: process {pid} has {file}, so another one cannot {what}\n  to see it: doorward status; to \
         replace it by this version of the program: doorward upgrade; to stop it: kill {pid}"
    )]
    Running {
        /// Its process id.
        pid: u32,
        /// The configuration of both.
        file: PathBuf,
        /// What this process could not do.
        what: String,
    },
    /// The gate that this process was to replace has not handed over.
    #[error("the running gate was not replaced: {0}")]
    HandOver(io::Error),
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

impl Server {
    /// Builds everything, on what was opened, for a process with these rights.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn new(config: Config, log: Arc<Log>, opened: Opened, sandbox: Arc<Sandbox>) -> Result<Self, StartError> {
        let Opened { kernel, descriptors, budget, listeners, metrics: admin, .. } = opened;
        let Opened { control, former_control, control_error, history, predecessor, launcher, .. } = opened;
        let snapshot = Snapshot::build(&config).map_err(StartError::Route)?;
        let warning = descriptors.warning(&config);
        let Budget { clients, pipes, metrics: admin_connections, look_ups, .. } = budget;
        splice::allow_pipes(pipes);
        let metrics = Arc::new(Metrics::new(&config).map_err(StartError::Metrics)?);
        let listeners = listeners.into_iter().map(|opened| Listener::start(opened).map(Arc::new));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().map_err(StartError::Bind)?;
        metrics.descriptors(descriptors.limit());
        metrics.descriptors_warning(warning.clone());
        let admission = Admission::new(budget.limits(&config.limits));
        let mut gate = Gate::new(snapshot, admission, kernel, metrics, log);
        (gate.descriptors, gate.directory) = (descriptors, Directory::new(look_ups));
        gate.notices.want(&config.notify.events);
        let (history, not_made) = history.unzip();
        gate.history.keep(history, &config, not_made.flatten().as_ref());
        let gate = Arc::new(gate);
        let told = Arc::downgrade(&gate);
        gate.directory.pool.report_to(move |backend| {
            if let Some(gate) = told.upgrade() {
                gate.backend_came_back(backend);
            }
        });
        let told = Arc::downgrade(&gate);
        gate.wakes.report_to(move |news| {
            if let Some(gate) = told.upgrade() {
                gate.waking(news);
            }
        });
        let metrics = Arc::clone(&gate.metrics);
        gate.directory.resolver.report_to(move |host| metrics.resolved(host));
        gate.directory.resolver.follow(config.host_names());
        let overview = Arc::new(overview(&gate, &sandbox));
        let admin_configured = config.metrics.address;
        let admin = match admin {
            None => None,
            Some((address, socket)) => {
                let admin = Admin::new(socket, Arc::clone(&overview), admin_connections);
                let what = METRICS.to_owned();
                Some(admin.map_err(|error| StartError::Bind(BindError { address, what, error }))?)
            }
        };
        let facts = StaticFacts::of(&config, admin.as_ref().map(Admin::local_address), Arc::clone(&sandbox));
        let reloader = Reloader::new(Arc::clone(&gate), config, listeners, sandbox).map_err(StartError::Io)?;
        let watch_thread = TaskThread::start("watch").map_err(StartError::Io)?;
        let control_thread = TaskThread::start("control").map_err(StartError::Io)?;
        let earlier = Arc::new(EarlierProcesses::none(Arc::clone(&gate.metrics)));
        let (asked, upgrades) = Upgrades::new();
        let context = Arc::new(Context { gate, overview, reloader, facts, earlier, upgrades: asked });
        Ok(Self {
            context,
            upgrades,
            launcher,
            predecessor,
            channel: None,
            admin,
            admin_configured,
            control,
            former_control,
            control_error,
            watch_thread,
            control_thread,
            clients,
            warning,
        })
    }

    /// The addresses of the listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.context.reloader.current().borrow().listeners.iter().map(|listener| listener.address()).collect()
    }

    /// The address of the metrics listener.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_address)
    }

    /// Warnings about the listeners.
    pub fn warnings(&self) -> Vec<String> {
        self.context.reloader.current().borrow().listeners.iter().filter_map(|listener| listener.warning()).collect()
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
        self.context.reloader.clone()
    }

    /// What signals ask for while the gate runs.
    pub fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.context))
    }

    /// The metrics that `/metrics` shows.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.context.gate.metrics)
    }
}

/// Requests to a gate that runs, as its control socket takes them.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Context>);

impl Requests {
    /// Has the gate load its configuration, and the processes that upgrades have left as well. The result is in the log.
    pub async fn reload(&self) {
        let own = self.0.reloader.reload(Trigger::Signal);
        let _ = tokio::join!(own, self.0.earlier.reload());
    }

    /// The open connections, those of processes that upgrades have left included, and how long they have to end once the gate is
    /// stopped.
    pub async fn draining(&self) -> (usize, Duration) {
        let gate = &self.0.gate;
        (gate.sessions.count() + self.0.earlier.sessions().await, gate.snapshot.load().timeouts.drain)
    }

    /// Has the gate replaced by a new process. The result is in the log.
    pub async fn upgrade(&self) {
        let _ = self.0.upgrades.request().await;
    }
}

/// What the owner is told about.
fn overview(gate: &Gate, sandbox: &Sandbox) -> Overview {
    Overview {
        metrics: Arc::clone(&gate.metrics),
        refusals: Arc::clone(&gate.refusals),
        history: Arc::clone(&gate.history),
        sessions: Arc::clone(&gate.sessions),
        log: Arc::clone(&gate.log),
        notices: Arc::clone(&gate.notices),
        issuance: gate.issuance.subscribe(),
        resolver: gate.directory.resolver.clone(),
        sandbox: sandbox.in_force().lacks.clone(),
        started: OffsetDateTime::now_utc(),
    }
}
