//! A configuration text: nothing that is written in it may end the program but in words.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    // The folder does not exist, and neither do the files in it that the text names.
    if let Err(errors) = doorward::config::parse(text, Path::new("/nonexistent/doorward.toml")) {
        assert!(!errors.to_string().is_empty());
    }
});
