//! Stage 3: reads the ClientHello and leaves its bytes in the socket.
//!
//! The server name, and with it the route, comes from rustls' parser only. This file itself reads just the length of the
//! message, to know when rustls can parse it. If the two disagree on whether it is complete, the client is rejected.

use tokio::time::timeout_at;

use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{AlertDescription, Error, PeerIncompatible};

use crate::admission::{Admitted, Last, Refused};
use crate::model::names::{ServerName, printable};
use crate::model::rejection::{Alert, Reason, Rejection};
use crate::proxy_protocol;
use crate::sys::socket::{PEEK_MAX, Peeked, peek_until};
use crate::tls::ja4::Ja4;

/// The header of a record (RFC 8446 section 5.1) and of a handshake message (section 4).
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// The longest ClientHello accepted, including record headers.
const HELLO_MAX: usize = PEEK_MAX;

/// A connection whose ClientHello is known; its bytes are still in the socket.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub admitted: Admitted,
    /// The requested server name. `None` also for an IP address, which RFC 6066 section 3 forbids.
    pub server_name: Option<ServerName>,
    /// The length of the records that hold the ClientHello.
    pub length: usize,
    /// The fingerprint of the client program. For the log only.
    pub ja4: Option<Ja4>,
}

/// A rejected ClientHello, with the alert for the client.
#[derive(Debug)]
struct ParseError {
    reason: Reason,
    detail: String,
    alert: Option<Alert>,
    /// How many bytes of the socket it covers.
    length: usize,
}

/// Waits for a ClientHello and reads the server name in it.
pub async fn peek(admitted: Admitted) -> Result<Greeted, Refused> {
    let looked = peek_until(&admitted.stream, |bytes| match progress(bytes) {
        Progress::Incomplete(total) if total <= HELLO_MAX => Peeked::NeedsBytes(total),
        Progress::Incomplete(_) | Progress::TooLarge => Peeked::Done(Err(ParseError {
            reason: Reason::TooLarge,
            detail: format!("the ClientHello is longer than {HELLO_MAX} bytes"),
            alert: Reason::TooLarge.alert(),
            length: bytes.len(),
        })),
        Progress::NotTls(what) => Peeked::Done(Err(ParseError {
            reason: Reason::NotTls,
            detail: what.label().to_owned(),
            alert: None,
            length: 0,
        })),
        Progress::Complete(length) => {
            let hello = bytes.get(..length).unwrap_or_default();
            Peeked::Done(parse(hello).map(|name| (name, length, Ja4::of(hello))))
        }
    });
    let (rejection, last) = match timeout_at(admitted.hello_deadline, looked).await {
        Ok(Ok(Some(Ok((server_name, length, ja4))))) => return Ok(Greeted { admitted, server_name, length, ja4 }),
        Ok(Ok(Some(Err(ParseError { reason, detail, alert, length })))) => {
            (Rejection::silent(reason, detail), plain_alert(alert, length))
        }
        Ok(Ok(None)) => (
            Rejection::silent(
                Reason::ClientHelloClosedEarly,
                "the connection was closed before the ClientHello was complete",
            ),
            Last::Nothing,
        ),
        Ok(Err(error)) => (Rejection::silent(Reason::ClientHelloClosedEarly, error.to_string()), Last::Nothing),
        Err(_) => {
            let detail = "no ClientHello within timeouts.client_hello";
            (Rejection::silent(Reason::ClientHelloTimeout, detail), Last::Nothing)
        }
    };
    Err(admitted.refuse(rejection, last))
}

impl Greeted {
    /// Rejects the client because of its server name, with the alert of `reason`.
    pub fn refuse(self, reason: Reason) -> Refused {
        let detail = match &self.server_name {
            None => "the client sent no server name (an IP address is not one, RFC 6066 section 3)".to_owned(),
            Some(name) => format!("no route answers to {}", printable(name.as_str(), 64)),
        };
        self.admitted.refuse(Rejection::silent(reason, detail), plain_alert(reason.alert(), self.length))
    }
}

/// An unencrypted alert as the answer to `judged` bytes.
fn plain_alert(alert: Option<Alert>, judged: usize) -> Last<'static> {
    alert.map_or(Last::Nothing, |alert| Last::Plain(alert, judged))
}

/// Parses a complete ClientHello with rustls.
fn parse(bytes: &[u8]) -> Result<Option<ServerName>, ParseError> {
    let refuse = |reason, detail, alert| ParseError { reason, detail, alert, length: bytes.len() };
    let refusal = |detail, alert| refuse(Reason::Malformed, detail, alert);
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Err(error) = acceptor.read_tls(&mut rest) {
            return Err(refusal(error.to_string(), Reason::Malformed.alert()));
        }
        // Called after each read: rustls enlarges its buffer for a long message only after it has seen the start.
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) if rest.is_empty() => {
                return Ok(accepted.client_hello().server_name().map(ServerName::from_client_hello));
            }
            Ok(Some(_)) => return Err(refusal("bytes follow the ClientHello".to_owned(), Reason::Malformed.alert())),
            // The extension does not exist before TLS 1.2, so the version is reported instead.
            Err((Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired), _))
                if let Some(version) = old_version(bytes) =>
            {
                let detail = format!("the client supports {version} at most");
                return Err(refuse(Reason::ProtocolVersion, detail, Reason::ProtocolVersion.alert()));
            }
            Err((error, alert)) => {
                let alert = alert_for(&error, alert);
                return Err(refusal(error.to_string(), Some(alert)));
            }
        }
    }
    Err(refusal("the ClientHello is shorter than its header says".to_owned(), Reason::Malformed.alert()))
}

/// For the fuzzer: the server name in a complete ClientHello, or the detail for the log.
#[doc(hidden)]
pub fn fuzz_parse(bytes: &[u8]) -> Result<Option<ServerName>, String> {
    parse(bytes).map_err(|refusal| refusal.detail)
}

/// The alert for an invalid ClientHello.
fn alert_for(error: &Error, mut alert: AcceptedAlert) -> Alert {
    // An Acceptor sends decode_error for all of these, a connection illegal_parameter for some (RFC 8446 section 4.2).
    if let Error::InvalidMessage(message) = error {
        return Alert(AlertDescription::from(*message).into());
    }
    let mut record = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = alert.write_all(&mut record);
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
    NotTls(OtherProtocol),
    /// The message is longer than [`HELLO_MAX`], according to its header.
    TooLarge,
}

/// Walks over the records of the first handshake message (RFC 8446 sections 4 and 5.1).
pub fn progress(bytes: &[u8]) -> Progress {
    match bytes {
        [] => return Progress::Incomplete(RECORD_HEADER),
        [22] | [22, 3, ..] => {}
        _ => return Progress::NotTls(OtherProtocol::of(bytes)),
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

/// The protocol of a connection that is not TLS, guessed from its first bytes. For the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherProtocol {
    /// An HTTP request without TLS.
    Http,
    /// An SSH client.
    Ssh,
    /// SMB over TCP.
    Smb,
    /// A remote desktop client.
    Rdp,
    /// A SOCKS client.
    Socks,
    /// A PROXY protocol header from a source that is not in `proxy_protocol_from`.
    ProxyHeader,
    /// A TLS record that is not a handshake, or a ClientHello of SSL 2.
    OtherTls,
    /// Anything else.
    Other,
}

impl OtherProtocol {
    /// The protocol that `bytes` begin.
    pub fn of(bytes: &[u8]) -> Self {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH ", b"PRI * HTTP/2"];
        match bytes {
            _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Self::Http,
            _ if bytes.starts_with(b"SSH-") => Self::Ssh,
            _ if bytes.starts_with(b"PROXY ") || bytes.starts_with(proxy_protocol::V2_SIGNATURE) => Self::ProxyHeader,
            [0, _, _, _, 0xfe | 0xff, b'S', b'M', b'B', ..] => Self::Smb,
            [3, 0, _, _, _, 0xe0, ..] => Self::Rdp,
            [5, 1..=8, ..] | [4, 1 | 2, ..] => Self::Socks,
            [20 | 21 | 23 | 24, 3, ..] | [0x80..=0xff, _, 1, ..] => Self::OtherTls,
            _ => Self::Other,
        }
    }

    /// The detail in log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Smb => "smb",
            Self::Rdp => "rdp",
            Self::Socks => "socks",
            Self::ProxyHeader => "proxy header",
            Self::OtherTls => "tls, but not a ClientHello",
            Self::Other => "other",
        }
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
            (&b"GET / HTTP/1.1\r\n"[..], OtherProtocol::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", OtherProtocol::Ssh),
            (b"\0\0\0\x90\xfeSMB@\0", OtherProtocol::Smb),
            (b"\0\0\0\x90\xffSMBr\0", OtherProtocol::Smb),
            (b"\x03\0\0\x13\x0e\xe0\0\0", OtherProtocol::Rdp),
            (b"\x05\x01\0", OtherProtocol::Socks),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", OtherProtocol::ProxyHeader),
            (proxy_protocol::V2_SIGNATURE, OtherProtocol::ProxyHeader),
            (b"\x80\x2e\x01\0\x02", OtherProtocol::OtherTls),
            (b"\x15\x03\x01\0\x02\x02\x28", OtherProtocol::OtherTls),
            (b"\0\0\0\0\0\0\0\0", OtherProtocol::Other),
            (b"\x16\x02\x01", OtherProtocol::Other),
        ] {
            assert_eq!(progress(bytes), Progress::NotTls(what), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_records_are_rejected_by_rustls() {
        for bytes in [&[22, 3, 1, 0, 0][..], &[22, 3, 1, 0x40, 1, 1], &[22, 3, 1, 0, 1, 1, 23, 3, 1, 0, 1]] {
            assert_eq!(progress(bytes), Progress::Complete(bytes.len()));
            let refusal = parse(bytes).expect_err("not a ClientHello");
            assert_eq!(refusal.reason, Reason::Malformed);
        }
    }
}
