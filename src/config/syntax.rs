//! What a TOML parser says, in words that do not require knowledge of TOML.

use toml::de::Error;

use super::report::Problem;

/// Where in `text` the mistake is, if that is known, and what it is.
pub(super) fn explain(text: &str, error: &Error) -> (Option<usize>, Problem) {
    let offset = error.span().map(|span| span.start.min(text.len()));
    // The path of a webhook is a password, and this goes into the log.
    let line = &without_paths(offset.map(|offset| line_around(text, offset)).unwrap_or_default().trim());
    let said = error.message().lines().collect::<Vec<_>>().join("; ");
    let message = if line.is_empty() {
        format!("this is not a configuration: {said}")
    } else {
        format!("this line cannot be read ({said}):\n{}", shown(line))
    };
    (offset, Problem::new(message, hint(line, &said)))
}

/// A line with nothing of a URL but its scheme and host.
fn without_paths(line: &str) -> String {
    let ends_text = |c: char| matches!(c, '"' | '\'' | ' ');
    let (mut kept, mut rest) = (String::with_capacity(line.len()), line);
    while let Some((before, url)) = rest.split_once("://") {
        let (url, after) = url.split_at(url.find(ends_text).unwrap_or(url.len()));
        let (host, path) = url.split_at(url.find(['/', '?', '#']).unwrap_or(url.len()));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        kept.extend([before, "://", host, if path.is_empty() { "" } else { "/…" }]);
        rest = after;
    }
    kept + rest
}

/// The line of `text` that holds the byte at `offset`.
fn line_around(text: &str, offset: usize) -> &str {
    let start = text.as_bytes().iter().take(offset).rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    // A line starts at the beginning or after an ASCII character, so this never cuts a character.
    text.get(start..).unwrap_or_default().lines().next().unwrap_or_default()
}

/// The mistakes people make most, by what the line looks like.
fn hint(line: &str, said: &str) -> String {
    let general = "every line is either a [section] or a key = value, where the value is text in \"quotes\", a \
                   number, or a list [\"of\", \"texts\"]";
    if said.contains("duplicate key") {
        return "it is there twice: keep one of the two; several listeners or routes are written [[listener]] and \
                [[route]], with double brackets"
            .to_owned();
    }
    if line.starts_with('[') {
        return "a section is written [certificate], and those of which there may be several [[listener]] and \
                [[route]]"
            .to_owned();
    }
    let Some((key, value)) = line.split_once('=') else {
        return match line.split_once(':') {
            // A line of a list, whose texts may hold colons.
            _ if line.matches('"').count() % 2 == 1 => {
                "a text begins and ends with the same quote: put the missing \" there".to_owned()
            }
            Some((key, value)) if !key.contains('"') => {
                format!("write = and not a colon: {} = \"{}\"", plain(key), plain(value))
            }
            _ => general.to_owned(),
        };
    };
    let value = value.trim();
    let quotes = value.matches('"').count();
    if value.is_empty() {
        return format!("write the value after the equals sign: {} = \"...\"", plain(key));
    }
    if quotes % 2 == 1 {
        return "a text ends with the quote it began with: put a \" at its end".to_owned();
    }
    if value.contains('\\') {
        return "a backslash has a meaning of its own in \"double quotes\": write / in paths, or use 'single quotes'"
            .to_owned();
    }
    if value.starts_with(['\u{201c}', '\u{201d}', '\u{201e}']) {
        return "the quotes are typographic ones, as a word processor makes them: use the plain \"".to_owned();
    }
    let is_word = !value.starts_with(['"', '\'', '{']);
    if is_word && value.starts_with('[') && value.contains("\"") {
        return "in a list, put every text in quotes and a comma between them: [\"one\", \"two\"]".to_owned();
    }
    if is_word && quotes == 0 {
        return format!("put the value in quotes: {} = \"{}\"", plain(key), plain(value));
    }
    general.to_owned()
}

/// A line of the file without characters that could mislead a reader. Quotes stay, because they are often the mistake.
fn shown(line: &str) -> String {
    crate::model::names::printable(line, 100).replace("\\\"", "\"").replace("\\\\", "\\")
}

fn plain(text: &str) -> String {
    crate::model::names::printable(text.trim(), 60)
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    #[test]
    fn path_of_a_url_is_not_shown() {
        for (line, shown) in [
            ("webhook = \"https://ntfy.sh/topic", "webhook = \"https://ntfy.sh/…"),
            ("webhook = https://ntfy.sh/topic", "webhook = https://ntfy.sh/…"),
            ("webhook = \"https://me:pass@ntfy.sh?auth=x\" y", "webhook = \"https://ntfy.sh/…\" y"),
            ("a = \"http://one/x\", \"http://two:80\"", "a = \"http://one/…\", \"http://two:80\""),
            ("name = \"nas\"", "name = \"nas\""),
        ] {
            assert_eq!(without_paths(line), shown);
        }
        let text = "webhook = https://ntfy.sh/topic";
        let (_, problem) = explain(text, &DeTable::parse(text).expect_err("no quotes"));
        assert!(!format!("{problem:?}").contains("topic"), "{problem:?}");
    }

    #[test]
    fn common_syntax_mistakes_have_a_hint() {
        for (text, line, says) in [
            ("a = 1\nidle = 10s", Some(8), "\"10s\""),
            ("address = [::]:8443", Some(0), "\"[::]:8443\""),
            ("name = nas", Some(0), "name = \"nas\""),
            ("name = \"nas", Some(0), "put a \" at its end"),
            ("name =", Some(0), "after the equals sign"),
            ("name: nas", Some(0), "name = \"nas\""),
            ("deny = [\nsha256:00ff\",  # alice\n]", Some(9), "the missing \""),
            ("name = \u{201c}nas\u{201d}", Some(0), "typographic"),
            ("chain = \"C:\\pki\\x.pem\"", Some(0), "write / in paths"),
            ("[certificate\nx = 1", Some(0), "a section is written"),
            ("a = 1\na = 2", Some(6), "keep one of the two"),
            ("[log]\n[log]", Some(6), "keep one of the two"),
            ("backends = [\"a:1\" \"b:2\"]", Some(0), "a comma between"),
        ] {
            let error = DeTable::parse(text).expect_err(text);
            let (offset, problem) = explain(text, &error);
            let start = offset.map(|offset| text.get(..offset).expect("a boundary").rfind('\n').map_or(0, |n| n + 1));
            let expected = line.map(|line| text.get(..line).expect("a boundary").rfind('\n').map_or(0, |n| n + 1));
            assert_eq!(start, expected, "{text}: {problem:?}");
            assert!(problem.remedy.contains(says), "{text}: {problem:?}");
        }
    }
}
