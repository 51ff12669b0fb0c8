//! Hands what the owner is to be told to the notifiers, which the launcher starts for the receivers of `[notify]`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::checked::{Config, Notify};
use crate::control::Context;
use crate::explain::clock::Clock;
use crate::gate::Gate;
use crate::handover::{Channel, HelperKind, ReceiverKind, Starter, pair};
use crate::model::notice::NoticeOutcome;
use crate::notify::{FromNotifier, LOOK_INTERVAL, Lasting, Notice, ToNotifier, Told};
use crate::telemetry::log::Event;

/// The least time between two looks at what has happened: a flood is counted meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a notifier may take to read a message; it does nothing else but wait for one.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Hands messages over as long as the gate accepts connections. Nothing waits for this.
pub(super) async fn hand_over(context: Arc<Context>, starter: Result<Starter, String>) {
    let (gate, mut current) = (&context.gate, context.reloader.current());
    let (mut links, mut lasting) = (Links::default(), Lasting::default());
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Before anything is handed over: it is for the receivers of this configuration.
        let config = Arc::clone(&current.borrow_and_update().config);
        if config.notify != links.notify {
            links.follow(gate, &config.notify, &starter).await;
        }
        tokio::select! {
            changed = current.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = looks.tick() => {
                let (expiries, without_effect) = (gate.metrics.expiries(), gate.metrics.revocations_not_in_force());
                let clock = Clock::system();
                lasting.tell(&gate.notices, &expiries, &without_effect, &clock);
                gate.tell_of_issuance(&clock);
            }
            () = gate.notices.wait() => {
                if !current.has_changed().unwrap_or(false) {
                    links.hand_over(gate, &config).await;
                    sleep(PAUSE).await;
                } else {
                    gate.notices.wake();
                }
            }
        }
    }
}

/// The notifiers.
#[derive(Default)]
struct Links {
    notify: Notify,
    channels: Vec<Arc<Channel>>,
    /// Tasks that read what they report.
    reading: JoinSet<()>,
}

impl Links {
    /// Has other notifiers started. Those before end when their channels are closed.
    async fn follow(&mut self, gate: &Arc<Gate>, notify: &Notify, starter: &Result<Starter, String>) {
        if self.notify != Notify::default() {
            gate.notices.forget_receivers();
        }
        *self = Self { notify: notify.clone(), ..Self::default() };
        let webhook = notify.webhook.as_ref().map(|webhook| (ReceiverKind::Webhook, webhook.url.to_string()));
        let program = notify.command.iter().filter_map(|command| command.first().cloned()).next();
        let receivers: Vec<_> =
            webhook.into_iter().chain(program.map(|program| (ReceiverKind::Command, program))).collect();
        gate.notices.set_receivers(receivers.iter().map(|(_, name)| name.clone()));
        for (index, (kind, name)) in receivers.into_iter().enumerate() {
            match start(kind, starter).await {
                Ok(channel) => {
                    let channel = Arc::new(channel);
                    send_told(gate, &channel, &name).await;
                    self.channels.push(Arc::clone(&channel));
                    self.reading.spawn(read(Arc::clone(gate), channel, index, name));
                }
                Err(error) => failing(gate, index, &name, error),
            }
        }
    }

    async fn hand_over(&self, gate: &Gate, config: &Config) {
        let (notices, dropped) = gate.notices.take();
        for (event, count) in dropped {
            gate.metrics.notices(event, NoticeOutcome::Dropped, count);
        }
        for notice in notices {
            let notice = Notice { domain: config.domain(), ..notice };
            for channel in &self.channels {
                let sent = timeout(SEND_TIMEOUT, channel.send(&ToNotifier::Notice(notice.clone()), None)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    gate.metrics.notices(notice.event, NoticeOutcome::Dropped, notice.count);
                }
            }
        }
    }
}

async fn start(kind: ReceiverKind, starter: &Result<Starter, String>) -> Result<Channel, String> {
    let starter = starter.as_ref().map_err(Clone::clone)?;
    let started = async {
        let (near, far) = pair()?;
        starter.start(HelperKind::Notifier(kind), far).await?;
        Channel::new(near)
    };
    started.await.map_err(|error| format!("the process that sends messages could not be started: {error}"))
}

/// Sends a notifier what an earlier one has told.
async fn send_told(gate: &Gate, channel: &Channel, receiver: &str) {
    let told = gate.notices.told().into_iter().filter(|told| told.receiver.as_deref() == Some(receiver));
    for Told { event, subject, ago, .. } in told {
        let message = ToNotifier::Told { event, subject, seconds: ago.as_secs() };
        let _ = timeout(SEND_TIMEOUT, channel.send(&message, None)).await;
    }
}

/// Reads what a notifier reports.
async fn read(gate: Arc<Gate>, channel: Arc<Channel>, index: usize, name: String) {
    let mut has_started = false;
    loop {
        match channel.receive().await {
            Ok(Some((FromNotifier::Started { .. }, _))) if has_started => {
                send_told(&gate, &channel, &name).await;
                // What it was to send is lost.
                let error = "the process that sends messages has ended and was started again".to_owned();
                gate.log.event(&Event::NoticesFailing { receiver: name.clone(), error });
            }
            Ok(Some((FromNotifier::Started { .. }, _))) => has_started = true,
            Ok(Some((FromNotifier::Told { event, subject }, _))) => {
                gate.notices.add_told(Told { receiver: Some(name.clone()), event, subject, ago: Duration::ZERO });
            }
            Ok(Some((FromNotifier::Outcome { event, outcome, count }, _))) => {
                gate.metrics.notices(event, outcome, count);
            }
            Ok(Some((FromNotifier::State { error: Some(error), waiting }, _))) => {
                if gate.notices.receiver_is(index, Some(error.clone()), waiting) {
                    gate.log.event(&Event::NoticesFailing { receiver: name.clone(), error });
                }
            }
            Ok(Some((FromNotifier::State { error: None, waiting }, _))) => {
                if gate.notices.receiver_is(index, None, waiting) {
                    gate.log.event(&Event::NoticesDelivered { receiver: name.clone() });
                }
            }
            Ok(None) => return failing(&gate, index, &name, "the process that sends messages has ended".to_owned()),
            Err(error) => return failing(&gate, index, &name, format!("what it reports is not understood: {error}")),
        }
    }
}

fn failing(gate: &Gate, index: usize, name: &str, error: String) {
    gate.notices.receiver_is(index, Some(error.clone()), 0);
    gate.log.event(&Event::NoticesFailing { receiver: name.to_owned(), error });
}
