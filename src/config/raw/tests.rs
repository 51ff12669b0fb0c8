//! Every key is known to the advice about unknown keys.

use std::collections::HashMap;

use super::*;
use crate::config::parse;

/// What is told about the unknown key `key` in the section `header`.
fn remedy(header: &str, key: &str) -> String {
    let entry = if header.starts_with("[route.") { "[[route]]\n" } else { "" };
    let text = format!("{entry}{header}\n{key} = 1\n");
    let errors = parse(&text, Path::new("/none/doorward.toml")).expect_err(&text);
    let error = errors.iter().find(|error| error.key.ends_with(key) && error.message.starts_with("unknown key"));
    error.unwrap_or_else(|| panic!("no unknown key in {text}: {errors}")).remedy.clone()
}

/// The keys of each section, by its header.
fn sections() -> HashMap<String, Vec<&'static str>> {
    let mut sections: HashMap<String, Vec<&'static str>> = HashMap::new();
    for known in known_keys() {
        sections.entry(known.section).or_default().push(known.key);
    }
    sections
}

#[test]
fn mistyped_key_is_answered_with_the_key_of_its_section() {
    let sections = sections();
    assert_eq!(sections.len(), 26, "{:?}", sections.keys());
    for (header, keys) in &sections {
        for key in keys {
            // Two neighbours swapped; where they are the same letter, one is left out.
            let (first, rest) = key.split_at(1);
            let (second, rest) = rest.split_at(1);
            let mistyped = if first == second { format!("{first}{rest}") } else { format!("{second}{first}{rest}") };
            let said = remedy(header, &mistyped);
            assert_eq!(said, format!("did you mean \"{key}\"?"), "{header} {mistyped}");
        }
    }
}

#[test]
fn key_in_another_section_is_answered_with_its_own_sections() {
    let sections = sections();
    for (header, keys) in &sections {
        for known in known_keys().iter().filter(|known| !keys.contains(&known.key)) {
            let said = remedy(header, known.key);
            let near = keys.iter().any(|key| said == format!("did you mean \"{key}\"?"));
            let other_word = said.starts_with("the key is called");
            let own = known.header.as_deref().unwrap_or(match known.section.as_str() {
                "" => "at the top of the file",
                section => section,
            });
            // "route" is a section, and a key of [[expect]]: the section is told.
            let section = known_keys().iter().any(|other| other.key == known.key && other.header.is_some())
                && said.contains("is a section of its own");
            assert!(near || other_word || section || said.contains(own), "{header} {}: {said}", known.key);
            for other in sections.keys().filter(|_| said.contains("belongs under")) {
                let has_it = sections[other].contains(&known.key);
                let names_it = said.split(' ').any(|word| word == other);
                assert_eq!(names_it, has_it, "{header} {}: {said}", known.key);
            }
        }
    }
}

#[test]
fn words_of_other_programs_lead_to_keys_that_exist() {
    for (word, key) in crate::config::suggest::OTHER_WORDS {
        assert!(known_keys().iter().any(|known| known.key == *key), "{word} leads to {key}, which does not exist");
    }
}
