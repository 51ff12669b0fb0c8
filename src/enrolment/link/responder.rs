//! The replies of the link.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Body, Bytes};
use hyper::header::{ACCEPT_LANGUAGE, ALLOW, CONTENT_DISPOSITION, HeaderName, HeaderValue, LOCATION, USER_AGENT, VARY};
use hyper::{Method, Request, StatusCode};
use maud::{DOCTYPE, PreEscaped, html};

use super::download::{Delivery, Download, Token, Unavailable};
use crate::enrolment::steps::{self, Language, Platform, Words};
use crate::enrolment::{Form, Kit, ROOT_FILE};
use crate::http::{HTML, Policy, Reply, reply};
use crate::pki;

/// The forms that are handed over. PEM files are not: their key is not encrypted.
const OFFERED: [Form; 4] = [Form::Profile, Form::ArchiveCompat, Form::Archive, Form::Bundle];

/// Paths that browsers request unasked.
const BROWSER_PATHS: [&str; 4] =
    ["/favicon.ico", "/apple-touch-icon.png", "/apple-touch-icon-precomposed.png", "/robots.txt"];

/// Replies to requests.
#[derive(Debug)]
pub(super) struct Responder {
    kit: Kit,
    download: Arc<Download>,
    /// In the URL that the QR code has.
    token: Token,
    /// In the URL of the file. Only a button of the page gives it: previews of links do not press buttons.
    claim: Token,
    policy: Policy,
}

/// A reply and what is to be done about it.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) reply: Reply,
    /// The delivery that is complete once the reply has been received.
    pub(super) delivery: Option<Delivery>,
    /// The reply is the page.
    pub(super) opened: bool,
}

impl Responder {
    pub(super) fn new(kit: Kit, download: Arc<Download>) -> Result<Self, pki::Error> {
        let policy = Policy::new(&format!("{}; frame-ancestors 'none'", steps::policy()));
        Ok(Self { kit, download, token: Token::new()?, claim: Token::new()?, policy })
    }

    /// The path of the link.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.token.as_str())
    }

    /// The response to a request from the address `by`.
    pub(super) fn respond<B: Body>(&self, request: &Request<B>, by: IpAddr) -> Response {
        let mut response = self.route(request, by);
        self.policy.apply(&mut response.reply);
        response.reply.headers_mut().insert(VARY, HeaderValue::from_static("accept-language, user-agent"));
        response
    }

    fn route<B: Body>(&self, request: &Request<B>, by: IpAddr) -> Response {
        let path = request.uri().path();
        let language = Language::of_accept_language(header(request, ACCEPT_LANGUAGE));
        let words = language.words();
        let (first, file) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((first, file)) => (first, Some(file)),
            None => (path.strip_prefix('/').unwrap_or(path), None),
        };
        if !request.body().is_end_stream() {
            return message(StatusCode::PAYLOAD_TOO_LARGE, words, words.no_data);
        }
        let device = &self.kit.device;
        let offered = |form: &Form| self.kit.has(*form) && file == Some(&form.file_name(device));
        let form = OFFERED.into_iter().find(offered);
        let method = request.method();
        match (self.token.is(first), self.claim.is(first), file, form) {
            (true, _, None, _) if is_read(method) => self.page(request, by, language),
            (true, _, Some(ROOT_FILE), _) if self.has_root() && is_read(method) => self.root(),
            (true, _, Some(_), Some(form)) if method == Method::POST => self.claim(form, by, words),
            // HEAD downloads nothing.
            (_, true, Some(_), Some(form)) if method == Method::GET => self.deliver(form, by, words),
            (true, _, None, _) => not_allowed("GET, HEAD", words),
            (true, _, Some(ROOT_FILE), _) if self.has_root() => not_allowed("GET, HEAD", words),
            (true, _, Some(_), Some(_)) => not_allowed("POST", words),
            (_, true, Some(_), Some(_)) => not_allowed("GET", words),
            _ => {
                if !BROWSER_PATHS.contains(&path) {
                    self.download.count_wrong_path(by);
                }
                message(StatusCode::NOT_FOUND, words, words.not_found)
            }
        }
    }

    /// The page with the buttons. Reading it changes nothing.
    fn page<B>(&self, request: &Request<B>, by: IpAddr, language: Language) -> Response {
        if let Err(reason @ (Unavailable::Closed | Unavailable::OtherDevice)) = self.download.check(by) {
            return unavailable(reason, language.words());
        }
        let platforms = Platform::of_user_agent(header(request, USER_AGENT));
        let page = self.kit.instructions.link_page(&self.path(), platforms, language);
        Response { opened: request.method() == Method::GET, ..ok(HTML, page) }
    }

    const fn has_root(&self) -> bool {
        self.kit.root_pem.is_some()
    }

    /// The certificate of the authority, which is no secret.
    fn root(&self) -> Response {
        let pem = self.kit.root_pem.clone().unwrap_or_default();
        attachment(ok("application/x-x509-ca-cert", pem), ROOT_FILE)
    }

    /// A button was pressed: redirects to the file. Some browsers fetch a download twice, but only with GET, and Safari hands
    /// a profile on to the system only then.
    fn claim(&self, form: Form, by: IpAddr, words: &Words) -> Response {
        if let Err(reason) = self.download.check(by) {
            return unavailable(reason, words);
        }
        let location = format!("/{}/{}", self.claim.as_str(), form.file_name(&self.kit.device));
        with_header(message(StatusCode::SEE_OTHER, words, words.begins), LOCATION, &location)
    }

    fn deliver(&self, form: Form, by: IpAddr, words: &Words) -> Response {
        let delivery = match self.download.begin(by, form) {
            Ok(delivery) => delivery,
            Err(reason) => return unavailable(reason, words),
        };
        let contents = self.kit.contents(form).to_vec();
        let response = match form {
            // With a Content-Disposition, iOS would save it instead of installing it.
            Form::Profile => ok("application/x-apple-aspen-config", contents),
            // Text would be shown by a browser instead of saved.
            Form::Bundle => attachment(ok("application/octet-stream", contents), &form.file_name(&self.kit.device)),
            _ => attachment(ok("application/x-pkcs12", contents), &form.file_name(&self.kit.device)),
        };
        Response { delivery: Some(delivery), ..response }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A header of the request; empty if there is none that is text.
fn header<B>(request: &Request<B>, name: HeaderName) -> &str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unavailable(reason: Unavailable, words: &Words) -> Response {
    match reason {
        Unavailable::Busy => message(StatusCode::CONFLICT, words, words.busy),
        Unavailable::OtherDevice => message(StatusCode::FORBIDDEN, words, words.other_device),
        Unavailable::Closed => message(StatusCode::GONE, words, words.closed),
    }
}

fn not_allowed(allowed: &'static str, words: &Words) -> Response {
    with_header(message(StatusCode::METHOD_NOT_ALLOWED, words, words.use_buttons), ALLOW, allowed)
}

/// A sentence that is readable on a phone.
fn message(status: StatusCode, words: &Words, text: &str) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang=(words.lang) {
            head {
                meta charset="utf-8";
                title { "Doorward" }
                meta name="viewport" content="width=device-width";
                style { (PreEscaped(steps::STYLE)) }
            }
            body { p { (text) } }
        }
    };
    Response { reply: reply(status, HTML, page.into_string()), delivery: None, opened: false }
}

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    Response { reply: reply(StatusCode::OK, content_type, body), delivery: None, opened: false }
}

/// To be saved as `name`, in which nothing needs quotes.
fn attachment(response: Response, name: &str) -> Response {
    with_header(response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""))
}

fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.reply.headers_mut().insert(name, value);
    }
    response
}
