//! Stage 4: the TLS handshake. [`driver`] is rustls; this is the socket, and what is made of the
//! outcome.

pub mod config;
mod exchange;
mod failure;
mod identify;
mod observation;
mod secured;
mod settings_digest;
mod shared_tickets;
pub mod suites;
mod tickets;
pub mod trust;
mod verifier;

use std::sync::Arc;

use rustls::{Error, ServerConfig};
use tokio::time::{Instant, timeout_at};

use self::config::RouteTls;
use self::exchange::{Exchange, Failure};
use self::failure::{alert_sent, cause_of};
use self::identify::{identify, judged};
use self::observation::Observation;
pub use self::secured::{Parts, Payload, Secured};
use crate::admission::{Admitted, Last, Parting, Refused};
use crate::client_hello::{Greeted, Hello};
use crate::model::close::Ending;
use crate::model::rejection::{Alert, Cause, Reason, Rejection, Text};
use crate::model::ticket::TicketOutcome;
use crate::sys::ktls;
pub use crate::tls::driver::Facts;
use crate::tls::driver::{self, Finished};
use crate::tls::record::Pending;

/// Runs the handshake until `deadline`. `ticket` is set to the outcome of the client's session ticket, if it presents one.
///
/// With `for_kernel` the socket is made ready for kernel TLS, if it can be: see [`Payload::InSocket`].
///
/// A client that is refused gets an alert.
pub async fn handshake(
    greeted: Greeted,
    tls: &RouteTls,
    for_kernel: bool,
    deadline: Instant,
    ticket: &mut Option<TicketOutcome>,
) -> Result<Secured, Refused> {
    let server = Arc::clone(tls.server(greeted.favourite));
    let (exchange, greeted) = run(greeted, server, for_kernel, deadline, ticket).await?;
    let resumed = exchange.tls.is_resumed();
    let (mut secured, identified) = leave(exchange, greeted, |handshake, observation| {
        identify(handshake.client_chain(), judged(observation, resumed, tls), tls)
    })?;
    if resumed {
        *ticket = Some(if identified.is_ok() { TicketOutcome::Resumed } else { TicketOutcome::Refused });
    }
    match identified {
        Ok(identified) => {
            (secured.identity, secured.chain) = identified.unzip();
            Ok(secured)
        }
        Err(Refused { rejection, identity, .. }) => Err(Refused { identity, ..secured.refuse(rejection) }),
    }
}

/// Shows a validator the certificate of its challenge, until `deadline`, and ends the connection in order. No value that leads to
/// a route comes out of this. What the validator has sent behind its handshake is thrown away.
pub async fn answer_challenge(
    greeted: Greeted,
    challenge: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<(Facts, Parting), Refused> {
    let (exchange, greeted) = run(greeted, challenge, false, deadline, &mut None).await?;
    leave(exchange, greeted, |_, _| ()).map(|(secured, ())| (secured.facts.clone(), secured.end(Ending::Complete)))
}

/// Runs a handshake of this configuration.
async fn run(
    mut greeted: Greeted,
    server: Arc<ServerConfig>,
    for_kernel: bool,
    deadline: Instant,
    ticket: &mut Option<TicketOutcome>,
) -> Result<(Box<Exchange>, Greeted), Refused> {
    // Attached now: Linux does not attach it to a socket whose peer has closed.
    let exact = for_kernel && greeted.admitted.stream.socket().is_ok_and(|socket| ktls::attach(socket).is_ok());
    let mut exchange = match driver::Handshake::new(server) {
        // On the heap: it is large, and not needed once the handshake is over.
        Ok(tls) => Box::new(Exchange::new(tls, greeted.length, exact)),
        Err(error) => return Err(greeted.fail(Cause::Tls(Text::new(error)))),
    };
    let Hello { admitted: Admitted { stream, .. }, answered, .. } = &mut *greeted;
    let outcome = timeout_at(deadline, exchange.run(stream, answered)).await;
    let mark = exchange.wait_for(stream, 1);
    let outcome = outcome.map(|done| done.and_then(|()| mark.map_err(Failure::Io)));
    *ticket = exchange.observation.ticket;
    let (cause, last, alert) = match outcome {
        Ok(Ok(())) => return Ok((exchange, greeted)),
        Ok(Err(Failure::Tls { error, mut alert })) => {
            let unable_to_sign = exchange.observation.unable_to_sign && matches!(error, Error::General(_));
            if alert.is_empty() && unable_to_sign {
                // rustls sends none. It is TLS 1.2, before there are keys.
                alert.extend(Reason::NoSharedParameters.alert().iter().flat_map(|alert| alert.plaintext_record()));
            }
            let cause = exchange
                .observation
                .refusal
                .take()
                .unwrap_or_else(|| if unable_to_sign { Cause::NoSignatureScheme } else { cause_of(&error) });
            let told = alert_sent(cause.reason(), &alert);
            (cause, alert, told)
        }
        Ok(Err(Failure::Closed)) => silent(Cause::HandshakeEnded),
        Ok(Err(Failure::Io(error))) => silent(Cause::HandshakeIo(error.into())),
        Ok(Err(Failure::TooMuch)) => silent(Cause::HandshakeTooLong),
        Err(_) => silent(Cause::HandshakeTimeout),
    };
    let refused = greeted.decide().admitted.refuse(cause.into(), Last::Records(&last, alert));
    Err(Refused { identity: exchange.presented(), ..refused })
}

/// A rejection that sends nothing.
const fn silent(cause: Cause) -> (Cause, Vec<u8>, Option<Alert>) {
    (cause, Vec::new(), None)
}

/// Takes out of rustls what the later stages need.
fn leave<T>(
    mut exchange: Box<Exchange>,
    greeted: Greeted,
    judge: impl FnOnce(&driver::Handshake, Observation) -> T,
) -> Result<(Secured, T), Refused> {
    let payload = if exchange.exact {
        let unused = exchange.received.len() - exchange.fed;
        if let Err(error) = exchange.take_off(&greeted.admitted.stream, unused) {
            let rejection = Rejection::silent(Cause::HandshakeIo(error.into()));
            return Err(greeted.decide().admitted.refuse(rejection, Last::Nothing));
        }
        Payload::InSocket
    } else {
        exchange.received.drain(..exchange.fed);
        let (received, unsent) = (std::mem::take(&mut exchange.received), std::mem::take(&mut exchange.unsent));
        Payload::Here(Pending { received, unsent })
    };
    let Exchange { tls: handshake, observation, .. } = *exchange;
    let judged = judge(&handshake, observation);
    let Finished { facts, keys } = handshake.finish();
    let Hello { admitted, server_name, .. } = greeted.decide();
    let keys = match keys {
        Ok(keys) => keys,
        // Without keys no alert can be sealed.
        Err(error) => {
            let rejection = Rejection::silent(Cause::Tls(Text::new(error)));
            return Err(admitted.refuse(rejection, Last::Nothing));
        }
    };
    // Made before the identity is looked at, so that the client gets an alert.
    let secured = Secured::new(Parts { admitted, server_name, keys, payload, identity: None, chain: None, facts });
    Ok((secured, judged))
}

#[cfg(test)]
mod tests;
