//! A page as a tree of blocks: what both the terminal and the man pages are written from.

use std::collections::BTreeSet;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag};

/// A page.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) blocks: Vec<Block>,
    /// The other pages that it links to, by name.
    pub(super) see_also: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// With its level: the page's title has 1.
    Heading(usize, Vec<Span>),
    Paragraph(Vec<Span>),
    /// Lines that stay as they are.
    Code(String),
    List {
        /// The number of the first item, if they are numbered.
        start: Option<u64>,
        items: Vec<Vec<Self>>,
    },
    Table {
        head: Vec<Vec<Span>>,
        rows: Vec<Vec<Vec<Span>>>,
    },
}

/// A run of text in one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) style: Style,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Emphasis,
    Code,
}

impl Document {
    /// Reads a page. Pictures and HTML comments are left out, links are their text; those to other sites keep their address.
    pub(super) fn parse(markdown: &str) -> Self {
        let mut reader =
            Reader { events: Parser::new_ext(markdown, Options::ENABLE_TABLES), see_also: BTreeSet::new() };
        let blocks = reader.blocks();
        Self { blocks, see_also: reader.see_also }
    }
}

/// The text of spans.
pub(super) fn plain(spans: &[Span]) -> String {
    spans.iter().map(|span| span.text.as_str()).collect()
}

struct Reader<'a> {
    events: Parser<'a>,
    see_also: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Event<'a>> {
        self.events.next()
    }

    /// Everything up to the end of what contains it.
    fn blocks(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        // A list whose items have no blank line between them has text without paragraphs.
        let mut loose: Vec<Span> = Vec::new();
        while let Some(event) = self.next() {
            let block = match event {
                Event::Start(Tag::Heading { level, .. }) => Block::Heading(depth(level), self.spans()),
                Event::Start(Tag::Paragraph) => Block::Paragraph(self.spans()),
                Event::Start(Tag::CodeBlock(_)) => Block::Code(plain(&self.spans())),
                Event::Start(Tag::List(start)) => Block::List { start, items: self.items() },
                Event::Start(Tag::Table(_)) => self.table(),
                Event::Start(Tag::HtmlBlock) => {
                    self.spans();
                    continue;
                }
                Event::End(_) => break,
                inline => {
                    self.inline(inline, Style::Plain, &mut loose);
                    continue;
                }
            };
            flush(&mut loose, &mut blocks);
            blocks.push(block);
        }
        flush(&mut loose, &mut blocks);
        blocks.retain(|block| !matches!(block, Block::Paragraph(spans) if spans.is_empty()));
        blocks
    }

    fn items(&mut self) -> Vec<Vec<Block>> {
        let mut items = Vec::new();
        while let Some(event) = self.next() {
            match event {
                Event::Start(Tag::Item) => items.push(self.blocks()),
                Event::End(_) => break,
                _ => {}
            }
        }
        items
    }

    fn table(&mut self) -> Block {
        let mut head = Vec::new();
        let mut rows = Vec::new();
        while let Some(event) = self.next() {
            match event {
                Event::Start(Tag::TableHead) => head = self.cells(),
                Event::Start(Tag::TableRow) => rows.push(self.cells()),
                Event::End(_) => break,
                _ => {}
            }
        }
        Block::Table { head, rows }
    }

    fn cells(&mut self) -> Vec<Vec<Span>> {
        let mut cells = Vec::new();
        while let Some(event) = self.next() {
            match event {
                Event::Start(Tag::TableCell) => cells.push(self.spans()),
                Event::End(_) => break,
                _ => {}
            }
        }
        cells
    }

    /// The text up to the end of what contains it.
    fn spans(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        self.styled(Style::Plain, &mut spans);
        spans
    }

    fn styled(&mut self, style: Style, spans: &mut Vec<Span>) {
        while let Some(event) = self.next() {
            if matches!(event, Event::End(_)) {
                break;
            }
            self.inline(event, style, spans);
        }
    }

    fn inline(&mut self, event: Event<'a>, style: Style, spans: &mut Vec<Span>) {
        match event {
            Event::Text(text) => add(spans, style, &text),
            Event::Code(text) => add(spans, Style::Code, &text),
            Event::SoftBreak | Event::HardBreak => add(spans, style, " "),
            Event::Start(Tag::Strong) => self.styled(Style::Strong, spans),
            Event::Start(Tag::Emphasis) => self.styled(Style::Emphasis, spans),
            Event::Start(Tag::Link { dest_url, .. }) => {
                self.styled(style, spans);
                if dest_url.starts_with("http") {
                    add(spans, style, &format!(" <{dest_url}>"));
                } else if let Some((page, _)) = dest_url.split_once(".md") {
                    self.see_also.insert(page.to_owned());
                }
            }
            Event::Start(Tag::Image { .. }) => self.styled(style, &mut Vec::new()),
            _ => {}
        }
    }
}

/// Ends a paragraph that has no mark of its own.
fn flush(loose: &mut Vec<Span>, blocks: &mut Vec<Block>) {
    if !loose.is_empty() {
        blocks.push(Block::Paragraph(std::mem::take(loose)));
    }
}

fn add(spans: &mut Vec<Span>, style: Style, text: &str) {
    match spans.last_mut() {
        Some(last) if last.style == style => last.text.push_str(text),
        _ => spans.push(Span { style, text: text.to_owned() }),
    }
}

const fn depth(level: HeadingLevel) -> usize {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}
