//! What an ACME server refuses, in words, and what may be asked again.

use std::time::Duration;

use instant_acme::{Error as AcmeError, Identifier, Problem};

use super::http::{Client, NoAnswer};
use super::remedy::{Obstacle, ProblemFacts};
use super::wanted::Failed;

/// What the kinds of problems begin with (RFC 8555 section 6.7).
pub(super) const PREFIX: &str = "urn:ietf:params:acme:error:";

/// How often a request is sent whose nonce the server does not know: so many rounds, with a pause between them.
const NONCES: u32 = 40;
/// How often the library sends such a request in each round.
pub(super) const LIBRARY_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How much of a server's words is kept, in characters.
const WORDS_MAX: usize = 600;

/// Repeats a request while the server does not take its nonce (RFC 8555 section 6.5).
pub(super) async fn with_nonces<T>(mut request: impl AsyncFnMut() -> Result<T, AcmeError>) -> Result<T, AcmeError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..NONCES {
        match request().await {
            Err(AcmeError::Api(problem)) if is_bad_nonce(&problem) => {}
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    request().await
}

pub(super) fn is_bad_nonce(problem: &Problem) -> bool {
    kind(problem) == Some("badNonce")
}

/// Why an attempt has failed. Asked of `client` right after its answer: how long it has asked to wait.
pub(super) fn failed(client: &Client, error: &AcmeError) -> Failed {
    let failed = match error {
        AcmeError::Api(problem) => Failed { rate_limited: is_rate_limit(problem), ..Failed::new(words(problem)) },
        AcmeError::Json(error) => Failed::new(format!("the server's answer is not one of ACME: {error}")),
        other => Failed::new(readable(&other.to_string())),
    };
    Failed { retry_after: client.retry_after(), facts: Box::new(facts(error)), ..failed }
}

/// What is known of the cause.
fn facts(error: &AcmeError) -> ProblemFacts {
    match error {
        AcmeError::Api(problem) => facts_of(problem),
        AcmeError::Json(_) => ProblemFacts::obstacle(Obstacle::Protocol),
        AcmeError::Other(error) => {
            let obstacle = error.downcast_ref::<NoAnswer>().map(NoAnswer::obstacle);
            obstacle.map(ProblemFacts::obstacle).unwrap_or_default()
        }
        _ => ProblemFacts::default(),
    }
}

/// What a server says, for the remedies: of the whole, and of single names.
pub(super) fn facts_of(problem: &Problem) -> ProblemFacts {
    let said = |kind: Option<&str>, detail: Option<&str>| {
        let detail = readable(detail.unwrap_or_default());
        kind.map_or_else(ProblemFacts::default, |kind| ProblemFacts::said(kind, &detail))
    };
    let kind = kind(problem).or_else(|| match problem.status? {
        429 => Some("rateLimited"),
        500.. => Some("serverInternal"),
        _ => None,
    });
    if kind.is_none() && problem.status.is_some() {
        // A page, or a redirect to one.
        return ProblemFacts::obstacle(Obstacle::Protocol);
    }
    let names = problem.subproblems.iter().filter_map(|part| {
        let Some(Identifier::Dns(name)) = &part.identifier else { return None };
        Some((name.clone(), said(part.r#type.as_deref(), part.detail.as_deref())))
    });
    said(kind, problem.detail.as_deref()).with_names(names.collect())
}

/// What a server says.
pub(super) fn words(problem: &Problem) -> String {
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let detail: Vec<&str> = problem.detail.as_deref().into_iter().chain(parts).collect();
    readable(&match (kind(problem), detail.is_empty()) {
        (Some(kind), false) => format!("{} ({kind})", detail.join("; ")),
        (Some(kind), true) => kind.to_owned(),
        (None, false) => detail.join("; "),
        (None, true) => problem.status.map_or_else(
            || "the server refuses, and does not say why".to_owned(),
            |status| format!("the server answers with status {status}"),
        ),
    })
}

/// Text of a server, for logs and pages: of one line, and bounded.
fn readable(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    if text.chars().count() > WORDS_MAX { format!("{plain}…") } else { plain }
}

/// What it is about, without [`PREFIX`].
pub(super) fn kind(problem: &Problem) -> Option<&str> {
    let kind = problem.r#type.as_deref()?;
    Some(kind.strip_prefix(PREFIX).unwrap_or(kind)).filter(|&kind| kind != "about:blank")
}

/// The server asks for fewer requests.
pub(super) fn is_rate_limit(problem: &Problem) -> bool {
    problem.status == Some(429) || kind(problem) == Some("rateLimited")
}

/// The account is not there, or must not be used.
pub(super) fn is_unknown_account(problem: &Problem) -> bool {
    matches!(kind(problem), Some("accountDoesNotExist" | "unauthorized"))
}

/// The same request may have another answer later.
pub(super) fn is_passing(problem: &Problem) -> bool {
    let failing = problem.status.is_some_and(|status| status >= 500);
    failing || is_rate_limit(problem) || matches!(kind(problem), Some("badNonce" | "serverInternal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        serde_json::from_str(text).expect("a problem document")
    }

    #[test]
    fn words_of_a_server_are_kept_on_one_line_and_bounded() {
        let told = r#"{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA\r\nforbids it", "subproblems": [{"detail": "for a"}]}"#;
        assert_eq!(words(&problem(told)), "CAA  forbids it; for a (caa)");
        assert_eq!(words(&problem(r#"{"type": "urn:ietf:params:acme:error:dns"}"#)), "dns");
        assert_eq!(words(&problem(r#"{"type": "about:blank", "status": 503}"#)), "the server answers with status 503");
        assert_eq!(words(&problem("{}")), "the server refuses, and does not say why");
        let long = words(&problem(&format!(r#"{{"detail": "{}"}}"#, "x\\u001b".repeat(2000))));
        assert_eq!(long.chars().count(), WORDS_MAX + 1);
        assert!(!long.contains('\u{1b}'));
    }

    #[test]
    fn facts_are_those_of_the_problem_and_of_its_names() {
        let told = r#"{"type": "urn:ietf:params:acme:error:compound", "detail": "two", "subproblems": [
            {"type": "urn:ietf:params:acme:error:caa", "detail": "no", "identifier": {"type": "dns", "value": "a.example"}},
            {"type": "urn:ietf:params:acme:error:dns", "detail": "of none"}]}"#;
        let caa = ProblemFacts::said("caa", "no");
        let expected = ProblemFacts::said("compound", "two").with_names(vec![("a.example".to_owned(), caa)]);
        assert_eq!(facts_of(&problem(told)), expected);
        for (text, expected) in [
            (r#"{"status": 429}"#, ProblemFacts::said("rateLimited", "")),
            (r#"{"status": 502}"#, ProblemFacts::said("serverInternal", "")),
            (r#"{"status": 404}"#, ProblemFacts::obstacle(Obstacle::Protocol)),
            (r#"{"type": "about:blank", "status": 302}"#, ProblemFacts::obstacle(Obstacle::Protocol)),
            ("{}", ProblemFacts::default()),
        ] {
            assert_eq!(facts_of(&problem(text)), expected, "{text}");
        }
    }

    #[test]
    fn obstacle_on_the_way_is_found_in_the_error() {
        let tls = |error: rustls::Error| NoAnswer::Tls {
            host: "a".to_owned(),
            error: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        };
        let invalid = rustls::Error::InvalidCertificate;
        for (error, expected) in [
            (NoAnswer::Unknown { host: "a".to_owned(), error: std::io::Error::other("x") }, Obstacle::LookUp),
            (NoAnswer::Connect { host: "a".to_owned(), error: "x".to_owned() }, Obstacle::Network),
            (NoAnswer::Late("a".to_owned()), Obstacle::Network),
            (tls(invalid(rustls::CertificateError::Expired)), Obstacle::Clock),
            (tls(invalid(rustls::CertificateError::UnknownIssuer)), Obstacle::Trust),
            (tls(rustls::Error::HandshakeNotComplete), Obstacle::Protocol),
            (NoAnswer::Tls { host: "a".to_owned(), error: std::io::Error::other("x") }, Obstacle::Network),
            (NoAnswer::Url("a".to_owned()), Obstacle::Protocol),
        ] {
            let shown = error.to_string();
            assert_eq!(facts(&AcmeError::Other(error.into())), ProblemFacts::obstacle(expected), "{shown}");
        }
    }

    #[test]
    fn rate_limits_and_failures_pass() {
        assert!(is_rate_limit(&problem(r#"{"status": 429}"#)));
        assert!(is_rate_limit(&problem(r#"{"type": "urn:ietf:params:acme:error:rateLimited"}"#)));
        assert!(is_passing(&problem(r#"{"status": 502}"#)));
        assert!(!is_passing(&problem(r#"{"type": "urn:ietf:params:acme:error:malformed", "status": 400}"#)));
        assert!(is_unknown_account(&problem(r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist"}"#)));
    }

    #[tokio::test(start_paused = true)]
    async fn nonces_are_tried_again_within_a_bound() {
        let bad = || AcmeError::Api(problem(r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#));
        let mut asked = 0;
        let asked_in_vain = with_nonces(async || {
            asked += 1;
            Err::<(), _>(bad())
        });
        asked_in_vain.await.expect_err("it never has another answer");
        assert_eq!(asked, NONCES);
        let mut asked = 0;
        let answered = with_nonces(async || {
            asked += 1;
            if asked < 7 { Err(bad()) } else { Ok(asked) }
        });
        assert_eq!(answered.await.expect("an answer"), 7);
    }
}
