//! The reload itself: read, build, put in force, review.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tracing::debug;

use super::built::{Built, may_read};
use super::outcome::{self, INTERNAL_ERROR, Listening, Refused, Reloaded, Trigger, older_list_warning};
use super::policy_report::{self, State};
use super::review::LastReview;
use super::startup::StartupSettings;
use super::worker::Worker;
use crate::config::checked::{Config, NewerList};
use crate::config::file_states::Seen;
use crate::config::in_use::InUse;
use crate::config::revocation_lists::{Salvaged, Tightening};
use crate::config::{self, ConfigError};
use crate::gate::Gate;
use crate::listener::Listener;
use crate::model::identity::Sha256;
use crate::sandbox::Sandbox;
use crate::sessions::review::Reviewed;
use crate::snapshot::Snapshot;
use crate::sys::splice;

/// The configuration in force, and where the gate listens.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// The listeners, in the order of the configuration.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// The files that the latest reload or attempt has read, and their state then.
    pub(crate) seen: Arc<Seen>,
    /// When the configuration came into force.
    pub(crate) since: OffsetDateTime,
    /// The errors of the latest reload; empty if it was done.
    pub(crate) errors: Arc<Vec<String>>,
}

impl Current {
    fn new(config: Config, listeners: Vec<Arc<Listener>>) -> Self {
        let (seen, errors) = (Arc::new(config.seen.clone()), Arc::default());
        let config = Arc::new(config);
        Self { config, listeners, seen, since: OffsetDateTime::now_utc(), errors }
    }

    /// Closes every listener.
    pub(crate) fn close(&self) {
        self.listeners.iter().for_each(|listener| listener.close());
    }
}

/// Reloads the gate's configuration. Clones share it.
#[derive(Clone, Debug)]
pub struct Reloader(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) gate: Arc<Gate>,
    startup: StartupSettings,
    pub(super) current: channel::Sender<Current>,
    /// Lists that came over the control socket. Locked while another snapshot is put in force.
    pub(super) received: Mutex<Vec<Arc<NewerList>>>,
    /// Reads files, one reload at a time. A file system that hangs blocks nothing else.
    files: Worker,
    /// Takes lists from the control socket. Reads no files.
    pub(super) lists: Worker,
    /// The runtime of new listeners.
    runtime: Handle,
    /// Marks the configuration as in use, for other commands.
    in_use: Mutex<InUse>,
    /// Another process has the listeners: see [`Reloader::retire`].
    pub(super) retired: AtomicBool,
    /// What this process may still read, bind and connect to.
    sandbox: Arc<Sandbox>,
    pub(super) last_review: Mutex<LastReview>,
}

impl Reloader {
    /// Starts the threads. New listeners will run in the runtime of the caller.
    pub(crate) fn new(
        gate: Arc<Gate>,
        config: Config,
        listeners: Vec<Arc<Listener>>,
        sandbox: Arc<Sandbox>,
    ) -> io::Result<Self> {
        let startup = StartupSettings::of(&config);
        let in_use = Mutex::new(InUse::mark(&config.file));
        let current = channel::Sender::new(Current::new(config, listeners));
        let (files, lists) = (Worker::start("reload")?, Worker::start("revocation")?);
        let (received, runtime, retired) = (Mutex::default(), Handle::current(), AtomicBool::new(false));
        let last_review = Mutex::default();
        Ok(Self(Arc::new(Inner {
            gate,
            startup,
            current,
            received,
            files,
            lists,
            runtime,
            in_use,
            retired,
            sandbox,
            last_review,
        })))
    }

    /// Stops accepting connections, for another process that has the listeners. From now on reloads concern open sessions only,
    /// and that process reports them.
    pub(crate) fn retire(&self) {
        self.0.retired.store(true, Ordering::SeqCst);
        self.0.current.send_modify(|current| {
            for listener in std::mem::take(&mut current.listeners) {
                listener.release();
            }
        });
    }

    /// The lists that came over the control socket and are in force.
    pub(crate) fn received(&self) -> Vec<Arc<NewerList>> {
        self.0.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration in force, now and after each change.
    pub(crate) fn current(&self) -> channel::Receiver<Current> {
        self.0.current.subscribe()
    }

    /// Reads the configuration and puts it in force. If that fails, only revocations and denials take effect. It goes on
    /// even if this future is dropped.
    ///
    /// # Errors
    /// Every error in the configuration.
    pub async fn reload(&self, trigger: Trigger) -> Result<Reloaded, Refused> {
        let (inner, requested) = (Arc::clone(&self.0), Instant::now());
        let reload = self.0.files.run(move || {
            let _runtime = inner.runtime.enter();
            let before = inner.current.borrow().clone();
            let result = inner.reload(requested);
            // A panic while reporting does not change the result.
            let _ = catch_unwind(AssertUnwindSafe(|| inner.finish(trigger, &before, &result)));
            result
        });
        reload.await.unwrap_or_else(|| Err(Refused { errors: vec![INTERNAL_ERROR.to_owned()], ..Refused::default() }))
    }
}

impl Inner {
    fn finish(&self, trigger: Trigger, before: &Current, result: &Result<Reloaded, Refused>) {
        let changed = result.as_ref().map_or_else(|refused| !refused.in_force.is_empty(), |_| true);
        // An automatic retry that fails with the same errors is not reported again.
        let told = trigger != Trigger::Watch || changed || !self.failed_as(before);
        if told && !self.retired.load(Ordering::SeqCst) {
            outcome::report(&self.gate, trigger, result);
        }
        // The file may have been replaced.
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = InUse::mark(&before.config.file);
    }

    fn reload(&self, requested: Instant) -> Result<Reloaded, Refused> {
        let Current { config: old, listeners: bound, .. } = self.current.borrow().clone();
        let (before, mut seen) = (self.current.borrow().seen.again(), Seen::default());
        debug!(file = %old.file.display(), "reload: reads the configuration");
        let binds = !self.retired.load(Ordering::SeqCst);
        match caught(|| Built::of(&old, binds.then_some(&*bound), &mut seen, &self.sandbox)) {
            Ok(built) => self.apply(built, &bound, requested).map_err(|errors| self.refuse(errors, None, requested)),
            // The files before are watched as well: the error may have kept some from being read.
            Err(errors) => Err(self.refuse(errors, Some(seen.and(&before)), requested)),
        }
    }

    fn apply(&self, built: Built, bound: &[Arc<Listener>], requested: Instant) -> Result<Reloaded, Vec<String>> {
        debug!("reload: builds the snapshot");
        let Built { config: read, listeners } = built;
        let mut warnings: Vec<String> =
            read.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect();
        let after_restart = self.startup.differences(&read);
        let listening = |listeners: Vec<&Arc<Listener>>| listeners.into_iter().map(Listening::from).collect();
        let (opened, closed) = (listening(not_in(&listeners, bound)), listening(not_in(bound, &listeners)));
        warnings.extend(not_in(&listeners, bound).into_iter().filter_map(|listener| listener.warning()));
        let devices = self.gate.sessions.devices();
        let mut new = Current::new(read, listeners);
        let read = Arc::clone(&new.config);
        let (old, before, snapshot) = loop {
            let lists = self.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let tightening = Tightening { lists: lists.clone(), ..Tightening::default() };
            new.config = read.tightened(&tightening).map_or_else(|| Arc::clone(&read), Arc::new);
            let in_force = self.gate.snapshot.load_full();
            let built = || Snapshot::build_after(&in_force, &new.config).map_err(|error| vec![error.to_string()]);
            let snapshot = caught(built)?;
            let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            // A list that was received meanwhile must be among them.
            if received.len() == lists.len() && received.iter().zip(&lists).all(|(one, other)| Arc::ptr_eq(one, other))
            {
                let old = Arc::clone(&self.current.borrow().config);
                let (before, snapshot) = (self.gate.snapshot.load_full(), Arc::new(snapshot));
                let config = Arc::clone(&new.config);
                let swapped = caught(|| {
                    self.swap(new, Arc::clone(&snapshot));
                    Ok(())
                });
                // After a panic, the snapshot in force decides what is reported.
                if let Err(errors) = swapped {
                    if !Arc::ptr_eq(&self.gate.snapshot.load_full(), &snapshot) {
                        return Err(errors);
                    }
                    warnings.push(format!(
                        "the configuration is in force, but not in every part of the gate: {INTERNAL_ERROR}"
                    ));
                }
                drop(received);
                debug!("reload: the new snapshot is in force");
                break ((old, config), before, snapshot);
            }
        };
        let (old, config) = old;
        let before_review = warnings.len();
        let Reviewed { kept, cut } =
            in_force_but(&mut warnings, "open sessions were not all reviewed", || self.review(requested, None));
        debug!(kept, cut, "reload: reviewed the sessions");
        let older =
            in_force_but(&mut warnings, "its revocation lists were not compared with the previous ones", || {
                policy_report::older_lists(&old, &config).iter().map(older_list_warning).collect::<Vec<_>>()
            });
        warnings.extend(older);
        let not_in_force = warnings.get(before_review..).unwrap_or_default().to_vec();
        let descriptors = self.gate.descriptors.warning(&config);
        self.gate.metrics.descriptors_warning(descriptors.clone());
        warnings.extend(descriptors);
        // Last, because it may take long: there may be thousands of devices and millions of revoked certificates.
        let difference = in_force_but(&mut warnings, "its effect on access is not known", || {
            let before = State { config: &old, snapshot: &before };
            policy_report::difference(before, State { config: &config, snapshot: &snapshot }, &devices, UnixTime::now())
        });
        Ok(Reloaded { warnings, after_restart, opened, closed, difference, kept, cut, not_in_force })
    }

    /// Records why a configuration was refused, and puts its revocations and denials in force.
    fn refuse(&self, errors: Vec<String>, seen: Option<Seen>, requested: Instant) -> Refused {
        debug!(errors = errors.len(), "reload: refused");
        self.current.send_modify(|current| {
            if let Some(seen) = seen {
                current.seen = Arc::new(seen);
            }
            current.errors = Arc::new(errors.clone());
        });
        let before = Arc::clone(&self.current.borrow().config);
        let mut refused = Refused { errors, ..Refused::default() };
        match caught(|| Ok(config::salvage(&before.file, &before, &may_read(&self.sandbox)))) {
            Ok(Salvaged { tightening, errors, faults }) => {
                // The load may have reported some of these errors already.
                let is_new = |error: &ConfigError| !refused.errors.iter().any(|known| known.contains(&error.message));
                let new: Vec<String> = errors.iter().filter(|error| is_new(error)).map(ToString::to_string).collect();
                refused.errors.extend(new);
                let faults: Vec<String> =
                    faults.iter().map(|file| format!("{}: {INTERNAL_ERROR}", file.display())).collect();
                refused.errors.extend(faults.iter().cloned());
                // What could not be salvaged: a list that cannot be read, or an entry of deny.
                refused.not_in_force = errors.iter().map(ToString::to_string).chain(faults).collect();
                self.salvage(&tightening, &mut refused, requested);
            }
            Err(errors) => {
                refused.not_in_force.clone_from(&errors);
                refused.errors.extend(errors);
            }
        }
        self.current.send_modify(|current| current.errors = Arc::new(refused.errors.clone()));
        refused
    }

    /// Cuts the sessions that the configuration in force does not admit. One review at a time: a caller that waited for another
    /// one finds the sessions cut. If a command has `sent` a list, and the watch of the files was faster, the sessions that it has
    /// cut are among those that are returned.
    pub(super) fn review(&self, requested: Instant, sent: Option<&Sha256>) -> Reviewed {
        let mut last = self.last_review.lock().unwrap_or_else(PoisonError::into_inner);
        let reviewed = self.gate.review(requested);
        last.done(&self.current.borrow().config, reviewed.cut);
        let cut = sent.and_then(|list| last.told(list)).unwrap_or(reviewed.cut);
        Reviewed { cut, ..reviewed }
    }

    /// Adds revocations and denials to the configuration in force. `keep` stores what has to outlast the next reload, or says why
    /// it cannot. False if all of them are in force already. The sessions have to be reviewed then.
    pub(super) fn add(
        &self,
        tightening: &Tightening,
        keep: impl Fn(&mut Vec<Arc<NewerList>>) -> Result<(), String>,
    ) -> Result<bool, String> {
        loop {
            let config = Arc::clone(&self.current.borrow().config);
            let Some(new) = config.tightened(tightening) else { return Ok(false) };
            // Before the lock is taken: long lists take time.
            let in_force = self.gate.snapshot.load_full();
            let snapshot = Snapshot::build_after(&in_force, &new).map_err(|error| error.to_string())?;
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&config, &self.current.borrow().config) {
                continue;
            }
            keep(&mut received)?;
            self.gate.snapshot.store(Arc::new(snapshot));
            self.gate.metrics.follow_revocations(&new);
            self.current.send_modify(|current| current.config = Arc::new(new));
            drop(received);
            return Ok(true);
        }
    }

    fn swap(&self, new: Current, snapshot: Arc<Snapshot>) {
        // First, so that every connection finds the metrics of its listener and its route.
        self.gate.metrics.follow(&new.config);
        self.gate.notices.want(&new.config.notify.events);
        self.gate.history.follow(&new.config);
        self.gate.follow_backends(&new.config);
        // With too few descriptors for the listeners, the limits stay; the warning says so.
        if let Ok(budget) = self.gate.descriptors.budget(&new.config) {
            splice::allow_pipes(budget.pipes);
            self.gate.admission.change(budget.limits(&new.config.limits));
        }
        for (listener, settings) in new.listeners.iter().zip(&new.config.listeners) {
            listener.set_settings(settings);
        }
        self.gate.put_in_force(snapshot);
        // Last: from now on, new listeners accept connections.
        let old = self.current.send_replace(new);
        let current = self.current.borrow();
        not_in(&old.listeners, &current.listeners).iter().for_each(|removed| removed.close());
        // A stop closes the listeners that it sees; these may have come after it.
        if self.gate.draining.is_cancelled() {
            current.close();
        }
        drop(current);
        if self.retired.load(Ordering::SeqCst) {
            self.current.send_modify(|current| {
                std::mem::take(&mut current.listeners).iter().for_each(|listener| listener.release());
            });
        }
    }

    /// Whether a reload has failed with the same errors as before, on the same files.
    fn failed_as(&self, before: &Current) -> bool {
        let now = self.current.borrow();
        now.seen == before.seen && now.errors == before.errors
    }
}

/// The listeners of `some` that are not among `others`.
fn not_in<'a>(some: &'a [Arc<Listener>], others: &[Arc<Listener>]) -> Vec<&'a Arc<Listener>> {
    some.iter().filter(|one| !others.iter().any(|other| Arc::ptr_eq(one, other))).collect()
}

/// Turns a panic, as of a parser, into an error like any other.
pub(super) fn caught<T>(build: impl FnOnce() -> Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(vec![INTERNAL_ERROR.to_owned()]))
}

/// Runs a step after a configuration came into force. A panic becomes a warning: the configuration stays in force.
fn in_force_but<T: Default>(warnings: &mut Vec<String>, but: &str, step: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        warnings.push(format!("the configuration is in force, but {but}: {INTERNAL_ERROR}"));
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_an_error() {
        assert_eq!(caught::<()>(|| panic!("a parser stumbles")), Err(vec![INTERNAL_ERROR.to_owned()]));
        assert_eq!(caught(|| Ok(7)), Ok(7));
    }

    /// attacks.md row 44.
    #[test]
    fn row_44_a_panic_after_the_swap_is_reported_as_a_warning() {
        let mut warnings = Vec::new();
        assert_eq!(in_force_but(&mut warnings, "sessions were not reviewed", || 7), 7);
        assert_eq!(warnings, Vec::<String>::new());
        let counted: usize = in_force_but(&mut warnings, "sessions were not reviewed", || panic!("a review stumbles"));
        assert_eq!(counted, 0);
        assert_eq!(
            warnings,
            [format!("the configuration is in force, but sessions were not reviewed: {INTERNAL_ERROR}")]
        );
    }

    /// Two threads tighten and reload. What one puts in force while the other builds must not be lost.
    #[tokio::test]
    async fn change_made_while_a_list_is_read_stays_in_force() {
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
        let inner = Arc::clone(&Reloader::new(gate, config, Vec::new(), Arc::default()).expect("threads").0);
        let received = inner.received.lock().expect("the lists");
        let before = Arc::clone(&inner.current.borrow().config);
        let holders = Arc::strong_count(&before);
        let other = Arc::clone(&inner);
        let tightening = std::thread::spawn(move || other.add(&denying(7), |_| Ok(())));
        while Arc::strong_count(&before) == holders {
            std::thread::yield_now();
        }
        // The thread has read the old configuration, and cannot put anything in force before it has the lock.
        let new = Arc::new(before.tightened(&denying(8)).expect("it is new"));
        inner.gate.snapshot.store(Arc::new(Snapshot::build(&new).expect("a snapshot")));
        inner.current.send_modify(|current| current.config = new);
        drop(received);
        assert!(tightening.join().expect("no panic").expect("no error"));
        let config = Arc::clone(&inner.current.borrow().config);
        let RouteMode::Terminate(nas) = &config.routes[0].mode else { panic!("it asks for certificates") };
        let serials = &nas.client_auth.deny.serials;
        assert!([7, 8].iter().all(|serial| serials.contains(&Serial::from_be_bytes(&[*serial]))), "{serials:?}");
    }
}
