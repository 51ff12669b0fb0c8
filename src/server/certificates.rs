//! Follows the ACME agent, which the launcher starts for `[certificate.acme]`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::acme::message::{FromAgent, ToAgent};
use crate::config::checked::Acme;
use crate::control::Context;
use crate::gate::Gate;
use crate::handover::{Channel, HelperKind, Starter, pair};
use crate::model::identity::Sha256;
use crate::model::issuance::{Issuance, Phase};
use crate::model::names::ServerName;
use crate::reload::Trigger;

/// How long the agent may take to read a message; it does nothing else but wait for one.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers the agent's challenges and loads what it has got, as long as the gate accepts connections.
pub(super) async fn follow(context: Arc<Context>, starter: Result<Starter, String>) {
    let (gate, mut current) = (&context.gate, context.reloader.current());
    let mut link = Link::default();
    loop {
        let config = Arc::clone(&current.borrow_and_update().config);
        if config.acme != link.acme {
            link = Link::start(gate, config.acme.clone(), &starter).await;
        }
        tokio::select! {
            changed = current.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = gate.renewal_wanted.notified() => link.send(&ToAgent::Renew).await,
            message = link.receive() => match message {
                Some(message) => link.take(&context, message).await,
                None => link.ended(gate),
            },
        }
    }
}

/// The agent of a configuration.
#[derive(Default)]
struct Link {
    acme: Option<Arc<Acme>>,
    channel: Option<Channel>,
}

impl Link {
    /// Has an agent started in place of the one before, which ends when its channel is closed.
    async fn start(gate: &Gate, acme: Option<Arc<Acme>>, starter: &Result<Starter, String>) -> Self {
        gate.challenges.withdraw_all();
        let Some(wanted) = &acme else {
            gate.issuance_is_over();
            return Self::default();
        };
        let known =
            Issuance { directory: wanted.directory.name.clone(), names: wanted.names.clone(), ..Issuance::default() };
        gate.issuance_is(known.clone());
        let started = async {
            let starter = starter.as_ref().map_err(Clone::clone)?;
            let started = async {
                let (near, far) = pair()?;
                starter.start(HelperKind::AcmeAgent, far).await?;
                Channel::new(near)
            };
            started.await.map_err(|error: std::io::Error| error.to_string())
        };
        match started.await {
            Ok(channel) => Self { acme, channel: Some(channel) },
            Err(_) => {
                gate.issuance_is(Issuance { phase: Phase::Stopped, ..known });
                Self { acme, channel: None }
            }
        }
    }

    /// The next message; `None` once the agent has ended for good.
    async fn receive(&self) -> Option<FromAgent> {
        let Some(channel) = &self.channel else { return std::future::pending().await };
        channel.receive().await.ok().flatten().map(|(message, _)| message)
    }

    async fn take(&self, context: &Context, message: FromAgent) {
        let gate = &context.gate;
        match message {
            // One that was started again knows of no order by now.
            FromAgent::Started { .. } | FromAgent::Withdraw => gate.challenges.withdraw_all(),
            FromAgent::Offer { name, digest } => {
                let offered = gate.challenges.offer(&ServerName::from_client_hello(&name), Sha256(digest));
                let error = offered.err().map(|error| error.to_string());
                self.send(&ToAgent::Offered { name, error }).await;
            }
            // What is wrong with the new files is told as of any other reload.
            FromAgent::Renewed => drop(context.reloader.reload(Trigger::Watch).await),
            FromAgent::State(state) => gate.issuance_is(state),
        }
    }

    async fn send(&self, message: &ToAgent) {
        if let Some(channel) = &self.channel {
            // One that does not read is started again, and says what it needs.
            let _ = timeout(SEND_TIMEOUT, channel.send(message, None)).await;
        }
    }

    fn ended(&mut self, gate: &Gate) {
        self.channel = None;
        gate.challenges.withdraw_all();
        let known = gate.issuance.borrow().clone();
        if let Some(known) = known {
            gate.issuance_is(Issuance { phase: Phase::Stopped, next_at: None, ..known });
        }
    }
}
