//! What a person can do about a rejection.

use crate::model::rejection::Reason;

/// One or two sentences for somebody who has never seen a certificate.
pub const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::ConnectionLimit => "Raise limits.connections if so many are meant to be open at once.",
        Reason::HandshakeLimit => {
            "Somebody opens connections and does not go on. Those give way first; your own devices are not affected."
        }
        Reason::SourceLimit => "Raise limits.connections_per_source if many devices share this address.",
        Reason::SourceRate => "Raise limits.connection_rate_per_source if this is one of your own devices.",
        Reason::SourceDenied => "Change deny_sources or allow_sources of the listener if the address should get in.",
        Reason::SourceBanned => {
            "Its connections failed so often that it has to wait, ten minutes at most, or until a device shows a valid certificate \
             from there. The lines before say why they failed."
        }
        Reason::ProxyHeaderMissing | Reason::ProxyHeaderInvalid => {
            "Switch the PROXY protocol on in the proxy in front of the gate, or take it out of proxy_protocol_from."
        }
        Reason::Draining => "The gate was being stopped. Try again when it runs.",
        Reason::ClientHelloTimeout | Reason::ClientHelloClosedEarly => {
            "Most such connections are scanners. A device of yours has a bad link, or does not start TLS at all."
        }
        Reason::NotTls => "Whoever it was did not speak TLS. If it was you: use https:// and not http://.",
        Reason::Malformed | Reason::TooLarge | Reason::Misbehaved => {
            "Whoever it was did not speak TLS as it is specified. Most such connections are scanners."
        }
        Reason::ServerNameMissing => {
            "Connect by name, not by IP address. For clients that cannot, give one route the server name \"*\"."
        }
        Reason::ServerNameUnknown => "Add the name to server_names of a route, or correct it on the device.",
        Reason::ProtocolVersion | Reason::NoSharedParameters => "The client is too old: it must speak TLS 1.2 or 1.3.",
        Reason::NoApplicationProtocol => {
            "The client offers only protocols that application_protocols of the route does not have."
        }
        Reason::PeerAlert => {
            "The client refused the gate. Most often it does not trust the gate's certificate: install pki/server-ca.pem \
             on it."
        }
        Reason::HandshakeTimeout | Reason::HandshakeClosedEarly => {
            "The client did not go on. Browsers do so, and connect again, when they ask which certificate to show."
        }
        Reason::CertificateRequired => {
            "The device has no certificate installed, or its app cannot show one. Install its .p12 file. TLS clients also \
             show none whose key is of a kind that the gate does not take, such as Ed448 or RSA-PSS."
        }
        Reason::UnknownCa => {
            "If it is one of your devices, issue it a new certificate (doorward ca device NAME) and install that: the \
             one it has is from before \"doorward init\" was run again, or from an authority that trust does not name. If an \
             intermediate authority issued it, the device has to send that authority's certificate along."
        }
        Reason::Expired => {
            "Issue the device a new certificate (doorward ca renew NAME). If it should still be valid, check the gate's clock."
        }
        Reason::NotYetValid => "Check the clocks of the gate and of the machine that issued the certificate.",
        Reason::Revoked => {
            "The certificate was revoked. If that was a mistake, issue the device a new one (doorward ca device NAME)."
        }
        Reason::Denied => "The certificate stands in deny. Take it out if that was a mistake.",
        Reason::RevocationUnknown => {
            "revocation_lists lacks the list of an authority between the certificate and trust. Add its list. If a root above \
             intermediate authorities has none: revocation_check = \"leaf\"."
        }
        Reason::RevocationListExpired => {
            "The revocation list is out of date. Renew it (doorward ca revoke); until then nobody whom it speaks for gets in. \
             expired_revocation_list = \"warn\" would let them in with the old list."
        }
        Reason::WrongPurpose => {
            "The certificate is not for clients; a server's, say. Issue one for a client (doorward ca device NAME; \
             mkcert: -client before the name)."
        }
        Reason::UnsupportedKey => {
            "Issue the device a new certificate (doorward ca device NAME). With OpenSSL: a P-256 key (-newkey ec -pkeyopt \
             ec_paramgen_curve:P-256) or RSA with 2048 bits or more, signed with -sha256."
        }
        Reason::BadSignature => {
            "The client could not prove that it holds the certificate's key. Somebody uses a certificate that is not theirs, or \
             the device is broken."
        }
        Reason::CertificateInvalid => {
            "Issue the device a certificate of its own (doorward ca device NAME). With OpenSSL: openssl x509 -req -extfile FILE, \
             where FILE says basicConstraints=CA:FALSE and extendedKeyUsage=clientAuth."
        }
        Reason::IdentityNotAllowed => {
            "Add the name to allow of the route, or to one of its groups, if it should get in."
        }
        Reason::BackendRefused => "Nothing listens where backends says. Is the service started, and the port right?",
        Reason::BackendTimeout | Reason::BackendUnreachable => {
            "The backend does not answer. Is the machine switched on, and its address right?"
        }
        Reason::BackendUnresolved => "The backend's name cannot be looked up. Correct it, or write its address.",
        Reason::Internal => "This is a fault of the gate. Please report it with the log line.",
    }
}
