//! Another configuration for the running gate: whole, or not at all.
//!
//! Whoever asks for it (a signal, the control socket, a watched file), there is this one way, and one at a time. The file and
//! all that it names are read and checked as at the start, off the threads that serve connections, and everything is built;
//! only then, and only if nothing is wrong, the new takes the place of the old. Connections that began under the old one
//! finish their handshake under it; then each session is judged again, and those that would not be let in any more end.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::access::{self, Change, Difference, State};
use crate::config::checked::{Config, Control, KernelTls, Listener, Log};
use crate::config::seen::Seen;
use crate::config::{self, ConfigErrors};
use crate::gate::{Gate, Reviewed};
use crate::snapshot::Snapshot;
use crate::telemetry::log::Event;

/// Who wants a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP.
    Signal,
    /// `doorward reload`, or another program at the control socket.
    Command,
    /// A file that has changed.
    Watch,
}

impl Cause {
    /// The word in log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Command => "command",
            Self::Watch => "watch",
        }
    }
}

/// A reload that was done.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// What is allowed but probably not meant, as `doorward check` says it.
    pub warnings: Vec<String>,
    /// What is different in the file and takes effect only after a restart.
    pub after_restart: Vec<String>,
    /// What is different about who may go where.
    pub difference: Difference,
    /// Sessions that go on.
    pub kept: usize,
    /// Sessions that end.
    pub cut: usize,
}

/// A reload that was refused: the gate goes on with what it has. Every mistake, as `doorward check` says it.
#[derive(Clone, Debug)]
pub struct Refused(pub Vec<String>);

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// The files that were read when it was last tried to take them over, and what they looked like.
    pub(crate) seen: Arc<Seen>,
    /// When it was taken over.
    pub(crate) since: OffsetDateTime,
    /// What was wrong with the files when that was tried again. Nothing if it was not, or all went well.
    pub(crate) errors: Arc<Vec<String>>,
}

impl Current {
    fn new(config: Config) -> Self {
        let (seen, errors) = (Arc::new(config.seen.clone()), Arc::default());
        let config = Arc::new(config);
        Self { config, seen, since: OffsetDateTime::now_utc(), errors }
    }
}

/// Reloads the gate's configuration. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gate: Arc<Gate>,
    started: Started,
    current: watch::Sender<Current>,
    /// What the bound listeners go by.
    listeners: Vec<Arc<ArcSwap<Listener>>>,
    /// One at a time.
    turn: Mutex<()>,
}

/// What the gate was started with and only a start puts into effect.
#[derive(Debug)]
struct Started {
    kernel_tls: KernelTls,
    metrics: Option<SocketAddr>,
    control: Control,
    log: Log,
    listeners: Vec<Listener>,
}

impl Reloader {
    pub(crate) fn new(gate: Arc<Gate>, config: Config, listeners: Vec<Arc<ArcSwap<Listener>>>) -> Self {
        let started = Started::of(&config);
        let current = watch::Sender::new(Current::new(config));
        Self(Arc::new(Inner { gate, started, current, listeners, turn: Mutex::default() }))
    }

    /// What is in force, and what will be.
    pub(crate) fn current(&self) -> watch::Receiver<Current> {
        self.0.current.subscribe()
    }

    /// Reads the configuration anew and takes it over, or changes nothing and says why. It goes on even if nobody waits for
    /// it any more.
    pub async fn reload(&self, cause: Cause) -> Result<Reloaded, Refused> {
        let (inner, asked) = (Arc::clone(&self.0), Instant::now());
        // Lists may be long and devices many: on a thread of its own, connections do not notice.
        let reload = spawn_blocking(move || {
            let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let before = inner.current.borrow().clone();
            let result = inner.reload(asked);
            // What is tried again by itself, and fails again for the same reasons, is no news.
            if cause != Cause::Watch || result.is_ok() || !inner.is_as(&before) {
                inner.tell(cause, &result);
            }
            result
        });
        reload.await.unwrap_or_else(|_| Err(Refused(vec![FAULT.to_owned()])))
    }
}

impl Inner {
    fn reload(&self, asked: Instant) -> Result<Reloaded, Refused> {
        let old = Arc::clone(&self.current.borrow().config);
        let before = self.current.borrow().seen.again();
        let (built, seen) = caught(|| build(&old.file));
        let (config, snapshot) = match built {
            Ok(built) => built,
            Err(errors) => {
                self.current.send_modify(|current| {
                    // What mends it may stand in a file that was not read any more.
                    current.seen = Arc::new(seen.and(&before));
                    current.errors = Arc::new(errors.clone());
                });
                return Err(Refused(errors));
            }
        };
        let difference = difference(&self.gate, &old, &config, &snapshot);
        self.swap(&config, snapshot);
        let warnings = config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect();
        let after_restart = self.started.differs_from(&config);
        self.current.send_replace(Current::new(config));
        let Reviewed { kept, cut } = self.gate.review(asked);
        Ok(Reloaded { warnings, after_restart, difference, kept, cut })
    }

    /// Nothing here can fail.
    fn swap(&self, config: &Config, snapshot: Snapshot) {
        // First of all, so that every connection finds the series of its route.
        self.gate.metrics.follow(config);
        self.gate.admission.change(config.limits.clone());
        for bound in &self.listeners {
            let now = bound.load();
            if let Some(new) = config.listeners.iter().find(|new| is_same(&now, new)) {
                bound.store(Arc::new(new.clone()));
            }
        }
        self.gate.snapshot.store(Arc::new(snapshot));
    }

    /// Whether nothing has come of a reload, for the same reasons as before.
    fn is_as(&self, before: &Current) -> bool {
        let now = self.current.borrow();
        now.seen == before.seen && now.errors == before.errors
    }

    fn tell(&self, cause: Cause, result: &Result<Reloaded, Refused>) {
        self.gate.metrics.reloaded(result.is_ok());
        let cause = cause.label();
        self.gate.log.event(&match result {
            Ok(done) => Event::Reloaded {
                cause,
                sessions_kept: done.kept,
                sessions_cut: done.cut,
                after_restart: done.after_restart.clone(),
                gained: first(&done.difference.gained, in_words),
                lost: first(&done.difference.lost, in_words),
            },
            Err(Refused(errors)) => Event::ReloadFailed { cause, errors: first(errors, String::clone) },
        });
    }
}

/// What the new configuration changes about who may go where, those who are in among them.
fn difference(gate: &Gate, old: &Config, config: &Config, snapshot: &Snapshot) -> Difference {
    let before = gate.snapshot.load_full();
    let old = State { config: old, snapshot: &before };
    access::difference(old, State { config, snapshot }, &gate.sessions.guests(), UnixTime::now())
}

/// The first few for the log, and how many more there are.
fn first<T>(all: &[T], in_words: impl Fn(&T) -> String) -> Vec<String> {
    const MAX: usize = 20;
    let more = all.len().saturating_sub(MAX);
    all.iter().take(MAX).map(in_words).chain((more > 0).then(|| format!("and {more} more"))).collect()
}

fn in_words(Change { who, routes }: &Change) -> String {
    format!("{who} ({})", routes.join(", "))
}

/// A configuration and what was built from it, or every mistake; and what was read.
type Built = (Result<(Config, Snapshot), Vec<String>>, Seen);

/// What to say where the gate itself is at fault.
const FAULT: &str = "a fault of the gate: please report it, with what it has written to its standard error";

/// A file that makes a parser panic is a mistake like any other.
fn caught(build: impl FnOnce() -> Built) -> Built {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| (Err(vec![FAULT.to_owned()]), Seen::default()))
}

/// Reads and builds everything, as at the start.
fn build(file: &Path) -> Built {
    let mistakes = |errors: ConfigErrors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (config, seen) = config::load_and_see(file);
    let built = config.map_err(mistakes).and_then(|config| {
        let snapshot = Snapshot::build(&config).map_err(|error| vec![error.to_string()])?;
        Ok((config, snapshot))
    });
    (built, seen)
}

/// Whether a listener of the file is one that is bound already.
fn is_same(bound: &Listener, new: &Listener) -> bool {
    bound.name == new.name && bound.address == new.address
}

impl Started {
    fn of(config: &Config) -> Self {
        Self {
            kernel_tls: config.kernel_tls,
            metrics: config.metrics.address,
            control: config.control.clone(),
            log: config.log.clone(),
            listeners: config.listeners.clone(),
        }
    }

    /// What stands in `new` and takes effect only after a restart: sockets, and what belongs to the whole process.
    fn differs_from(&self, new: &Config) -> Vec<String> {
        let mut changed = Vec::new();
        let mut compare = |same: bool, what: &str| {
            if !same {
                changed.push(what.to_owned());
            }
        };
        compare(self.kernel_tls == new.kernel_tls, "kernel_tls");
        compare(self.metrics == new.metrics.address, "metrics.address");
        compare(self.control == new.control, "control.socket");
        compare(self.log == new.log, "[log]");
        for listener in &new.listeners {
            let bound = self.listeners.iter().any(|bound| is_same(bound, listener));
            compare(bound, &format!("listener {:?} at {}", listener.name.as_str(), listener.address));
        }
        for bound in &self.listeners {
            let there = new.listeners.iter().any(|listener| listener.name == bound.name);
            compare(there, &format!("listener {:?}, which is gone from the file and goes on", bound.name.as_str()));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_mistake_like_any_other() {
        let (built, seen) = caught(|| panic!("a parser stumbles"));
        assert_eq!((built.map(drop), seen), (Err(vec![FAULT.to_owned()]), Seen::default()));
    }
}
