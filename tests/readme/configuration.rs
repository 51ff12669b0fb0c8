//! The samples and the defaults of the configuration.

use doorward::config;
use doorward::config::checked::Config;

use crate::common::pki::{Authority, Certified};
use crate::{Block, blocks, table, word};

/// A folder with the files that a configuration names.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a configuration and what it names, and loads it. Nothing may be wrong with it, nor odd.
    #[track_caller]
    fn load(&self, text: &str) -> Config {
        // The domain of the manual is reserved, and has no public certificates.
        let public = text.replace("home.example", "alice.example.org");
        let text = if text.contains("[certificate.acme]") { &public } else { text };
        let document: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        self.write_files(&document, &server_names(&document));
        for route in document.get("route").and_then(toml::Value::as_array).into_iter().flatten() {
            self.write_files(route.as_table().unwrap(), &server_names(&document));
        }
        let file = self.0.path().join("doorward.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert!(config.warnings.is_empty(), "{:?}\n{text}", config.warnings);
        // Each time it is another file that was read, with other lines.
        let mut config = Config { seen: config::file_states::Seen::default(), ..config };
        config.routes.iter_mut().flat_map(|route| &mut route.allow_entries).for_each(|entry| entry.line = None);
        config
    }

    /// The files of `[certificate]` and `[client_auth]` in this table.
    fn write_files(&self, table: &toml::Table, server_names: &[String]) {
        let write = |file: &toml::Value, contents: String| {
            use std::os::unix::fs::PermissionsExt;
            let file = self.0.path().join(file.as_str().unwrap());
            if file.exists() {
                return;
            }
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, contents).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        if let Some(certificate) = table.get("certificate") {
            let names: Vec<&str> = server_names.iter().map(String::as_str).collect();
            let issued = Authority::new("Servers").issue(Certified::for_servers(&names));
            if certificate.get("acme").is_some() {
                // As if it had been issued.
                let file = toml::Value::from("acme/live/certificate.pem");
                write(&file, format!("{}{}", issued.chain_pem(), issued.key_pem()));
                if let Some(dns) = certificate["acme"].get("dns") {
                    dns.get("token_file").into_iter().for_each(|file| write(file, "token".to_owned()));
                    dns.get("key_file").into_iter().for_each(|file| write(file, "hmac-sha256:gate:AAAA".to_owned()));
                }
            } else if !self.0.path().join(certificate["key"].as_str().unwrap()).exists() {
                write(&certificate["chain"], issued.chain_pem());
                write(&certificate["key"], issued.key_pem());
            }
        }
        if let Some(file) = table.get("metrics").and_then(|metrics| metrics.get("inventory")) {
            write(file, "version = 1\n".to_owned());
        }
        for file in table.get("client_auth").and_then(|table| table.get("trust")?.as_array()).into_iter().flatten() {
            write(file, Authority::new("Clients").pem().to_owned());
        }
    }
}

fn server_names(document: &toml::Table) -> Vec<String> {
    let routes = document.get("route").and_then(toml::Value::as_array).into_iter().flatten();
    let names = routes.flat_map(|route| route["server_names"].as_array().unwrap());
    let renewal = document.get("renewal").map(|section| &section["server_name"]);
    names.chain(renewal).map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What a fragment is put into.
const AROUND: &str = r#"
[[listener]]
name = "public"
address = "[::]:8443"

[certificate]
chain = "pki/server.pem"
key = "pki/server-key.pem"

[client_auth]
trust = ["pki/clients.pem"]

[[route]]
name = "nas"
server_names = ["nas.home.example"]
backends = ["192.168.1.10:5666"]
allow = ["any"]
"#;

#[test]
fn every_sample_configuration_is_right() {
    let samples: Vec<Block> = blocks().into_iter().filter(|block| block.language == "toml").collect();
    let (fragments, whole): (Vec<_>, Vec<_>) = samples.iter().partition(|block| block.before == "<!-- fragment -->");
    assert!(!fragments.is_empty() && !whole.is_empty());
    for block in whole {
        Home::new().load(&block.text);
    }
    for block in fragments {
        let mut document: toml::Table = AROUND.parse().unwrap();
        let mut fragment = block.text.parse::<toml::Table>().unwrap();
        if let Some(routes) = fragment.get_mut("route").and_then(toml::Value::as_array_mut)
            && routes.iter().all(|route| route.get("canary").is_some())
        {
            // A canary is not alone.
            routes.extend(document["route"].as_array().unwrap().clone());
        }
        document.extend(fragment);
        Home::new().load(&document.to_string());
    }
}

#[test]
fn defaults_are_what_the_table_says() {
    let home = Home::new();
    let mut document: toml::Table = AROUND.parse().unwrap();
    let left_out = format!("{:?}", home.load(&document.to_string()));
    let mut given = 0;
    for row in table("key") {
        let Some(default) = row[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else {
            assert!(["required", "–"].contains(&row[1].as_str()) || row[1].starts_with("from "), "{row:?}");
            continue;
        };
        let key = word(&row[0]);
        let value = format!("x = {default}").parse::<toml::Table>().unwrap().remove("x").unwrap();
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap();
        let mut place = &mut document;
        for section in path {
            let entry = place.entry(section).or_insert_with(|| toml::Table::new().into());
            place = match entry {
                toml::Value::Array(tables) => tables[0].as_table_mut().unwrap(),
                table => table.as_table_mut().unwrap(),
            };
        }
        // Two lists cannot be given as they are left out: an empty trust list is refused, and an empty list of allowed sources
        // earns a warning. The latter means the same, and the former is what AROUND gives.
        if !["client_auth.trust", "listener.allow_sources"].contains(&key) {
            place.insert(last.to_owned(), value);
            given += 1;
        }
    }
    assert!(given > 20, "only {given} defaults");
    assert_eq!(format!("{:?}", home.load(&document.to_string())), left_out);
}
