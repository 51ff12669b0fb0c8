//! The section `[certificate]` as text: another one takes its place, and the old one is kept in comments.
//!
//! Nothing else of the file changes, and what comes out is compared with what went in: a file that is written in a way that is
//! not expected here is left alone.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A line of a section that is kept begins with it.
const KEPT: &str = "#|";

/// The certificate that the section is about, as `doorward certificate use` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One that the owner's own authority has signed.
    Own,
    /// One of a public authority.
    Public,
}

impl Use {
    /// Its word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Public => "public",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Own => Self::Public,
            Self::Public => Self::Own,
        }
    }

    /// The line before the lines that are kept.
    fn heading(self) -> String {
        format!("# Not in use. To use it again: doorward certificate use {}", self.word())
    }
}

/// The section cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// There is none.
    #[error("it has no section [certificate]")]
    Absent,
    /// It is written in several places, or as one value.
    #[error("its certificate is not written as one section [certificate]")]
    Scattered,
}

/// The section that is kept in comments for this certificate, if there is one.
pub fn kept(text: &str, wanted: Use) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let block = kept_lines(&lines, wanted)?;
    let lines = lines.get(block.start + 1..block.end)?;
    Some(
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(KEPT))
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect(),
    )
}

/// The configuration with `section` in place of its `[certificate]`, which is kept in comments. A section that is kept for the same
/// certificate is removed.
///
/// # Errors
/// If it cannot be done without changing anything else.
pub fn replaced(text: &str, wanted: Use, section: &str) -> Result<String, NotReplaced> {
    let before = parse(text)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let old = with_comment(&lines, section_lines(text, &lines)?);
    let dropped = kept_lines(&lines, wanted).unwrap_or(0..0);
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(text.len() + section.len());
    for (number, line) in lines.iter().enumerate() {
        if number == old.start {
            section.lines().for_each(|line| out.extend([line, end]));
            out.extend([&wanted.other().heading(), end]);
        }
        if old.contains(&number) {
            let blank = line.trim().is_empty();
            out.extend([KEPT, if blank { "" } else { " " }, line]);
            if !line.ends_with('\n') {
                out.push_str(end);
            }
        } else if !dropped.contains(&number) {
            out.push_str(line);
        }
    }
    let after = parse(&out)?;
    let rest = |mut table: toml::Table| {
        table.remove(SECTION);
        table
    };
    let expected = parse(section)?;
    if after.get(SECTION) != expected.get(SECTION) || rest(after) != rest(before) {
        return Err(NotReplaced::Scattered);
    }
    Ok(out)
}

const SECTION: &str = "certificate";

fn parse(text: &str) -> Result<toml::Table, NotReplaced> {
    text.parse().map_err(|_| NotReplaced::Scattered)
}

/// The lines from the first to the last one of the section: its headings and its keys, and what is between them.
fn section_lines(text: &str, lines: &[&str]) -> Result<Range<usize>, NotReplaced> {
    let document = DeTable::parse(text).map_err(|_| NotReplaced::Scattered)?;
    let section = document.get_ref().get(SECTION).ok_or(NotReplaced::Absent)?;
    let DeValue::Table(section) = section.get_ref() else { return Err(NotReplaced::Scattered) };
    let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count();
    let mut own = BTreeSet::new();
    keys(section, &mut |span| own.extend(line_of(span.start)..=line_of(span.end.saturating_sub(1))));
    own.extend((0..lines.len()).filter(|number| lines.get(*number).is_some_and(|line| is_heading(line))));
    let (Some(first), Some(last)) = (own.first().copied(), own.last().copied()) else {
        return Err(NotReplaced::Scattered);
    };
    let belongs = |number: usize| {
        let line = lines.get(number).map_or("", |line| line.trim());
        own.contains(&number) || line.is_empty() || line.starts_with('#')
    };
    let is_section = lines.get(first).is_some_and(|line| is_heading(line));
    if is_section && (first..=last).all(belongs) { Ok(first..last + 1) } else { Err(NotReplaced::Scattered) }
}

/// Calls `found` with the span of each key and its value. Tables with a heading are looked into.
fn keys(table: &DeTable<'_>, found: &mut impl FnMut(Range<usize>)) {
    for (key, value) in table {
        match value.get_ref() {
            // The span of a table with a heading is that of the heading, which ends before its keys.
            DeValue::Table(inner) if inner.iter().any(|(key, _)| key.span().start >= value.span().end) => {
                keys(inner, found);
            }
            _ => found(key.span().start..value.span().end),
        }
    }
}

/// Whether a line is `[certificate]`, or the heading of a part of it.
fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && !line.starts_with("[[")
        && line.parse::<toml::Table>().is_ok_and(|table| table.len() == 1 && table.contains_key(SECTION))
}

/// The same with the comment above, which is about the section.
fn with_comment(lines: &[&str], section: Range<usize>) -> Range<usize> {
    let is_comment = |number: usize| {
        lines.get(number).is_some_and(|line| line.starts_with('#') && !line.starts_with(KEPT))
            && !is_kept_heading(lines, number)
    };
    let start = (0..section.start).rev().take_while(|number| is_comment(*number)).last();
    start.unwrap_or(section.start)..section.end
}

fn is_kept_heading(lines: &[&str], number: usize) -> bool {
    [Use::Own, Use::Public]
        .iter()
        .any(|wanted| lines.get(number).is_some_and(|line| line.trim_end() == wanted.heading()))
}

/// The lines that are kept for this certificate, with the one that says so.
fn kept_lines(lines: &[&str], wanted: Use) -> Option<Range<usize>> {
    let heading = wanted.heading();
    let start = lines.iter().position(|line| line.trim_end() == heading)?;
    let count = lines.iter().skip(start + 1).take_while(|line| line.starts_with(KEPT)).count();
    (count > 0).then_some(start..start + 1 + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "\
# A home.
public_port = 443

# The gate's certificate.
# Devices trust it.
[certificate]
chain = \"pki/server.pem\"   # a comment

# Keep it secret.
key = \"pki/server-key.pem\"


# Which devices.
[client_auth]
trust = [
  \"pki/clients.pem\",   # [certificate]
]
";
    const PUBLIC: &str = "# Public.\n[certificate.acme]\ndirectory = \"letsencrypt\"\n";

    #[test]
    fn section_is_replaced_and_taken_back() {
        let public = replaced(OWN, Use::Public, PUBLIC).expect("replaced");
        let expected = "\
# A home.
public_port = 443

# Public.
[certificate.acme]
directory = \"letsencrypt\"
# Not in use. To use it again: doorward certificate use own
#| # The gate's certificate.
#| # Devices trust it.
#| [certificate]
#| chain = \"pki/server.pem\"   # a comment
#|
#| # Keep it secret.
#| key = \"pki/server-key.pem\"


# Which devices.
";
        assert!(public.starts_with(expected), "{public}");
        let section = kept(&public, Use::Own).expect("kept");
        assert_eq!(kept(&public, Use::Public), None);
        let own = replaced(&public, Use::Own, &section).expect("replaced");
        // What was there before, and the other one in comments.
        let without: String = own.split_inclusive('\n').filter(|line| !line.starts_with("#|")).collect();
        assert_eq!(without.replace("# Not in use. To use it again: doorward certificate use public\n", ""), OWN);
        assert_eq!(kept(&own, Use::Public).as_deref(), Some(PUBLIC));
        // However often.
        let again = kept(&own, Use::Public).expect("kept");
        assert_eq!(replaced(&own, Use::Public, &again).expect("replaced"), public);
    }

    #[test]
    fn parts_of_the_section_go_with_it() {
        let text = "[certificate.acme]\ndirectory = \"letsencrypt\"\n\n[certificate.acme.eab]\nkey_id = \"a\"\nkey_file = \"b\"\n\n\
                    [log]\nformat = \"json\"";
        let own = replaced(text, Use::Own, "[certificate]\nchain = \"a\"\nkey = \"b\"\n").expect("replaced");
        assert!(
            own.contains("#| [certificate.acme.eab]\n#| key_id") && own.ends_with("\n[log]\nformat = \"json\""),
            "{own}"
        );
        let table: toml::Table = own.parse().expect("TOML");
        assert_eq!(table["certificate"].as_table().map(toml::Table::len), Some(2));
        let inline = "[certificate.acme]\ndns = { provider = \"x\", token_file = \"y\" }\n";
        assert!(replaced(inline, Use::Own, "[certificate]\nchain = \"a\"\nkey = \"b\"").is_ok());
    }

    #[test]
    fn line_ends_and_the_last_line_stay_as_they_are() {
        let windows = OWN.replace('\n', "\r\n");
        let public = replaced(&windows, Use::Public, PUBLIC).expect("replaced");
        assert_eq!(public.matches('\n').count(), public.matches("\r\n").count(), "{public:?}");
        let section = kept(&public, Use::Own).expect("kept");
        assert!(replaced(&public, Use::Own, &section).is_ok());
        let unended = "[certificate]\nchain = \"a\"\nkey = \"b\"";
        let public = replaced(unended, Use::Public, PUBLIC).expect("replaced");
        assert!(public.ends_with("#| key = \"b\"\n"), "{public}");
    }

    #[test]
    fn unusual_files_are_left_alone() {
        for (text, why) in [
            ("public_port = 443\n", NotReplaced::Absent),
            ("certificate = { chain = \"a\", key = \"b\" }\n[log]\n", NotReplaced::Scattered),
            ("certificate.chain = \"a\"\ncertificate.key = \"b\"\n[log]\n", NotReplaced::Scattered),
            ("[certificate]\nchain = \"a\"\n[log]\n[certificate.acme]\n", NotReplaced::Scattered),
            ("certificate = 3\n", NotReplaced::Scattered),
            ("[certificate\n", NotReplaced::Scattered),
        ] {
            assert_eq!(replaced(text, Use::Public, PUBLIC), Err(why), "{text}");
        }
        // A text that looks like a heading.
        let odd = "[certificate]\nchain = \"a\"\nkey = \"\"\"\n[certificate.acme]\n\"\"\"\n";
        let replaced = replaced(odd, Use::Public, PUBLIC);
        assert!(replaced.is_err() || replaced.is_ok_and(|text| text.parse::<toml::Table>().is_ok()));
    }
}
