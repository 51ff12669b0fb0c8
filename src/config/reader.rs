//! Reads one TOML table key by key. Whatever was not asked for when the table is closed is an unknown key.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{At, Given, Place, Problem, Report, Text, quoted};
use super::suggest::{self, KnownKey};

/// A number or a text: for keys such as `connections_per_source`, which takes `256` or `"off"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// Digits without quotes, as written (they may be too many for any integer type).
    Number(String),
    /// Text in quotes.
    Text(String),
}

/// A table that is being read.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    place: Place,
    asked: Vec<&'static str>,
    purpose: Purpose<'a>,
}

/// What the keys of a table are asked for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// To read their values; a key that is not asked for is an unknown one, and these are all that exist.
    Read(&'a [KnownKey]),
    /// To list the keys: every section counts as present, and nothing is read.
    List(&'a RefCell<Vec<KnownKey>>),
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(super) fn root(document: &'a DeTable<'a>, purpose: Purpose<'a>) -> Self {
        Self::new(document, Place { line: None, key: String::new() }, purpose)
    }

    fn new(entries: &'a DeTable<'a>, place: Place, purpose: Purpose<'a>) -> Self {
        Self { entries, place, asked: Vec::new(), purpose }
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Adds the name to the place of an entry of an array of tables: `route[2]` becomes `route[2] "ssh"`.
    pub(super) fn called(mut self) -> Self {
        let name = self.entries.iter().find(|(key, _)| key.get_ref() == "name");
        if let Some(name) = name.and_then(|(_, value)| value.get_ref().as_str()) {
            self.place.key = format!("{} {}", self.place.key, quoted(name));
        }
        self
    }

    /// Text in quotes. `example` is a right value as it would be written.
    pub(super) fn text(&mut self, key: &'static str, example: &str, report: &mut Report) -> Given<String> {
        self.read(key, report, |value| match value {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            DeValue::Array(list) if list.len() == 1 => Err(Problem::new(
                "the value is a list, and this key takes one text in quotes",
                format!("write it without the [brackets]: {key} = {example}"),
            )),
            other => Err(wrong_type(other, "text in quotes", key, example)),
        })
    }

    /// A number, or a word in quotes.
    pub(super) fn scalar(&mut self, key: &'static str, example: &str, report: &mut Report) -> Given<Scalar> {
        self.read(key, report, |value| match value {
            DeValue::String(text) => Ok(Scalar::Text(text.clone().into_owned())),
            DeValue::Integer(number) if number.radix() == 10 => Ok(Scalar::Number(number.as_str().to_owned())),
            other => Err(wrong_type(other, "a number or a text in quotes", key, example)),
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, example: &str, report: &mut Report) -> Given<bool> {
        self.read(key, report, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(wrong_type(other, "true or false, without quotes", key, example)),
        })
    }

    /// A list of texts in quotes. `example` is one right entry as it would be written.
    pub(super) fn texts(&mut self, key: &'static str, example: &str, report: &mut Report) -> Given<Vec<Text>> {
        let Some((place, value)) = self.find(key, report) else { return Given::Absent };
        texts(value.get_ref(), key, place, example, report)
    }

    /// A table of its own, `[key]`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Self, &mut Report) -> T,
        report: &mut Report,
    ) -> Given<T> {
        if let Purpose::List(keys) = self.purpose {
            let place = self.place.child(key);
            let header = format!("[{}]", header(&place.key));
            keys.borrow_mut().push(KnownKey::section(&self.header(), key, header));
            read(Table::new(self.entries, place, self.purpose), report);
            return Given::Absent;
        }
        let Some((place, value)) = self.find(key, report) else { return Given::Absent };
        let header = header(&place.key);
        let problem = match value.get_ref() {
            DeValue::Table(entries) => {
                return Given::Value(At {
                    value: read(Table::new(entries, place.clone(), self.purpose), report),
                    place,
                });
            }
            DeValue::Array(list) if list.iter().all(|entry| entry.get_ref().is_table()) => Problem::new(
                "this section may be there only once, and double brackets say that there are several",
                format!("write [{header}] with single brackets"),
            ),
            other => wrong_section(other, &format!("[{header}]")),
        };
        report.problem(&place, problem);
        Given::Refused
    }

    /// A text in quotes, which is read by `of_text`; or a table of its own, `key = { … }`.
    pub(super) fn text_or_table<T>(
        &mut self,
        key: &'static str,
        example: &str,
        of_text: impl FnOnce(Text) -> T,
        read: impl FnOnce(Self, &mut Report) -> T,
        report: &mut Report,
    ) -> Given<T> {
        if let Purpose::List(keys) = self.purpose {
            keys.borrow_mut().push(KnownKey::value(&self.header(), key));
            read(Table::new(self.entries, self.place.child(key), self.purpose), report);
            return Given::Absent;
        }
        if self.entries.iter().any(|(name, value)| name.get_ref() == key && value.get_ref().is_table()) {
            return self.table(key, read, report);
        }
        match self.text(key, example, report) {
            Given::Absent => Given::Absent,
            Given::Refused => Given::Refused,
            Given::Value(text) => Given::Value(At { place: text.place.clone(), value: of_text(text) }),
        }
    }

    /// Tables of which there may be several, `[[key]]`. `None` if there is something else in their stead.
    pub(super) fn tables(&mut self, key: &'static str, report: &mut Report) -> Option<Vec<Self>> {
        if let Purpose::List(keys) = self.purpose {
            keys.borrow_mut().push(KnownKey::section(&self.header(), key, format!("[[{key}]]")));
            let place = Place { line: None, key: format!("{key}[1]") };
            return Some(vec![Table::new(self.entries, place, self.purpose)]);
        }
        let purpose = self.purpose;
        let Some((place, value)) = self.find(key, report) else { return Some(Vec::new()) };
        let problem = match value.get_ref() {
            DeValue::Array(list) => {
                let tables = list.iter().enumerate().filter_map(|(index, entry)| {
                    let line = Some(report.line(entry.span().start));
                    let place = Place { line, key: format!("{}[{}]", place.key, index + 1) };
                    match entry.get_ref() {
                        DeValue::Table(entries) => Some(Table::new(entries, place, purpose).called()),
                        other => {
                            report.problem(&place, wrong_section(other, &format!("[[{key}]]")));
                            None
                        }
                    }
                });
                return Some(tables.collect());
            }
            DeValue::Table(_) => Problem::new(
                "single brackets say that there is only one, and of these there may be several",
                format!("write [[{key}]] with double brackets, before each of them"),
            ),
            other => wrong_section(other, &format!("[[{key}]]")),
        };
        report.problem(&place, problem);
        None
    }

    /// Every key with its list of texts, for a table whose keys the user chooses. Closes the table.
    pub(super) fn lists(self, example: &str, report: &mut Report) -> Vec<(Text, Given<Vec<Text>>)> {
        self.entries
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                let place = Place { line: Some(report.line(key.span().start)), ..self.place.child(&printed(name)) };
                let given = texts(value.get_ref(), name, place.clone(), example, report);
                (At { value: name.to_owned(), place }, given)
            })
            .collect()
    }

    /// Ends the reading: reports every key that was not asked for.
    pub(super) fn close(self, report: &mut Report) {
        let Purpose::Read(known) = self.purpose else { return };
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                let line = Some(report.line(key.span().start));
                let place = Place { line, ..self.place.child(&printed(name)) };
                let message = format!("unknown key {}", quoted(name));
                report.error(&place, message, suggest::for_key(name, &self.asked, known));
            }
        }
    }

    /// The header of the section as it is written; empty for the top of the file.
    fn header(&self) -> String {
        match self.place.key.split_once('[') {
            _ if self.place.key.is_empty() => String::new(),
            Some((array, rest)) if !rest.contains('.') => format!("[[{array}]]"),
            _ => format!("[{}]", header(&self.place.key)),
        }
    }

    fn find(&mut self, key: &'static str, report: &Report) -> Option<(Place, &'a Spanned<DeValue<'a>>)> {
        if let Purpose::List(keys) = self.purpose {
            keys.borrow_mut().push(KnownKey::value(&self.header(), key));
            return None;
        }
        self.asked.push(key);
        let (name, value) = self.entries.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((Place { line: Some(report.line(name.span().start)), ..self.place.child(key) }, value))
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, Problem>,
    ) -> Given<T> {
        let Some((place, value)) = self.find(key, report) else { return Given::Absent };
        match report.taken(&place, read(value.get_ref())) {
            Some(value) => Given::Value(At { value, place }),
            None => Given::Refused,
        }
    }
}

/// A list of texts; entries that are none are reported and left out.
fn texts(value: &DeValue<'_>, key: &str, place: Place, example: &str, report: &mut Report) -> Given<Vec<Text>> {
    let DeValue::Array(list) = value else {
        let problem = match value {
            DeValue::String(text) => Problem::new(
                "the value is one text, and this key takes a list",
                format!("put it in [brackets]: {} = [{}]", printed(key), quoted(text)),
            ),
            other => wrong_type(other, "a list of texts in quotes", key, &format!("[{example}]")),
        };
        report.problem(&place, problem);
        return Given::Refused;
    };
    let mut texts = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let place = Place { line: Some(report.line(entry.span().start)), key: place.key.clone() };
        match entry.get_ref() {
            DeValue::String(text) => texts.push(At { value: text.clone().into_owned(), place }),
            other => {
                let what = kind(other);
                let message = format!("entry {} of the list is {what}, and every entry is text in quotes", index + 1);
                report.error(&place, message, format!("write it like this: {} = [{example}]", printed(key)));
            }
        }
    }
    if texts.is_empty() && !list.is_empty() {
        return Given::Refused;
    }
    Given::Value(At { value: texts, place })
}

fn wrong_type(value: &DeValue<'_>, wanted: &str, key: &str, example: &str) -> Problem {
    Problem::new(
        format!("the value is {}, and this key takes {wanted}", kind(value)),
        format!("write it like this: {} = {example}", printed(key)),
    )
}

fn wrong_section(value: &DeValue<'_>, header: &str) -> Problem {
    Problem::new(
        format!("the value is {}, and this is the name of a section", kind(value)),
        format!("write {header} on a line of its own, and its keys below it"),
    )
}

/// The header under which a section is written: entries of arrays lose their number and name.
fn header(key: &str) -> String {
    match key.split_once('[') {
        Some((array, rest)) => format!("{array}.{}", rest.rsplit('.').next().unwrap_or_default()),
        None => key.to_owned(),
    }
}

/// A key as it may be shown: one in quotes may hold anything.
fn printed(key: &str) -> String {
    crate::model::names::printable(key, 64)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a decimal point",
        DeValue::Boolean(true) => "the word true",
        DeValue::Boolean(false) => "the word false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section of its own",
    }
}
