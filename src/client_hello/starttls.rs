//! What PostgreSQL clients send before TLS begins (its manual, section "SSL Session Encryption").
//!
//! The answer is given before any server name is known, and on gates with a route that asks for it only. It is one byte that
//! says nothing of the gate. Nothing in the clear is ever passed on: a request is taken off the socket alone, and all that
//! follows it goes into the TLS handshake. Bytes that come with a request are refused all the same, as PostgreSQL does since
//! CVE-2021-23214: a client that waits for its answer has sent none, so another party has.

use std::io;

use super::Seen;
use crate::model::rejection::{Cause, HelloFault};
use crate::model::starttls::Starttls;
use crate::sys::accepted::AcceptedStream;
use crate::sys::socket::{Peeked, discard};

/// The length of a request for encryption.
const LENGTH: usize = 8;

const SSL: &[u8; LENGTH] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8; LENGTH] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// What a PostgreSQL client sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SSLRequest: TLS, if the server speaks it.
    Ssl,
    /// GSSENCRequest: encryption by Kerberos.
    GssEncryption,
    /// StartupMessage or CancelRequest: no encryption.
    InTheClear,
}

/// The request that `bytes` begin with.
pub fn request(bytes: &[u8]) -> Option<Request> {
    match bytes {
        _ if bytes.starts_with(SSL) => Some(Request::Ssl),
        _ if bytes.starts_with(GSS) => Some(Request::GssEncryption),
        // CancelRequest 80877102; and StartupMessage of a protocol 3, whose length is less than 10,000.
        [0, 0, _, _, 0x04, 0xd2, 0x16, 0x2e, ..] | [0, 0, 0..=0x27, _, 0, 3, 0, _, ..] => Some(Request::InTheClear),
        _ => None,
    }
}

/// A gate's side of the requests of one connection: it answers each once, and none behind the one for TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiation {
    /// What the gate answers, if it answers anything.
    answers: Option<Starttls>,
    gss_refused: bool,
    /// TLS is what comes next, by this protocol.
    pub(super) agreed: Option<Starttls>,
}

impl Negotiation {
    pub(super) const fn new(answers: Option<Starttls>) -> Self {
        Self { answers, gss_refused: false, agreed: None }
    }

    /// What to do about the first bytes; `None` if they are not a request that is answered.
    pub(super) fn look(self, bytes: &[u8]) -> Option<Peeked<Seen>> {
        if self.answers.is_none() || self.agreed.is_some() {
            return None;
        }
        if bytes.len() < LENGTH {
            let may_be_one = SSL.starts_with(bytes) || GSS.starts_with(bytes);
            return may_be_one.then_some(Peeked::NeedsBytes(LENGTH));
        }
        let request = request(bytes)?;
        match request {
            Request::InTheClear => None,
            Request::GssEncryption if self.gss_refused => None,
            Request::Ssl | Request::GssEncryption => Some(Peeked::Done(if bytes.len() == LENGTH {
                Seen::Asks(request)
            } else {
                Seen::Hello(Err((Cause::Malformed(HelloFault::BytesBehindRequest), None, 0)))
            })),
        }
    }

    /// Takes a request off the socket and answers it.
    pub(super) async fn answer(&mut self, request: Request, stream: &mut AcceptedStream) -> io::Result<()> {
        discard(stream, LENGTH)?;
        match request {
            Request::Ssl => {
                self.agreed = self.answers;
                stream.send(b"S").await
            }
            // The client goes on with an SSLRequest.
            Request::GssEncryption | Request::InTheClear => {
                self.gss_refused = true;
                stream.send(b"N").await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERING: Negotiation = Negotiation::new(Some(Starttls::Postgres));

    fn seen(negotiation: Negotiation, bytes: &[u8]) -> String {
        negotiation.look(bytes).map_or_else(|| "none".to_owned(), |seen| format!("{seen:?}"))
    }

    #[test]
    fn requests_are_recognised_by_their_whole_code() {
        assert_eq!(request(SSL), Some(Request::Ssl));
        assert_eq!(request(GSS), Some(Request::GssEncryption));
        assert_eq!(request(b"\0\0\0\x10\x04\xd2\x16\x2eabcdefgh"), Some(Request::InTheClear));
        for minor in 0..3 {
            assert_eq!(request(&[0, 0, 0, 41, 0, 3, 0, minor, b'u']), Some(Request::InTheClear));
        }
        for other in [
            &b"\0\0\0\x08\x04\xd2\x16"[..],
            b"\0\0\0\x09\x04\xd2\x16\x2f",
            b"\0\0\0\x08\x04\xd2\x16\x31",
            b"\0\0\0\x90\xfeSMB@\0",
            b"\0\0\xff\x29\0\x03\0\0",
            b"\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(request(other), None, "{other:?}");
        }
    }

    #[test]
    fn request_is_waited_for_and_answered_only_where_configured() {
        for length in 1..LENGTH {
            assert_eq!(seen(ANSWERING, &SSL[..length]), "NeedsBytes(8)");
            assert_eq!(seen(Negotiation::new(None), &SSL[..length]), "none");
        }
        assert_eq!(seen(ANSWERING, SSL), "Done(Asks(Ssl))");
        assert_eq!(seen(ANSWERING, GSS), "Done(Asks(GssEncryption))");
        assert_eq!(seen(Negotiation::new(None), SSL), "none");
        assert_eq!(seen(ANSWERING, b"\x16"), "none");
        assert_eq!(seen(ANSWERING, b"\0\0\0\x08\x03"), "none", "it can become no request");
    }

    /// CVE-2021-23214 and CVE-2021-23222.
    #[test]
    fn bytes_behind_a_request_are_refused() {
        for request in [SSL, GSS] {
            let more = [request.as_slice(), b"Q"].concat();
            assert!(seen(ANSWERING, &more).contains("BytesBehindRequest"));
        }
    }

    #[test]
    fn request_is_answered_once() {
        let refused_gss = Negotiation { gss_refused: true, ..ANSWERING };
        assert_eq!(seen(refused_gss, GSS), "none");
        assert_eq!(seen(refused_gss, SSL), "Done(Asks(Ssl))");
        let agreed = Negotiation { agreed: Some(Starttls::Postgres), ..ANSWERING };
        assert_eq!([seen(agreed, SSL), seen(agreed, GSS)], ["none", "none"]);
    }
}
