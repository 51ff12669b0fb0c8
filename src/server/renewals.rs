//! Follows the process that renews certificates without the owner, which the launcher starts for `[renewal] issuer`.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::checked::{Config, RenewalIssuer};
use crate::control::Context;
use crate::gate::Gate;
use crate::handover::{Channel, HelperKind, Starter, pair};
use crate::renewal::Shown;
use crate::unattended::{FromRenewer, ToRenewer};

/// How long the process may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The most requests that it was told of and has not answered.
const WAITING_MAX: usize = 16;

/// Shows requests to the process, as long as the gate accepts connections.
pub(super) async fn follow(context: Arc<Context>, starter: Result<Starter, String>) {
    let (gate, mut current) = (&context.gate, context.reloader.current());
    let mut link = Link::default();
    loop {
        let wanted = Wanted::of(&current.borrow_and_update().config);
        if wanted != link.wanted {
            link = Link::start(gate, wanted, &starter).await;
        }
        tokio::select! {
            changed = current.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            shown = gate.desk.next() => link.show(shown).await,
            message = link.receive() => match message {
                Some(message) => link.take(gate, message),
                None => link.ended(gate),
            },
        }
    }
}

/// What a process is started for. With another one, it is another process: its sandbox lets it read these files.
#[derive(Clone, PartialEq, Eq)]
struct Wanted {
    issuer: RenewalIssuer,
    folder: PathBuf,
    files: BTreeSet<PathBuf>,
}

impl Wanted {
    fn of(config: &Config) -> Option<Self> {
        let renewal = config.renewal.as_ref()?;
        Some(Self { issuer: renewal.issuer.clone()?, folder: renewal.folder.of_this_process(), files: config.files() })
    }
}

/// The process of a configuration.
#[derive(Default)]
struct Link {
    wanted: Option<Wanted>,
    channel: Option<Channel>,
    /// Requests that it was told of, in this order.
    waiting: VecDeque<Shown>,
}

impl Link {
    /// Has a process started in place of the one before, which ends when its channel is closed.
    async fn start(gate: &Gate, wanted: Option<Wanted>, starter: &Result<Starter, String>) -> Self {
        if wanted.is_none() {
            gate.renewer_is_over();
            return Self::default();
        }
        let started = async {
            let starter = starter.as_ref().map_err(Clone::clone)?;
            let started = async {
                let (near, far) = pair()?;
                starter.start(HelperKind::Renewer, far).await?;
                Channel::new(near)
            };
            started.await.map_err(|error: std::io::Error| error.to_string())
        };
        let channel = match started.await {
            Ok(channel) => Some(channel),
            Err(error) => {
                gate.renewer_unable(&error);
                None
            }
        };
        Self { wanted, channel, waiting: VecDeque::new() }
    }

    /// The next message; `None` once the process has ended for good.
    async fn receive(&self) -> Option<FromRenewer> {
        let Some(channel) = &self.channel else { return std::future::pending().await };
        channel.receive().await.ok().flatten().map(|(message, _)| message)
    }

    /// The caller is told nothing if there is no process: the request is then left to the owner.
    async fn show(&mut self, shown: Shown) {
        let Some(channel) = &self.channel else { return };
        // One that was given up is not answered any more, unless the process is started again, which forgets them.
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        let message = ToRenewer::Look { device: shown.device.clone() };
        if matches!(timeout(SEND_TIMEOUT, channel.send(&message, None)).await, Ok(Ok(()))) {
            self.waiting.push_back(shown);
        }
    }

    fn take(&mut self, gate: &Gate, message: FromRenewer) {
        match message {
            // One that was started again reads what is left in the channel, so nothing is forgotten here.
            FromRenewer::Started => gate.renewer_started(),
            FromRenewer::Unable { error } => gate.renewer_unable(&error),
            FromRenewer::Done { device, done } => {
                if let Some(place) = self.waiting.iter().position(|shown| shown.device == device)
                    && let Some(shown) = self.waiting.remove(place)
                {
                    // A device that has given up asks again.
                    let _ = shown.answer.send(done);
                }
            }
        }
    }

    fn ended(&mut self, gate: &Gate) {
        self.channel = None;
        self.waiting.clear();
        gate.renewer_unable("the process has ended");
    }
}
