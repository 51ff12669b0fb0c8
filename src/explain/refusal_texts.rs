//! All words about a reason: the short text for rows, the advice, the sentence. Those about a cause are in `cause_texts`.

use time::OffsetDateTime;

use super::cause_texts::detail;
use super::certificate::Certificate;
use super::recent::Refusal;
use super::who;
use super::{fragments, impostor};
use crate::model::rejection::{Cause, Protocol, Reason};
use crate::model::text::{date, duration};

/// The fixed words about a reason.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// What happened, in a few words that follow "turned away:".
    pub short: &'static str,
    /// What to do about it: one or two sentences for a reader who has never seen a certificate.
    pub advice: &'static str,
}

/// The fixed words about `reason`.
pub const fn words(reason: Reason) -> Words {
    let (short, advice) = match reason {
        Reason::ConnectionLimit => {
            ("too many connections in all", "Raise limits.connections if so many are meant to be open at once.")
        }
        Reason::HandshakeLimit => (
            "did not go on, and others waited",
            "A source opens connections and does not go on. Those are closed first, and not your devices'.",
        ),
        Reason::SourceLimit => (
            "too many connections from one address",
            "Raise limits.connections_per_source if many devices share this address.",
        ),
        Reason::SourceRate => (
            "too many attempts from one address",
            "Raise limits.connection_rate_per_source if this is one of your own devices.",
        ),
        Reason::SourceBanned => (
            "failed too often and has to wait",
            "Its connections failed so often that it has to wait, ten minutes at most, or until a device shows a \
             valid certificate from there. The lines before say why they failed.",
        ),
        Reason::SourceDenied => (
            "its address is shut out",
            "Change deny_sources or allow_sources of the listener if the address should get in.",
        ),
        Reason::ProxyHeaderMissing => (
            "a proxy did not name its client",
            "Switch the PROXY protocol on in the proxy in front of the gate, or take it out of proxy_protocol_from.",
        ),
        Reason::ProxyHeaderInvalid => (
            "a proxy could not be understood",
            "Switch the PROXY protocol on in the proxy in front of the gate, or take it out of proxy_protocol_from.",
        ),
        Reason::Draining => ("the gate was being stopped", "The gate was being stopped. Try again when it runs."),
        Reason::ClientHelloTimeout => (
            "connected and said nothing",
            "Most such connections are scanners. If it was one of your devices, its network is bad, or its program does not use TLS.",
        ),
        Reason::ClientHelloClosedEarly => (
            "connected and hung up",
            "Most such connections are scanners. If it was one of your devices, its network is bad, or its program does not use TLS.",
        ),
        Reason::NotTls => (
            "spoke something other than TLS",
            "The client did not speak TLS. If it was one of yours: use https:// and not http://.",
        ),
        Reason::Malformed => (
            "its first message cannot be read",
            "The client did not speak TLS as it is specified. Most such connections are scanners.",
        ),
        Reason::TooLarge => (
            "its first message is far too long",
            "The client did not speak TLS as it is specified. Most such connections are scanners.",
        ),
        Reason::ServerNameMissing => (
            "did not say which name it wants",
            "Connect by name, not by IP address. For clients that cannot, give one route the server name \"*\".",
        ),
        Reason::ServerNameUnknown => (
            "asked for a name you do not have",
            "Add the name to server_names of a route, or correct it on the device.",
        ),
        Reason::ProtocolVersion => {
            ("speaks no TLS that is still safe", "The client is too old: it must speak TLS 1.2 or 1.3.")
        }
        Reason::NoSharedParameters => {
            ("knows no encryption that is still safe", "The client is too old: it must speak TLS 1.2 or 1.3.")
        }
        Reason::NoApplicationProtocol => (
            "speaks none of the route's protocols",
            "Probably a browser was used for a route that is not a web page, such as ssh. Use that service's program, or open the \
             name of a web route. The protocols that a route accepts: application_protocols in doorward.toml.",
        ),
        Reason::Misbehaved => (
            "broke the rules of TLS",
            "The client did not speak TLS as it is specified. Most such connections are scanners.",
        ),
        Reason::PeerAlert => (
            "did not trust the gate",
            "The client ended the handshake. Most often it does not trust the gate's certificate: install \
             devices/server-ca.crt on it.",
        ),
        Reason::HandshakeTimeout => (
            "began and did not finish in time",
            "The client did not go on. Browsers do so, and connect again, when they ask which certificate to show.",
        ),
        Reason::HandshakeClosedEarly => (
            "began and hung up",
            "The client did not go on. Browsers do so, and connect again, when they ask which certificate to show.",
        ),
        Reason::CertificateRequired => (
            "showed no certificate",
            "The device has no certificate installed, or its app cannot show one. Install its .p12 file.",
        ),
        Reason::UnknownCa => (
            "showed a certificate that is not yours",
            "If it is one of your devices, issue it a new certificate (doorward ca device NAME) and install that: \
             the one it has is from before \"doorward init\" was run again, or from an authority that \
             trust does not name. If an intermediate authority issued it, the device has to send that \
             authority's certificate along.",
        ),
        Reason::Expired => (
            "its certificate has expired",
            "Issue the device a new certificate (doorward ca renew NAME). If it should still be valid, check the \
             gate's clock.",
        ),
        Reason::NotYetValid => (
            "its certificate is not valid yet",
            "Check the clocks of the gate and of the machine that issued the certificate.",
        ),
        Reason::Revoked => (
            "its certificate was revoked",
            "The certificate was revoked. If that was a mistake, issue the device a new one (doorward ca device \
             NAME).",
        ),
        Reason::Denied => (
            "its certificate is on your deny list",
            "The certificate is in deny. Remove it there if that was a mistake.",
        ),
        Reason::RevocationUnknown => (
            "a revocation list is missing",
            "revocation_lists lacks the list of an authority between the certificate and trust. Add its list. If \
             a root above intermediate authorities has none: revocation_check = \"leaf\".",
        ),
        Reason::RevocationListExpired => (
            "a revocation list is out of date",
            "The revocation list is out of date. Renew it (doorward ca revoke --lists); until then no certificate of its \
             authority is accepted. expired_revocation_list = \"warn\" would accept them with the old \
             list.",
        ),
        Reason::WrongPurpose => (
            "its certificate is not for devices",
            "The certificate is not for clients: it may be a server's. Issue one for the device (doorward ca device \
             NAME; mkcert: -client before the name).",
        ),
        Reason::UnsupportedKey => (
            "its certificate's key or signature is of a kind that cannot be checked",
            "Issue the device a new certificate (doorward ca device NAME). With OpenSSL: a P-256 key (-newkey ec \
             -pkeyopt ec_paramgen_curve:P-256) or RSA with 2048 bits or more, signed with -sha256.",
        ),
        Reason::BadSignature => (
            "does not have the certificate's key",
            "The client could not prove that it holds the certificate's key. The certificate is used by another \
             machine than the one it was issued to, or the device is faulty.",
        ),
        Reason::CertificateInvalid => (
            "its certificate cannot be used",
            "Issue the device a certificate of its own (doorward ca device NAME). With OpenSSL: openssl x509 -req \
             -extfile FILE, where FILE says basicConstraints=CA:FALSE and \
             extendedKeyUsage=clientAuth.",
        ),
        Reason::IdentityNotAllowed => (
            "may not use this route",
            "Add the name to allow of the route, or to one of its groups, if it should get in.",
        ),
        Reason::BackendRefused => (
            "the service behind is not running",
            "No service answers at the address in backends. Is it running, and is the port right?",
        ),
        Reason::BackendTimeout => (
            "the service behind did not answer",
            "The backend does not answer. Is the machine switched on, and its address right?",
        ),
        Reason::BackendUnreachable => (
            "the service behind cannot be reached",
            "The backend does not answer. Is the machine switched on, and its address right?",
        ),
        Reason::BackendUnresolved => (
            "the service's name is not known",
            "The backend's name cannot be looked up. Correct it, or write its address.",
        ),
        Reason::BackendTls => (
            "no TLS with the service behind",
            "The gate does not accept the certificate of the backend, or the backend does not speak TLS. If its certificate was \
             replaced by you, write its new fingerprint into trust of backend_tls; doorward check --connect shows it.",
        ),
        Reason::BackendWakeTimeout => (
            "the machine of the service did not wake up",
            "Is the machine plugged in, is Wake-on-LAN switched on in its settings, and are mac and broadcast in wake right? (doorward \
              help operations)",
        ),
        Reason::BackendUnhealthy => (
            "the service behind fails its health checks",
            "The health checks of every backend fail, so none of them gets connections. doorward status says why and since \
             when; a check that expects the wrong thing is corrected in health of the route.",
        ),
        Reason::BackendFull => (
            "the service behind has enough connections",
            "Every backend has as many connections as connections_per_backend allows. Raise it, or see which devices have \
             them: doorward sessions.",
        ),
        Reason::Internal => ("a fault of the gate", "This is a fault of the gate. Please report it with the log line."),
    };
    Words { short, advice }
}

/// What happened in this case, in a sentence. Dates are told as they are at `now`.
pub fn sentence(refusal: &Refusal, now: OffsetDateTime) -> String {
    if let Some(impostor) = &refusal.impostor {
        return impostor::sentence(impostor, refusal);
    }
    let source = refusal.source.ip().to_canonical().to_string();
    let detail = detail(&refusal.cause);
    let asked = refusal.server_name.as_deref().unwrap_or("no name in particular");
    let route = refusal.route.as_ref().map_or("none", |route| route.as_str());
    let shown = refusal.certificate.as_ref();
    // A client that shows an unverified certificate is not necessarily the device that it names.
    let name = shown.map_or(source.as_str(), Certificate::name);
    // The names in a certificate that no authority in trust signed are the client's own words.
    let certificate = match shown {
        Some(shown) if !shown.anchored => format!(
            "{source} showed a certificate that calls itself {name}, and no authority in trust is known to have signed it. It"
        ),
        _ => format!("{name}'s certificate"),
    };
    match refusal.reason() {
        // They know where they lead.
        Reason::ConnectionLimit if refusal.route.is_some() => {
            format!("{source} found no place on the route {route}: {detail}.")
        }
        Reason::SourceLimit if refusal.route.is_some() => {
            format!("{source} had too many connections open to be let in on the route {route}: {detail}.")
        }
        Reason::ConnectionLimit => {
            format!("{source} found no place: as many connections were open as limits.connections allows.")
        }
        Reason::HandshakeLimit => format!(
            "{source} connected and did not go on, and its place was needed: all places of limits.handshakes were taken."
        ),
        Reason::SourceLimit => {
            format!("{source} had as many connections open as limits.connections_per_source allows one address.")
        }
        Reason::SourceRate => {
            format!("{source} connected more often than limits.connection_rate_per_source allows one address.")
        }
        Reason::SourceBanned => format!("{source} failed again and again and has to wait: {detail}."),
        Reason::SourceDenied => format!("{source} may not connect to the listener {}: {detail}.", refusal.listener),
        Reason::ProxyHeaderMissing => format!(
            "{source} is in proxy_protocol_from of the listener {}, but did not name the client it connects for: {detail}.",
            refusal.listener
        ),
        Reason::ProxyHeaderInvalid => {
            format!("{source} named the client it connects for unreadably: {detail}.")
        }
        Reason::Draining => format!("{source} was on its way in when the gate was stopped."),
        Reason::ClientHelloTimeout => format!("{source} connected and did not begin a TLS connection in time."),
        Reason::ClientHelloClosedEarly => {
            format!("{source} connected and hung up before it had begun a TLS connection.")
        }
        Reason::NotTls => match refusal.cause {
            Cause::NotTls(Protocol::Other) => format!("{source} sent something that is not TLS."),
            Cause::NotTls(Protocol::Postgres) => format!(
                "{source} is a PostgreSQL client and did not begin with TLS. Routes for such clients have starttls = \
                 \"postgres\", and the clients sslmode=require."
            ),
            _ => format!("{source} sent something that is not TLS, but {detail}."),
        },
        Reason::Malformed => format!("{source} began a TLS connection in a way that cannot be read."),
        Reason::TooLarge => format!("{source} began a TLS connection with far more bytes than any device needs."),
        Reason::ServerNameMissing => format!("{source} did not say which server name it wants."),
        Reason::ServerNameUnknown => match &refusal.cause {
            Cause::NoStarttls { .. } => format!("{source} asked for {asked}: {detail}."),
            _ => format!("{source} asked for {asked}, and no route has that name."),
        },
        Reason::ProtocolVersion => format!("{source} speaks no version of TLS that is still safe: {detail}."),
        Reason::NoSharedParameters => {
            format!("{source} knows no way to encrypt that is still safe, so it and the gate have none in common.")
        }
        Reason::NoApplicationProtocol => {
            format!("{source} asked for {asked}, but speaks none of the protocols that the route {route} offers.")
        }
        Reason::Misbehaved => format!("{source} broke the rules of TLS: {detail}."),
        Reason::PeerAlert => {
            format!("{source} asked for {asked} and {}: {detail}.", fragments::client_alert(&refusal.cause))
        }
        Reason::HandshakeTimeout => {
            format!("{source} asked for {asked} and did not finish the TLS handshake in time.")
        }
        Reason::HandshakeClosedEarly => {
            format!("{source} asked for {asked} and hung up in the middle of the TLS handshake.")
        }
        Reason::CertificateRequired => format!("{source} asked for {asked} and showed no certificate."),
        Reason::UnknownCa => {
            let issuer = shown.map_or("unknown", |shown| &*shown.issuer);
            if shown.is_some_and(|shown| shown.of_other_authority) {
                return format!(
                    "{name}'s certificate is from an authority of yours that the route {route} does not trust: {issuer}."
                );
            }
            format!(
                "{source} showed a certificate that calls itself {name}, and no authority in trust has issued it. It names \
                 this one as its issuer: {issuer}."
            )
        }
        Reason::Expired => match shown.map(|shown| shown.not_after) {
            Some(end) if end < refusal.at.unix_timestamp() => {
                format!("{certificate} expired {} ago.", duration(now.unix_timestamp().saturating_sub(end)))
            }
            _ => format!("An authority between {name}'s certificate and trust has expired."),
        },
        Reason::NotYetValid => match shown.map(|shown| shown.not_before) {
            Some(begin) if begin > now.unix_timestamp() => format!(
                "{certificate} is not valid before {}, which is {} from now.",
                date(begin),
                duration(begin.saturating_sub(now.unix_timestamp()))
            ),
            Some(begin) if begin > refusal.at.unix_timestamp() => {
                format!("{certificate} was not valid before {}; by now it is.", date(begin))
            }
            _ => format!("An authority between {name}'s certificate and trust is not valid yet."),
        },
        Reason::Revoked => format!("{name}'s certificate was revoked: a revocation list names it."),
        Reason::Denied => format!("{certificate} is shut out by its line in the configuration: {detail}."),
        Reason::RevocationUnknown => format!(
            "Whether {name}'s certificate was revoked could not be told: revocation_lists lacks a list of the authority \
             that issued it, or of one above."
        ),
        Reason::RevocationListExpired => format!(
            "Whether {name}'s certificate was revoked could not be told: the list of the authority that issued it is out \
             of date."
        ),
        Reason::WrongPurpose => {
            format!("{certificate} is not for devices that connect, but for something else, such as a server.")
        }
        Reason::BadSignature if shown.is_some_and(|shown| !shown.anchored) => {
            format!(
                "{source} showed a certificate that calls itself {name}, and could not prove that it has the key to it."
            )
        }
        Reason::BadSignature => {
            format!("{source} showed {name}'s certificate, but could not prove that it has the key to it.")
        }
        Reason::UnsupportedKey => format!("{certificate} cannot be checked: {detail}."),
        Reason::CertificateInvalid => format!("{certificate} is not one that a device can use here: {detail}."),
        Reason::IdentityNotAllowed => match shown {
            Some(_) if refusal.cause == Cause::Unverified => format!(
                "{source} showed a certificate that calls itself {name}. It was not verified, and the route {route} does not \
                 accept unverified certificates."
            ),
            Some(_) if let Cause::GuestElsewhere { routes, .. } = &refusal.cause => format!(
                "{name} has a guest pass, which is for {} only. The route {route} refused it.",
                fragments::routes(routes)
            ),
            Some(_) => format!("{name}'s certificate is a good one, but the route {route} does not let {name} in."),
            None => {
                format!("{source} showed no certificate, and the route {route} does not let a client in without one.")
            }
        },
        Reason::BackendRefused => {
            format!("{} was let in, but nothing listens where the route {route} leads: {detail}.", who(refusal))
        }
        Reason::BackendTimeout => {
            format!(
                "{} was let in, but what the route {route} leads to did not answer in time: {detail}.",
                who(refusal)
            )
        }
        Reason::BackendUnreachable => {
            format!("{} was let in, but there is no way to what the route {route} leads to: {detail}.", who(refusal))
        }
        Reason::BackendUnresolved => format!(
            "{} was let in, but the name of what the route {route} leads to cannot be looked up: {detail}.",
            who(refusal)
        ),
        Reason::BackendUnhealthy => format!(
            "{} was let in, but what the route {route} leads to fails its health checks: {detail}.",
            who(refusal)
        ),
        Reason::BackendFull => {
            format!("{} was let in, but what the route {route} leads to is full: {detail}.", who(refusal))
        }
        Reason::BackendTls => format!(
            "{} was let in, but the gate and what the route {route} leads to do not agree on TLS: {detail}.",
            who(refusal)
        ),
        Reason::BackendWakeTimeout => {
            format!("{} was let in, but what the route {route} leads to did not wake up: {detail}.", who(refusal))
        }
        Reason::Internal => format!("{source} was refused because of a fault in the gate: {detail}."),
    }
}
