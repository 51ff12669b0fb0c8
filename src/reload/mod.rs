//! Another configuration for the running gate: whole, or not at all, but for what takes rights away.
//!
//! Signals, the control socket and watched files all lead here, and one reload is done at a time, on a thread of its own. The
//! file and all that it names are read and checked as at the start, and everything is built; only then, and only if nothing is
//! wrong, the new takes the place of the old. Connections that began under the old one finish their handshake under it, and are
//! judged by the new one before a backend is reached for them; each session is judged again, and those that would not be let
//! in any more end.
//!
//! A configuration that cannot be loaded does not hold up revocations: lists and `deny` entries that can still be read are
//! added to the one in force. Lists that are handed over (`lists`) have a thread of their own, which reads no files.

mod lists;
pub mod policy_report;
mod salvage;
pub(crate) mod watch;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tracing::debug;

pub(crate) use self::lists::{ListFacts, RouteInForce};
pub(crate) use self::worker::Lane;
use self::worker::Worker;

use self::policy_report::{Change, Difference, OlderList, State};
use crate::config::checked::{Config, Control, KernelTls, Log, NewerList};
use crate::config::in_use::InUse;
use crate::config::lists::{Salvaged, Tightening};
use crate::config::seen::Seen;
use crate::config::{self, ConfigError, ConfigErrors};
use crate::explain::moment;
use crate::gate::{Gate, Reviewed};
use crate::listener::Listener;
use crate::model::names::Name;
use crate::snapshot::Snapshot;
use crate::sys::splice;
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

/// A reload that was refused: the gate goes on with what it has, but for rights that were taken away.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// Every mistake, as `doorward check` says it.
    pub errors: Vec<String>,
    /// Revocation lists and `deny` entries that are in force nevertheless.
    pub in_force: Vec<String>,
    /// Sessions that end because of those.
    pub cut: usize,
}

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
    current: channel::Sender<Current>,
    /// Lists that were handed over. Held locked while another snapshot is put in force.
    handed: Mutex<Vec<Arc<NewerList>>>,
    /// Reads files, one reload at a time. A file system that hangs holds up nothing else.
    files: Worker,
    /// Takes lists that are handed over; reads no files.
    lists: Worker,
    /// Where new listeners belong.
    runtime: Handle,
    /// Shows to commands that the configuration is in use.
    in_use: Mutex<InUse>,
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
    /// Starts the threads. New listeners will belong to the runtime that this is called in.
    pub(crate) fn new(gate: Arc<Gate>, config: Config, listeners: Vec<Arc<Listener>>) -> io::Result<Self> {
        let started = Started::of(&config);
        let in_use = Mutex::new(InUse::mark(&config.file));
        let current = channel::Sender::new(Current::new(config, listeners));
        let (files, lists) = (Worker::start("reload")?, Worker::start("revocation")?);
        let (handed, runtime) = (Mutex::default(), Handle::current());
        Ok(Self(Arc::new(Inner { gate, started, current, handed, files, lists, runtime, in_use })))
    }

    /// What is in force, and what will be.
    pub(crate) fn current(&self) -> channel::Receiver<Current> {
        self.0.current.subscribe()
    }

    /// Reads the configuration anew and takes it over, or changes nothing but what takes rights away, and says why. It goes on
    /// even if this is dropped.
    pub async fn reload(&self, cause: Cause) -> Result<Reloaded, Refused> {
        let (inner, asked) = (Arc::clone(&self.0), Instant::now());
        let reload = self.0.files.run(move || {
            let _runtime = inner.runtime.enter();
            let before = inner.current.borrow().clone();
            let result = inner.reload(asked);
            // Whatever happens to what is told of it, that is what came of it.
            let _ = catch_unwind(AssertUnwindSafe(|| inner.follow_up(cause, &before, &result)));
            result
        });
        reload.await.unwrap_or_else(|| Err(Refused { errors: vec![FAULT.to_owned()], ..Refused::default() }))
    }
}

impl Inner {
    fn follow_up(&self, cause: Cause, before: &Current, result: &Result<Reloaded, Refused>) {
        let news = result.as_ref().map_or_else(|refused| !refused.in_force.is_empty(), |_| true);
        // What is tried again by itself, and fails again for the same reasons, is no news.
        if cause != Cause::Watch || news || !self.is_as(before) {
            self.tell(cause, result);
        }
        // Another file may stand in its place by now.
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = InUse::mark(&before.config.file);
    }

    fn reload(&self, asked: Instant) -> Result<Reloaded, Refused> {
        let Current { config: old, listeners: bound, .. } = self.current.borrow().clone();
        let (before, mut seen) = (self.current.borrow().seen.again(), Seen::default());
        debug!(file = %old.file.display(), "reload: reads the configuration");
        match caught(|| Built::of(&old.file, &bound, &mut seen)) {
            Ok(built) => self.take_over(built, &bound, asked).map_err(|errors| self.refuse(errors, None, asked)),
            // What mends it may stand in a file that was not read any more.
            Err(errors) => Err(self.refuse(errors, Some(seen.and(&before)), asked)),
        }
    }

    fn take_over(&self, built: Built, bound: &[Arc<Listener>], asked: Instant) -> Result<Reloaded, Vec<String>> {
        debug!("reload: builds the snapshot");
        let Built { config: read, listeners } = built;
        let mut warnings: Vec<String> =
            read.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect();
        let after_restart = self.started.differs_from(&read);
        let doors = |listeners: Vec<&Arc<Listener>>| listeners.into_iter().map(Door::from).collect();
        let (opened, closed) = (doors(beyond(&listeners, bound)), doors(beyond(bound, &listeners)));
        warnings.extend(beyond(&listeners, bound).into_iter().filter_map(|listener| listener.warning()));
        let guests = self.gate.sessions.guests();
        let mut new = Current::new(read, listeners);
        let read = Arc::clone(&new.config);
        let (old, before, snapshot) = loop {
            let lists = self.handed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let tightening = Tightening { lists: lists.clone(), ..Tightening::default() };
            new.config = read.tightened(&tightening).map_or_else(|| Arc::clone(&read), Arc::new);
            let snapshot = caught(|| Snapshot::build(&new.config).map_err(|error| vec![error.to_string()]))?;
            let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
            // A list that was handed over meanwhile must be among them.
            if handed.len() == lists.len() && handed.iter().zip(&lists).all(|(one, other)| Arc::ptr_eq(one, other)) {
                let old = Arc::clone(&self.current.borrow().config);
                let (before, snapshot) = (self.gate.snapshot.load_full(), Arc::new(snapshot));
                let config = Arc::clone(&new.config);
                let swapped = caught(|| {
                    self.swap(new, Arc::clone(&snapshot));
                    Ok(())
                });
                // After a panic, what is true decides what is said.
                if let Err(errors) = swapped {
                    if !Arc::ptr_eq(&self.gate.snapshot.load_full(), &snapshot) {
                        return Err(errors);
                    }
                    warnings.push(format!(
                        "the configuration is in force, but not every part of the gate knows it: {FAULT}"
                    ));
                }
                drop(handed);
                debug!("reload: the new snapshot is in force");
                break ((old, config), before, snapshot);
            }
        };
        let (old, config) = old;
        let Reviewed { kept, cut } =
            in_force_but(&mut warnings, "not every session was judged by it", || self.gate.review(asked));
        debug!(kept, cut, "reload: reviewed the sessions");
        let olders = in_force_but(&mut warnings, "its lists were not compared with those before", || {
            policy_report::older_lists(&old, &config).iter().map(older).collect::<Vec<_>>()
        });
        warnings.extend(olders);
        warnings.extend(self.gate.descriptors.warning(&config));
        // Behind all that matters: of thousands of devices, or millions who are revoked, this takes its time.
        let difference = in_force_but(&mut warnings, "it cannot be told what it changes", || {
            let before = State { config: &old, snapshot: &before };
            policy_report::difference(before, State { config: &config, snapshot: &snapshot }, &guests, UnixTime::now())
        });
        Ok(Reloaded { warnings, after_restart, opened, closed, difference, kept, cut })
    }

    /// Notes why a configuration is not taken over, and puts in force what of it takes rights away.
    fn refuse(&self, errors: Vec<String>, seen: Option<Seen>, asked: Instant) -> Refused {
        debug!(mistakes = errors.len(), "reload: refused");
        self.current.send_modify(|current| {
            if let Some(seen) = seen {
                current.seen = Arc::new(seen);
            }
            current.errors = Arc::new(errors.clone());
        });
        let before = Arc::clone(&self.current.borrow().config);
        let mut refused = Refused { errors, ..Refused::default() };
        match caught(|| Ok(config::salvage(&before.file, &before))) {
            Ok(Salvaged { tightening, errors, faults }) => {
                // Those that the load has come to are among its errors.
                let untold = |error: &ConfigError| !refused.errors.iter().any(|told| told.contains(&error.message));
                let untold: Vec<String> =
                    errors.iter().filter(|error| untold(error)).map(ToString::to_string).collect();
                refused.errors.extend(untold);
                refused.errors.extend(faults.iter().map(|file| format!("{}: {FAULT}", file.display())));
                self.salvage(&tightening, &mut refused, asked);
            }
            Err(errors) => refused.errors.extend(errors),
        }
        self.current.send_modify(|current| current.errors = Arc::new(refused.errors.clone()));
        refused
    }

    fn swap(&self, new: Current, snapshot: Arc<Snapshot>) {
        // First of all, so that every connection finds the series of its listener and of its route.
        self.gate.metrics.follow(&new.config);
        // Where there are too few descriptors for its listeners, the limits stay; the warning says so.
        if let Ok(budget) = self.gate.descriptors.budget(&new.config) {
            splice::allow_pipes(budget.pipes);
            self.gate.admission.change(budget.limits(&new.config.limits));
        }
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
            Err(Refused { errors, in_force, cut }) => {
                let errors = first(errors, String::clone);
                metrics.not_reloaded(errors.clone());
                let in_force = first(in_force, String::clone);
                let sessions_cut = (!in_force.is_empty()).then_some(*cut);
                log.event(&Event::ReloadFailed { cause, errors, in_force, sessions_cut });
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

/// Does what comes after a configuration was put in force. A panic is no reason to say that it is not.
fn in_force_but<T: Default>(warnings: &mut Vec<String>, but: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        warnings.push(format!("the configuration is in force, but {but}: {FAULT}"));
        T::default()
    })
}

/// All that takes the place of what there is.
struct Built {
    config: Config,
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
        // Last: it is the only one that anybody outside can notice.
        let listeners = Listener::rebind(bound, &config.listeners).map_err(|error| vec![error.to_string()])?;
        Ok(Self { config, listeners })
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

    /// attacks.md row 44.
    #[test]
    fn row_44_a_panic_after_the_swap_is_told_as_in_force_but() {
        let mut warnings = Vec::new();
        assert_eq!(in_force_but(&mut warnings, "it is not judged", || 7), 7);
        assert_eq!(warnings, Vec::<String>::new());
        let counted: usize = in_force_but(&mut warnings, "it is not judged", || panic!("a review stumbles"));
        assert_eq!(counted, 0);
        assert_eq!(warnings, [format!("the configuration is in force, but it is not judged: {FAULT}")]);
    }

    /// Two threads tighten and reload. What one of them puts in force while the other builds must not be lost.
    #[tokio::test]
    async fn what_came_into_force_while_a_list_was_read_stays_in_force() {
        use crate::admission::Admission;
        use crate::config::checked::{DenyList, LogFormat, RouteMode};
        use crate::model::identity::Serial;
        use crate::relay::Support;
        use crate::telemetry::log::Log;
        use crate::telemetry::metrics::Metrics;

        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        write("it.pem", params.self_signed(&key).expect("a certificate").pem());
        write("key.pem", key.serialize_pem());
        let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
                    key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\n[[route]]\nname = \"nas\"\n\
                    server_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n";
        let config = config::parse(text, &folder.path().join("doorward.toml")).expect("a configuration");
        let gate = Arc::new(Gate::new(
            Snapshot::build(&config).expect("a snapshot"),
            Admission::new(config.limits.clone()),
            Support::none(),
            Arc::new(Metrics::new(&config).expect("metrics")),
            Arc::new(Log::new(LogFormat::Json, io::sink()).expect("a log")),
        ));
        let denying = |serial: u8| {
            let deny = DenyList { serials: [Serial::from_be_bytes(&[serial])].into(), ..DenyList::default() };
            Tightening { deny, ..Tightening::default() }
        };
        let inner = Arc::clone(&Reloader::new(gate, config, Vec::new()).expect("threads").0);
        let handed = inner.handed.lock().expect("the lists");
        let before = Arc::clone(&inner.current.borrow().config);
        let holders = Arc::strong_count(&before);
        let other = Arc::clone(&inner);
        let tightening = std::thread::spawn(move || other.tighten(&denying(7), Instant::now(), |_| Ok(())));
        while Arc::strong_count(&before) == holders {
            std::thread::yield_now();
        }
        // It has seen the old configuration, and can put nothing in force before it has the lock.
        let new = Arc::new(before.tightened(&denying(8)).expect("it is new"));
        inner.gate.snapshot.store(Arc::new(Snapshot::build(&new).expect("a snapshot")));
        inner.current.send_modify(|current| current.config = new);
        drop(handed);
        assert!(tightening.join().expect("no panic").expect("no error").is_some());
        let config = Arc::clone(&inner.current.borrow().config);
        let RouteMode::Terminate(nas) = &config.routes[0].mode else { panic!("it asks for certificates") };
        let serials = &nas.client_auth.deny.serials;
        assert!([7, 8].iter().all(|serial| serials.contains(&Serial::from_be_bytes(&[*serial]))), "{serials:?}");
    }
}
