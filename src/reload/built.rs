//! Reads and checks what is to replace the configuration in force.

use std::rc::Rc;
use std::sync::Arc;

use super::expectations;

use crate::config::checked::{self, Config};
use crate::config::file_states::Seen;
use crate::config::{self, ConfigError, ConfigErrors, MayRead, START_ANEW};
use crate::listener::Listener;
use crate::sandbox::Sandbox;

/// What replaces the configuration in force.
pub(super) struct Built {
    pub(super) config: Config,
    pub(super) listeners: Vec<Arc<Listener>>,
}

impl Built {
    /// Reads the configuration of `old` again and binds its listeners, as at the start. The `bound` ones that it still has stay; without them,
    /// none is bound. `seen` is set to the files that were read, even if that fails.
    pub(super) fn of(
        old: &Config,
        bound: Option<&[Arc<Listener>]>,
        seen: &mut Seen,
        sandbox: &Arc<Sandbox>,
    ) -> Result<Self, Vec<String>> {
        let lines = |errors: ConfigErrors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (config, read) = config::load_within(&old.file, &may_read(sandbox));
        *seen = read;
        let mut config = config.map_err(lines)?;
        config.keep_public_certificate(old);
        expectations::check(&config).map_err(lines)?;
        let listeners = match bound {
            // It takes no more clients. That its sessions are reviewed counts for more than a backend that it cannot reach.
            None => Vec::new(),
            Some(bound) => {
                check_within(sandbox, &config, bound)?;
                // Last: this is visible from outside.
                Listener::rebind(bound, &config.listeners).map_err(|error| vec![error.to_string()])?
            }
        };
        Ok(Self { config, listeners })
    }
}

/// The files that the sandbox lets the gate read.
pub(super) fn may_read(sandbox: &Arc<Sandbox>) -> MayRead {
    let within = Arc::clone(sandbox);
    Rc::new(move |file| within.fence().may_read(file))
}

/// What the sandbox does not allow, as the errors of the configuration.
fn check_within(sandbox: &Sandbox, config: &Config, bound: &[Arc<Listener>]) -> Result<(), Vec<String>> {
    let is_bound = |name: &str, address| {
        let matches = |one: &&checked::Listener| one.name.as_str() == name && one.address == address;
        config.listeners.iter().find(matches).is_some_and(|one| bound.iter().any(|bound| bound.matches(one)))
    };
    let error = |(key, message)| ConfigError {
        file: config.file.clone(),
        line: None,
        key,
        message,
        remedy: START_ANEW.to_owned(),
    };
    let outside = sandbox.fence().outside(&sandbox.needs_of(config), is_bound);
    if outside.is_empty() {
        return Ok(());
    }
    Err(outside.into_iter().map(|one| error(one).to_string()).collect())
}
