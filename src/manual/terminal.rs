//! A page for a terminal: wrapped to its width, tables aligned.

use super::Topic;
use super::document::{Block, Document, Span, Style, plain};

/// How a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Bold, underlined and coloured text; otherwise code keeps its ticks.
    pub styled: bool,
}

/// Narrower than this, lines overflow instead.
const LEAST_WIDTH: usize = 24;
/// A table's last column, the one with whole sentences, gets at least this; if it cannot, it goes below its row.
const LEAST_LAST_COLUMN: usize = 30;
/// Between the columns of a table.
const GAP: usize = 2;

/// The page of a topic, as text.
pub fn page(topic: &Topic, look: Look) -> String {
    let document = Document::parse(topic.text);
    let look = Look { width: look.width.max(LEAST_WIDTH), ..look };
    let mut lines = blocks(&document.blocks, look);
    let others: Vec<&str> = document.see_also.iter().map(String::as_str).filter(|page| *page != topic.name).collect();
    if !others.is_empty() {
        lines.push(String::new());
        let text = format!("See also (doorward help TOPIC): {}", others.join(", "));
        lines.extend(wrap(&[Span { style: Style::Plain, text }], look, look.width));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn blocks(blocks: &[Block], look: Look) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for block in blocks {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        match block {
            Block::Heading(level, spans) => lines.extend(heading(*level, spans, look)),
            Block::Paragraph(spans) => lines.extend(wrap(spans, look, look.width)),
            Block::Code(code) => lines.extend(code.lines().map(|line| format!("    {line}"))),
            Block::List { start, items } => lines.extend(list(*start, items, look)),
            Block::Table { head, rows } => lines.extend(table(head, rows, look)),
        }
    }
    lines
}

fn heading(level: usize, spans: &[Span], look: Look) -> Vec<String> {
    let text = plain(spans);
    if look.styled {
        let codes = if level <= 2 { "\x1b[1;4m" } else { "\x1b[1m" };
        return vec![format!("{codes}{text}\x1b[0m")];
    }
    let rule = |mark: &str| mark.repeat(text.chars().count());
    match level {
        1 => vec![text.clone(), rule("=")],
        2 => vec![text.clone(), rule("-")],
        _ => vec![text],
    }
}

fn list(start: Option<u64>, items: &[Vec<Block>], look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, item) in (0..).zip(items) {
        let mark = start.map_or_else(|| "* ".to_owned(), |first| format!("{}. ", first + index));
        let indent = mark.chars().count();
        let inner = Look { width: look.width.saturating_sub(indent).max(LEAST_WIDTH), ..look };
        for (number, line) in blocks(item, inner).into_iter().enumerate() {
            let before = if number == 0 { mark.clone() } else { " ".repeat(indent) };
            lines.push(format!("{before}{line}"));
        }
    }
    lines
}

/// A word, with the codes that style it, and its width without them.
struct Word {
    text: String,
    width: usize,
    /// Whether there is a space before it.
    spaced: bool,
}

fn words(spans: &[Span], look: Look) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut spaced = true;
    for span in spans {
        let (before, after) = marks(span.style, look.styled);
        let parts: Vec<&str> = span.text.split(' ').collect();
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                spaced = true;
            }
            // Ticks stand around a span, colours around each of its words: a line may end between them.
            let (before, after) = match (look.styled, span.style) {
                (false, _) => (if index == 0 { before } else { "" }, if index == last { after } else { "" }),
                (true, _) => (before, after),
            };
            if part.is_empty() && before.is_empty() && after.is_empty() || part.is_empty() && look.styled {
                continue;
            }
            let text = format!("{before}{part}{after}");
            let width = if look.styled { part.chars().count() } else { text.chars().count() };
            match words.last_mut().filter(|_| !spaced) {
                Some(word) => {
                    word.text.push_str(&text);
                    word.width += width;
                }
                None => words.push(Word { text, width, spaced }),
            }
            spaced = false;
        }
    }
    words
}

/// What is written before and after text of a style.
const fn marks(style: Style, styled: bool) -> (&'static str, &'static str) {
    match (style, styled) {
        (Style::Plain, _) | (Style::Strong, false) => ("", ""),
        (Style::Strong, true) => ("\x1b[1m", "\x1b[0m"),
        (Style::Emphasis, true) => ("\x1b[4m", "\x1b[0m"),
        (Style::Emphasis, false) => ("*", "*"),
        (Style::Code, true) => ("\x1b[36m", "\x1b[0m"),
        (Style::Code, false) => ("`", "`"),
    }
}

/// Lines of at most this width; a word that is longer has one of its own.
fn wrap(spans: &[Span], look: Look, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(spans, look) {
        let space = usize::from(word.spaced && used > 0);
        if used > 0 && used + space + word.width > width {
            lines.push(String::new());
            used = 0;
        }
        let Some(line) = lines.last_mut() else { continue };
        if used > 0 && space > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(&word.text);
        used += word.width;
    }
    lines
}

fn table(head: &[Vec<Span>], rows: &[Vec<Vec<Span>>], look: Look) -> Vec<String> {
    let widths = column_widths(head, rows, look);
    let mut lines = Vec::new();
    let fits = widths.is_some();
    let widths = widths.unwrap_or_else(|| narrow_widths(head, rows, look));
    let strong: Vec<Vec<Span>> =
        head.iter().map(|cell| vec![Span { style: Style::Strong, text: plain(cell) }]).collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join(&" ".repeat(GAP));
    for (index, row) in std::iter::once(&strong).chain(rows).enumerate() {
        if fits {
            lines.extend(aligned(row, &widths, look));
        } else if let Some((last, first)) = row.split_last() {
            lines.extend(aligned(first, &widths, look));
            let below = wrap(last, look, look.width.saturating_sub(4).max(LEAST_WIDTH));
            lines.extend(below.iter().filter(|line| !line.is_empty()).map(|line| format!("    {line}")));
        }
        if index == 0 {
            lines.push(rule.clone());
        }
    }
    lines
}

/// One row, in as many lines as its longest cell needs.
fn aligned(row: &[Vec<Span>], widths: &[usize], look: Look) -> Vec<String> {
    let cells: Vec<Vec<String>> = row.iter().zip(widths).map(|(cell, width)| wrap(cell, look, *width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or_default();
    let gap = " ".repeat(GAP);
    (0..height)
        .map(|at| {
            let padded = cells.iter().zip(widths).map(|(cell, width)| {
                let text = cell.get(at).map_or("", String::as_str);
                format!("{text}{}", " ".repeat(width.saturating_sub(shown_width(text))))
            });
            padded.collect::<Vec<_>>().join(&gap)
        })
        .collect()
}

/// The width of text without the codes that style it.
fn shown_width(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().map_or(0, |part| part.chars().count());
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
}

/// How wide each column wants to be, and how narrow it can be.
fn wishes(head: &[Vec<Span>], rows: &[Vec<Vec<Span>>], look: Look) -> (Vec<usize>, Vec<usize>) {
    let mut natural = vec![1; head.len()];
    let mut least = vec![1; head.len()];
    for row in std::iter::once(head).chain(rows.iter().map(Vec::as_slice)) {
        for ((cell, natural), least) in row.iter().zip(&mut natural).zip(&mut least) {
            let words = words(cell, look);
            let spaces = words.iter().skip(1).filter(|word| word.spaced).count();
            *natural = (*natural).max(words.iter().map(|word| word.width).sum::<usize>() + spaces);
            *least = (*least).max(words.iter().map(|word| word.width).max().unwrap_or_default());
        }
    }
    (natural, least)
}

/// The widths with which all columns stand side by side, if that is readable.
fn column_widths(head: &[Vec<Span>], rows: &[Vec<Vec<Span>>], look: Look) -> Option<Vec<usize>> {
    let (natural, mut least) = wishes(head, rows, look);
    let room = look.width.saturating_sub(GAP * head.len().saturating_sub(1));
    if natural.iter().sum::<usize>() <= room {
        return Some(natural);
    }
    if let (Some(least), Some(natural)) = (least.last_mut(), natural.last()) {
        *least = (*least).max(LEAST_LAST_COLUMN.min(*natural));
    }
    shared_out(&natural, least, room)
}

/// The widths where the last column stands below the others.
fn narrow_widths(head: &[Vec<Span>], rows: &[Vec<Vec<Span>>], look: Look) -> Vec<usize> {
    let (mut natural, mut least) = wishes(head, rows, look);
    natural.pop();
    least.pop();
    let room = look.width.saturating_sub(GAP * natural.len().saturating_sub(1));
    shared_out(&natural, least.clone(), room).unwrap_or(least)
}

/// Widths between the least and the natural ones that fill the room; none if even the least do not fit.
fn shared_out(natural: &[usize], mut widths: Vec<usize>, room: usize) -> Option<Vec<usize>> {
    let mut left = room.checked_sub(widths.iter().sum())?;
    // A column at a time, always the narrowest that wants more: short columns get all they want first.
    while left > 0 {
        let narrowest = widths
            .iter_mut()
            .zip(natural)
            .filter(|(width, natural)| **width < **natural)
            .min_by_key(|(width, _)| **width);
        let Some((width, _)) = narrowest else { break };
        *width += 1;
        left -= 1;
    }
    Some(widths)
}
