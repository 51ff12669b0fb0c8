//! Another configuration for the running gate: whole, or not at all.
//!
//! Whoever asks for it (a signal, the control socket, a watched file), there is this one way, and one at a time. The file and
//! all that it names are read and checked as at the start, off the threads that serve connections, and everything is built;
//! only then, and only if nothing is wrong, the new takes the place of the old. Connections that began under the old one
//! finish their handshake under it, and are judged by the new one before a backend is reached for them; and each session is judged
//! again, and those that would not be let in any more end.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::access::{self, Change, Difference, OlderList, State};
use crate::config::checked::{Config, Control, KernelTls, Log};
use crate::config::seen::Seen;
use crate::config::{self, ConfigErrors};
use crate::gate::{Gate, Reviewed};
use crate::listener::Listener;
use crate::names::Name;
use crate::snapshot::Snapshot;
use crate::telemetry::log::{Event, moment};

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
    /// Where the gate listens now and did not before.
    pub opened: Vec<Door>,
    /// Where it does not listen any more.
    pub closed: Vec<Door>,
    /// What is different about who may go where.
    pub difference: Difference,
    /// Sessions that go on.
    pub kept: usize,
    /// Sessions that end.
    pub cut: usize,
}

/// Where the gate listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// What the listener is called.
    pub name: Name,
    /// Its address, with the port that the kernel chose if it was left to it.
    pub address: SocketAddr,
}

impl From<&Arc<Listener>> for Door {
    fn from(listener: &Arc<Listener>) -> Self {
        Self { name: listener.name().clone(), address: listener.address() }
    }
}

/// A reload that was refused: the gate goes on with what it has. Every mistake, as `doorward check` says it.
#[derive(Clone, Debug)]
pub struct Refused(pub Vec<String>);

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Where the gate listens, in the order of the configuration.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// The files that were read when it was last tried to take them over, and what they looked like.
    pub(crate) seen: Arc<Seen>,
    /// When it was taken over.
    pub(crate) since: OffsetDateTime,
    /// What was wrong with the files when that was tried again. Nothing if it was not, or all went well.
    pub(crate) errors: Arc<Vec<String>>,
}

impl Current {
    fn new(config: Config, listeners: Vec<Arc<Listener>>) -> Self {
        let (seen, errors) = (Arc::new(config.seen.clone()), Arc::default());
        let config = Arc::new(config);
        Self { config, listeners, seen, since: OffsetDateTime::now_utc(), errors }
    }

    /// No connections are taken any more, wherever it is.
    pub(crate) fn close(&self) {
        self.listeners.iter().for_each(|listener| listener.close());
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
}

impl Reloader {
    pub(crate) fn new(gate: Arc<Gate>, config: Config, listeners: Vec<Arc<Listener>>) -> Self {
        let started = Started::of(&config);
        let current = watch::Sender::new(Current::new(config, listeners));
        Self(Arc::new(Inner { gate, started, current, turn: Mutex::default() }))
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
        let Current { config: old, listeners: bound, .. } = self.current.borrow().clone();
        let (before, mut seen) = (self.current.borrow().seen.again(), Seen::default());
        let built = caught(|| Built::of(&old.file, &bound, &mut seen));
        let Built { config, snapshot, listeners } = match built {
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
        let (snapshot, guests) = (Arc::new(snapshot), self.gate.sessions.guests());
        let told = config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message));
        let fallbacks = beyond(&listeners, &bound).into_iter().filter_map(|listener| listener.warning());
        let warnings = told.chain(fallbacks).chain(access::older_lists(&old, &config).iter().map(older)).collect();
        let after_restart = self.started.differs_from(&config);
        let doors = |listeners: Vec<&Arc<Listener>>| listeners.into_iter().map(Door::from).collect();
        let (opened, closed) = (doors(beyond(&listeners, &bound)), doors(beyond(&bound, &listeners)));
        let before = self.gate.snapshot.load_full();
        let new = Current::new(config, listeners);
        let config = Arc::clone(&new.config);
        self.swap(new, Arc::clone(&snapshot));
        let Reviewed { kept, cut } = self.gate.review(asked);
        // Behind all that matters: of thousands of devices, or millions who are revoked, this takes its time.
        let (before, after) =
            (State { config: &old, snapshot: &before }, State { config: &config, snapshot: &snapshot });
        let difference = access::difference(before, after, &guests, UnixTime::now());
        Ok(Reloaded { warnings, after_restart, opened, closed, difference, kept, cut })
    }

    /// Nothing here can fail.
    fn swap(&self, new: Current, snapshot: Arc<Snapshot>) {
        // First of all, so that every connection finds the series of its listener and of its route.
        self.gate.metrics.follow(&new.config);
        self.gate.admission.change(new.config.limits.clone());
        for (listener, settings) in new.listeners.iter().zip(&new.config.listeners) {
            listener.follow(settings);
        }
        self.gate.snapshot.store(snapshot);
        // Last, since from then on connections are taken from those that are new.
        let old = self.current.send_replace(new);
        let current = self.current.borrow();
        beyond(&old.listeners, &current.listeners).iter().for_each(|gone| gone.close());
        // Who stops the gate has closed those that he saw, or sees these.
        if self.gate.draining.is_cancelled() {
            current.close();
        }
    }

    /// Whether nothing has come of a reload, for the same reasons as before.
    fn is_as(&self, before: &Current) -> bool {
        let now = self.current.borrow();
        now.seen == before.seen && now.errors == before.errors
    }

    fn tell(&self, cause: Cause, result: &Result<Reloaded, Refused>) {
        let (metrics, log, cause) = (&self.gate.metrics, &self.gate.log, cause.label());
        match result {
            Ok(Reloaded { warnings, after_restart, opened, closed, difference, kept, cut, .. }) => {
                metrics.reloaded();
                for Door { name, address } in opened {
                    log.event(&Event::Listening { listener: name.to_string(), address: *address });
                }
                for Door { name, address } in closed {
                    log.event(&Event::ListenerClosed { listener: name.to_string(), address: *address });
                }
                log.event(&Event::Reloaded {
                    cause,
                    sessions_kept: *kept,
                    sessions_cut: *cut,
                    warnings: first(warnings, String::clone),
                    after_restart: after_restart.clone(),
                    gained: first(&difference.gained, in_words),
                    lost: first(&difference.lost, in_words),
                });
            }
            Err(Refused(errors)) => {
                let errors = first(errors, String::clone);
                metrics.not_reloaded(errors.clone());
                log.event(&Event::ReloadFailed { cause, errors });
            }
        }
    }
}

/// Those of `some` that are not among `others`.
fn beyond<'a>(some: &'a [Arc<Listener>], others: &[Arc<Listener>]) -> Vec<&'a Arc<Listener>> {
    some.iter().filter(|one| !others.iter().any(|other| Arc::ptr_eq(one, other))).collect()
}

fn older(OlderList { file, made, before }: &OlderList) -> String {
    format!(
        "client_auth.revocation_lists: the list in {} was made at {}, and the one that was in force before at {}: whoever was \
         revoked in between is let in again; put the newer one back, or make a new one: doorward ca revoke",
        file.display(),
        moment(*made),
        moment(*before)
    )
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

/// What to say where the gate itself is at fault.
const FAULT: &str = "a fault of the gate: please report it, with what it has written to its standard error";

/// A file that makes a parser panic is a mistake like any other.
fn caught<T>(build: impl FnOnce() -> Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(vec![FAULT.to_owned()]))
}

/// All that takes the place of what there is.
struct Built {
    config: Config,
    snapshot: Snapshot,
    listeners: Vec<Arc<Listener>>,
}

impl Built {
    /// Reads, builds and binds everything, as at the start; of the `bound` listeners those stay that the file still has. What
    /// was read for it is in `seen`, also if something is wrong.
    fn of(file: &Path, bound: &[Arc<Listener>], seen: &mut Seen) -> Result<Self, Vec<String>> {
        let mistakes = |errors: ConfigErrors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (config, read) = config::load_and_see(file);
        *seen = read;
        let config = config.map_err(mistakes)?;
        let snapshot = Snapshot::build(&config).map_err(|error| vec![error.to_string()])?;
        // Last: it is the only one that anybody outside can notice.
        let listeners = Listener::rebind(bound, &config.listeners).map_err(|error| vec![error.to_string()])?;
        Ok(Self { config, snapshot, listeners })
    }
}

impl Started {
    fn of(config: &Config) -> Self {
        Self {
            kernel_tls: config.kernel_tls,
            metrics: config.metrics.address,
            control: config.control.clone(),
            log: config.log.clone(),
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
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_mistake_like_any_other() {
        assert_eq!(caught::<()>(|| panic!("a parser stumbles")), Err(vec![FAULT.to_owned()]));
        assert_eq!(caught(|| Ok(7)), Ok(7));
    }
}
