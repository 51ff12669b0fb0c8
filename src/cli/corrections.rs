//! Command lines that are nearly right, answered with the right one.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use crate::model::shell;

/// What to do without a domain.
pub(super) const NO_DOMAIN: &str = "no domain? A dynamic DNS service gives you a name that follows the address of your router, free of \
     charge:\n    DuckDNS, https://www.duckdns.org   for a name such as alice.duckdns.org\n    deSEC,   https://desec.io           for \
     a name such as alice.dedyn.io\n  Names below yours, such as nas.alice.duckdns.org, lead to it as well (at deSEC, with a record \
     for \"*\").";

/// Which commands this build is without.
const LEFT_OUT: Option<&str> = if cfg!(not(feature = "gate")) {
    Some("this build has the commands of a device alone; those of the gate are in a build with the feature gate")
} else if cfg!(not(feature = "connector")) {
    Some("this build has no join, connect, forward and renew; they are in a build with the feature connector")
} else {
    None
};

/// The error with what was probably meant.
pub(super) fn corrected(mut error: Error, command: &mut Command, arguments: &[OsString]) -> Error {
    let words: Vec<&str> = arguments.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
    match error.kind() {
        ErrorKind::InvalidSubcommand => match misplaced(command, &words) {
            Some(message) => command.error(ErrorKind::InvalidSubcommand, message),
            None => {
                if let Some(tip) = LEFT_OUT {
                    suggest(&mut error, tip.to_owned());
                }
                error
            }
        },
        ErrorKind::UnknownArgument => {
            if let Some(tip) = unknown(command, &words, argument(&error).as_deref()) {
                suggest(&mut error, tip);
            }
            error
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = error.get(ContextKind::InvalidArg);
            let domain = matches!(missing, Some(ContextValue::Strings(missing)) if missing.iter().any(|arg| arg.starts_with("--domain")));
            if domain && words.first() == Some(&"init") {
                suggest(&mut error, NO_DOMAIN.to_owned());
            }
            error
        }
        _ => error,
    }
}

fn suggest(error: &mut Error, tip: String) {
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
}

/// The argument that is not known.
fn argument(error: &Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => Some(argument.clone()),
        _ => None,
    }
}

/// A command of `doorward ca` without the `ca`.
fn misplaced(command: &Command, words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let ca = command.find_subcommand("ca")?.find_subcommand(first).filter(|found| found.get_name() != "help")?;
    let rest: Vec<_> = rest.iter().map(|word| shell::word(word)).collect();
    let whole = [&["doorward ca".into(), ca.get_name().into()][..], &rest].concat().join(" ");
    Some(format!("\"{first}\" is one of the commands for certificates, which begin with \"ca\"\n\n  write: {whole}"))
}

/// An option before its command, or a configuration without `--config`.
fn unknown(command: &Command, words: &[&str], argument: Option<&str>) -> Option<String> {
    let (first, argument) = (words.first()?, argument?);
    if first.starts_with('-') {
        let after = words.iter().find(|word| command.find_subcommand(word).is_some())?;
        return Some(format!("options come after the command: doorward {after} {argument} …"));
    }
    let mut named = command.find_subcommand(first)?;
    let mut path = vec!["doorward", first];
    while let Some(next) = words.get(path.len() - 1).and_then(|word| named.find_subcommand(word)) {
        named = next;
        path.push(next.get_name());
    }
    let takes = |option: &str| named.get_arguments().any(|arg| arg.get_long() == Some(option));
    let is_file = Path::new(argument).extension().is_some_and(|end| end == "toml") || Path::new(argument).is_file();
    let option = if takes("config") && is_file {
        "config"
    } else if takes("folder") && Path::new(argument).is_dir() {
        "folder"
    } else {
        return None;
    };
    Some(format!("write: {} --{option} {}", path.join(" "), shell::word(argument)))
}

#[cfg(test)]
#[cfg(feature = "gate")]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{Cli, help};

    /// What is said about this command line.
    fn said(line: &str) -> String {
        let mut command = help::with_topics(Cli::command());
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = command.try_get_matches_from_mut(arguments.clone()).expect_err(line);
        corrected(error, &mut command, &arguments).to_string()
    }

    #[test]
    fn ca_command_without_ca_is_answered_with_it() {
        for (line, right) in [
            ("doorward device alice-phone", "doorward ca device alice-phone"),
            ("doorward revoke alice-phone --reason lost", "doorward ca revoke alice-phone --reason lost"),
            ("doorward list", "doorward ca list"),
            ("doorward revoke a\\b", "doorward ca revoke \"a\\\\b\""),
        ] {
            let said = said(line);
            assert!(said.contains(&format!("write: {right}\n")), "{line}: {said}");
        }
        assert!(!said("doorward lst").contains("begin with"));
    }

    #[test]
    fn configuration_without_its_option_is_answered_with_it() {
        for (line, right) in [
            ("doorward run /etc/doorward/doorward.toml", "doorward run --config /etc/doorward/doorward.toml"),
            ("doorward check home.toml", "doorward check --config home.toml"),
            ("doorward ca list doorward.toml", "doorward ca list --config doorward.toml"),
            ("doorward ca list /tmp", "doorward ca list --folder /tmp"),
            ("doorward --config a.toml run", "options come after the command: doorward run --config"),
        ] {
            let said = said(line);
            assert!(said.contains(right), "{line}: {said}");
        }
        assert!(!said("doorward run now").contains("--config now"));
    }

    #[test]
    fn init_without_a_domain_names_services_that_give_one() {
        let said = said("doorward init --route nas=a:1 --device alice");
        for needed in ["--domain <DOMAIN>", "DuckDNS", "deSEC", "alice.duckdns.org"] {
            assert!(said.contains(needed), "{needed}: {said}");
        }
    }
}
