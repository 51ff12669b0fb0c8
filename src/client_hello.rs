//! Stage 3: reads the ClientHello and leaves its bytes in the socket.
//!
//! The server name, and with it the route, comes from rustls' parser only. This file itself reads just the length of the
//! message, to know when rustls can parse it. If the two disagree on whether it is complete, the client is rejected.

pub mod starttls;

use std::io;
use std::ops::{Deref, DerefMut};

use tokio::time::timeout_at;

use rustls::{AlertDescription, Error, PeerIncompatible};
use scopeguard::ScopeGuard;

use crate::admission::{Admitted, Last, Refused};
use crate::model::names::ServerName;
use crate::model::rejection::{Alert, Cause, HelloFault, Protocol, Reason, Rejection, Text};
use crate::model::starttls::Starttls;
use crate::proxy_protocol;
use crate::sys::socket::{PEEK_MAX, Peeked, peek_until, take_unread};
use crate::tls::driver::{Greeting, HelloError, read_hello};
use crate::tls::ja4::Ja4;
use crate::tls::record::Aead;
use starttls::{Negotiation, Request};

/// The header of a record (RFC 8446 section 5.1) and of a handshake message (section 4).
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// The longest ClientHello accepted, including record headers.
const HELLO_MAX: usize = PEEK_MAX;

/// A connection whose ClientHello is known; its bytes are still in the socket.
///
/// Dropped without a decision, it tells its client `internal_error`, as long as that can be said without keys.
#[derive(Debug)]
pub struct Greeted(ScopeGuard<Hello, fn(Hello)>);

/// What is known of a connection when its ClientHello is.
#[derive(Debug)]
pub struct Hello {
    /// The connection.
    pub admitted: Admitted,
    /// The requested server name. `None` also for an IP address, which RFC 6066 section 3 forbids.
    pub server_name: Option<ServerName>,
    /// The AEAD of the client's favourite among the cipher suites that the gate knows.
    pub favourite: Option<Aead>,
    /// It offers ACME's protocol and no other (RFC 8737 section 3).
    pub is_validator: bool,
    /// The length of the records that hold the ClientHello.
    pub length: usize,
    /// The fingerprint of the client program. For the log only.
    pub ja4: Option<Ja4>,
    /// The protocol by which the client has asked for TLS, if it did.
    pub starttls: Option<Starttls>,
    /// The gate has begun to answer. From then on keys may be in use, which are rustls' until the handshake is over.
    pub answered: bool,
}

/// Why a ClientHello is refused, the alert that the client is sent, and how many bytes of the socket have been judged.
type Refusal = (Cause, Option<Alert>, usize);

/// What the first bytes are.
#[derive(Debug)]
enum Seen {
    /// A ClientHello, its length, and its fingerprint; or bytes that are refused.
    Hello(Result<(Greeting, usize, Option<Ja4>), Refusal>),
    /// The client asks whether it may begin TLS.
    Asks(Request),
}

/// Waits for a ClientHello and reads the server name in it. Clients may ask for TLS first by the protocol `answers`.
pub async fn peek(mut admitted: Admitted, answers: Option<Starttls>) -> Result<Greeted, Refused> {
    let mut negotiation = Negotiation::new(answers);
    let deadline = admitted.hello_deadline;
    let stream = &mut admitted.stream;
    let looked = timeout_at(deadline, async {
        loop {
            match peek_until(stream, |bytes| negotiation.look(bytes).unwrap_or_else(|| look(bytes))).await? {
                Some(Seen::Asks(request)) => negotiation.answer(request, stream).await?,
                Some(Seen::Hello(hello)) => return Ok(Some(hello)),
                None => return Ok(None),
            }
        }
    });
    let looked: Result<io::Result<_>, _> = looked.await;
    let (cause, last) = match looked {
        Ok(Ok(Some(Ok((Greeting { server_name, favourite, is_validator }, length, ja4))))) => {
            let starttls = negotiation.agreed;
            let hello =
                Hello { admitted, server_name, favourite, is_validator, length, ja4, starttls, answered: false };
            return Ok(Greeted::new(hello));
        }
        Ok(Ok(Some(Err((cause, alert, length))))) => (cause, plain_alert(alert, length)),
        Ok(Ok(None)) => (Cause::ClientHelloEnded, Last::Nothing),
        Ok(Err(error)) => (Cause::ClientHelloIo(error.into()), Last::Nothing),
        Err(_) => (Cause::ClientHelloTimeout, Last::Nothing),
    };
    Err(admitted.refuse(cause.into(), last))
}

/// Looks for a ClientHello at the start of `bytes`.
fn look(bytes: &[u8]) -> Peeked<Seen> {
    let refused = |cause, alert, judged| Peeked::Done(Seen::Hello(Err((cause, alert, judged))));
    match progress(bytes) {
        Progress::Incomplete(total) if total <= HELLO_MAX => Peeked::NeedsBytes(total),
        Progress::Incomplete(_) | Progress::TooLarge => {
            refused(Cause::TooLarge { most: HELLO_MAX }, Reason::TooLarge.alert(), bytes.len())
        }
        Progress::NotTls(protocol) => refused(Cause::NotTls(protocol), None, 0),
        Progress::Complete(length) => {
            let hello = bytes.get(..length).unwrap_or_default();
            Peeked::Done(Seen::Hello(parse(hello).map(|greeting| (greeting, length, Ja4::of(hello)))))
        }
    }
}

impl Greeted {
    fn new(hello: Hello) -> Self {
        Self(scopeguard::guard(hello, |hello| drop(hello.refuse_undecided())))
    }

    /// Takes it apart, for a decision.
    pub fn decide(self) -> Hello {
        ScopeGuard::into_inner(self.0)
    }

    /// Refuses the connection because of a fault of the gate, before it has answered.
    pub fn fail(self, cause: Cause) -> Refused {
        let alert = cause.reason().alert();
        let Hello { admitted, length, .. } = self.decide();
        admitted.refuse(cause.into(), plain_alert(alert, length))
    }

    /// Turns the client away because of the name it asked for, with the alert that belongs to that.
    pub fn refuse(self, cause: Cause) -> Refused {
        let Hello { admitted, length, .. } = self.decide();
        let alert = cause.reason().alert();
        admitted.refuse(cause.into(), plain_alert(alert, length))
    }
}

impl Deref for Greeted {
    type Target = Hello;

    fn deref(&self) -> &Hello {
        &self.0
    }
}

impl DerefMut for Greeted {
    fn deref_mut(&mut self) -> &mut Hello {
        &mut self.0
    }
}

impl Hello {
    /// Refuses a connection that was given up before anything was decided. Does not wait: it is called in drops.
    fn refuse_undecided(self) -> Refused {
        let alert = Reason::Internal.alert().filter(|_| !self.answered);
        let record = alert.map(Alert::plaintext_record);
        // It need not be there as a whole any more.
        take_unread(&self.admitted.stream);
        let last = record.as_ref().map_or(Last::Nothing, |record| Last::Records(record, alert));
        self.admitted.refuse(Rejection::silent(Cause::NoVerdict), last)
    }
}

/// An unencrypted alert as the answer to `judged` bytes.
fn plain_alert(alert: Option<Alert>, judged: usize) -> Last<'static> {
    alert.map_or(Last::Nothing, |alert| Last::Plain(alert, judged))
}

/// Has rustls read a complete ClientHello.
fn parse(bytes: &[u8]) -> Result<Greeting, Refusal> {
    let refusal = |fault, alert| (Cause::Malformed(fault), alert, bytes.len());
    let malformed = Reason::Malformed.alert();
    read_hello(bytes).map_err(|error| match error {
        HelloError::Io(error) => refusal(HelloFault::Unreadable(Text::new(error)), malformed),
        HelloError::Longer => refusal(HelloFault::TrailingBytes, malformed),
        HelloError::Shorter => refusal(HelloFault::Truncated, malformed),
        // Before TLS 1.2 there was no such extension: it is not what is wrong.
        HelloError::Refused(Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired), _)
            if let Some(version) = old_version(bytes) =>
        {
            (Cause::OldVersion { version }, Reason::ProtocolVersion.alert(), bytes.len())
        }
        HelloError::Refused(error, record) => {
            let alert = alert_for(&error, &record);
            refusal(HelloFault::Unreadable(Text::new(error)), Some(alert))
        }
    })
}

/// What is made of a complete ClientHello, for the fuzzer: the server name, or why it is refused.
#[doc(hidden)]
pub fn fuzz_parse(bytes: &[u8]) -> Result<Option<ServerName>, Cause> {
    parse(bytes).map(|greeting| greeting.server_name).map_err(|(cause, ..)| cause)
}

/// The alert for what is wrong with a ClientHello.
fn alert_for(error: &Error, record: &[u8]) -> Alert {
    // An Acceptor says decode_error for all of these; a connection knows illegal_parameter too (RFC 8446 section 4.2).
    if let Error::InvalidMessage(message) = error {
        return Alert(AlertDescription::from(*message).into());
    }
    match *record {
        [21, _, _, 0, 2, _, description] => Alert(description),
        // For another handshake message than a ClientHello rustls sends no alert.
        _ => Alert::UNEXPECTED_MESSAGE,
    }
}

/// The version of a ClientHello from before TLS 1.2. For the log and the alert only.
fn old_version(bytes: &[u8]) -> Option<&'static str> {
    let mut message = Vec::new();
    let mut rest = bytes;
    while message.len() < MESSAGE_HEADER + 2 {
        let (&[_, _, _, high, low], behind) = rest.split_first_chunk::<RECORD_HEADER>()?;
        let (payload, next) = behind.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        message.extend(payload);
        rest = next;
    }
    match message.get(MESSAGE_HEADER..)? {
        [3, 0, ..] => Some("SSL 3.0"),
        [3, 1, ..] => Some("TLS 1.0"),
        [3, 2, ..] => Some("TLS 1.1"),
        _ => None,
    }
}

/// How much of a ClientHello the first bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At least this many bytes are needed in total.
    Incomplete(usize),
    /// The records up to here hold a complete handshake message, or bytes that rustls rejects.
    Complete(usize),
    /// Not a TLS handshake record.
    NotTls(Protocol),
    /// The message says that it is longer than [`HELLO_MAX`].
    TooLarge,
}

/// Walks over the records of the first handshake message (RFC 8446 sections 4 and 5.1).
pub fn progress(bytes: &[u8]) -> Progress {
    match bytes {
        [] => return Progress::Incomplete(RECORD_HEADER),
        [22] | [22, 3, ..] => {}
        _ => return Progress::NotTls(protocol_of(bytes)),
    }
    let mut at = 0;
    let mut message = MessageLength::default();
    loop {
        let Some([kind, major, _, high, low]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<RECORD_HEADER>) else {
            return Progress::Incomplete(at + message.missing_at_least());
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let end = at + RECORD_HEADER + length;
        // No record of a ClientHello; rustls chooses the alert.
        if *kind != 22 || *major != 3 || length == 0 || length > 1 << 14 {
            return Progress::Complete(bytes.len());
        }
        let payload = bytes.get(at + RECORD_HEADER..end.min(bytes.len())).unwrap_or_default();
        message.take(payload);
        if message.announced().is_some_and(|announced| announced > HELLO_MAX) || end > HELLO_MAX {
            return Progress::TooLarge;
        }
        if bytes.len() < end {
            // More records follow if the message does not end in this one.
            let after = message.missing().saturating_sub(end - bytes.len());
            return Progress::Incomplete(end + if after > 0 { RECORD_HEADER + after } else { 0 });
        }
        if message.is_complete() {
            return Progress::Complete(end);
        }
        at = end;
    }
}

/// The length of a handshake message and how much of it has been received.
#[derive(Default)]
struct MessageLength {
    header: [u8; MESSAGE_HEADER],
    received: usize,
}

impl MessageLength {
    fn take(&mut self, payload: &[u8]) {
        for (slot, byte) in self.header.iter_mut().skip(self.received).zip(payload) {
            *slot = *byte;
        }
        self.received += payload.len();
    }

    fn announced(&self) -> Option<usize> {
        let [_, a, b, c] = self.header;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        (self.received >= MESSAGE_HEADER).then_some(MESSAGE_HEADER + length)
    }

    fn is_complete(&self) -> bool {
        self.announced().is_some_and(|announced| self.received >= announced)
    }

    fn missing(&self) -> usize {
        self.announced().unwrap_or(MESSAGE_HEADER).saturating_sub(self.received)
    }

    /// The least number of bytes still needed: one more record with the missing part.
    fn missing_at_least(&self) -> usize {
        RECORD_HEADER + if self.received == 0 { 0 } else { self.missing() }
    }
}

/// Which protocol `bytes` start.
fn protocol_of(bytes: &[u8]) -> Protocol {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH ", b"PRI * HTTP/2"];
    match bytes {
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Protocol::Http,
        _ if bytes.starts_with(b"SSH-") => Protocol::Ssh,
        _ if bytes.starts_with(b"PROXY ") || bytes.starts_with(proxy_protocol::V2_SIGNATURE) => Protocol::ProxyHeader,
        [0, _, _, _, 0xfe | 0xff, b'S', b'M', b'B', ..] => Protocol::Smb,
        [3, 0, _, _, _, 0xe0, ..] => Protocol::Rdp,
        [5, 1..=8, ..] | [4, 1 | 2, ..] => Protocol::Socks,
        _ if starttls::request(bytes).is_some() => Protocol::Postgres,
        [20 | 21 | 23 | 24, 3, ..] | [0x80..=0xff, _, 1, ..] => Protocol::OtherTls,
        _ => Protocol::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake message of type ClientHello with `length` bytes of body, in records of `record` bytes.
    fn hello(length: usize, record: usize) -> Vec<u8> {
        let mut message = vec![1];
        message.extend(&u32::try_from(length).expect("a length").to_be_bytes()[1..]);
        message.extend(std::iter::repeat_n(7, length));
        message
            .chunks(record)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).expect("a length").to_be_bytes();
                [&[22, 3, 1], &length[..], part].concat()
            })
            .collect()
    }

    #[test]
    fn client_hello_in_pieces_is_complete_with_its_last_byte() {
        for (length, record) in [(512, 16384), (512, 1), (512, 3), (512, 64), (1800, 1000), (40_000, 16384)] {
            let bytes = hello(length, record);
            assert_eq!(progress(&bytes), Progress::Complete(bytes.len()));
            for cut in 0..bytes.len() {
                match progress(&bytes[..cut]) {
                    Progress::Incomplete(total) => {
                        assert!(cut < total && total <= bytes.len(), "{length}/{record}: {cut} waits for {total}");
                    }
                    other => panic!("{length}/{record} at {cut}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn client_hello_sent_byte_by_byte_is_peeked_a_few_times() {
        // Each peek requests all that is missing of the message, so bytes are not copied repeatedly.
        for (length, record, most) in [(1800, 16384, 4), (1800, 64, 12), (1800, 1, 40)] {
            let bytes = hello(length, record);
            let (mut have, mut looks) = (1, 0);
            while let Progress::Incomplete(total) = progress(&bytes[..have]) {
                have = total;
                looks += 1;
            }
            assert!(looks <= most, "{looks} looks at records of {record}");
        }
    }

    #[test]
    fn bytes_after_the_client_hello_are_not_counted() {
        let bytes = hello(512, 16384);
        let longer = [&bytes[..], &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(progress(&longer), Progress::Complete(bytes.len()));
    }

    #[test]
    fn message_of_16_mib_is_rejected_by_its_header() {
        assert_eq!(progress(&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]), Progress::TooLarge);
        assert_eq!(progress(&hello(60_000, 16384)), Progress::Complete(60_000 + 4 + 4 * 5));
        assert_eq!(progress(&hello(70_000, 16384)), Progress::TooLarge);
    }

    #[test]
    fn other_protocols_are_named() {
        for (bytes, what) in [
            (&b"GET / HTTP/1.1\r\n"[..], Protocol::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Ssh),
            (b"\0\0\0\x90\xfeSMB@\0", Protocol::Smb),
            (b"\0\0\0\x90\xffSMBr\0", Protocol::Smb),
            (b"\x03\0\0\x13\x0e\xe0\0\0", Protocol::Rdp),
            (b"\x05\x01\0", Protocol::Socks),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Postgres),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Protocol::Postgres),
            (b"\0\0\0\x29\0\x03\0\0user\0bob\0", Protocol::Postgres),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", Protocol::ProxyHeader),
            (proxy_protocol::V2_SIGNATURE, Protocol::ProxyHeader),
            (b"\x80\x2e\x01\0\x02", Protocol::OtherTls),
            (b"\x15\x03\x01\0\x02\x02\x28", Protocol::OtherTls),
            (b"\0\0\0\0\0\0\0\0", Protocol::Other),
            (b"\x16\x02\x01", Protocol::Other),
        ] {
            assert_eq!(progress(bytes), Progress::NotTls(what), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_records_are_rejected_by_rustls() {
        for bytes in [&[22, 3, 1, 0, 0][..], &[22, 3, 1, 0x40, 1, 1], &[22, 3, 1, 0, 1, 1, 23, 3, 1, 0, 1]] {
            assert_eq!(progress(bytes), Progress::Complete(bytes.len()));
            let refusal = parse(bytes).expect_err("not a ClientHello");
            assert_eq!(refusal.0.reason(), Reason::Malformed);
        }
    }
}
