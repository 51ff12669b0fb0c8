//! The file of a key for changes of a zone (TSIG): as BIND's `tsig-keygen` or Knot's `keymgr -t` writes it, or the secret alone.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::checked::{Secret, TsigAlgorithm, TsigKey};
use crate::config::key_file;
use crate::config::report::{Problem, Report, Text, quoted};
use crate::config::values;

/// What a file says of a key.
#[derive(PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) name: Option<String>,
    pub(super) algorithm: Option<TsigAlgorithm>,
    /// In base64.
    pub(super) secret: String,
}

/// A key, whatever a file and the configuration say of it.
pub(super) fn key(name: String, algorithm: TsigAlgorithm, secret: String) -> TsigKey {
    TsigKey { name, algorithm, secret: Secret::new(secret) }
}

/// Reads the file, or reports why not.
pub(super) fn read(text: &Text, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<KeyFile> {
    let (path, content) = key_file::read_secret(text, report)?;
    let parsed = content.as_deref().map(parse);
    let key = report.taken(&text.place, parsed.unwrap_or_else(|| Err(no_key())))?;
    files.push(path);
    Some(key)
}

/// The name of a key, as DNS compares it.
pub(super) fn name(text: &str) -> Result<String, Problem> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(Problem::new(
            format!("{} is not the name of a key", quoted(text)),
            "write the name by which the server knows the key: letters, digits, - and _, as in \"doorward\"",
        ));
    }
    Ok(name)
}

fn no_key() -> Problem {
    Problem::new(
        "the file does not hold a key for changes of a zone (TSIG)",
        "make one and give it to the DNS server, too: tsig-keygen doorward > tsig.key (BIND), or keymgr -t doorward > tsig.key (Knot)",
    )
}

/// The secret is never quoted.
fn parse(text: &str) -> Result<KeyFile, Problem> {
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default().trim();
    let (name, algorithm, secret) = if first.starts_with("key ") && text.contains('{') {
        let inside = text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(inside, _)| inside);
        let value = |key: &str| {
            let statement = inside.into_iter().flat_map(|inside| inside.split(';')).map(str::trim);
            let mut found = statement.filter_map(|statement| statement.strip_prefix(key));
            found.find(|rest| rest.starts_with([' ', '\t'])).map(unquoted)
        };
        let name = first.strip_prefix("key ").and_then(|rest| rest.split('{').next()).map(unquoted);
        (name, value("algorithm"), value("secret").ok_or_else(no_key)?)
    } else {
        let line = first.strip_prefix('#').unwrap_or(first).trim();
        match line.split(':').collect::<Vec<_>>().as_slice() {
            [algorithm, name, secret] => {
                (Some((*name).to_owned()), Some((*algorithm).to_owned()), (*secret).to_owned())
            }
            [secret] if text.lines().count() == 1 && !first.starts_with('#') => (None, None, (*secret).to_owned()),
            _ => return Err(no_key()),
        }
    };
    let decoded = STANDARD.decode(&secret).ok().filter(|decoded| !decoded.is_empty());
    if decoded.is_none() || secret.len() > 1024 {
        return Err(no_key());
    }
    let algorithm = algorithm.map(|word| values::word(&word.to_ascii_lowercase(), TsigAlgorithm::WORDS));
    Ok(KeyFile { name, algorithm: algorithm.transpose()?, secret })
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "c2VjcmV0IG9mIGEgdGVzdCwgMzIgYnl0ZXMgbG9uZyE=";

    #[test]
    fn key_is_read_as_bind_and_knot_write_it() {
        let bind = format!("key \"doorward\" {{\n\talgorithm hmac-sha512;\n\tsecret \"{SECRET}\";\n}};\n");
        let knot = format!(
            "# hmac-sha512:doorward:{SECRET}\nkey:\n  - id: doorward\n    algorithm: hmac-sha512\n    secret: {SECRET}\n"
        );
        for text in [bind.as_str(), knot.as_str(), &format!("hmac-sha512:doorward:{SECRET}")] {
            let key = parse(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"));
            assert_eq!(key.name.as_deref(), Some("doorward"), "{text}");
            assert_eq!(key.algorithm, Some(TsigAlgorithm::Sha512), "{text}");
            assert_eq!(key.secret, SECRET, "{text}");
        }
        let key = parse(&format!("{SECRET}\n")).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert!(key.name.is_none() && key.algorithm.is_none() && key.secret == SECRET);
    }

    #[test]
    fn file_that_holds_no_key_is_refused_without_quoting_it() {
        for text in [
            "",
            "not base64!",
            "key \"a\" {\n};",
            "key \"a\" { secret \"x y\"; };",
            "a:b",
            "# a comment\nAAAA",
            "AAAA\nBBBB",
        ] {
            let problem = parse(text).err().unwrap_or_else(|| panic!("{text}"));
            assert_eq!(problem, no_key(), "{text}");
        }
        let weak = parse("hmac-md5:doorward:AAAA").err().expect("MD5");
        assert!(weak.remedy.contains("hmac-sha256") && !format!("{weak:?}").contains("AAAA"), "{weak:?}");
    }

    #[test]
    fn key_name_is_a_domain_name() {
        assert_eq!(name("Doorward.").as_deref(), Ok("doorward"));
        assert_eq!(name("a_b.home.example").as_deref(), Ok("a_b.home.example"));
        for wrong in ["", ".", "a..b", "a b", "ä", &"a".repeat(64)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
