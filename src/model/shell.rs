//! Words for the command lines that messages tell people to run, quoted where they have to be: for a POSIX shell, on Windows for
//! what is there.

use std::borrow::Cow;
use std::iter;
use std::path::Path;

/// `text` as one word of a command line.
pub fn word(text: &str) -> Cow<'_, str> {
    if cfg!(windows) { on_windows(text) } else { posix(text) }
}

fn posix(text: &str) -> Cow<'_, str> {
    // With zero bytes allowed nothing is refused; no shell takes one, and no path has one.
    shlex::Quoter::new().allow_nul(true).quote(text).unwrap_or(Cow::Borrowed("''"))
}

/// For cmd and PowerShell, and for what a program there makes of its command line (CommandLineToArgvW): a backslash is itself, but
/// before a quotation mark.
fn on_windows(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || r"\/:._-=+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::from('"');
    let mut backslashes = 0;
    for c in text.chars() {
        match c {
            '\\' => backslashes += 1,
            '"' => quoted.extend(iter::repeat_n('\\', std::mem::take(&mut backslashes) + 1)),
            _ => backslashes = 0,
        }
        quoted.push(c);
    }
    quoted.extend(iter::repeat_n('\\', backslashes));
    quoted.push('"');
    Cow::Owned(quoted)
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
    fn windows_has_quotation_marks_alone() {
        for (text, quoted) in [
            (r"C:\Users\alice\doorward.exe", r"C:\Users\alice\doorward.exe"),
            (r"C:\Program Files\doorward.exe", r#""C:\Program Files\doorward.exe""#),
            (r"\\nas\a b\", r#""\\nas\a b\\""#),
            (r#"say "a\" b"#, r#""say \"a\\\" b""#),
            ("", r#""""#),
        ] {
            assert_eq!(on_windows(text), quoted);
        }
    }

    #[test]
    fn plain_paths_are_not_quoted() {
        assert_eq!(path(Path::new("/etc/doorward/doorward.toml")), "/etc/doorward/doorward.toml");
        assert_eq!(path(Path::new("/mnt/my disk/pki")), "'/mnt/my disk/pki'");
    }
}
