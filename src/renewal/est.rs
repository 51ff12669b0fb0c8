//! The requests of EST that are answered (RFC 7030): `simplereenroll`, and the authorities that sign.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::desk::Desk;
use super::folder::{RenewalRequest, Submitted};
use super::service::{Asked, Client, RenewalService, is_renewed};
use crate::http::{Reply, TEXT, reply};
use crate::model::renewal::{RequestOutcome, Unattended};
use crate::pki::{CertificateRequest, certs_only};

/// Where a device asks for its next certificate (RFC 7030 section 4.2.2).
pub const SIMPLE_REENROLL: &str = "/.well-known/est/simplereenroll";
/// Where the certificates of the authorities are (section 4.1).
pub const CACERTS: &str = "/.well-known/est/cacerts";
/// What a request is sent as (RFC 5967). It is none that a web page can have a browser send to another site without asking there.
pub const CONTENT_TYPE: &str = "application/pkcs10";
/// What certificates are sent as.
pub const PKCS7: &str = "application/pkcs7-mime; smime-type=certs-only";

/// A device whose request is stored is told to ask again after so many seconds.
pub const ASK_AGAIN: u64 = 60;

/// The longest body: a request in base64 with line breaks.
const BODY_MAX: usize = CertificateRequest::LONGEST * 3 / 2;
/// For the body. The head has a limit of its own.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);
/// Characters in a line of base64 (RFC 2045 section 6.8).
const LINE: usize = 76;

const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// A reply, and what is told about it.
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) asked: Option<Asked>,
}

/// Why a request is not stored: the status, the sentence for the device, and what it is counted as.
struct Refused(StatusCode, String, RequestOutcome);

/// Answers a request.
pub(super) async fn answer(
    request: Request<Incoming>,
    service: &Arc<RenewalService>,
    client: &Client,
    desk: &Desk,
) -> Answered {
    let untold = |reply| Answered { reply, asked: None };
    match (request.uri().path(), request.method()) {
        (SIMPLE_REENROLL, &Method::POST) => reenroll(request, service, client, desk).await,
        (SIMPLE_REENROLL, _) => untold(only("POST")),
        (CACERTS, &Method::GET | &Method::HEAD) => untold(certificates(&service.authorities)),
        (CACERTS, _) => untold(only("GET, HEAD")),
        _ => untold(reply(StatusCode::NOT_FOUND, TEXT, "this service renews certificates, and does nothing else\n")),
    }
}

/// Another method than these.
fn only(methods: &'static str) -> Reply {
    let mut reply = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("allowed here: {methods}\n"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    reply
}

async fn reenroll(request: Request<Incoming>, service: &Arc<RenewalService>, client: &Client, desk: &Desk) -> Answered {
    let (mut same_key, mut issued, mut left) = (None, None, None);
    let submitted = match wanted(request, client).await {
        Ok(wanted) => {
            let is_same = wanted.request.key() == client.identity.spki;
            same_key = Some(is_same);
            let mut submitted = submit(wanted.clone(), service).await;
            // What a new key shows, only the owner can judge.
            if is_same && service.is_unattended() && matches!(submitted, Ok(Submitted::Stored | Submitted::Waiting)) {
                match desk.show(&wanted.device).await {
                    Some(Unattended::Issued(new)) => {
                        issued = Some(new);
                        submitted = submit(wanted, service).await;
                    }
                    Some(Unattended::Left { why } | Unattended::Failed { error: why }) => left = Some(why),
                    None => {}
                }
            }
            submitted
        }
        Err(refused) => Err(refused),
    };
    let (reply, outcome, detail) = match submitted {
        Ok(Submitted::Approved(issued)) => {
            let outcome = if is_renewed(&issued) { RequestOutcome::IssuedUnattended } else { RequestOutcome::Approved };
            (certificates(&[issued]), outcome, None)
        }
        Ok(Submitted::Stored) => (wait(), RequestOutcome::Stored, left),
        Ok(Submitted::Waiting) => (wait(), RequestOutcome::Waiting, None),
        Ok(Submitted::Refused) => {
            let text = "the owner of the gate has refused this request\n";
            (reply(StatusCode::FORBIDDEN, TEXT, text), RequestOutcome::Refused, None)
        }
        Ok(Submitted::TooSoon(seconds)) => {
            let text = "another request of this device was stored a moment ago\n";
            let mut reply = reply(StatusCode::TOO_MANY_REQUESTS, TEXT, text);
            reply.headers_mut().insert(RETRY_AFTER, seconds.into());
            (reply, RequestOutcome::TooSoon, None)
        }
        Err(Refused(status, why, outcome)) => (reply(status, TEXT, format!("{why}\n")), outcome, Some(why)),
    };
    Answered { reply, asked: Some(Asked { device: client.name(), outcome, same_key, issued, detail }) }
}

/// The request of a device whose certificate is renewed.
async fn wanted(request: Request<Incoming>, client: &Client) -> Result<RenewalRequest, Refused> {
    let Some(device) = client.device.clone() else {
        let why = match client.identity.guest_pass {
            Some(_) => "a guest pass is not renewed",
            None => "the owner's inventory has no certificate like this one that could be renewed",
        };
        return Err(Refused(StatusCode::FORBIDDEN, why.to_owned(), RequestOutcome::NotRenewed));
    };
    let invalid = |status, why: &str| Refused(status, why.to_owned(), RequestOutcome::Invalid);
    if !is_request(request.headers()) {
        let why = "send the request as application/pkcs10";
        return Err(invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let body = timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    let body = body.map_err(|_| invalid(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"))?;
    let body = body.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            invalid(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long")
        } else {
            invalid(StatusCode::BAD_REQUEST, "the request is incomplete")
        }
    })?;
    let der = of_base64(&body.to_bytes())
        .ok_or_else(|| invalid(StatusCode::BAD_REQUEST, "the request is not base64 (RFC 7030 section 4.2.1)"))?;
    // The names in it are not looked at: the next certificate has those of the one before.
    let request = CertificateRequest::read(&der).map_err(|why| invalid(StatusCode::BAD_REQUEST, &why.to_string()))?;
    Ok(RenewalRequest {
        device,
        certificate: client.identity.fingerprint,
        shown: Some(client.certificate.clone()),
        source: client.source.to_canonical().to_string(),
        requested_at: OffsetDateTime::now_utc().unix_timestamp(),
        request,
    })
}

async fn submit(wanted: RenewalRequest, service: &Arc<RenewalService>) -> Result<Submitted, Refused> {
    let service = Arc::clone(service);
    // Writes to the disk.
    let submitted =
        tokio::task::spawn_blocking(move || service.folder.submit_unless(&wanted, |issued| service.is_useless(issued)));
    let submitted = submitted.await;
    let failed = |why: String| Refused(StatusCode::SERVICE_UNAVAILABLE, why, RequestOutcome::Failed);
    match submitted {
        Ok(Ok(submitted)) => Ok(submitted),
        Ok(Err(error)) => Err(failed(format!("the gate cannot use its folder of requests: {error}"))),
        Err(_) => Err(failed("the gate could not store the request".to_owned())),
    }
}

/// It is stored (RFC 7030 section 4.2.3).
fn wait() -> Reply {
    let text = "the owner of the gate has to approve the request; send it again later\n";
    let mut reply = reply(StatusCode::ACCEPTED, TEXT, text);
    reply.headers_mut().insert(RETRY_AFTER, ASK_AGAIN.into());
    reply
}

/// Certificates (RFC 7030 sections 4.1.3 and 4.2.3).
fn certificates(certificates: &[CertificateDer<'_>]) -> Reply {
    let mut reply = reply(StatusCode::OK, PKCS7, to_base64(&certs_only::encode(certificates)));
    reply.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("base64"));
    reply
}

/// Whether the body is said to be a certificate request.
fn is_request(headers: &HeaderMap) -> bool {
    let kind = headers.get(TYPE).and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

fn of_base64(text: &Bytes) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

fn to_base64(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::with_capacity(text.len() + text.len() / LINE + 1);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_short_lines_and_is_read_with_any_breaks() {
        let der: Vec<u8> = (0..=255).collect();
        let text = to_base64(&der);
        assert!(text.lines().all(|line| line.len() <= LINE) && text.lines().count() == 5, "{text}");
        assert_eq!(of_base64(&Bytes::from(text.replace('\n', "\r\n "))), Some(der));
        assert_eq!(of_base64(&Bytes::from_static(b"-----BEGIN")), None);
    }

    #[test]
    fn only_a_certificate_request_is_taken() {
        for (given, taken) in [
            ("application/pkcs10", true),
            ("Application/PKCS10; charset=us-ascii", true),
            ("application/pkcs10x", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let headers = HeaderMap::from_iter([(TYPE, HeaderValue::from_static(given))]);
            assert_eq!(is_request(&headers), taken, "{given}");
        }
        assert!(!is_request(&HeaderMap::new()));
    }
}
