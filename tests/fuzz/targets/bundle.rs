//! The file that `doorward join` takes, and the files of homes.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use doorward::bundle::{Bundle, BundleKey};
use doorward::connector::homes::identity;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let bundle = match Bundle::parse(text) {
        Ok(bundle) => bundle,
        Err(error) => return house::printable(&error.to_string()),
    };
    // What is read is what is written.
    assert_eq!(Bundle::parse(&bundle.to_text()).as_ref(), Ok(&bundle));
    assert!(bundle.port > 0 && !bundle.chain.is_empty() && identity(&bundle).is_some());
    for route in &bundle.routes {
        assert!(route.host().is_none_or(|host| route.answers_to(host)));
        house::printable(&format!("{} {}", route.name, route.server_name));
    }
    house::printable(&format!("{} {} {}", bundle.home, bundle.device, bundle.file_name()));
    assert!(!bundle.file_name().contains(['/', '\\']) && !bundle.file_name().starts_with('.'));
    // A key is the certificate's, or it is not read; one that is encrypted takes too long here.
    if let BundleKey::Plain(_) = bundle.key {
        assert!(bundle.unlock("").is_ok());
    }
});
