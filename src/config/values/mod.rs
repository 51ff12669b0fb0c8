//! Single values: text in, checked value or a [`Problem`] out.

mod address;
mod quantity;

use std::path::Path;

use super::checked::LogOutput;
use super::report::{Problem, quoted};
use super::suggest;
use crate::model::shell;

pub(super) use address::{backend, broadcast, listen_address, network, overlap, reaches};
pub(super) use quantity::{count, count_or_off, duration, duration_or_off, port, prefix, rate_or_off, strength};

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let meant = suggest::nearest(&text.to_ascii_lowercase().replace('-', "_"), &known);
    let hint = meant.map(|word| format!("did you mean \"{word}\"? ")).unwrap_or_default();
    Err(Problem::new(format!("unknown value {}", quoted(text)), format!("{hint}write one of {}", listed(&known, "or"))))
}

/// `"a", "b" or "c"`.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => format!("\"{only}\""),
        [first @ .., end] => {
            let first: Vec<String> = first.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} {last} \"{end}\"", first.join(", "))
        }
    }
}

/// Where the log goes: `stdout`, `journald` or the path of a file; a relative path starts at `folder`.
pub(super) fn log_output(text: &str, folder: &Path) -> Result<LogOutput, Problem> {
    const PATH: &str = "\"/var/log/doorward/doorward.log\"";
    if !text.contains('/') {
        let words = [("stdout", false), ("journald", true)];
        return word(text, &words)
            .map(|journald| if journald { LogOutput::Journald } else { LogOutput::Stdout })
            .map_err(|problem| Problem {
                remedy: format!("{}, or the path of a file, as in {PATH}", problem.remedy),
                ..problem
            });
    }
    let path = folder.join(text);
    if path.is_dir() || text.ends_with('/') {
        return Err(Problem::new(
            format!("{} is a folder", path.display()),
            format!("write the path of a file in it, as in {PATH}"),
        ));
    }
    if path.exists() && !path.is_file() {
        return Err(Problem::new(
            format!("{} is no file that lines can be appended to", path.display()),
            format!("write the path of a file, as in {PATH}, or \"stdout\""),
        ));
    }
    match path.parent() {
        Some(parent) if !parent.is_dir() => Err(Problem::new(
            format!("there is no folder {}", parent.display()),
            format!("make it, and let the user that doorward runs as write to it: mkdir -p {}", shell::path(parent)),
        )),
        _ => Ok(LogOutput::File(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_word_is_answered_with_the_known_ones() {
        let words = [("off", 0), ("v2-tls", 1)];
        assert_eq!(word("off", &words), Ok(0));
        let problem = word("Off", &words).expect_err("words are lower case");
        assert!(problem.remedy.starts_with("did you mean \"off\"? write one of \"off\" or \"v2-tls\""), "{problem:?}");
    }
}
