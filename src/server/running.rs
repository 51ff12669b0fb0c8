//! From the start to the end of a gate.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::accept_on_current_listeners;
use super::service_manager::{Heartbeat, Message, report, tell};
use super::upgrade::{Replaceable, Replaced};
use super::{Server, Stopped, certificates, notices, renewals, retired, successor};
use crate::admin::Admin;
use crate::backends::health::{self, Checked};
use crate::backends::probe::probe;
use crate::gate::Gate;
use crate::history::News;
use crate::reload::watch::watch;
use crate::sandbox::Restrictions;
use crate::telemetry::log::Event;

/// How often expired state is removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);
/// How many times that is until the history has all that open sessions have moved.
const NOTED_EVERY: u32 = 12;
/// What it has at each time: sessions that have moved so many bytes.
const NOTED_AT_ONCE: u64 = 1 << 20;

impl Server {
    /// Accepts connections until `stop` is cancelled, waits up to `timeouts.drain` for the open ones to end, then cuts the
    /// rest. `now` ends the wait. If an upgrade replaces this process meanwhile, it waits in the same way.
    pub async fn run(self, stop: CancellationToken, now: CancellationToken) -> Stopped {
        let Self { context, mut upgrades, launcher, channel, mut admin, admin_configured, control, .. } = self;
        let Self { former_control, watch_thread, control_thread, clients, .. } = self;
        let (gate, reloader) = (&context.gate, &context.reloader);
        let connections = TaskTracker::new();
        // Tasks that run as long as the gate. Dropping the set ends them.
        let mut tasks = JoinSet::new();
        for listener in &reloader.current().borrow().listeners {
            gate.log.event(&Event::Listening { listener: listener.name().to_string(), address: listener.address() });
        }
        // Before connections are accepted: which devices are new is known then.
        // Without a thread for it, the history is in memory only.
        let _ = gate.history.start(channel.is_some());
        let no_more = CancellationToken::new();
        let accepting = tokio::spawn(accept_on_current_listeners(
            reloader.current(),
            Arc::clone(gate),
            connections.clone(),
            clients,
            no_more.clone(),
        ));
        let file = control.as_ref().map(|control| control.file());
        if let Some(channel) = channel {
            successor::serving(channel, &context).await;
            // The other process no more than appends by now.
            gate.history.own();
            if let Some(file) = &file {
                file.belongs_to_this_process(true);
            }
            if let Some(former) = former_control {
                // Removes its file.
                former.file().belongs_to_this_process(true);
            }
        }
        if let Some(admin) = &mut admin {
            gate.log.event(&Event::Metrics { address: admin.local_address() });
            admin.start(stop.clone());
        }
        // Before the gate logs that it is ready.
        let watching = watch_thread.run(watch(reloader.clone())).await;
        let mut answering = None;
        let (mut heartbeat, mut socket, closed) = (None, None, CancellationToken::new());
        if let Some(control) = control {
            gate.log.event(&Event::Control { socket: control.path().display().to_string() });
            socket = control.duplicate().ok().map(|socket| (control.path().to_owned(), socket));
            let beat = Arc::<Heartbeat>::default();
            heartbeat = Some(Arc::clone(&beat));
            let (serve, beat) = (control.run(Arc::clone(&context), closed.clone()), beat.beat());
            let task = async move {
                tokio::select! {
                    () = serve => {}
                    () = beat => {}
                }
            };
            answering = Some(control_thread.run(task).await);
        }
        if let Some(event) = sandbox_event(context.facts.sandbox.in_force()) {
            gate.log.event(&event);
        }
        tasks.spawn(tidy(Arc::clone(gate)));
        tasks.spawn(cut_expired(Arc::clone(gate)));
        gate.check_backends();
        let checking = tasks.spawn(check_backends(Arc::clone(gate)));
        let refreshing = tasks.spawn(gate.directory.resolver.clone().refresh());
        let reporting = tasks.spawn(report(Arc::clone(&context), heartbeat));
        gate.log.event(&Event::Ready);
        tell(Message::Ready).await;

        let starter = launcher.as_ref().map_err(ToString::to_string).and_then(|launcher| {
            launcher.starter().map_err(|error| format!("the process that starts it cannot be reached: {error}"))
        });
        let certificates = tasks.spawn(certificates::follow(Arc::clone(&context), starter.clone()));
        let renewals = tasks.spawn(renewals::follow(Arc::clone(&context), starter.clone()));
        let notices = tasks.spawn(notices::hand_over(Arc::clone(&context), starter));
        let mut replaceable = Replaceable::new(Arc::clone(&context), launcher);
        replaceable.metrics = admin_configured.zip(admin.as_mut().and_then(Admin::take_socket));
        replaceable.control = socket;
        let replaced = loop {
            let request = tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                request = upgrades.recv() => request,
            };
            let Some(request) = request else { continue };
            match stop.run_until_cancelled(replaceable.start_successor()).await {
                None => break None,
                Some(Err(error)) => {
                    gate.log.event(&Event::UpgradeFailed { error: error.clone() });
                    context.upgrades.set_error(Some(error.clone()));
                    let _ = request.send(Err(error));
                }
                Some(Ok(proven)) => break Some((proven, request)),
            }
        };
        if let Some((proven, request)) = replaced {
            // It can accept until here, and the other one does already.
            no_more.cancel();
            let _ = accepting.await;
            reloader.retire();
            reporting.abort();
            checking.abort();
            // It dials no backend any more.
            refreshing.abort();
            // The new process sends them.
            notices.abort();
            certificates.abort();
            renewals.abort();
            if let Some(file) = &file {
                file.belongs_to_this_process(false);
            }
            closed.cancel();
            // Joins a thread, when the requests that it has accepted are answered.
            let admin = tokio::task::spawn_blocking(move || drop(admin));
            // Before the new process is told that it is the one that writes.
            gate.history.retire();
            let Replaced { channel, until, answer } = proven.commit(&context).await;
            let _ = admin.await;
            let _ = request.send(Ok(answer));
            drop((replaceable, upgrades));
            let stopped = retired::run(&context, channel, connections, until, now).await;
            gate.history.finish();
            drop(watching);
            if let Some(answering) = answering {
                // The answer to the upgrade.
                answering.finish().await;
            }
            return stopped;
        }

        gate.log.event(&Event::Draining);
        // Before the open handshakes are told, which may be many: a client that is accepted meanwhile would be refused, and could
        // have waited in the queue of a socket that systemd has opened.
        reloader.current().borrow().close();
        gate.draining.cancel();
        checking.abort();
        // After `draining` is cancelled: a reload that opens listeners later sees that, and closes them itself.
        reloader.current().borrow().close();
        connections.close();
        let drain = gate.snapshot.load().timeouts.drain;
        tell(Message::Stopping { drain }).await;
        // Earlier processes end with this one.
        let all = async { tokio::join!(connections.wait(), context.earlier.ended()) };
        let ended = now.run_until_cancelled(timeout(drain, all)).await;
        let mut cut = 0;
        if !matches!(ended, Some(Ok(_))) {
            cut = connections.len() + context.earlier.sessions().await;
            retired::cut_all(gate, &connections).await;
        }
        gate.history.finish();
        // Last: the control socket answers until here. Its file is removed with it.
        for task in [Some(watching), answering].into_iter().flatten() {
            task.end().await;
        }
        Stopped { cut }
    }
}

/// Writes to the log what is new about the history's files: that they cannot be written, and once they can again.
fn report_history(gate: &Gate, before: &mut Option<String>) {
    let News { trouble, messages } = gate.history.news();
    let error = trouble.map(|trouble| trouble.error);
    if error != *before {
        gate.log.event(&Event::History { error: error.clone(), message: None });
        *before = error;
    }
    for message in messages {
        gate.log.event(&Event::History { error: None, message: Some(message) });
    }
}

/// The line of the log about the sandbox.
fn sandbox_event(in_force: &Restrictions) -> Option<Event> {
    let Restrictions { mode, parts, capabilities, lacks, .. } = in_force.clone();
    mode.map(|mode| Event::Sandbox { mode, in_force: parts, capabilities, missing: lacks })
}

async fn tidy(gate: Arc<Gate>) {
    let (mut ticks, mut history) = (tokio::time::interval(TIDY_INTERVAL), None);
    for tick in (1..=NOTED_EVERY).cycle() {
        ticks.tick().await;
        gate.note_payload(if tick == NOTED_EVERY { 1 } else { NOTED_AT_ONCE });
        gate.metrics.tidy();
        gate.admission.tidy();
        gate.withdraw_expired_vouchers(UnixTime::now());
        gate.log.tidy();
        gate.history.tidy();
        report_history(&gate, &mut history);
    }
}

/// Checks the backends that the configuration in force wants checked.
async fn check_backends(gate: Arc<Gate>) {
    let (wanted, resolver) = (gate.directory.checks.subscribe(), gate.directory.resolver.clone());
    let probe = move |checked: Arc<Checked>| {
        let resolver = resolver.clone();
        async move { probe(checked.check(), &resolver).await }
    };
    health::run(wanted, probe, move |checked, change| gate.backend_checked(checked, change)).await;
}

/// Cuts sessions whose certificate expires.
async fn cut_expired(gate: Arc<Gate>) {
    loop {
        gate.sessions.wait_for_expiry(UnixTime::now().as_secs()).await;
        gate.cut_expired(UnixTime::now());
    }
}
