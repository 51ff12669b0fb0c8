//! `[[expect]]`: whether a configuration answers as its owner asserts. Nothing is decided here: every answer comes from
//! [`decide`](crate::authorize::decide), as for a connection.
//!
//! An expectation is about `allow`, `deny` and the mode, and so about the configuration alone: a revoked or expired certificate
//! breaks none. That a route refuses a device means every certificate with its name, also one that is issued later; that it admits
//! the device, its newest one in the inventory.

use super::policy_report::{Decision, SampleClient};
use crate::config::checked::{AllowEntry, Config, Expectation, ExpectedClients, Route, Selector};
use crate::config::{ConfigError, ConfigErrors};
use crate::explain::detail;
use crate::model::names::printable;

/// The longest name that is shown, in characters.
const NAME_MAX: usize = 64;

/// Checks every expectation of a configuration.
///
/// # Errors
/// Every expectation that the configuration breaks, each with the entry of the policy that does.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let broken = config.expectations.iter().filter_map(|expected| {
        // Its name was looked up when the configuration was read.
        let route = config.routes.iter().find(|route| route.name == expected.route)?;
        broken(config, route, expected)
    });
    ConfigErrors::of(broken.collect())
}

fn broken(config: &Config, route: &Route, expected: &Expectation) -> Option<ConfigError> {
    for client in clients(config, expected) {
        let (message, remedy) = match (client.sample.decision(route), expected.allowed) {
            (Decision::Admitted, true) | (Decision::Refused, false) => continue,
            (Decision::Backend, _) => (
                format!(
                    "nothing can be expected of the route {route:?}: its mode is \"passthrough\", so the gate asks for no \
                     certificate and admits every client to the backend",
                    route = route.name.as_str()
                ),
                "remove this [[expect]], or write mode = \"terminate\" in the route".to_owned(),
            ),
            (Decision::Admitted, false) => admitted(&client, route),
            (Decision::Refused, true) => refused(&client, route),
        };
        return Some(ConfigError {
            file: config.file.clone(),
            line: expected.line,
            key: expected.key.clone(),
            message,
            remedy,
        });
    }
    None
}

/// One of the clients that an expectation is about.
struct Client {
    name: String,
    /// How it comes to be meant: "alice-phone" or "alice-phone of the group \"family\"".
    shown: String,
    sample: SampleClient,
}

fn clients(config: &Config, expected: &Expectation) -> Vec<Client> {
    let others = |any: bool| SampleClient::others().into_iter().filter(move |(verified, _)| *verified == any);
    let other = |(_, sample): (bool, SampleClient)| {
        let name = sample.name.clone();
        Client { shown: name.clone(), name, sample }
    };
    match &expected.clients {
        ExpectedClients::Any => others(true).map(other).collect(),
        ExpectedClients::Unverified => others(false).map(other).collect(),
        ExpectedClients::Device(selector) => device(config, selector, None, expected.allowed),
        ExpectedClients::Group { name, members } => {
            members.iter().flat_map(|member| device(config, member, Some(name), expected.allowed)).collect()
        }
    }
}

fn device(config: &Config, selector: &Selector, group: Option<&str>, allowed: bool) -> Vec<Client> {
    let name = printable(&selector.to_string(), NAME_MAX);
    let shown = match group {
        Some(group) => format!("{name} of the group {group:?}"),
        None => name.clone(),
    };
    let named = SampleClient::selected_by(selector);
    let issued = config.metrics.inventory.iter().flat_map(|inventory| &inventory.certificates);
    let own = issued.filter(|certificate| {
        matches!(selector, Selector::AnyName(name) | Selector::CommonName(name) if *name == certificate.device)
    });
    let mut samples: Vec<SampleClient> = own.map(|own| named.with_certificate(own)).collect();
    if allowed {
        // It has its newest one, and those before may be denied.
        samples = samples.pop().into_iter().collect();
    }
    if samples.is_empty() || !allowed {
        samples.push(named);
    }
    samples.into_iter().map(|sample| Client { name: name.clone(), shown: shown.clone(), sample }).collect()
}

/// A client gets in that must not.
fn admitted(client: &Client, route: &Route) -> (String, String) {
    let Client { name, shown, sample } = client;
    let route_name = route.name.as_str();
    let by = route.allow_entries.iter().find(|entry| sample.is_admitted_by(route, &entry.admits));
    let message = format!(
        "the route {route_name:?} must refuse {shown}, and admits it: by {}",
        by.map_or_else(|| "its mode".to_owned(), entry_in_words)
    );
    let or = "; or remove this [[expect]] if it may get in";
    let remedy = match by {
        Some(entry) if entry.is_group => {
            format!("remove {name:?} from the group {:?}, or the group from allow of the route{or}", entry.text)
        }
        Some(entry) if entry.admits.any => format!("name the devices that may use the route in place of \"any\"{or}"),
        _ => format!("remove the entry from allow of the route{or}"),
    };
    (message, remedy)
}

/// A client is refused that must get in.
fn refused(client: &Client, route: &Route) -> (String, String) {
    let Client { name, shown, sample } = client;
    let route_name = route.name.as_str();
    let cause = sample.refusal(route).map(|cause| detail(&cause)).unwrap_or_default();
    let entries: Vec<String> = route.allow_entries.iter().map(|entry| format!("{:?}", entry.text)).collect();
    let line = route.allow_entries.first().and_then(|entry| entry.line);
    let message = format!(
        "the route {route_name:?} must admit {shown}, and refuses it: {cause}; its allow is [{}]{}",
        entries.join(", "),
        on_line(line)
    );
    let remedy = if sample.is_denied(route) {
        "remove the entry from deny; or write allowed = false if it is to be refused".to_owned()
    } else {
        format!(
            "add {name:?}, or a group that has it, to allow of the route; or write allowed = false if it is to be refused"
        )
    };
    (message, remedy)
}

fn entry_in_words(entry: &AllowEntry) -> String {
    let what = if entry.is_group { "the group " } else { "" };
    format!("{what}{:?} in its allow{}", entry.text, on_line(entry.line))
}

fn on_line(line: Option<usize>) -> String {
    line.map(|line| format!(" (line {line})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;

    /// What is wrong with a configuration that has these routes, groups and expectations. Its inventory has carol-phone, whose
    /// certificate has the serial number 0c.
    fn errors(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("a file");
        write("it.pem", params.self_signed(&key).expect("a certificate").pem());
        write("key.pem", key.serialize_pem());
        let fingerprint = "c0".repeat(32);
        write(
            "inventory.toml",
            format!(
                "version = 1\n[[certificate]]\nname = \"carol-phone\"\nkind = \"device\"\nauthority = \"devices\"\n\
                 serial = \"0c\"\nfingerprint = \"{fingerprint}\"\nnot_after = \"2999-01-01T00:00:00Z\"\n"
            ),
        );
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[metrics]\ninventory = \"inventory.toml\"\n\
             [certificate]\nchain = \"it.pem\"\nkey = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\n{text}"
        );
        let config = config::parse(&text, &folder.path().join("doorward.toml")).expect("a configuration");
        let unread = config.warnings.iter().find(|warning| warning.key.ends_with("inventory"));
        assert_eq!(unread, None);
        let errors = check(&config).err();
        errors.iter().flatten().map(|error| format!("{}: {}; {}", error.key, error.message, error.remedy)).collect()
    }

    fn route(name: &str, allow: &str) -> String {
        format!(
            "[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
             allow = [{allow}]\n"
        )
    }

    fn expect(client: &str, route: &str, allowed: bool) -> String {
        format!("[[expect]]\n{client}\nroute = \"{route}\"\nallowed = {allowed}\n")
    }

    /// The expectation holds with `allowed`, and is broken with its opposite, as the text says.
    fn holds(allow: &str, client: &str, allowed: bool, said: &str) {
        let policy = format!("[groups]\nfamily = [\"alice-phone\", \"carol-phone\"]\n{}", route("ssh", allow));
        let of = |allowed| errors(&format!("{policy}{}", expect(client, "ssh", allowed)));
        assert_eq!(of(allowed), Vec::<String>::new(), "{allow} {client}");
        let broken = of(!allowed);
        assert!(broken.len() == 1 && broken[0].starts_with("expect[1]: "), "{broken:?}");
        assert!(broken[0].contains(said), "{allow} {client}: {}", broken[0]);
    }

    #[test]
    fn broken_expectation_names_the_entry_that_admits_or_refuses() {
        let carol = "device = \"carol-phone\"";
        holds("\"alice-phone\"", carol, false, "its allow is [\"alice-phone\"] (line 17)");
        holds("\"family\"", carol, true, "admits it: by the group \"family\" in its allow (line 17)");
        holds("\"carol-phone\"", carol, true, "admits it: by \"carol-phone\" in its allow");
        holds("\"bob\", \"any\"", carol, true, "in place of \"any\"");
        let family = "group = \"family\"";
        holds("\"family\"", family, true, "must refuse alice-phone of the group \"family\"");
        holds("\"bob\"", family, false, "must admit alice-phone of the group \"family\"");
        holds("\"bob\"", "device = \"any\"", false, "must admit any other verified certificate");
        holds("\"any\"", "device = \"unverified\"", false, "must admit an unverified certificate");
        holds("\"ou:family\"", "device = \"ou:family\"", true, "by \"ou:family\"");
    }

    #[test]
    fn device_is_known_by_the_certificates_of_the_inventory_as_well() {
        let by_fingerprint = format!("\"sha256:{}\"", "c0".repeat(32));
        holds(
            &by_fingerprint,
            "device = \"carol-phone\"",
            true,
            "must refuse carol-phone, and admits it: by \"sha256:c0c0",
        );
        let denied = format!(
            "deny = [\"serial:0c\"]\n{}{}",
            route("ssh", "\"carol-phone\""),
            expect("device = \"carol-phone\"", "ssh", true)
        );
        let broken = errors(&denied);
        assert!(broken.len() == 1 && broken[0].contains("remove the entry from deny"), "{broken:?}");
        // Its next certificate would get in.
        let denied = denied.replace("allowed = true", "allowed = false");
        assert!(errors(&denied)[0].contains("admits it: by \"carol-phone\""), "{:?}", errors(&denied));
    }

    #[test]
    fn group_whose_members_differ_breaks_both_expectations() {
        let policy =
            format!("[groups]\nfamily = [\"alice-phone\", \"carol-phone\"]\n{}", route("ssh", "\"alice-phone\""));
        for allowed in [true, false] {
            let text = format!("{policy}{}", expect("group = \"family\"", "ssh", allowed));
            assert_eq!(errors(&text).len(), 1, "{allowed}");
        }
    }

    #[test]
    fn nothing_can_be_expected_of_a_passthrough_route() {
        let route = route("ssh", "").replace("allow = []", "mode = \"passthrough\"");
        for allowed in [true, false] {
            let broken = errors(&format!("{route}{}", expect("device = \"alice\"", "ssh", allowed)));
            assert!(broken.len() == 1 && broken[0].contains("passthrough"), "{broken:?}");
        }
    }
}
