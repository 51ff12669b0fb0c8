//! The link hands a computer the file that it joins with.

use doorward::bundle::{Bundle, BundleError};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::home::Home;
use crate::link::assert_not_kept;
use crate::shared::Shared;

#[test]
fn computer_gets_the_file_that_it_joins_with() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("<code>doorward join alice-phone.doorward</code>"), "{page}");
    assert!(!page.contains("alice-phone-key.pem"), "{page}");
    let got = shared.ask("GET", &shared.press("alice-phone.doorward"));
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(got.header("content-disposition"), Some("attachment; filename=\"alice-phone.doorward\""));
    assert_not_kept(&got);
    let bundle = Bundle::parse(&got.text()).unwrap();
    let names: Vec<_> = bundle.routes.iter().map(|route| route.server_name.to_string()).collect();
    assert_eq!(names, ["nas.home.example", "ssh.home.example"]);
    let key = PrivateKeyDer::from_pem_file(home.file("key")).unwrap();
    assert_eq!(bundle.unlock(&shared.password()), Ok(key));
    assert_eq!(bundle.unlock(home.password()), Err(BundleError::WrongPassword));
    assert_eq!(
        shared.wait_and_close(),
        (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.doorward"}))
    );
}
