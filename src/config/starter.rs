//! The first configuration of a gate, as `doorward init` writes it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use time::Date;

use super::services;
use crate::model::names::ServerName;
use crate::model::service::ServiceKind;
use crate::model::starttls::Starttls;

/// What the configuration contains.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The configuration file, for the commands in its comments.
    pub file: PathBuf,
    /// The domain of the gate's certificate.
    pub domain: ServerName,
    /// The address of the listener.
    pub listen: SocketAddr,
    /// The port that devices dial.
    pub public_port: u16,
    /// The address of the status page.
    pub page: SocketAddr,
    /// The gate's certificate.
    pub certificate: StarterCertificate,
    /// Name and fingerprint of each device.
    pub devices: Vec<(String, String)>,
    /// The routes.
    pub routes: Vec<StarterRoute>,
}

/// The certificate of a gate.
#[derive(Clone, Debug)]
pub enum StarterCertificate {
    /// The owner's own authority has signed it.
    Own {
        /// When it expires.
        expires: Date,
    },
    /// An ACME server issues it.
    Acme(StarterAcme),
}

/// An ACME server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StarterAcme {
    /// How the server can reach the owner, as a URL.
    pub contact: Option<String>,
    /// Where the certificate is ordered.
    pub directory: String,
    /// Where an order must succeed first.
    pub trial: Option<String>,
    /// The file of the authorities that vouch for the server itself.
    pub trust: Option<String>,
}

/// A route that admits every device.
#[derive(Clone, Debug)]
pub struct StarterRoute {
    /// Its name.
    pub name: String,
    /// Its server name.
    pub server_name: String,
    /// Its backend.
    pub backend: String,
    /// Which program uses it, if that is not to be known by the port.
    pub kind: Option<ServiceKind>,
}

impl Starter {
    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let mut deny = String::new();
        for (name, fingerprint) in &self.devices {
            // Writing to a String cannot fail.
            let _ = writeln!(deny, "    # \"sha256:{fingerprint}\",   # {name}");
        }
        format!(
            include_str!("starter.toml"),
            domain = self.domain,
            // In a comment: a line break in a folder's name must not end it.
            file = self.file.display().to_string().escape_debug(),
            listen = quoted(&self.listen.to_string()),
            public_port = self.public_port,
            page = self.page,
            certificate = self.certificate.to_toml(&self.domain),
            authority_keys = match self.certificate {
                StarterCertificate::Own { .. } => {
                    "The gate reads neither it nor\n# pki/server-ca-key.pem: keep both in a safe place.)"
                }
                StarterCertificate::Acme(_) => "The gate does not read it:\n# keep it in a safe place.)",
            },
            deny = deny,
            family = self.devices.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", "),
            first_device = self.devices.first().map_or("", |(name, _)| name),
            routes = self.routes.iter().map(StarterRoute::to_toml).collect::<String>(),
        )
    }
}

impl StarterCertificate {
    /// The section of the configuration, with its comment.
    fn to_toml(&self, domain: &ServerName) -> String {
        match self {
            Self::Own { expires } => format!(
                "# The gate's certificate for {domain}, valid until {expires}.\n# Devices trust it because pki/server-ca.pem is \
                 installed on them.\n[certificate]\nchain = \"pki/server.pem\"\nkey = \"pki/server-key.pem\"\n"
            ),
            Self::Acme(acme) => acme.to_toml(),
        }
    }
}

impl StarterAcme {
    /// The section of the configuration, with its comment.
    pub fn to_toml(&self) -> String {
        let mut out = "# The gate's certificate: a public one for the server names of the routes, which devices trust already. The gate\n\
                       # orders it from this ACME server, which connects to port 443 of each name, and renews it. How that goes:\n\
                       # doorward certificate\n[certificate.acme]\n"
            .to_owned();
        let mut line = |key: &str, value: &Option<String>, note: &str| {
            if let Some(value) = value {
                let _ = writeln!(out, "{key} = {}{note}", quoted(value));
            }
        };
        line("contact", &self.contact, "");
        line("directory", &Some(self.directory.clone()), "");
        line("trial", &self.trial, "   # an order must succeed there first, so that mistakes cost no rate limit");
        line("trust", &self.trust, "");
        out
    }
}

impl StarterRoute {
    fn to_toml(&self) -> String {
        format!(
            "\n[[route]]\nname = {}\nserver_names = [{}]\nbackends = [{}]\nallow = [\"any\"]\n{}{}{}",
            quoted(&self.name),
            quoted(&self.server_name),
            quoted(&self.backend),
            self.kind.map(|kind| format!("kind = \"{kind}\"\n")).unwrap_or_default(),
            self.application_protocols(),
            self.starttls(),
        )
    }

    /// The line that rejects browsers at a service that is not HTTP.
    fn application_protocols(&self) -> String {
        let protocols = services::protocols_of_kind(self.kind, &self.name, &self.backend);
        if protocols.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = protocols.iter().map(|protocol| quoted(protocol)).collect();
        format!(
            "application_protocols = [{}]   # rejects browsers, see application_protocols in the manual\n",
            quoted.join(", ")
        )
    }

    /// The line for clients that do not begin with TLS.
    fn starttls(&self) -> String {
        let protocols = services::protocols_of_kind(self.kind, &self.name, &self.backend);
        let asking = Starttls::WORDS.iter().find(|(_, starttls)| protocols == [starttls.application_protocol()]);
        asking
            .map(|(word, _)| format!("starttls = {}   # its clients ask for TLS first\n", quoted(word)))
            .unwrap_or_default()
    }
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_of_a_database_answers_its_clients() {
        let route = |name: &str, backend: &str, kind| {
            let route = StarterRoute {
                name: name.to_owned(),
                server_name: format!("{name}.home.example"),
                backend: backend.to_owned(),
                kind,
            };
            route.to_toml()
        };
        for (name, backend, kind, expected) in [
            ("photos", "192.168.1.10:5432", None, true),
            ("postgres", "192.168.1.10:41234", Some(ServiceKind::Other), true),
            // What is behind these is another program, or not known.
            ("photos", "192.168.1.10:5432", Some(ServiceKind::Http), false),
            ("db", "192.168.1.10:41234", None, false),
            ("ssh", "192.168.1.10:22", None, false),
        ] {
            let text = route(name, backend, kind);
            assert_eq!(text.contains("\nstarttls = \"postgres\""), expected, "{text}");
        }
    }
}
