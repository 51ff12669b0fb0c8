//! A configuration: any text is either accepted or rejected with an error message.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    // Neither the folder nor the files that the text names exist.
    if let Err(errors) = doorward::config::parse(text, Path::new("/nonexistent/doorward.toml")) {
        assert!(!errors.to_string().is_empty());
    }
});
