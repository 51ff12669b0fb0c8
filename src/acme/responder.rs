//! Answers challenges of tls-alpn-01: the gate shows the certificates, and the agent tells it which.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use instant_acme::{ChallengeType, KeyAuthorization};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::message::FromAgent;
use super::wanted::Responder;
use crate::handover::Channel;

/// How long the gate may take to answer, which does nothing else for that.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Has the gate answer challenges.
pub(super) struct GateResponder<'a> {
    channel: &'a Channel,
    /// Offers that the gate has not answered yet.
    offered: RefCell<HashMap<String, oneshot::Sender<Result<(), String>>>>,
}

impl<'a> GateResponder<'a> {
    pub(super) fn new(channel: &'a Channel) -> Self {
        Self { channel, offered: RefCell::default() }
    }

    /// The gate's answer to an offer.
    pub(super) fn answered(&self, name: &str, error: Option<String>) {
        if let Some(waits) = self.offered.borrow_mut().remove(name) {
            let _ = waits.send(error.map_or(Ok(()), Err));
        }
    }
}

impl Responder for GateResponder<'_> {
    fn challenge(&self) -> ChallengeType {
        ChallengeType::TlsAlpn01
    }

    async fn offer(&self, name: &str, answer: &KeyAuthorization) -> Result<(), String> {
        let digest = answer.digest().as_ref().try_into().map_err(|_| "the digest of a challenge has 32 bytes")?;
        let (told, answered) = oneshot::channel();
        self.offered.borrow_mut().insert(name.to_owned(), told);
        let offer = FromAgent::Offer { name: name.to_owned(), digest };
        let sent = async {
            self.channel.send(&offer, None).await.map_err(|error| format!("the gate cannot be reached: {error}"))?;
            answered.await.map_err(|_| "the gate has not answered".to_owned())?
        };
        timeout(GATE_TIMEOUT, sent).await.unwrap_or_else(|_| Err("the gate does not answer".to_owned()))
    }

    async fn settle(&self) -> Result<(), String> {
        // The gate answers with the new certificate by the time it says so.
        Ok(())
    }

    async fn withdraw(&self) {
        let _ = timeout(GATE_TIMEOUT, self.channel.send(&FromAgent::Withdraw, None)).await;
    }
}
