//! Settings that a reload does not change.

use std::net::SocketAddr;

use crate::config::checked::{Config, Control, KernelTls, Log, SandboxMode, StateFolder};

/// The settings that only a start puts into effect, as they were at the start.
#[derive(Debug)]
pub(super) struct StartupSettings {
    kernel_tls: KernelTls,
    metrics: Option<SocketAddr>,
    control: Control,
    log: Log,
    history: Option<StateFolder>,
    renewal: Option<StateFolder>,
    sandbox: SandboxMode,
}

impl StartupSettings {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            kernel_tls: config.kernel_tls,
            metrics: config.metrics.address,
            control: config.control.clone(),
            log: config.log.clone(),
            history: config.history.folder.clone(),
            renewal: config.renewal.as_ref().map(|renewal| renewal.folder.clone()),
            sandbox: config.sandbox,
        }
    }

    /// The settings of `new` that differ: sockets, and what concerns the whole process.
    pub(super) fn differences(&self, new: &Config) -> Vec<String> {
        let mut changed = Vec::new();
        let mut compare = |same: bool, key: &str| {
            if !same {
                changed.push(key.to_owned());
            }
        };
        compare(self.kernel_tls == new.kernel_tls, "kernel_tls");
        compare(self.metrics == new.metrics.address, "metrics.address");
        compare(self.control == new.control, "control.socket");
        compare(self.log == new.log, "[log]");
        compare(self.history == new.history.folder, "history.folder");
        // Without it, nothing is written there.
        let renewal = new.renewal.as_ref().map(|renewal| &renewal.folder);
        compare(renewal.is_none() || renewal == self.renewal.as_ref(), "renewal.folder");
        compare(self.sandbox == new.sandbox, "[sandbox]");
        changed
    }
}
