//! One attempt to wake a machine: packets, and dials until its backend answers.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{Ended, Machine, News, Wakes, Woken, lock, packet};
use crate::backend_tls::BackendTls;
use crate::backends::dial::{Probed, probe};
use crate::backends::resolver::Resolver;
use crate::config::checked::{Backend, Wake};
use crate::model::names::Name;
use crate::model::wake::WakeOutcome;

/// How often the backend is dialled.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long it has to accept then.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the look-up of its name may take before a packet is sent.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What an attempt needs.
pub(super) struct Task {
    pub(super) wakes: Wakes,
    pub(super) machine: Arc<Machine>,
    pub(super) route: Name,
    pub(super) backend: Backend,
    pub(super) wake: Wake,
    /// What the backend speaks TLS with, as the backend of this index.
    pub(super) tls: Option<(BackendTls, usize)>,
    pub(super) resolver: Resolver,
    pub(super) waiting: Weak<()>,
    pub(super) deadline: Instant,
    /// Whether the machine is known to be on.
    pub(super) is_on: bool,
    pub(super) tell: watch::Sender<Option<Woken>>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let begun = Instant::now();
        self.report(None);
        let (outcome, error) = self.wake().await;
        let is_on = self.is_on;
        self.machine.is_dark.store(!is_on, Ordering::Relaxed);
        let after = begun.elapsed();
        let error = error.map(Arc::new);
        self.report(Some(Ended { outcome, after, is_on, error: error.as_deref() }));
        let woken = match (outcome, error) {
            (WakeOutcome::Woken, _) => Woken::Answers(Instant::now()),
            (_, Some(error)) => Woken::NotSent(error),
            (_, None) if is_on => Woken::Refuses,
            (_, None) => Woken::StaysDark,
        };
        self.tell.send_replace(Some(woken));
    }

    async fn wake(&mut self) -> (WakeOutcome, Option<io::Error>) {
        let mut was_sent = false;
        loop {
            if self.is_abandoned() {
                return (WakeOutcome::Abandoned, None);
            }
            if !self.is_on && self.wakes.takes_turn(self.wake.mac) {
                match self.send().await {
                    Ok(()) => was_sent = true,
                    // The network may be gone for a moment.
                    Err(error) if was_sent => debug!(backend = %self.backend, %error, "no packet sent"),
                    Err(error) => return (WakeOutcome::NotSent, Some(error)),
                }
            }
            let now = Instant::now();
            let deadline = (now + PROBE_TIMEOUT).min(self.deadline);
            let probed = probe(self.backend.clone(), self.tls.clone(), self.resolver.clone(), deadline).await;
            // It may fall asleep again, or be switched off.
            self.is_on = probed != Probed::Silent;
            // What is wrong with its TLS, the next dial tells.
            if matches!(probed, Probed::Accepts | Probed::Faulty) {
                return (WakeOutcome::Woken, None);
            }
            sleep_until((now + PROBE_EVERY).min(self.deadline)).await;
            if Instant::now() >= self.deadline {
                return (WakeOutcome::Timeout, None);
            }
        }
    }

    async fn send(&self) -> io::Result<()> {
        let backend = self.address().await;
        // The device may have left, or lost its right, meanwhile.
        if self.waiting.strong_count() == 0 {
            return Ok(());
        }
        let sent = packet::send(self.wake.mac, self.wake.broadcast, backend);
        debug!(backend = %self.backend, mac = %self.wake.mac, to = %self.wake.broadcast, ok = sent.is_ok(), "wakes");
        sent
    }

    /// The address of the backend, if it is known.
    async fn address(&self) -> Option<IpAddr> {
        match &self.backend {
            Backend::Address(address) => Some(address.ip()),
            Backend::Host(host, _) => {
                let found = self.resolver.resolve(host, Instant::now() + LOOK_UP).await.ok()?;
                found.iter().map(|address| address.ip().to_canonical()).find(IpAddr::is_ipv4)
            }
            Backend::Unix(_) => None,
        }
    }

    /// Whether no connection waits any longer; from then on none can join.
    fn is_abandoned(&self) -> bool {
        let mut attempt = lock(&self.machine.attempt);
        let is_abandoned = self.waiting.strong_count() == 0;
        // There may be another one by now.
        if is_abandoned && attempt.as_ref().is_some_and(|attempt| attempt.waiting.ptr_eq(&self.waiting)) {
            *attempt = None;
        }
        is_abandoned
    }

    fn report(&self, ended: Option<Ended<'_>>) {
        let Self { route, backend, wake, .. } = self;
        self.wakes.report(&News { route, backend, wake, ended });
    }
}
