//! What is told, and how receivers want it.

use hyper::Uri;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::checked::Format;
use crate::config::ntfy_topic;
use crate::model::names::visible;
use crate::model::notice::{NoticeEvent, NoticeOutcome, NoticePriority};

/// The longest subject and title, in characters.
const SHORT_MAX: usize = 128;
/// The longest message, in characters.
const MESSAGE_MAX: usize = 1500;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) event: NoticeEvent,
    /// A device, a backend, a file: there is one message for each in an hour.
    pub(crate) subject: String,
    pub(crate) title: String,
    pub(crate) message: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) time: OffsetDateTime,
    /// How many events it is about.
    pub(crate) count: u64,
    /// The domain of the gate, for an owner of several.
    #[serde(default)]
    pub(crate) domain: Option<String>,
    #[serde(default)]
    pub(crate) route: Option<String>,
    /// The address of a client.
    #[serde(default)]
    pub(crate) source: Option<String>,
    /// What was told before is over.
    #[serde(default)]
    pub(crate) resolved: bool,
    /// It is about events that had no message of their own.
    #[serde(default)]
    pub(crate) digest: bool,
    /// Nothing has happened: the owner tries the receiver.
    #[serde(default)]
    pub(crate) test: bool,
}

/// From the gate to a notifier.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToNotifier {
    /// Something has happened.
    Notice(Notice),
    /// An earlier notifier has told this receiver about a subject, so many seconds ago.
    Told { event: NoticeEvent, subject: String, seconds: u64 },
}

/// From a notifier to the gate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(crate) enum FromNotifier {
    /// It runs. A second one means that the first one has ended unexpectedly.
    Started {
        /// The parts of its sandbox that are in force.
        sandbox: Vec<String>,
    },
    /// The receiver has taken a message about this subject.
    Told { event: NoticeEvent, subject: String },
    /// So many events had this outcome.
    Outcome { event: NoticeEvent, outcome: NoticeOutcome, count: u64 },
    /// Whether the receiver takes messages, and how many wait for it.
    State { error: Option<String>, waiting: usize },
}

impl Notice {
    /// The same with every text bounded and without control characters: they may come from a gate that was taken over.
    pub(crate) fn bounded(self) -> Self {
        let short = |text: String| visible(&text, SHORT_MAX);
        let lines: Vec<String> = self.message.lines().map(|line| visible(line, MESSAGE_MAX)).collect();
        Self {
            subject: short(self.subject),
            title: short(self.title),
            message: lines.join("\n").chars().take(MESSAGE_MAX).collect(),
            domain: self.domain.map(short),
            route: self.route.map(short),
            source: self.source.map(short),
            ..self
        }
    }

    /// An example of a message about this event.
    pub(crate) fn example(event: NoticeEvent, domain: Option<String>, time: OffsetDateTime) -> Self {
        let (title, message) = match event {
            NoticeEvent::Impostor => (
                "Somebody pretended to be alice-phone",
                "A client at 198.51.100.66 showed a certificate with the name alice-phone that you never issued. It was \
                 refused.",
            ),
            NoticeEvent::NewDevice => {
                ("alice-phone has connected", "alice-phone connected for the first time, from 198.51.100.20 to nas.")
            }
            NoticeEvent::BackendDown => ("nas is down", "192.168.1.10:5666 does not answer: connection refused."),
            NoticeEvent::BackendUp => ("nas is up", "192.168.1.10:5666 answers again."),
            NoticeEvent::Expiring => ("alice-phone expires", "The certificate of alice-phone expires in 5 days."),
            NoticeEvent::RenewalFailed => (
                "The public certificate could not be renewed",
                "The last of 3 orders failed today 21:40:12 at letsencrypt: nas.home.example: 198.51.100.7: Connection refused. The one \
                 in use is valid until 2027-02-26. To see more: doorward status",
            ),
            NoticeEvent::RenewalRequested => (
                "alice-laptop asks for its next certificate",
                "alice-laptop has sent a request from 198.51.100.20, with the key that it has. To issue it: doorward ca approve \
                 alice-laptop",
            ),
            NoticeEvent::ReloadFailed => {
                ("The new configuration was refused", "The gate keeps the one before. To see why: doorward check")
            }
            NoticeEvent::RevocationNotInForce => (
                "A revocation is not in force",
                "The gate cannot read clients.crl: revoked devices may still be admitted. To see why: doorward check",
            ),
        };
        Self {
            event,
            subject: "test".to_owned(),
            title: format!("Test: {title}"),
            message: format!("This is a test, and nothing has happened. A real message would say: {message}"),
            time,
            count: 1,
            domain,
            route: None,
            source: None,
            resolved: false,
            digest: false,
            test: true,
        }
    }

    /// How pressing it is.
    pub(crate) const fn priority(&self) -> NoticePriority {
        if self.resolved { NoticePriority::Low } else { self.event.priority() }
    }

    /// The word that ntfy shows as a picture.
    const fn tag(&self) -> &'static str {
        if self.resolved { "white_check_mark" } else { tag(self.event) }
    }

    /// Every field, as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "event": self.event.label(),
            "time": self.time.format(&Rfc3339).unwrap_or_default(),
            "domain": self.domain,
            "subject": self.subject,
            "title": self.title,
            "message": self.message,
            "priority": self.priority().label(),
            "tags": [self.tag()],
            "count": self.count,
            "resolved": self.resolved,
            "digest": self.digest,
            "test": self.test,
            "route": self.route,
            "source": self.source,
        })
    }

    /// The body for a webhook of this format at `url`.
    pub(super) fn body(&self, format: Format, url: &Uri) -> Value {
        match format {
            Format::Json => self.json(),
            Format::Ntfy => json!({
                "topic": ntfy_topic(url),
                "title": self.titled(),
                "message": self.message,
                "priority": match self.priority() {
                    NoticePriority::Low => 2,
                    NoticePriority::Normal => 3,
                    NoticePriority::High => 4,
                    NoticePriority::Urgent => 5,
                },
                "tags": [self.tag()],
            }),
            Format::Gotify => json!({
                "title": self.titled(),
                "message": self.message,
                "priority": match self.priority() {
                    NoticePriority::Low => 2,
                    NoticePriority::Normal => 5,
                    NoticePriority::High => 7,
                    NoticePriority::Urgent => 10,
                },
            }),
            Format::Slack => {
                json!({ "text": format!("*{}*\n{}", escaped(&self.titled()), escaped(&self.message)) })
            }
        }
    }

    fn titled(&self) -> String {
        self.domain.as_ref().map_or_else(|| self.title.clone(), |domain| format!("{} ({domain})", self.title))
    }
}

/// The word that ntfy shows as a picture (docs.ntfy.sh/emojis).
const fn tag(event: NoticeEvent) -> &'static str {
    match event {
        NoticeEvent::Impostor | NoticeEvent::RevocationNotInForce => "rotating_light",
        NoticeEvent::NewDevice => "iphone",
        NoticeEvent::BackendDown => "red_circle",
        NoticeEvent::BackendUp => "green_circle",
        NoticeEvent::Expiring => "hourglass",
        NoticeEvent::RenewalRequested => "incoming_envelope",
        NoticeEvent::RenewalFailed | NoticeEvent::ReloadFailed => "warning",
    }
}

/// The three characters that Slack gives a meaning (api.slack.com/reference/surfaces/formatting#escaping).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message about `subject`.
    pub(crate) fn notice(event: NoticeEvent, subject: &str, count: u64) -> Notice {
        let domain = Some("home.example".to_owned());
        let example = Notice::example(event, domain, OffsetDateTime::UNIX_EPOCH);
        Notice { subject: subject.to_owned(), title: format!("about {subject}"), count, test: false, ..example }
    }

    #[test]
    fn each_format_has_the_shape_of_its_receiver() {
        let url: Uri = "https://ntfy.sh/topic".parse().expect("a URL");
        let notice = Notice { message: "a < b & c > d".to_owned(), ..notice(NoticeEvent::Impostor, "phone", 1) };
        let body = |format| notice.body(format, &url);
        assert_eq!(
            body(Format::Ntfy),
            json!({"topic": "topic", "title": "about phone (home.example)", "message": "a < b & c > d", "priority": 5,
                   "tags": ["rotating_light"]})
        );
        assert_eq!(
            body(Format::Gotify),
            json!({"title": "about phone (home.example)", "message": "a < b & c > d", "priority": 10})
        );
        assert_eq!(body(Format::Slack), json!({"text": "*about phone (home.example)*\na &lt; b &amp; c &gt; d"}));
        let whole = body(Format::Json);
        for (field, value) in [
            ("event", json!("impostor")),
            ("time", json!("1970-01-01T00:00:00Z")),
            ("domain", json!("home.example")),
            ("subject", json!("phone")),
            ("title", json!("about phone")),
            ("priority", json!("urgent")),
            ("tags", json!(["rotating_light"])),
            ("count", json!(1)),
            ("digest", json!(false)),
            ("test", json!(false)),
            ("route", Value::Null),
        ] {
            assert_eq!(whole[field], value, "{field}");
        }
    }

    #[test]
    fn texts_are_bounded_and_have_no_control_characters() {
        let notice = Notice {
            title: "a\u{1b}[31m\n".repeat(500),
            message: format!("one\ntwo\u{202e}{}", "x".repeat(10_000)),
            ..notice(NoticeEvent::NewDevice, &"s".repeat(10_000), 1)
        };
        let bounded = notice.bounded();
        assert!(bounded.message.starts_with("one\ntwo"), "{}", bounded.message);
        for text in [&bounded.title, &bounded.subject, &bounded.message] {
            assert!(text.chars().count() <= MESSAGE_MAX, "{text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        }
        let sent = serde_json::to_vec(&ToNotifier::Notice(bounded.clone())).expect("JSON");
        assert!(sent.len() < 16 * 1024);
        let received = serde_json::from_slice(&sent).expect("a message");
        assert!(matches!(received, ToNotifier::Notice(received) if received == bounded));
    }
}
