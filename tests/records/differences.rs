//! The actions of the model test, and the known differences between the gate's session and rustls' server, each with the
//! section of the RFC that justifies it.

use crate::forger::{ALERT, APPLICATION_DATA, HANDSHAKE, Plain};
use crate::pair::Side;
use crate::pair::State::{self, Broken, Closed, Open, PeerAlert};

/// An action of the client, or of the backend behind the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// Sends a record: content type and content.
    Record(u8, &'a [u8]),
    /// Sends a TLS 1.3 record with this TLSInnerPlaintext.
    Inner(&'a [u8]),
    /// Sends a record of application data with this much content and padding.
    Sized(usize, usize),
    /// Sends a record of application data whose authentication fails.
    Tampered,
    /// Sends these bytes unencrypted.
    Plain(&'a [u8]),
    /// The server sends application data.
    Reply,
}

/// Performs the action on one side. Returns the state of the connection and the application data delivered.
pub(crate) fn perform(side: &mut impl Side, action: Action<'_>, received: &mut Vec<Plain>) -> (State, Vec<u8>) {
    let wire = match action {
        Action::Record(kind, content) => side.forger().record(kind, content),
        Action::Inner(inner) => side.forger().inner(APPLICATION_DATA, inner),
        Action::Sized(content, 0) => side.forger().record(APPLICATION_DATA, &vec![7; content]),
        Action::Sized(content, padding) => {
            let inner = [vec![7; content], vec![APPLICATION_DATA], vec![0; padding]].concat();
            side.forger().inner(APPLICATION_DATA, &inner)
        }
        Action::Tampered => {
            let mut record = side.forger().record(APPLICATION_DATA, b"tampered");
            *record.last_mut().unwrap() ^= 1;
            record
        }
        Action::Plain(bytes) => bytes.to_vec(),
        Action::Reply => {
            received.extend(side.send(b"reply"));
            return (Open, Vec::new());
        }
    };
    side.take(&wire)
}

const INTERLEAVED: &str = "RFC 8446 section 5.1: if a handshake message is split over two or more records, there \
    MUST NOT be any other records between them. Section 6.2: an implementation that encounters a fatal error \
    condition SHOULD send an appropriate fatal alert. rustls sends none.";
const ALERT_INSIDE_MESSAGE: &str = "RFC 8446 section 6: upon receiving an error alert, an implementation MUST NOT \
    allow any further data to be sent. rustls reports the incomplete message instead.";
const EMPTY_FRAGMENT: &str = "RFC 8446 section 5.4: handshake and alert records of no content MUST be answered with \
    unexpected_message. rustls accepts 32 of the former, and answers the latter with decode_error.";
const INAPPROPRIATE: &str = "RFC 8446 section 6.2, unexpected_message: an inappropriate message was received. Its \
    first byte tells; rustls waits for the whole message, parses it, and may reject its content instead.";
const WRONG_LENGTH: &str = "RFC 8446 section 6.2, decode_error: the length of the message was incorrect. The header \
    tells; rustls waits for the whole message, and has no alert for the largest.";
const LEVEL: &str = "RFC 8446 section 6: the level can safely be ignored, and all error alerts MUST be treated as \
    such regardless of it.";
const WARNINGS: &str = "RFC 8446 section 6.1: user_canceled is generally a warning. The gate bounds such alerts by \
    the data between them, rustls allows four in the life of a connection; so with the warnings of RFC 5246 section \
    7.2.";
const UNKNOWN_TYPE: &str = "RFC 8446 section 5, RFC 5246 section 6: an unexpected record type MUST be answered with \
    unexpected_message. rustls answers with decode_error.";
const NO_TYPE: &str = "RFC 8446 section 5.4: a record without a content type MUST be answered with \
    unexpected_message. rustls sends no alert.";
const UNPROTECTED: &str = "RFC 8446 section 5: an unexpected record type, a change_cipher_spec after Finished among \
    them, MUST be answered with unexpected_message. rustls tries to open it.";
const UNPROTECTED_12: &str = "RFC 5246 section 7.1: after a ChangeCipherSpec every record is protected, so an \
    unprotected one has no valid MAC. rustls checks the type first.";
const VERSION: &str = "RFC 8446 section 5.2: legacy_record_version is always 0x0303; RFC 5246 section 6.2.1: { 3, 3 \
    }. rustls accepts any 3.x.";
const OVERFLOW: &str = "RFC 8446 section 5.2, RFC 5246 section 7.2.2: a record over the limit MUST be answered with \
    record_overflow. rustls answers the largest with decode_error.";
const MAY_INTERLEAVE: &str = "RFC 5246 section 6.2.1: data of different content types MAY be interleaved.";
const UNREAD_HELLO: &str = "RFC 5246 section 7.2.2: a ClientHello after the handshake may be declined with \
    no_renegotiation. Its content does not matter, so it is not parsed.";
const ANOTHER_HELLO: &str = "RFC 5246 section 7.2.2: a client that received no_renegotiation decides whether to \
    continue. A second ClientHello is answered by a fatal alert.";

/// The differences of each version.
pub(crate) const TLS13: &[&str] = &[
    INTERLEAVED,
    ALERT_INSIDE_MESSAGE,
    EMPTY_FRAGMENT,
    INAPPROPRIATE,
    WRONG_LENGTH,
    LEVEL,
    WARNINGS,
    UNKNOWN_TYPE,
    NO_TYPE,
    UNPROTECTED,
    VERSION,
    OVERFLOW,
];
pub(crate) const TLS12: &[&str] = &[
    MAY_INTERLEAVE,
    EMPTY_FRAGMENT,
    INAPPROPRIATE,
    WRONG_LENGTH,
    WARNINGS,
    UNKNOWN_TYPE,
    UNPROTECTED_12,
    VERSION,
    OVERFLOW,
    UNREAD_HELLO,
    ANOTHER_HELLO,
];

/// The known difference that explains why `ours` is not `rustls`, if there is one. `inside` is whether a handshake message
/// is incomplete, and `first_state` the gate's answer to this action as the first one of a connection.
pub(crate) fn difference(
    tls13: bool,
    inside: bool,
    action: Action<'_>,
    first_state: State,
    ours: State,
    rustls: State,
) -> Option<&'static str> {
    const UNEXPECTED_MESSAGE: State = Broken(Some(10));
    const BAD_RECORD_MAC: State = Broken(Some(20));
    const RECORD_OVERFLOW: State = Broken(Some(22));
    const ILLEGAL_PARAMETER: State = Broken(Some(47));
    const DECODE_ERROR: State = Broken(Some(50));
    const NO_ALERT: State = Broken(None);
    let (kind, content): (u8, &[u8]) = match action {
        Action::Record(kind, content) => (kind, content),
        Action::Sized(..) => (APPLICATION_DATA, b"data"),
        // TLS 1.2 has no inner content type.
        Action::Inner(content) if !tls13 => (APPLICATION_DATA, content),
        Action::Inner(_) => return (ours == UNEXPECTED_MESSAGE && rustls == NO_ALERT).then_some(NO_TYPE),
        Action::Plain(bytes) => {
            return match (bytes, ours, rustls) {
                ([APPLICATION_DATA, 3, 1, ..], DECODE_ERROR, BAD_RECORD_MAC) => Some(VERSION),
                ([APPLICATION_DATA, 3, 3, ..], RECORD_OVERFLOW, DECODE_ERROR) => Some(OVERFLOW),
                (_, UNEXPECTED_MESSAGE, BAD_RECORD_MAC | DECODE_ERROR) if tls13 => Some(UNPROTECTED),
                (_, BAD_RECORD_MAC, UNEXPECTED_MESSAGE | DECODE_ERROR) if !tls13 => Some(UNPROTECTED_12),
                _ => None,
            };
        }
        Action::Tampered | Action::Reply => return None,
    };
    match (kind, content, ours, rustls) {
        (HANDSHAKE, [], UNEXPECTED_MESSAGE, Open) => Some(EMPTY_FRAGMENT),
        (ALERT, [], UNEXPECTED_MESSAGE, DECODE_ERROR) => Some(EMPTY_FRAGMENT),
        (ALERT, [_, description], PeerAlert(ours), NO_ALERT) if tls13 && inside => {
            (ours == *description).then_some(ALERT_INSIDE_MESSAGE)
        }
        (ALERT, [_], DECODE_ERROR, NO_ALERT) | (ALERT, [_, _, ..], DECODE_ERROR, NO_ALERT) if tls13 && inside => {
            Some(INTERLEAVED)
        }
        (ALERT | APPLICATION_DATA | 20 | 99, _, UNEXPECTED_MESSAGE, NO_ALERT) if tls13 && inside => Some(INTERLEAVED),
        (ALERT | APPLICATION_DATA | 20 | 99, _, _, NO_ALERT) if inside => {
            (ours == first_state).then_some(MAY_INTERLEAVE)
        }
        (ALERT, [_, description], PeerAlert(ours), DECODE_ERROR | ILLEGAL_PARAMETER) if tls13 => {
            (ours == *description).then_some(LEVEL)
        }
        (ALERT, [_, 0], Closed, ILLEGAL_PARAMETER) | (ALERT, [2, 90], Open, PeerAlert(90)) if tls13 => Some(LEVEL),
        (ALERT, [_, 90], Open, ILLEGAL_PARAMETER) if tls13 => Some(LEVEL),
        (ALERT, [1, 90], Open, NO_ALERT) => Some(WARNINGS),
        (ALERT, [1, _], Open, NO_ALERT) if !tls13 => Some(WARNINGS),
        (20 | 99, _, UNEXPECTED_MESSAGE, DECODE_ERROR) => Some(UNKNOWN_TYPE),
        (HANDSHAKE, _, Open, DECODE_ERROR) if !tls13 => Some(UNREAD_HELLO),
        (HANDSHAKE, [24, ..], DECODE_ERROR, Open | NO_ALERT) if tls13 => Some(WRONG_LENGTH),
        (HANDSHAKE, _, DECODE_ERROR, Open) if tls13 && inside => Some(WRONG_LENGTH),
        (HANDSHAKE, [1, ..], DECODE_ERROR, NO_ALERT) if !tls13 => Some(WRONG_LENGTH),
        (HANDSHAKE, [1, ..], UNEXPECTED_MESSAGE, Open | DECODE_ERROR | NO_ALERT) if !tls13 => Some(ANOTHER_HELLO),
        (HANDSHAKE, [first, ..], UNEXPECTED_MESSAGE, Open | DECODE_ERROR | NO_ALERT) => {
            (*first != 24 || inside).then_some(INAPPROPRIATE)
        }
        _ => None,
    }
}
