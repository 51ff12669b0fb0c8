//! A page as a man page.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::document::{Block, Document, Span, Style, plain};
use super::{TOPICS, Topic};

/// The man page of a topic, `doorward-TOPIC(7)`.
pub fn page(topic: &Topic) -> String {
    let document = Document::parse(topic.text);
    let name = format!("doorward-{}", topic.name);
    let mut roff = start(&name, "7");
    roff.control("SH", ["NAME"]).text([roman(format!("{name} - {}", topic.summary))]);
    roff.control("SH", ["DESCRIPTION"]);
    let body = document.blocks.get(1..).unwrap_or_default();
    blocks(body, &mut roff);
    let mut pages = vec![bold("doorward"), roman("(1)")];
    for other in document.see_also.iter().filter(|page| *page != topic.name) {
        pages.extend([roman(", "), bold(format!("doorward-{other}")), roman("(7)")]);
    }
    roff.control("SH", ["SEE ALSO"]).text(pages);
    roff.render()
}

/// What `doorward(1)` ends with: the exit codes, and where to read on.
pub fn ending(exit_codes: &[(&str, &str)]) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit_codes {
        roff.control("TP", []).text([bold(*code)]).text([roman(*meaning)]);
    }
    let pages: Vec<Inline> = TOPICS
        .iter()
        .enumerate()
        .flat_map(|(index, topic)| {
            let comma = (index > 0).then(|| roman(", "));
            comma.into_iter().chain([bold(format!("doorward-{}", topic.name)), roman("(7)")])
        })
        .collect();
    roff.control("SH", ["SEE ALSO"]).text(pages);
    roff.to_roff()
}

/// A page's first line.
fn start(name: &str, section: &str) -> Roff {
    let mut roff = Roff::new();
    let source = concat!("doorward ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [name, section, "\"\"", source, "Doorward Manual"]);
    // Ragged lines: names of files and tests are too long to fill every line, and troff warns of each that it cannot.
    roff.control("ad", ["l"]);
    roff
}

fn blocks(blocks: &[Block], roff: &mut Roff) {
    for (index, block) in blocks.iter().enumerate() {
        match block {
            Block::Heading(level, spans) => {
                let macro_name = if *level <= 2 { "SH" } else { "SS" };
                let text = plain(spans);
                roff.control(macro_name, [text.as_str()]);
            }
            Block::Paragraph(spans) => {
                // An item's first paragraph stands beside its mark.
                if index > 0 {
                    roff.control("PP", []);
                }
                roff.text(inlines(spans));
            }
            Block::Code(code) => {
                roff.control("PP", []).control("RS", ["4"]).control("nf", []);
                for line in code.lines() {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []).control("RE", []);
            }
            Block::List { start, items } => list(*start, items, roff),
            Block::Table { head, rows } => table(head, rows, roff),
        }
    }
}

fn list(start: Option<u64>, items: &[Vec<Block>], roff: &mut Roff) {
    for (index, item) in (0..).zip(items) {
        let mark = start.map_or_else(|| "*".to_owned(), |first| format!("{}.", first + index));
        roff.control("IP", [mark.as_str(), "4"]);
        if let Some((first, rest)) = item.split_first() {
            blocks(std::slice::from_ref(first), roff);
            if !rest.is_empty() {
                // What belongs to the item is indented as its text is.
                roff.control("RS", ["4"]);
                for block in rest {
                    if let Block::Paragraph(spans) = block {
                        roff.control("PP", []).text(inlines(spans));
                    } else {
                        blocks(std::slice::from_ref(block), roff);
                    }
                }
                roff.control("RE", []);
            }
        }
    }
    roff.control("PP", []);
}

/// Cells side by side do not fit a man page: the last column stands below the others, under the names of the columns.
fn table(head: &[Vec<Span>], rows: &[Vec<Vec<Span>>], roff: &mut Roff) {
    let names: Vec<String> = head.iter().map(|cell| plain(cell)).filter(|name| !name.is_empty()).collect();
    roff.control("PP", []).text([italic(names.join(" | "))]);
    for row in rows {
        let Some((last, first)) = row.split_last() else { continue };
        roff.control("TP", []);
        let mut term = Vec::new();
        for (index, cell) in first.iter().enumerate() {
            if index > 0 {
                term.push(roman(" | "));
                term.extend(inlines(cell));
            } else {
                term.push(bold(plain(cell)));
            }
        }
        roff.text(term);
        roff.text(inlines(last));
    }
    roff.control("PP", []);
}

fn inlines(spans: &[Span]) -> Vec<Inline> {
    let inline = |span: &Span| match span.style {
        Style::Plain => roman(&span.text),
        Style::Strong | Style::Code => bold(&span.text),
        Style::Emphasis => italic(&span.text),
    };
    spans.iter().map(inline).collect()
}
