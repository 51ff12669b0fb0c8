//! Names in a configuration, server names of clients, and how both are printed.
#![no_main]

use doorward::model::names::{Name, ServerName, ServerNamePattern, printable};

libfuzzer_sys::fuzz_target!(|text: &str| {
    // Parsing is idempotent: a parsed name parses to the same name.
    if let Ok(name) = ServerName::parse(text) {
        assert_eq!(ServerName::parse(name.as_str()), Ok(name));
    }
    if let Ok(pattern) = ServerNamePattern::parse(text) {
        assert_eq!(ServerNamePattern::parse(&pattern.to_string()), Ok(pattern));
    }
    if let Ok(name) = Name::parse(text) {
        assert_eq!(printable(name.as_str(), Name::MAX), name.as_str());
    }
    let shown = printable(text, 64);
    assert!(shown.chars().all(|c| matches!(c, ' '..='~' | '…') || c.is_alphanumeric()), "{shown:?}");
});
