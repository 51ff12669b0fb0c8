//! `[groups]` and `allow`: who may use a route.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::checked::{Allow, AllowEntry, ClientAuthMode, Selector};
use crate::config::raw::RawRoute;
use crate::config::report::{Given, Place, Problem, Report, Text, quoted};
use crate::config::suggest;
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerNamePattern, printable};
use crate::model::unicode::nfc;

/// The prefixes of selectors, in the order in which they are told.
const PREFIXES: &[&str] = &["cn", "ou", "dns", "email", "uri", "ip", "sha256", "spki"];

/// Words of `allow` that are no selectors.
const RESERVED: &[&str] = &["any", "unverified"];

/// The groups by name, and which of them have been used.
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
}

struct Group {
    place: Place,
    /// `None` if the group is there but one of its members is wrong.
    members: Option<Vec<Selector>>,
    used: bool,
}

impl Groups {
    pub(super) fn check(raw: &[(Text, Given<Vec<Text>>)], report: &mut Report) -> Self {
        let names: Vec<&str> = raw.iter().map(|(name, _)| name.value.as_str()).collect();
        let mut groups = BTreeMap::new();
        for (name, list) in raw {
            if let Err(error) = Name::parse(&name.value) {
                report.error(&name.place, error.to_string(), "give the group another name, as in \"family\"");
            }
            if RESERVED.contains(&name.value.as_str()) {
                report.error(
                    &name.place,
                    format!(
                        "{} has a meaning of its own in \"allow\", so a group cannot be called that",
                        quoted(&name.value)
                    ),
                    "give the group another name",
                );
            }
            let members = list.value().and_then(|list| {
                if list.value.is_empty() {
                    report.error(
                        &list.place,
                        "the group is empty",
                        "name at least one member, as in [\"alice-phone\"], or remove the group and its name from \
                         every \"allow\"",
                    );
                    return None;
                }
                let taken = |text: &Text| report.taken(&text.place, member(&text.value, &names));
                let members: Vec<Option<Selector>> = list.value.iter().map(taken).collect();
                members.into_iter().collect()
            });
            groups.insert(name.value.clone(), Group { place: name.place.clone(), members, used: false });
        }
        Self { groups }
    }

    /// The names of all groups.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// The members of a group, or `Some(None)` if one of them is wrong; `None` if there is no such group.
    pub(super) fn members(&self, name: &str) -> Option<Option<&[Selector]>> {
        self.groups.get(name).map(|group| group.members.as_deref())
    }

    /// Warns of groups that no route names: probably their name was misspelt there.
    pub(super) fn warn_of_unused(&self, report: &mut Report) {
        for (name, group) in self.groups.iter().filter(|(_, group)| !group.used) {
            report.warn(
                &group.place,
                format!(
                    "no route lets this group in; add {} to the \"allow\" of a route, or remove the group",
                    quoted(name)
                ),
            );
        }
    }
}

/// A member of a group: a selector, but neither another group nor a word of `allow`.
fn member(text: &str, groups: &[&str]) -> Result<Selector, Problem> {
    if RESERVED.contains(&text) {
        return Err(Problem::new(
            format!("{} cannot be a member of a group", quoted(text)),
            format!("write {} in the \"allow\" of the route itself", quoted(text)),
        ));
    }
    if groups.contains(&text) {
        return Err(Problem::new(
            format!("{} is itself a group, and a group cannot hold another one", quoted(text)),
            format!(
                "name both groups in the \"allow\" of the route; if a device is meant that has this name, write {}",
                quoted(&format!("cn:{text}"))
            ),
        ));
    }
    selector(text)
}

/// `allow` of a route that terminates, with the groups put in.
pub(super) fn allow(
    raw: &RawRoute,
    mode: Option<ClientAuthMode>,
    groups: &mut Groups,
    report: &mut Report,
) -> Option<(Allow, Vec<AllowEntry>)> {
    let list = match &raw.allow {
        Given::Value(list) => list,
        Given::Refused => return None,
        Given::Absent => {
            report.error(
                &raw.place.child("allow"),
                "\"allow\" is missing, so it is not known who may use this route",
                "add the line allow = [\"any\"] to let in every device with a valid certificate, or allow = \
                 [\"alice-phone\"] to let in only the device of that name",
            );
            return None;
        }
    };
    if list.value.is_empty() {
        report.error(
            &list.place,
            "the list is empty, so no client could ever use this route",
            "write allow = [\"any\"] to let in every device with a valid certificate, or name devices or groups; to \
             close the route, remove it",
        );
        return None;
    }
    let mut allow = Allow::default();
    let mut entries = Vec::new();
    let mut all_right = true;
    for text in &list.value {
        let mut add = |admits: Allow, is_group: bool| {
            entries.push(AllowEntry { text: text.value.clone(), line: text.place.line, is_group, admits });
        };
        let (named, is_group): (Vec<Selector>, bool) = match text.value.as_str() {
            "any" => {
                allow.any = true;
                add(Allow { any: true, ..Allow::default() }, false);
                continue;
            }
            "unverified" => {
                allow.unverified = true;
                add(Allow { unverified: true, ..Allow::default() }, false);
                continue;
            }
            word => match groups.groups.get_mut(word) {
                Some(group) => {
                    group.used = true;
                    all_right &= group.members.is_some();
                    (group.members.clone().unwrap_or_default(), true)
                }
                None => match report.taken(&text.place, selector(word)) {
                    Some(selector) => {
                        warn_of_near_miss(&selector, text, groups, report);
                        (vec![selector], false)
                    }
                    None => {
                        all_right = false;
                        continue;
                    }
                },
            },
        };
        add(Allow { selectors: named.clone(), ..Allow::default() }, is_group);
        for selector in named {
            if !allow.selectors.contains(&selector) {
                allow.selectors.push(selector);
            }
        }
    }
    all_right.then_some(())?;
    judge(&allow, mode?, &list.place, report)?;
    Some((allow, entries))
}

/// A bare word that is no group is taken for the name of a device: a misspelt group would silently admit no device.
fn warn_of_near_miss(selector: &Selector, text: &Text, groups: &Groups, report: &mut Report) {
    if !matches!(selector, Selector::AnyName(_)) {
        return;
    }
    let mut known: Vec<&str> = groups.groups.keys().map(String::as_str).collect();
    known.extend(RESERVED);
    if let Some(meant) = suggest::nearest(&text.value, &known) {
        report.warn(
            &text.place,
            format!(
                "there is no group {0}, so {0} is taken for the name of a device; did you mean {1}?",
                quoted(&text.value),
                quoted(meant)
            ),
        );
    }
}

/// Whether `allow` can admit any client in this mode, and whether each of its entries has an effect.
fn judge(allow: &Allow, mode: ClientAuthMode, place: &Place, report: &mut Report) -> Option<()> {
    let verified = allow.any || !allow.selectors.is_empty();
    let word = mode.word();
    match (mode.verifies(), mode.requires()) {
        (false, _) if !allow.unverified => {
            report.error(
                place,
                format!(
                    "the mode \"{word}\" verifies no certificate, and these entries are for verified devices only: no \
                     client could ever use this route"
                ),
                "write mode = \"require_and_verify\" under [client_auth]; or, if every client is to be admitted, \
                 allow = [\"unverified\"]",
            );
            return None;
        }
        (false, _) => {
            report.warn(
                place,
                format!(
                    "anyone can use this route: the mode \"{word}\" does not verify who issued a \
                     certificate{}; write mode = \"require_and_verify\" unless the service behind it is meant for \
                     everyone",
                    if verified { ", and the entries besides \"unverified\" have no effect" } else { "" }
                ),
            );
        }
        (true, true) if allow.unverified && !verified => {
            report.error(
                place,
                format!(
                    "in the mode \"{word}\" every device is verified, and only unverified ones are allowed here: \
                     no client could ever use this route"
                ),
                "write allow = [\"any\"], or name devices or groups",
            );
            return None;
        }
        (true, true) if allow.unverified => {
            report.warn(
                place,
                format!(
                    "\"unverified\" has no effect in the mode \"{word}\", where every device is verified; remove it"
                ),
            );
        }
        (true, false) if !allow.unverified => {
            report.warn(
                place,
                format!(
                    "the mode \"{word}\" lets devices without a certificate ask, but this list does not let them \
                     in, so it acts like \"require_and_verify\"; write that, or add \"unverified\" to let them in"
                ),
            );
        }
        (true, false) if !verified => {
            report.warn(
                place,
                "only devices without a certificate are let in, and those with a valid one are turned away; add \
                 \"any\" to let those in, too",
            );
        }
        (true, _) => {}
    }
    if allow.any && !allow.selectors.is_empty() {
        report.warn(
            place,
            "\"any\" lets in every device with a valid certificate, so the other entries have no effect; remove \
             \"any\" to let in only those",
        );
    }
    Some(())
}

/// A selector: `kind:value`, or a bare word for any of the names in a certificate.
pub(super) fn selector(text: &str) -> Result<Selector, Problem> {
    let Some((kind, value)) = text.split_once(':') else {
        return match text.trim() {
            "" => {
                Err(Problem::new("the entry is empty", "write the name of a device or a group, as in \"alice-phone\""))
            }
            word => Ok(Selector::AnyName(nfc(word).into_owned())),
        };
    };
    let value = value.trim();
    if PREFIXES.contains(&kind) && value.is_empty() {
        return Err(Problem::new(
            format!("nothing follows after \"{kind}:\""),
            format!("write what it should match, as in \"{}\"", example(kind)),
        ));
    }
    let wrong = |why: &str| {
        Problem::new(format!("{} is not {why}", quoted(value)), format!("write it like this: \"{}\"", example(kind)))
    };
    match kind {
        "cn" => Ok(Selector::CommonName(nfc(value).into_owned())),
        "ou" => Ok(Selector::OrganizationalUnit(nfc(value).into_owned())),
        "dns" => match ServerNamePattern::parse(value) {
            Ok(ServerNamePattern::Exact(name)) => Ok(Selector::Dns(name.to_string())),
            Ok(ServerNamePattern::Wildcard(_) | ServerNamePattern::Default) => Err(Problem::new(
                format!("{} holds a \"*\", and a selector names one name only", quoted(value)),
                "name each device, or put them in a group; \"any\" lets in every device with a valid certificate",
            )),
            Err(_) => Err(wrong("a host name")),
        },
        "email" => match value.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(Selector::Email(value.to_owned())),
            _ => Err(wrong("an e-mail address")),
        },
        "uri" if value.contains(':') => Ok(Selector::Uri(value.to_owned())),
        "uri" => Err(wrong("a URI")),
        "ip" => value.parse().map(|ip: IpAddr| Selector::Ip(ip.to_canonical())).map_err(|_| wrong("an IP address")),
        "sha256" => fingerprint(kind, value).map(Selector::Fingerprint),
        "spki" => fingerprint(kind, value).map(Selector::Spki),
        unknown => Err(unknown_kind(text, unknown)),
    }
}

fn unknown_kind(text: &str, kind: &str) -> Problem {
    let kinds: Vec<String> = PREFIXES.iter().map(|kind| format!("{kind}:")).collect();
    let meant = match kind {
        "fingerprint" | "sha1" | "thumbprint" => Some("sha256"),
        "san" | "host" => Some("dns"),
        "mail" | "e-mail" | "rfc822" => Some("email"),
        "url" | "spiffe" | "http" | "https" => Some("uri"),
        "pin" | "key" => Some("spki"),
        "o" | "org" => Some("ou"),
        other => suggest::nearest(&other.to_ascii_lowercase(), PREFIXES),
    };
    let hint = meant.map(|kind| format!("did you mean \"{kind}:\"? ")).unwrap_or_default();
    let serial = if kind == "serial" { "a serial number may only be denied, under [client_auth]; " } else { "" };
    Problem::new(
        format!("{} begins with \"{}:\", which is an unknown kind of name", quoted(text), printable(kind, 40)),
        format!("{hint}{serial}the kinds are {}; or write a name alone, as in \"alice-phone\"", kinds.join(" ")),
    )
}

fn example(kind: &str) -> String {
    let value = match kind {
        "cn" => "alice-phone",
        "ou" => "family",
        "dns" => "phone.alice",
        "email" => "alice@home.example",
        "uri" => "spiffe://home.example/alice",
        "ip" => "192.168.1.20",
        _ => "(64 digits from 0 to 9 and a to f)",
    };
    format!("{kind}:{value}")
}

/// The 64 hexadecimal digits after `sha256:` or `spki:`.
pub(super) fn fingerprint(kind: &str, digits: &str) -> Result<Sha256, Problem> {
    Sha256::parse(digits.trim()).ok_or_else(|| {
        let count = digits.chars().filter(char::is_ascii_hexdigit).count();
        let sha1 = if count == 40 { " (40 digits are a SHA-1 fingerprint, which is not safe any more)" } else { "" };
        let command = if kind == "spki" {
            "openssl x509 -in FILE -noout -pubkey | openssl pkey -pubin -outform der | sha256sum"
        } else {
            "openssl x509 -in FILE -noout -fingerprint -sha256"
        };
        Problem::new(
            format!("{} is not a SHA-256 fingerprint: that is 64 digits from 0 to 9 and a to f{sha1}", quoted(digits)),
            format!("write \"{kind}:\" and the 64 digits that this prints: {command}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_parse_by_kind() {
        let digest = Sha256::of(b"x");
        for (given, kept) in [
            ("alice-phone", Selector::AnyName("alice-phone".into())),
            ("cn:Alice's phone", Selector::CommonName("Alice's phone".into())),
            ("ou:family", Selector::OrganizationalUnit("family".into())),
            ("dns:Phone.ALICE.", Selector::Dns("phone.alice".into())),
            ("dns:müller.example", Selector::Dns("xn--mller-kva.example".into())),
            ("email:bob@home.example", Selector::Email("bob@home.example".into())),
            ("uri:spiffe://home.example/alice", Selector::Uri("spiffe://home.example/alice".into())),
            ("ip:192.168.1.20", Selector::Ip("192.168.1.20".parse().expect("an address"))),
            ("ip:::1", Selector::Ip("::1".parse().expect("an address"))),
        ] {
            assert_eq!(selector(given), Ok(kept), "{given}");
        }
        assert_eq!(selector(&format!("sha256:{digest}")), Ok(Selector::Fingerprint(digest)));
        assert_eq!(selector(&format!("spki:{digest}")), Ok(Selector::Spki(digest)));
        for wrong in [
            "",
            " ",
            "cn:",
            "dns:*.x",
            "dns:*",
            "dns:a b",
            "email:alice",
            "email:@x",
            "uri:alice",
            "ip:alice",
            "sha256:abcd",
            "fingerprint:abcd",
            "serial:00",
            "CN:alice",
            ":alice",
        ] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_selector_kind_is_answered_with_the_known_ones() {
        let problem = selector("fingerprint:abcd").expect_err("no such kind");
        assert!(problem.remedy.contains("did you mean \"sha256:\"?"), "{problem:?}");
        assert!(problem.remedy.contains("cn: ou: dns: email: uri: ip: sha256: spki:"), "{problem:?}");
    }
}
