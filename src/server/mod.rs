//! Starts the gate, runs its listeners, drains it, and hands it over to a new process.
//!
//! | file | does |
//! |---|---|
//! | `accept` | accepts connections |
//! | `running` | from the start to the drain |
//! | `upgrade` | replaces this process by a new one |
//! | `retired` | what this process does after that |
//! | `successor` | the new process: takes over from the one before |
//! | `second_run` | says that the gate is running already |
//! | `service_manager` | systemd |

mod accept;
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

use metrics_exporter_prometheus::BuildError;
use socket2::Socket;
use tokio::sync::mpsc;
use tracing::debug;

use crate::admin::{Admin, Monitored};
use crate::admission::Admission;
use crate::admission::descriptors::{Budget, Descriptors, TooFew};
use crate::backends::resolver::Resolver;
use crate::config::checked::{Config, ControlSocket, KernelTls};
use crate::control::earlier::EarlierProcesses;
use crate::control::upgrades::{UpgradeRequest, Upgrades};
use crate::control::{self, Context, Control, Permitted, StaticFacts};
use crate::gate::Gate;
use crate::handover::{Launcher, Taken, TakenListener, Unavailable};
use crate::listener::{BindError, Listener};
use crate::relay::Support;
use crate::reload::{Reloader, TaskThread, Trigger};
use crate::snapshot::{InvalidRoute, Snapshot};
use crate::sys::{ktls, splice};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

/// A gate whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    upgrades: mpsc::Receiver<UpgradeRequest>,
    launcher: Result<Launcher, Unavailable>,
    /// The gate that this process replaces.
    taken: Option<Taken>,
    admin: Option<Admin>,
    /// Its address in the configuration.
    admin_configured: Option<SocketAddr>,
    control: Option<Control>,
    control_error: Option<StartError>,
    /// Threads of their own, so that connections cannot delay a revocation.
    watch_thread: TaskThread,
    control_thread: TaskThread,
    /// How many clients may be connected at once, including those about to be refused.
    clients: usize,
    warning: Option<String>,
}

/// What a process is given at its start besides the configuration.
#[derive(Debug)]
pub struct Inherited {
    /// Sockets that systemd has opened, each with its name.
    pub passed: Vec<(String, Socket)>,
    /// The sockets of the gate that this process replaces.
    pub taken: Option<Taken>,
    /// What starts the process that will replace this one.
    pub launcher: Result<Launcher, Unavailable>,
}

impl Default for Inherited {
    fn default() -> Self {
        Self { passed: Vec::new(), taken: None, launcher: Err(Unavailable::default()) }
    }
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
    /// Builds everything and binds every address.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn bind(config: Config, log: Arc<Log>) -> Result<Self, StartError> {
        Self::bind_with(config, log, Inherited::default())
    }

    /// The same with sockets that listen already, and with what can start another process of this program.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn bind_with(config: Config, log: Arc<Log>, inherited: Inherited) -> Result<Self, StartError> {
        let (file, control) = (config.file.clone(), config.control.socket.clone());
        let takes_over = inherited.taken.is_some();
        Self::try_bind(config, log, inherited).map_err(|error| {
            // An address in use is explained by another process of the same configuration.
            if takes_over { error } else { second_run::explained(error, &file, &control) }
        })
    }

    fn try_bind(config: Config, log: Arc<Log>, inherited: Inherited) -> Result<Self, StartError> {
        let Inherited { passed, mut taken, launcher } = inherited;
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
        let mut bound = Listener::adopt(passed, &config.listeners).map_err(StartError::Bind)?;
        if let Some(taken) = &mut taken {
            let sockets = std::mem::take(&mut taken.listeners).into_iter();
            let sockets =
                sockets.map(|TakenListener { name, address, passed, socket }| (name, address, passed, socket));
            bound.extend(Listener::take_over(sockets.collect(), &config.listeners).map_err(StartError::Bind)?);
        }
        let listeners = Listener::rebind(&bound, &config.listeners).map_err(StartError::Bind)?;
        drop(bound);
        metrics.descriptors(descriptors.limit());
        let admission = Admission::new(budget.limits(&config.limits));
        let mut gate = Gate::new(snapshot, admission, kernel, metrics, log);
        (gate.descriptors, gate.resolver) = (descriptors, Resolver::system(look_ups));
        let gate = Arc::new(gate);
        let admin_configured = config.metrics.address;
        let admin = match admin_configured {
            None => None,
            Some(address) => {
                let socket = taken.as_mut().and_then(|taken| taken.metrics.take_if(|(same, _)| *same == address));
                let admin = match socket {
                    Some((_, socket)) => Admin::on(socket, monitored(&gate), admin_connections),
                    None => Admin::bind(address, monitored(&gate), admin_connections),
                };
                let what = "metrics".to_owned();
                Some(admin.map_err(|error| StartError::Bind(BindError { address, what, error }))?)
            }
        };
        let runtime_folders = std::env::var_os("RUNTIME_DIRECTORY");
        let facts = StaticFacts::of(&config, admin.as_ref().map(Admin::local_address));
        let mut control_error = None;
        let control = match config.control.socket.path(runtime_folders.as_deref()) {
            None => None,
            Some(socket) => {
                let permitted = Permitted::at(&socket, runtime_folders.as_deref());
                let handed = taken.as_mut().and_then(|taken| taken.control.take_if(|(path, _)| *path == socket));
                let bound = match handed {
                    Some((_, handed)) => Control::adopt(&socket, handed, permitted).map_err(control::BindError::Io),
                    None => Control::bind(&socket, permitted),
                };
                match bound.map_err(|error| StartError::Control { socket, error }) {
                    Ok(control) => Some(control),
                    Err(error) if matches!(config.control.socket, ControlSocket::Auto(_)) => {
                        control_error = Some(error);
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if let Some(taken) = &mut taken {
            // This configuration has none.
            (taken.metrics, taken.control) = (None, None);
        }
        let reloader = Reloader::new(Arc::clone(&gate), config, listeners).map_err(StartError::Io)?;
        let watch_thread = TaskThread::start("watch").map_err(StartError::Io)?;
        let control_thread = TaskThread::start("control").map_err(StartError::Io)?;
        let earlier = Arc::new(EarlierProcesses::none(Arc::clone(&gate.metrics)));
        let (asked, upgrades) = Upgrades::new();
        let context = Arc::new(Context { gate, reloader, facts, earlier, upgrades: asked });
        Ok(Self {
            context,
            upgrades,
            launcher,
            taken,
            admin,
            admin_configured,
            control,
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

    /// Has the gate replaced by a new process. The result is in the log.
    pub async fn upgrade(&self) {
        let _ = self.0.upgrades.request().await;
    }
}

/// What the metrics listener shows.
fn monitored(gate: &Gate) -> Monitored {
    Monitored {
        metrics: Arc::clone(&gate.metrics),
        refusals: Arc::clone(&gate.refusals),
        sessions: Arc::clone(&gate.sessions),
    }
}
