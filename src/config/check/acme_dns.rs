//! `dns` of `[certificate.acme]`: how TXT records are published.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{notify, scalar, tsig_key, word};
use crate::config::checked::{
    Dns, DnsApi, DnsBy, DnsProvider, DnsServer, DnsUpdate, ProviderKeys, Secret, TsigAlgorithm,
};
use crate::config::key_file;
use crate::config::raw::RawDns;
use crate::config::reader::Scalar;
use crate::config::report::{At, Given, Place, Problem, Report, Text, quoted};
use crate::config::{suggest, values};
use crate::model::names::ServerName;

/// A whole key, as it would be written.
pub(super) const EXAMPLE: &str = "dns = { provider = \"cloudflare\", token_file = \"cloudflare.token\" }";

/// The provider that is a server of the owner.
const UPDATE: &str = "rfc2136";

/// The longest that a record is waited for: an order is forgotten by its server in the end.
const PROPAGATION_MAX: Duration = Duration::from_secs(60 * 60);

/// The most servers that are asked.
const SERVERS_MAX: usize = 16;

/// The longest token, in bytes.
const LONGEST: usize = 2048;

/// Whether the HTTP APIs of providers are part of this build.
const HAS_APIS: bool = cfg!(feature = "dns-providers");

/// How records are published; what is missing or wrong is reported.
pub(in crate::config) fn check(given: &Given<RawDns>, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Dns> {
    let At { value: raw, place } = given.value()?;
    // All of them are looked at, so that everything wrong is told.
    let publisher = publisher(raw, place, files, report);
    let servers = servers(&raw.servers, report);
    let propagation = scalar(&raw.propagation, propagation, Dns::PROPAGATION, report);
    Some(Dns { publisher: publisher?, servers: servers?, propagation: propagation? })
}

fn publisher(raw: &RawDns, place: &Place, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<DnsBy> {
    match (&raw.provider, &raw.command) {
        (Given::Refused, _) | (_, Given::Refused) => None,
        (Given::Value(_), Given::Value(command)) => {
            report.error(
                &command.place,
                "\"provider\" is given as well, and one of them publishes the records",
                "remove one of the two",
            );
            None
        }
        (Given::Absent, Given::Absent) => {
            report.error(
                &place.child("provider"),
                "\"provider\" is missing, so it is not known how to publish a record",
                format!(
                    "name the provider of your DNS, as in {EXAMPLE}; or a program: dns = {{ command = [\"/PROGRAM\"] }}"
                ),
            );
            None
        }
        (Given::Absent, Given::Value(command)) => {
            let others =
                refuse_others(raw, "a command takes no other keys but \"servers\" and \"propagation\"", &[], report);
            let example = "write the whole path and each argument as a text of its own: command = [\"/usr/local/bin/dns\", \"home\"]";
            let program = notify::program(command, example, "so no record can be published", report)?;
            others?;
            Some(DnsBy::Command(program))
        }
        (Given::Value(provider), Given::Absent) if provider.value == UPDATE => {
            update(raw, place, files, report).map(DnsBy::Update)
        }
        (Given::Value(provider), Given::Absent) => {
            let keys = report.taken(&provider.place, known(&provider.value))?;
            api(raw, place, keys, files, report).map(DnsBy::Api)
        }
    }
}

/// The provider of this name.
fn known(word: &str) -> Result<&'static ProviderKeys, Problem> {
    let found = DnsProvider::ALL.iter().find(|keys| keys.word == word);
    match found {
        Some(keys) if HAS_APIS => Ok(keys),
        Some(keys) => Err(Problem::new(
            format!("this doorward was built without the API of {}", keys.word),
            "build it with the feature dns-providers, or name a program: dns = { command = [\"/PROGRAM\"] }",
        )),
        None => {
            let all = DnsProvider::ALL.iter().filter(|_| HAS_APIS).map(|keys| keys.word);
            let words: Vec<&str> = std::iter::once(UPDATE).chain(all).collect();
            let nearest = suggest::nearest(&word.to_ascii_lowercase(), &words);
            let did_you_mean = nearest.map(|near| format!("did you mean {}? ", quoted(near))).unwrap_or_default();
            Err(Problem::new(
                format!("there is no provider {}", quoted(word)),
                format!(
                    "{did_you_mean}write one of {}; any other by a program: dns = {{ command = [\"/PROGRAM\"] }}",
                    words.join(", ")
                ),
            ))
        }
    }
}

fn update(raw: &RawDns, place: &Place, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<DnsUpdate> {
    let others = refuse_others(
        raw,
        "rfc2136 takes \"server\", \"key_file\", \"key_name\", \"algorithm\", \"servers\" and \"propagation\"",
        &["server", "key_name", "key_file", "algorithm"],
        report,
    );
    let example = "as in dns = { provider = \"rfc2136\", server = \"192.0.2.1:53\", key_name = \"doorward\", key_file = \"tsig.key\" }";
    let server = match &raw.server {
        Given::Refused => None,
        Given::Value(text) => report.taken(&text.place, server(&text.value)),
        Given::Absent => {
            let message = "\"server\" is missing: the DNS server that takes changes of the zone";
            report.error(&place.child("server"), message, format!("add it, {example}"));
            None
        }
    };
    let file = match &raw.key_file {
        Given::Refused => None,
        Given::Value(text) => tsig_key::read(text, files, report).map(|key| (text, key)),
        Given::Absent => {
            let message = "\"key_file\" is missing: the file of the key that the server knows (TSIG)";
            report.error(&place.child("key_file"), message, format!("add it, {example}"));
            None
        }
    };
    let algorithm = word(&raw.algorithm, TsigAlgorithm::WORDS, TsigAlgorithm::Sha256, report);
    let (at, file) = file?;
    let name = match &raw.key_name {
        Given::Refused => return None,
        Given::Value(text) => text.value.clone(),
        Given::Absent => {
            let Some(name) = &file.name else {
                let message = "\"key_name\" is missing, and the file of the key does not say it";
                report.error(&place.child("key_name"), message, "add the name by which the server knows the key");
                return None;
            };
            name.clone()
        }
    };
    let name = report.taken(raw.key_name.value().map_or(&at.place, |text| &text.place), tsig_key::name(&name))?;
    let algorithm = algorithm?;
    // What the file says was made with the key, and the server compares both.
    if file.name.as_ref().is_some_and(|of_file| tsig_key::name(of_file).as_ref() != Ok(&name)) {
        report.error(
            &at.place,
            format!("the key in the file is not called {}", quoted(&name)),
            "correct \"key_name\", or remove it",
        );
        return None;
    }
    let algorithm = match file.algorithm {
        Some(of_file) if !raw.algorithm.is_absent() && of_file != algorithm => {
            report.error(
                &at.place,
                format!("the key in the file is one for {of_file}"),
                "correct \"algorithm\", or remove it",
            );
            return None;
        }
        of_file => of_file.unwrap_or(algorithm),
    };
    others?;
    Some(DnsUpdate { server: server?, key: tsig_key::key(name, algorithm, file.secret) })
}

fn api(
    raw: &RawDns,
    place: &Place,
    keys: &ProviderKeys,
    files: &mut Vec<PathBuf>,
    report: &mut Report,
) -> Option<DnsApi> {
    let wanted =
        [("user", keys.user), ("token_file", keys.token), ("secret_file", keys.secret), ("endpoint", keys.endpoint)];
    let taken: Vec<&str> = wanted.iter().filter(|(_, what)| what.is_some()).map(|(key, _)| *key).collect();
    let others = refuse_others(
        raw,
        &format!(
            "{} takes {}",
            keys.word,
            values::listed(&[taken.as_slice(), &["servers", "propagation"]].concat(), "and")
        ),
        &taken,
        report,
    );
    let mut complete = true;
    for (key, what) in wanted {
        let given = match key {
            "user" => &raw.user,
            "token_file" => &raw.token_file,
            "secret_file" => &raw.secret_file,
            _ => &raw.endpoint,
        };
        if let Some(what) = what.filter(|_| given.is_absent()) {
            let of = if key.ends_with("_file") { "a file with the" } else { "the" };
            let message = format!("\"{key}\" is missing: for {} it is {of} {what}", keys.word);
            report.error(&place.child(key), message, format!("add it to dns: {key} = \"…\""));
            complete = false;
        }
    }
    let token = secret(&raw.token_file, files, report);
    let secret = secret(&raw.secret_file, files, report);
    let (user, endpoint) = (plain(&raw.user, report), endpoint(&raw.endpoint, keys, report));
    others?;
    complete.then_some(())?;
    Some(DnsApi { provider: keys.provider, user: user?, token: token?, secret: secret?, endpoint: endpoint? })
}

/// Reports keys that belong to another provider. `None` if there is one.
fn refuse_others(raw: &RawDns, message: &str, taken: &[&str], report: &mut Report) -> Option<()> {
    let all = [
        ("user", &raw.user),
        ("token_file", &raw.token_file),
        ("secret_file", &raw.secret_file),
        ("endpoint", &raw.endpoint),
        ("server", &raw.server),
        ("key_name", &raw.key_name),
        ("key_file", &raw.key_file),
        ("algorithm", &raw.algorithm),
    ];
    let others: Vec<&Text> =
        all.iter().filter(|(key, _)| !taken.contains(key)).filter_map(|(_, given)| given.value()).collect();
    for text in &others {
        report.error(&text.place, message, "remove it");
    }
    others.is_empty().then_some(())
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn secret(given: &Given<String>, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Option<Secret>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    let line = key_file::read_line(text, files, report)?;
    // What could not be sent in the header of a request.
    if line.len() > LONGEST || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "the file does not hold one word: letters, digits and signs without spaces";
        report.error(&text.place, message, "put what the provider gave you into it, and nothing else");
        return None;
    }
    Some(Some(Secret::new(line)))
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn plain(given: &Given<String>, report: &mut Report) -> Option<Option<String>> {
    match given {
        Given::Refused => None,
        Given::Absent => Some(None),
        Given::Value(text) => {
            let is_word =
                !text.value.is_empty() && text.value.len() <= 256 && text.value.bytes().all(|b| b.is_ascii_graphic());
            if !is_word {
                report.error(
                    &text.place,
                    format!("{} is not one word", quoted(&text.value)),
                    "write what the provider gave you",
                );
                return None;
            }
            Some(Some(text.value.clone()))
        }
    }
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn endpoint(given: &Given<String>, keys: &ProviderKeys, report: &mut Report) -> Option<Option<String>> {
    let endpoint = plain(given, report)?;
    let (Some(text), Some(what)) = (given.value(), keys.endpoint) else { return Some(endpoint) };
    // It becomes a part of the API's host name.
    let is_label = text.value.len() <= 40
        && text.value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_known = keys.provider != DnsProvider::Ovh || what.contains(&text.value);
    if !is_label || !is_known {
        report.error(&text.place, format!("{} has no {}", keys.word, quoted(&text.value)), format!("write the {what}"));
        return None;
    }
    Some(endpoint)
}

fn servers(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<DnsServer>> {
    let list = match given {
        Given::Refused => return None,
        Given::Absent => return Some(Vec::new()),
        Given::Value(list) => list,
    };
    if list.value.is_empty() || list.value.len() > SERVERS_MAX {
        let message =
            format!("the list has {} entries, and it is of the servers that must show a record", list.value.len());
        report.error(
            &list.place,
            message,
            format!("write up to {SERVERS_MAX} of them, or remove it to ask those of the zone"),
        );
        return None;
    }
    let servers: Vec<_> = list.value.iter().map(|text| report.taken(&text.place, server(&text.value))).collect();
    servers.into_iter().collect()
}

/// A host with or without a port.
fn server(text: &str) -> Result<DnsServer, Problem> {
    const PORT: u16 = 53;
    let wrong = || {
        Problem::new(
            format!("{} is not a DNS server", quoted(text)),
            "write its address or name, and its port if that is not 53, as in \"192.0.2.1:53\" or \"[2001:db8::1]:53\"",
        )
    };
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(DnsServer { host: ip.to_string(), port: PORT });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        None => (text, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv6() == (bare != host) => ip.to_string(),
        _ => ServerName::parse(host).map_err(|_| wrong())?.as_str().to_owned(),
    };
    Ok(DnsServer { host, port })
}

fn propagation(scalar: &Scalar) -> Result<Duration, Problem> {
    let time = values::duration(scalar)?;
    if time.is_zero() || time > PROPAGATION_MAX {
        return Err(Problem::new(
            "a record is waited for at least a second, and at most an hour",
            "write the time that your DNS servers take to show a new record, and some more, as in \"5m\"",
        ));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_server_has_a_host_and_a_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            ("ns1.home.example", "ns1.home.example:53"),
            ("NS1.home.example:5353", "ns1.home.example:5353"),
        ] {
            assert_eq!(server(text).map(|server| server.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for wrong in ["", ":53", "192.0.2.1:0", "192.0.2.1:99999", "https://ns1.example", "a b", "[192.0.2.1]:53"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_provider_is_answered_with_those_there_are() {
        let problem = known("cloudfare").expect_err("no such provider");
        assert_eq!(problem.remedy.contains("did you mean \"cloudflare\"?"), HAS_APIS, "{problem:?}");
        assert!(problem.remedy.contains("rfc2136"), "{problem:?}");
        assert!(problem.remedy.contains("command"), "{problem:?}");
    }
}
