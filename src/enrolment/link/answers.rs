//! What is asked of the link, and what is answered.

use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::ticket::{Delivery, Refused, Ticket, Token};
use crate::enrolment::steps::{self, Platform};
use crate::enrolment::{Form, Kit, ROOT_FILE};
use crate::html::Html;
use crate::pki;

/// The forms that are handed over. PEM files are not: their key is not encrypted.
const OFFERED: [Form; 3] = [Form::Profile, Form::ArchiveCompat, Form::Archive];

const HTML: &str = "text/html; charset=utf-8";

/// What every answer carries: nobody may keep it, guess what it is, put it into a page of somebody else's, or tell others
/// where it came from.
const HEADERS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What browsers ask for without being told to.
const BY_ITSELF: [&str; 4] =
    ["/favicon.ico", "/apple-touch-icon.png", "/apple-touch-icon-precomposed.png", "/robots.txt"];

/// Knows the link.
#[derive(Debug)]
pub(super) struct Answers {
    kit: Kit,
    ticket: Arc<Ticket>,
    /// What the code says.
    token: Token,
    /// What only who has pressed a button of the page knows: previews of links, and whatever else follows them, do not.
    claim: Token,
    policy: HeaderValue,
}

/// An answer, and what has to be settled when it has arrived.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Full<Bytes>>,
    pub(super) delivery: Option<Delivery>,
    /// The page is on somebody's screen.
    pub(super) opened: bool,
}

impl Answers {
    pub(super) fn new(kit: Kit, ticket: Arc<Ticket>) -> Result<Self, pki::Error> {
        let policy = HeaderValue::from_str(&format!("{}; frame-ancestors 'none'", steps::policy()))
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Ok(Self { kit, ticket, token: Token::new()?, claim: Token::new()?, policy })
    }

    /// The path of the link.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.token.as_str())
    }

    /// The answer to a request of `by`.
    pub(super) fn to<B: Body>(&self, request: &Request<B>, by: IpAddr) -> Answer {
        let mut answer = self.respond(request, by);
        for (name, value) in HEADERS {
            answer.response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer.response.headers_mut().insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        answer
    }

    fn respond<B: Body>(&self, request: &Request<B>, by: IpAddr) -> Answer {
        let path = request.uri().path();
        let (first, file) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((first, file)) => (first, Some(file)),
            None => (path.strip_prefix('/').unwrap_or(path), None),
        };
        if !request.body().is_end_stream() {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "Nothing is to be sent here.");
        }
        let device = &self.kit.device;
        let form = file.and_then(|file| OFFERED.into_iter().find(|form| form.file_name(device) == file));
        let method = request.method();
        match (self.token.is(first), self.claim.is(first), file, form) {
            (true, _, None, _) if reads(method) => self.page(request),
            (true, _, Some(ROOT_FILE), _) if reads(method) => self.root(),
            (true, _, Some(_), Some(form)) if method == Method::POST => self.claim(form),
            // HEAD is nobody's download.
            (_, true, Some(_), Some(form)) if method == Method::GET => self.deliver(form, by),
            (true, _, None, _) | (true, _, Some(ROOT_FILE), _) => not_allowed("GET, HEAD"),
            (true, _, Some(_), Some(_)) => not_allowed("POST"),
            (_, true, Some(_), Some(_)) => not_allowed("GET"),
            _ => {
                if !BY_ITSELF.contains(&path) {
                    self.ticket.wrong(by);
                }
                message(StatusCode::NOT_FOUND, "There is nothing here.")
            }
        }
    }

    /// A page with buttons. Nothing is used up by looking at it.
    fn page<B>(&self, request: &Request<B>) -> Answer {
        if let Err(Refused::Gone) = self.ticket.check() {
            return refusal(Refused::Gone);
        }
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let page = self.kit.facts.link_page(&self.path(), Platform::of_user_agent(user_agent));
        Answer { opened: request.method() == Method::GET, ..reply(StatusCode::OK, HTML, page) }
    }

    /// The certificate of the authority, which is no secret.
    fn root(&self) -> Answer {
        attached(reply(StatusCode::OK, "application/x-x509-ca-cert", self.kit.root_pem.clone()), ROOT_FILE)
    }

    /// A button was pressed: the file itself is elsewhere. Some browsers fetch a download twice, but only with GET, and
    /// Safari hands a profile on to the system only then.
    fn claim(&self, form: Form) -> Answer {
        if let Err(refused) = self.ticket.check() {
            return refusal(refused);
        }
        let location = format!("/{}/{}", self.claim.as_str(), form.file_name(&self.kit.device));
        let mut answer = message(StatusCode::SEE_OTHER, "The file comes now.");
        if let Ok(location) = HeaderValue::from_str(&location) {
            answer.response.headers_mut().insert(LOCATION, location);
        }
        answer
    }

    fn deliver(&self, form: Form, by: IpAddr) -> Answer {
        let delivery = match self.ticket.begin(by, form) {
            Ok(delivery) => delivery,
            Err(refused) => return refusal(refused),
        };
        let contents = self.kit.contents(form).to_vec();
        let answer = match form {
            // With a Content-Disposition, iOS would save it instead of installing it.
            Form::Profile => reply(StatusCode::OK, "application/x-apple-aspen-config", contents),
            _ => attached(reply(StatusCode::OK, "application/x-pkcs12", contents), &form.file_name(&self.kit.device)),
        };
        Answer { delivery: Some(delivery), ..answer }
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn refusal(refused: Refused) -> Answer {
    match refused {
        Refused::Busy => message(StatusCode::CONFLICT, "It is being fetched at this moment."),
        Refused::Gone => message(
            StatusCode::GONE,
            "This link has been used, or its time is over. If it was not you who used it: without its password the file is \
             worthless, but look at what the terminal says. For a new link, run the command again.",
        ),
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer =
        message(StatusCode::METHOD_NOT_ALLOWED, "Open the link itself: this is what the buttons of its page are for.");
    answer.response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A sentence that can be read on a phone.
fn message(status: StatusCode, text: &'static str) -> Answer {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Doorward</title>");
    html.raw("<meta name=\"viewport\" content=\"width=device-width\"><style>").raw(steps::STYLE);
    html.raw("</style><p>").text(text);
    reply(status, HTML, html.finish())
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Answer { response, delivery: None, opened: false }
}

/// To be saved under this name, which has nothing in it that would need quotes.
fn attached(mut answer: Answer, name: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        answer.response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    answer
}
