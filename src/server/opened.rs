//! What a gate opens before it starts threads and gives up rights.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::Socket;
use tracing::debug;

use super::{StartError, second_run, service_manager};
use crate::acme::Store;
use crate::admin::Admin;
use crate::admission::descriptors::{Budget, Descriptors};
use crate::config::checked::{Config, ControlSocket, KernelTls, StateFolder};
use crate::control::{self, Control, Permitted};
use crate::handover::{Launcher, Predecessor, Taken, TakenListener, Unavailable};
use crate::history;
use crate::listener::{self, BindError, Listener};
use crate::relay::Support;
use crate::renewal::folder::RequestFolder;
use crate::sys::ktls;

/// The metrics listener in an error.
pub(super) const METRICS: &str = "metrics";

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

/// Sockets, and what the kernel and its limits are like.
#[derive(Debug)]
pub struct Opened {
    pub(super) kernel: Support,
    pub(super) descriptors: Descriptors,
    pub(super) budget: Budget,
    pub(super) listeners: Vec<listener::Opened>,
    pub(super) metrics: Option<(SocketAddr, Socket)>,
    pub(super) control: Option<Control>,
    /// That of the gate that this process replaces, if it is elsewhere.
    pub(super) former_control: Option<Control>,
    pub(super) control_error: Option<StartError>,
    /// The folder of the history, and why it could not be made.
    pub(super) history: Option<(PathBuf, Option<io::Error>)>,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) launcher: Result<Launcher, Unavailable>,
}

impl Opened {
    /// Opens what a gate with this configuration needs and was not given.
    ///
    /// # Errors
    /// If any of it fails; then nothing stays bound.
    pub fn new(config: &Config, inherited: Inherited) -> Result<Self, StartError> {
        let takes_over = inherited.taken.is_some();
        Self::open(config, inherited).map_err(|error| {
            // An address in use is explained by another process of the same configuration.
            if takes_over { error } else { second_run::explained(error, &config.file, &config.control.socket) }
        })
    }

    fn open(config: &Config, inherited: Inherited) -> Result<Self, StartError> {
        let Inherited { mut passed, mut taken, launcher } = inherited;
        service_manager::connect();
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
        let mut passed_metrics = passed_metrics(&mut passed, config).map_err(StartError::Bind)?;
        let mut given = Listener::adopt(passed, &config.listeners).map_err(StartError::Bind)?;
        if let Some(taken) = &mut taken {
            let sockets = std::mem::take(&mut taken.listeners).into_iter();
            let sockets =
                sockets.map(|TakenListener { name, address, passed, socket }| (name, address, passed, socket));
            given.extend(Listener::take_over(sockets.collect(), &config.listeners).map_err(StartError::Bind)?);
        }
        let listeners = Listener::open(given, &config.listeners).map_err(StartError::Bind)?;
        let metrics = config.metrics.address.map(|address| {
            let same = taken.as_mut().and_then(|taken| taken.metrics.take_if(|(same, _)| *same == address));
            let given = passed_metrics.take().or_else(|| same.map(|(_, socket)| socket));
            match given.map_or_else(|| Admin::open(address), Ok) {
                Ok(socket) => Ok((address, socket)),
                Err(error) => Err(StartError::Bind(BindError { address, what: METRICS.to_owned(), error })),
            }
        });
        let metrics = metrics.transpose()?;
        let history = config.history.folder.as_ref().map(StateFolder::of_this_process);
        // In the sandbox no folder can be made. If it cannot here, the gate says so and serves.
        let history = history.map(|folder| {
            let made = history::make_folder(&folder);
            (folder, made.err())
        });
        if let Some(acme) = &config.acme {
            // For the sandbox as well. The process that writes there says what is in the way.
            let _ = Store::new(&acme.folder()).make_folders();
        }
        if let Some(renewal) = &config.renewal {
            // Requests are answered with what is in the way.
            let _ = RequestFolder::new(&renewal.folder.of_this_process()).make();
        }
        let runtime_folders = std::env::var_os("RUNTIME_DIRECTORY");
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
        // What is left of the sockets is closed here: this configuration has them elsewhere, or not at all.
        let (mut predecessor, mut former_control) = (None, None);
        if let Some(taken) = taken {
            predecessor = Some(taken.predecessor);
            former_control =
                taken.control.and_then(|(path, socket)| Control::adopt(&path, socket, Permitted::User).ok());
        }
        Ok(Self {
            kernel,
            descriptors,
            budget,
            listeners,
            metrics,
            control,
            former_control,
            control_error,
            history,
            predecessor,
            launcher,
        })
    }

    /// The control socket of the gate that this process replaces, if it is elsewhere: its file is removed in the end.
    pub fn former_control(&self) -> Option<&Path> {
        self.former_control.as_ref().map(Control::path)
    }
}

/// Takes the socket of the metrics out of those that systemd has opened. Its name is "metrics", unless a listener is called so.
fn passed_metrics(passed: &mut Vec<(String, Socket)>, config: &Config) -> Result<Option<Socket>, BindError> {
    let is_listener = config.listeners.iter().any(|listener| listener.name.as_str() == METRICS);
    let Some(address) = config.metrics.address.filter(|_| !is_listener) else { return Ok(None) };
    let Some(at) = passed.iter().position(|(name, _)| name == METRICS) else { return Ok(None) };
    let (name, socket) = passed.swap_remove(at);
    let what = || format!("socket {name:?} of systemd");
    listener::check_passed(&socket, address).map_err(|error| BindError { address, what: what(), error })?;
    Ok(Some(socket))
}
