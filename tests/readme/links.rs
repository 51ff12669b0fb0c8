//! Links between the pages, as a forge and as rustdoc follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use doorward::manual::TOPICS;

/// What a heading is called behind `#`, on a forge and by rustdoc.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}

/// The lines of a page that are not in a sample.
fn prose(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut sample = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        sample ^= fence;
        !sample && !fence
    })
}

/// Every page and every heading, as links name them: `log`, `refusals#reasons`.
fn targets() -> BTreeSet<String> {
    let mut targets = BTreeSet::new();
    for topic in TOPICS {
        targets.insert(topic.name.to_owned());
        let headings = prose(topic.text).filter_map(|line| line.strip_prefix("##"));
        let headings = headings.map(|line| format!("{}#{}", topic.name, anchor(line.trim_start_matches('#').trim())));
        for heading in headings {
            assert!(targets.insert(heading.clone()), "two headings {heading}");
        }
    }
    targets
}

/// The definitions in a text: `[label]: target`.
fn definitions(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    prose(text).filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

/// The labels of links: `[text][label]`.
fn labels(text: &'static str) -> BTreeSet<&'static str> {
    let text = text.split_once("\n# ").map_or(text, |(_, rest)| rest);
    let labels = text.split("][").skip(1).filter_map(|rest| rest.split_once(']'));
    labels.map(|(label, _)| label).filter(|label| !label.contains(['"', '\n', ' '])).collect()
}

#[test]
fn links_between_pages_lead_to_headings() {
    let targets = targets();
    let mut used = BTreeSet::new();
    for topic in TOPICS {
        let defined = definitions(topic.text);
        let labels = labels(topic.text);
        assert_eq!(defined.keys().copied().collect::<BTreeSet<_>>(), labels, "{}", topic.name);
        for (label, target) in defined {
            assert!(targets.contains(label), "{} links to {label}", topic.name);
            let (page, heading) = label.split_once('#').map_or((label, ""), |(page, heading)| (page, heading));
            let on_a_forge = if heading.is_empty() { format!("{page}.md") } else { format!("{page}.md#{heading}") };
            assert_eq!(target, on_a_forge, "{}", topic.name);
            used.insert(label);
        }
        // Nothing else is a link between pages: rustdoc would not follow it.
        assert!(!topic.text.contains(".md)"), "{}", topic.name);
    }
    assert!(used.len() > 10, "the pages are not written any more as this test reads them: {used:?}");
    // The same for rustdoc.
    let for_rustdoc = definitions(include_str!("../../src/manual/links.md"));
    assert_eq!(for_rustdoc.keys().copied().collect::<BTreeSet<_>>(), used);
    for (label, target) in for_rustdoc {
        let (page, heading) = label.split_once('#').map_or((label, None), |(page, heading)| (page, Some(heading)));
        let heading = heading.map(|heading| format!("#{heading}")).unwrap_or_default();
        assert_eq!(target, format!("crate::manual::{}{heading}", page.replace('-', "_")));
    }
}

#[test]
fn links_of_the_readme_lead_to_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = targets();
    let mut pages = BTreeSet::new();
    for rest in include_str!("../../README.md").split("](").skip(1) {
        let link = rest.split(')').next().unwrap();
        if link.starts_with("http") || link.starts_with('#') {
            continue;
        }
        let file = folder.join(link.split('#').next().unwrap());
        let size = std::fs::metadata(&file).unwrap_or_else(|error| panic!("README.md links to {link}: {error}")).len();
        assert!(!link.ends_with(".png") || size < 150_000, "{link} has {size} bytes");
        if let Some(page) = link.strip_prefix("src/manual/").filter(|link| link.contains(".md")) {
            assert!(targets.contains(&page.replacen(".md", "", 1)), "README.md links to {link}");
            pages.extend(page.split('.').next());
        }
    }
    assert_eq!(pages, TOPICS.iter().map(|topic| topic.name).collect(), "a page has no link in README.md");
}
