//! Words for the command lines that messages tell people to run, quoted for a POSIX shell where they have to be.

use std::borrow::Cow;
use std::path::Path;

/// `text` as one word of a command line.
pub fn word(text: &str) -> Cow<'_, str> {
    // With zero bytes allowed nothing is refused; no shell takes one, and no path has one.
    shlex::Quoter::new().allow_nul(true).quote(text).unwrap_or(Cow::Borrowed("''"))
}

/// A path as one word of a command line.
pub fn path(path: &Path) -> String {
    word(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_stays_one_word_of_a_shell() {
        for text in
            ["alice-phone.p12", "a b", "$(reboot)", "a'; reboot; '", "", "`x`", "a\nb", "*", "~", "-x", "é", "!1^"]
        {
            let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s' {}", word(text))]).output();
            let output = output.expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", word(text));
        }
    }

    #[test]
    fn plain_paths_are_not_quoted() {
        assert_eq!(path(Path::new("/etc/doorward/doorward.toml")), "/etc/doorward/doorward.toml");
        assert_eq!(path(Path::new("/mnt/my disk/pki")), "'/mnt/my disk/pki'");
    }
}
