//! Replies. Each carries the security headers: there is no other way to make one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use crate::model::identity::Sha256;

/// The content types of the replies.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A whole reply, ready to send.
pub(crate) type Reply = Response<Full<Bytes>>;

/// Browsers do not guess the content type, keep no copy, send no referrer, and embed a reply in no other site's page.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    // Fetch standard, section 3.7.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A Content-Security-Policy: what a browser may load and run for a page.
#[derive(Clone, Debug)]
pub(crate) struct Policy(HeaderValue);

impl Policy {
    /// Nothing.
    const DENY_ALL: Self = Self(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));

    /// What `directives` say; nothing if they are no header value.
    pub(crate) fn new(directives: &str) -> Self {
        HeaderValue::from_str(directives).map_or(Self::DENY_ALL, Self)
    }

    /// The source expression for an inline script or style with exactly this text (CSP Level 3, section 2.3.1).
    pub(crate) fn hash_source(text: &str) -> String {
        format!("'sha256-{}'", STANDARD.encode(Sha256::of(text.as_bytes()).0))
    }

    /// Puts it in the place of the policy that `reply` has.
    pub(crate) fn apply(&self, reply: &mut Reply) {
        reply.headers_mut().insert(CONTENT_SECURITY_POLICY, self.0.clone());
    }
}

/// Makes a reply. A browser may load and run nothing for it, unless another [`Policy`] is applied.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in SECURITY_HEADERS {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Policy::DENY_ALL.apply(&mut reply);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(reply: &Reply) -> &str {
        reply.headers().get(CONTENT_SECURITY_POLICY).and_then(|value| value.to_str().ok()).expect("a policy")
    }

    #[test]
    fn policy_that_is_no_header_value_denies_everything() {
        let mut reply = reply(StatusCode::OK, HTML, "");
        Policy::new("default-src 'self'").apply(&mut reply);
        assert_eq!(policy(&reply), "default-src 'self'");
        Policy::new("default-src *;\r\nX-Injected: 1").apply(&mut reply);
        assert_eq!(policy(&reply), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(reply.headers().get_all(CONTENT_SECURITY_POLICY).iter().count(), 1);
    }

    #[test]
    fn hash_source_is_that_of_the_specification() {
        // The example in CSP Level 3, section 8.3.
        assert_eq!(
            Policy::hash_source("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }
}
