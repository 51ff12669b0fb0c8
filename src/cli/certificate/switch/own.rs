//! The section of a certificate that the owner's own authority has signed.

use std::path::{Path, PathBuf};

use super::{Before, UseArgs, absolute, same, with_default_certificate};
use crate::cli::ca::FOLDER;
use crate::install::Installed;
use crate::model::names::{ServerName, ServerNamePattern};

/// The section of the certificate that `doorward ca server` issues.
pub(super) fn own_section(args: &UseArgs, before: &Before) -> String {
    let folder = args.folder.authorities();
    let beside = before.file.with_file_name(FOLDER);
    let is_installed = Installed::find().is_some_and(|gate| gate.config() == before.file);
    let is_beside = is_installed || same(&folder, &beside);
    let at = |name: &str| {
        let path = if is_beside { Path::new(FOLDER).join(name) } else { absolute(&folder).join(name) };
        toml::Value::from(path.display().to_string()).to_string()
    };
    format!(
        "# The gate's certificate. Devices trust it because {} is installed on them.\n[certificate]\nchain = {}\nkey = {}\n",
        at("server-ca.pem").trim_matches('"'),
        at("server.pem"),
        at("server-key.pem")
    )
}

/// Whether the chain that a section names is there.
pub(super) fn names_what_exists(section: &str, config: &Path) -> bool {
    let table: Option<toml::Table> = section.parse().ok();
    let chain = table.as_ref().and_then(|table| table.get("certificate")?.get("chain")?.as_str().map(PathBuf::from));
    chain.is_some_and(|chain| config.parent().unwrap_or_else(|| Path::new(".")).join(chain).exists())
}

/// The server names of the routes that have no certificate of their own.
pub(super) fn names(before: &Before) -> Vec<ServerNamePattern> {
    let names = with_default_certificate(before).flat_map(|(route, _)| route.server_names.iter().cloned());
    names.filter(|name| *name != ServerNamePattern::Default).collect()
}

/// The domain that all names are, or are below of; nothing if they have no more than a top-level domain in common.
pub(super) fn common_domain(names: &[ServerNamePattern]) -> Option<ServerName> {
    let labels = |name: &ServerNamePattern| -> Vec<String> {
        let (ServerNamePattern::Exact(name) | ServerNamePattern::Wildcard(name)) = name else { return Vec::new() };
        name.as_str().rsplit('.').map(str::to_owned).collect()
    };
    let mut names = names.iter().map(labels);
    let first = names.next()?;
    let common = names.fold(first, |common, name| {
        common.into_iter().zip(name).take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
    });
    let domain: Vec<&str> = common.iter().rev().map(String::as_str).collect();
    if domain.len() < 2 { None } else { ServerName::parse(&domain.join(".")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_authority_is_limited_to_what_the_names_have_in_common() {
        let common = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| ServerNamePattern::parse(name).expect("a name")).collect();
            common_domain(&names).map(|domain| domain.to_string())
        };
        assert_eq!(common(&["nas.home.example", "ssh.home.example"]).as_deref(), Some("home.example"));
        assert_eq!(common(&["home.example", "*.home.example"]).as_deref(), Some("home.example"));
        assert_eq!(common(&["alice.duckdns.org"]).as_deref(), Some("alice.duckdns.org"));
        assert_eq!(common(&["nas.home.example", "nas.cabin.example"]), None);
        assert_eq!(common(&[]), None);
    }
}
