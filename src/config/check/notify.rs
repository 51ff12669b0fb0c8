//! `[notify]`: the receivers of messages, and what they are about.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use hyper::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;

use crate::config::checked::{Format, Notify, Secret, SecretUrl, Webhook};
use crate::config::raw::RawNotify;
use crate::config::report::{At, Given, Place, Problem, Report, Text, quoted};
use crate::config::{files, key_file, values};
use crate::model::notice::NoticeEvent;

/// A URL, as it would be written.
const EXAMPLE: &str = "webhook = \"https://ntfy.sh/YOUR-TOPIC\"";

/// The longest URL or token, in bytes.
const LONGEST: usize = 2048;

/// The receivers; none if there is no `[notify]`.
pub(in crate::config) fn check(given: &Given<RawNotify>, report: &mut Report) -> Option<Notify> {
    let At { value: raw, place } = match given {
        Given::Refused => return None,
        Given::Absent => return Some(Notify::default()),
        Given::Value(notify) => notify,
    };
    let mut files = Vec::new();
    let url = url(raw, &mut files, report);
    let format = match &raw.format {
        Given::Absent => Some(None),
        Given::Refused => None,
        Given::Value(text) => report.taken(&text.place, values::word(&text.value, FORMATS)).map(Some),
    };
    let token = token(&raw.token_file, &mut files, report);
    let trust = trust(&raw.trust, &mut files, report);
    let command = command(&raw.command, report);
    let events = events(&raw.events, place, report);
    let webhook = match url? {
        None => {
            for key in [&raw.format, &raw.token_file, &raw.trust].into_iter().filter_map(Given::value) {
                report.error(
                    &key.place,
                    "this is about a webhook, and there is none",
                    format!("remove it, or add a line: {EXAMPLE}"),
                );
            }
            None
        }
        Some(url) => {
            let (url, at) = (url.value, url.place);
            let format = format?.unwrap_or_else(|| usual_format(&url));
            if format == Format::Ntfy && topic(url.expose()).is_none() {
                report.error(
                    &at,
                    "the URL of an ntfy server ends with a topic, and this one has none",
                    format!("add your topic: {EXAMPLE}"),
                );
                return None;
            }
            if !url.is_encrypted() && !is_near(url.host()) {
                report
                    .warn(&at, format!("{url} is not encrypted: others can read the messages, and the URL; use https"));
            }
            Some(Webhook { url, format, token: token?, trust: trust? })
        }
    };
    let command = command?;
    if webhook.is_none() && command.is_none() {
        report.error(place, "[notify] has no receiver", format!("add a line: {EXAMPLE}; or command = [\"/PROGRAM\"]"));
        return None;
    }
    Some(Notify { events: events?, webhook, command, files })
}

const FORMATS: &[(&str, Format)] =
    &[("json", Format::Json), ("ntfy", Format::Ntfy), ("gotify", Format::Gotify), ("slack", Format::Slack)];

/// What most likely listens at a URL.
fn usual_format(url: &SecretUrl) -> Format {
    let (host, path) = (url.host(), url.expose().path());
    if host == "ntfy.sh" || host.starts_with("ntfy.") {
        Format::Ntfy
    } else if path.ends_with("/message") {
        Format::Gotify
    } else if host == "hooks.slack.com" || path.starts_with("/hooks/") || path.ends_with("/slack") {
        Format::Slack
    } else {
        Format::Json
    }
}

/// The topic of a URL of ntfy: the last part of its path.
pub(crate) fn topic(url: &Uri) -> Option<&str> {
    url.path().trim_end_matches('/').rsplit_once('/').map(|(_, topic)| topic).filter(|topic| !topic.is_empty())
}

/// Whether a host is on this machine or, by its address or name, in the home network.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        Err(_) => {
            let inside = [".lan", ".local", ".internal", ".home.arpa", ".localhost"];
            !host.contains('.') || inside.iter().any(|end| host.ends_with(end))
        }
    }
}

fn url(raw: &RawNotify, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Option<At<SecretUrl>>> {
    let (text, place) = match (&raw.webhook, &raw.webhook_file) {
        (Given::Refused, _) | (_, Given::Refused) => return None,
        (Given::Absent, Given::Absent) => return Some(None),
        (Given::Value(_), Given::Value(file)) => {
            report.error(&file.place, "webhook is given as well, and one of them is the URL", "remove one of the two");
            return None;
        }
        (Given::Value(text), Given::Absent) => (text.value.clone(), &text.place),
        (Given::Absent, Given::Value(file)) => (key_file::read_line(file, files, report)?, &file.place),
    };
    let url = report.taken(place, parse(&text))?;
    Some(Some(At { value: url, place: place.clone() }))
}

/// The URL is never quoted: its path may be a password.
fn parse(text: &str) -> Result<SecretUrl, Problem> {
    let example = format!("write it like this: {EXAMPLE}");
    let url = text.parse::<Uri>().ok().filter(|_| text.len() <= LONGEST);
    let Some(url) = url else { return Err(Problem::new("this is not a URL", example)) };
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Problem::new(
            "the URL holds a user name or a password",
            "remove it, put an access token into a file, and name that: token_file = \"webhook.token\"",
        ));
    }
    SecretUrl::new(url)
        .ok_or_else(|| Problem::new("the URL does not begin with https:// or http:// and the name of a host", example))
}

fn token(given: &Given<String>, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Option<Secret>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    let token = key_file::read_line(text, files, report)?;
    if token.len() > LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        report.error(
            &text.place,
            "the file does not hold an access token: one line without spaces",
            "put the token of the receiver into it, and nothing else",
        );
        return None;
    }
    Some(Some(Secret::new(token)))
}

fn trust(
    given: &Given<String>,
    files: &mut Vec<PathBuf>,
    report: &mut Report,
) -> Option<Option<Vec<CertificateDer<'static>>>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    let file = files::read(text, report)?;
    let found: Vec<_> =
        files::whole_blocks(&file, SectionKind::Certificate).into_iter().map(CertificateDer::from).collect();
    if found.is_empty() {
        report.problem(&text.place, files::mistaken(&file, files::Wanted::Certificates));
        return None;
    }
    files.push(file.path);
    Some(Some(found))
}

fn command(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Option<Vec<String>>> {
    let list = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(list) => list,
    };
    let example =
        "write the whole path and each argument as a text of its own: command = [\"/usr/local/bin/tell\", \"me\"]";
    program(list, example, "so messages cannot be delivered", report).map(Some)
}

/// A program and its arguments. It is only warned of one that is missing: the gate starts without it, it has more important things to
/// do.
pub(super) fn program(
    list: &At<Vec<Text>>,
    example: &str,
    if_missing: &str,
    report: &mut Report,
) -> Option<Vec<String>> {
    let Some(program) = list.value.first().map(|text| text.value.as_str()).filter(|program| !program.is_empty()) else {
        report.error(&list.place, "the list is empty, and its first entry is a program", example);
        return None;
    };
    if list.value.iter().any(|text| text.value.contains('\0')) {
        report.error(&list.place, "an argument cannot hold a zero byte", example);
        return None;
    }
    let path = Path::new(program);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        report.error(&list.place, format!("{} is not the whole path of a program", quoted(program)), example);
        return None;
    }
    if !path.is_file() {
        report.warn(&list.place, format!("there is no program {}, {if_missing}", path.display()));
    }
    Some(list.value.iter().map(|text| text.value.clone()).collect())
}

fn events(given: &Given<Vec<Text>>, section: &Place, report: &mut Report) -> Option<BTreeSet<NoticeEvent>> {
    let words = NoticeEvent::ALL.map(|event| (event.label(), event));
    let list = match given {
        Given::Refused => return None,
        Given::Value(list) if !list.value.is_empty() => list,
        Given::Absent | Given::Value(_) => {
            let place = given.value().map_or_else(|| section.child("events"), |list| list.place.clone());
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            report.error(
                &place,
                "no event is named, so nothing would be sent",
                format!("add a line with those that you want: events = [{}]", all.join(", ")),
            );
            return None;
        }
    };
    let mut all = Some(BTreeSet::new());
    for text in &list.value {
        match (report.taken(&text.place, values::word(&text.value, &words)), &mut all) {
            (Some(event), Some(all)) => {
                all.insert(event);
            }
            _ => all = None,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_from_the_url_where_it_is_clear() {
        for (url, format) in [
            ("https://ntfy.sh/topic", Format::Ntfy),
            ("https://ntfy.home.example/topic", Format::Ntfy),
            ("https://push.home.example/message?token=a", Format::Gotify),
            ("https://hooks.slack.com/services/a/b/c", Format::Slack),
            ("https://chat.home.example/hooks/a", Format::Slack),
            ("https://discord.com/api/webhooks/1/a/slack", Format::Slack),
            ("https://home.example/doorward", Format::Json),
            ("https://home.example/messages", Format::Json),
        ] {
            assert_eq!(usual_format(&parse(url).expect("a URL")), format, "{url}");
        }
    }

    #[test]
    fn topic_is_the_last_part_of_the_path() {
        for (url, expected) in [
            ("https://ntfy.sh/topic", Some("topic")),
            ("https://a.example/ntfy/topic/", Some("topic")),
            ("https://ntfy.sh/", None),
            ("https://ntfy.sh", None),
        ] {
            assert_eq!(topic(&url.parse().expect("a URL")), expected, "{url}");
        }
    }

    #[test]
    fn unencrypted_urls_are_usual_at_home_only() {
        for near in ["127.0.0.1", "192.168.1.10", "::1", "fd00::1", "nas", "nas.lan", "ntfy.home.arpa"] {
            assert!(is_near(near), "{near}");
        }
        for far in ["198.51.100.1", "2001:db8::1", "ntfy.sh", "lan.example"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
