//! A validator of a pending order: shown the certificate of its challenge, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::Instant;

use super::Ended;
use super::log::ConnectionLog;
use crate::client_hello::Greeted;
use crate::gate::Gate;
use crate::handshake::answer_challenge;
use crate::model::rejection::{Cause, Rejection};

/// Answers a validator. However that ends, the connection ends with it.
pub(super) async fn validate(
    mut greeted: Greeted,
    challenge: Arc<ServerConfig>,
    gate: &Gate,
    limit: Duration,
    log: &mut ConnectionLog,
) -> Ended {
    log.validates();
    let evicted = gate.admission.validator(&mut greeted.admitted.slots, gate.challenges.names_pending());
    let answering = log.handshaking(answer_challenge(greeted, challenge, Instant::now() + limit));
    let answered = tokio::select! {
        biased;
        answered = answering => answered,
        () = evicted.notified() => return Rejection::silent(Cause::HandshakeEvicted).into(),
    };
    match answered {
        Ok((facts, parting)) => {
            log.completed(&facts);
            Ended::Validated(parting)
        }
        Err(refused) => refused.into(),
    }
}
