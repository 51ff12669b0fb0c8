//! All words about a cause: the log's detail.

use super::{backend_tls, check_texts, fragments};
use crate::model::identity::key;
use crate::model::rejection::Cause;

/// A cause in words: the log's `detail`.
pub fn detail(cause: &Cause) -> String {
    match cause {
        Cause::ConnectionLimit { limit } => format!("{limit} connections are open, and no more are taken at once"),
        Cause::ConnectionShare { share } => fragments::share("limits.connections", *share),
        Cause::HandshakeEvicted => {
            "its place was needed, and this was the oldest handshake of the source that had the most".to_owned()
        }
        Cause::SourceLimit { limit } => {
            format!("limits.connections_per_source is {limit}, and this source holds as many")
        }
        Cause::SourceShare { share } => fragments::share("limits.connections_per_source", *share),
        Cause::SourceRate => "more connections than limits.connection_rate_per_source allows".to_owned(),
        Cause::SourceDenied(list) => fragments::address_list(*list),
        Cause::SourceBanned { left } => {
            format!("its connections were rejected too often: {} s left to wait", left.as_secs() + 1)
        }
        Cause::ProxyHeaderAbsent => {
            "proxy_protocol_from has this address, so it must start with a PROXY protocol header".to_owned()
        }
        Cause::ProxyHeaderEnded => "the connection ended before the header".to_owned(),
        Cause::ProxyHeaderTimeout => "no header within timeouts.client_hello".to_owned(),
        Cause::ProxyHeaderInvalid(fault) => fragments::proxy_header(*fault),
        Cause::Draining => "the gate is shutting down".to_owned(),
        Cause::ClientHelloTimeout => "no ClientHello within timeouts.client_hello".to_owned(),
        Cause::ClientHelloEnded => "the connection ended before the ClientHello did".to_owned(),
        Cause::ProxyHeaderIo(error) | Cause::ClientHelloIo(error) | Cause::HandshakeIo(error) => error.text.to_string(),
        Cause::NotTls(protocol) => fragments::protocol(*protocol).to_owned(),
        Cause::Malformed(fault) => fragments::hello(fault),
        Cause::TooLarge { most } => format!("a ClientHello of more than {most} bytes"),
        Cause::ServerNameMissing => "no server name; an IP address is not one (RFC 6066 section 3)".to_owned(),
        Cause::ServerNameUnknown { name } => format!("no route answers to {}", fragments::bounded(name)),
        Cause::CanaryRoute { route } => format!("the route {route} is a canary: no device is told its name"),
        Cause::RouteRemoved { route } | Cause::DefaultRouteRemoved { route } => {
            format!("the route {route} is not in the configuration any more")
        }
        Cause::ServerNameMoved { route } => format!("the server name leads to the route {route} by now"),
        Cause::NoStarttls { route } => {
            format!("a PostgreSQL client asked for the route {route}, which lacks starttls = \"postgres\"")
        }
        Cause::OldVersion { version } => format!("the client supports {version} at most"),
        Cause::NoSharedVersion(text) | Cause::NoSharedParameters(text) | Cause::Misbehaved(text) => text.to_string(),
        Cause::Tls(text) => text.to_string(),
        Cause::NoSignatureScheme => "the client takes no signature that the certificate's key makes".to_owned(),
        Cause::NoApplicationProtocol => "no application protocol (ALPN) in common".to_owned(),
        Cause::HandshakeTooLong => "more bytes or records than a handshake can have".to_owned(),
        Cause::PeerAlert(alert) => format!("received fatal alert {alert}"),
        Cause::HandshakeTimeout => "not complete within timeouts.handshake".to_owned(),
        Cause::HandshakeEnded => "the connection ended during the handshake".to_owned(),
        Cause::NoCertificate => "the client shows no certificate".to_owned(),
        Cause::UnknownIssuer => {
            "no authority in trust has issued it, or an intermediate certificate was not sent".to_owned()
        }
        Cause::IssuerKeyDiffers => {
            "an authority of that name is in trust, but another key signed the certificate".to_owned()
        }
        Cause::NoPathInFirst => {
            "none of the first certificates that the client sent beside its own leads to an authority in trust"
                .to_owned()
        }
        Cause::Expired { not_after, .. } => {
            format!("the certificate, or one above it, expired at {}", fragments::moment(*not_after))
        }
        Cause::NotYetValid { not_before, .. } => {
            format!("the certificate, or one above it, is not valid before {}", fragments::moment(*not_before))
        }
        Cause::ValidityReversed => "the certificate, or one above it, expires before it begins to be valid".to_owned(),
        Cause::Revoked => "a revocation list contains the certificate".to_owned(),
        Cause::Denied(entry) => fragments::deny_entry(entry),
        Cause::RevocationUnknown { issuer, fault } => fragments::list(issuer.as_ref(), *fault),
        Cause::RevocationListExpired { next_update, .. } => {
            format!("the revocation list has expired: the next one was due at {}", fragments::moment(*next_update))
        }
        Cause::WrongPurpose => "its extended key usage does not include client authentication".to_owned(),
        Cause::UnsupportedKey { signer, key } => {
            format!("{}; the gate takes {}", fragments::key(*signer, key.as_ref()), key::SUPPORTED)
        }
        Cause::UnsupportedSignature { signer, algorithm } => {
            format!(
                "{} is signed with {algorithm}; the gate takes {}",
                fragments::signer(*signer),
                key::SUPPORTED_SIGNATURES
            )
        }
        Cause::BadSignature => "the client's signature was not made with the key of its certificate".to_owned(),
        Cause::InvalidCertificate(fault) => fragments::certificate(fault),
        Cause::Unverified => "the certificate was not verified, and allow does not contain unverified".to_owned(),
        Cause::NameNotAllowed { name, name_constrained } => fragments::not_allowed(name, *name_constrained),
        Cause::GuestElsewhere { name, routes } => {
            format!("{name} has a guest pass, which is for {} only", fragments::routes(routes))
        }
        Cause::BackendTimeout { backend } => format!("{backend}: no answer within timeouts.dial"),
        Cause::BackendRefused { backend, error }
        | Cause::BackendTimedOut { backend, error }
        | Cause::BackendUnreachable { backend, error }
        | Cause::Shortage { backend, error } => format!("{backend}: {}", error.text),
        Cause::Unresolved { backend, error } => format!("{backend}: {}", fragments::look_up(error)),
        Cause::BackendTls { backend, fault } => format!("{backend}: {}", backend_tls::fault(fault)),
        Cause::WakeTimeout { backend, seconds } => {
            format!("{backend}: no answer within wake.timeout, {seconds} s after the first packet to wake its machine")
        }
        Cause::WakeNotSent { backend, error } => {
            format!("{backend}: no packet to wake its machine could be sent: {}", error.text)
        }
        Cause::Unhealthy(failed) => format!("health checks fail: {}", check_texts::failed_checks(failed)),
        Cause::BackendFull { backend, limit } => {
            format!("{backend} has {limit} connections, which is what connections_per_backend allows")
        }
        Cause::RouteChanged => "the route was changed while its backends were dialled".to_owned(),
        Cause::NoBackends => "a route without backends".to_owned(),
        Cause::NoVerdict => "the connection ended without a verdict".to_owned(),
        Cause::NotJudged => "the gate failed to judge whether it may go on".to_owned(),
        Cause::Ordered(order) => format!("the connection was ended: {}", order.label()),
    }
}
