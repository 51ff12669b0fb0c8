//! Migration from mkcert: certificates stay, and a lost device can be revoked.

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Finished, run};
use crate::walkthrough::{Pem, Walkthrough, route};

const PAGE: &str = "The NAS says hello.";

fn visit(files: &Walkthrough, gate: &Gate, who: &Pem) -> Finished {
    let mut curl = files.tool("curl", "curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(files.root());
    curl.arg("--resolve").arg(format!("nas.example.local:{}:{}", gate.address().port(), gate.address().ip()));
    curl.arg("--cert").arg(&who.certificate).arg("--key").arg(&who.key);
    run(curl.arg(format!("https://nas.example.local:{}/", gate.address().port())))
}

/// The configuration, and the one line that is added.
fn config(files: &Walkthrough, backend: &Backend, with_list: bool) -> String {
    let config = files.config(&route("nas", &["nas.example.local"], backend.address(), &["any"]));
    if !with_list {
        return config;
    }
    let line = format!("revocation_lists = [{:?}]\n[[route]]", files.home("pki/mkcert.crl").display().to_string());
    config.replacen("[[route]]", &line, 1)
}

#[test]
fn imported_authority_revokes_one_of_several_devices() {
    let files = Walkthrough::new();
    let (lost, kept) = (files.me(), files.another("phone.alice"));
    let gone = files.another("tablet.carol");
    let backend = Backend::http(PAGE);
    {
        let gate = Gate::start(&config(&files, &backend, false));
        for who in [&lost, &kept, &gone] {
            assert_eq!(visit(&files, &gate, who).success().text(), PAGE);
        }
    }

    let imported = files.doorward(&["ca", "import", "--mkcert"]).success();
    for words in ["rootCA.pem", "revocation_lists = [\"pki/mkcert.crl\"]", "OpenSSL and programs built on it do not"] {
        assert!(imported.stderr.contains(words), "{words} is missing: {imported}");
    }
    {
        let gate = Gate::start(&config(&files, &backend, true));
        assert_eq!(visit(&files, &gate, &lost).success().text(), PAGE, "nothing is revoked yet");
    }

    // As a file, and by its number.
    let revoked = files.doorward(&["ca", "revoke", "--file", "Anye-MacBook-Air-client.p12"]).not_proved();
    assert!(revoked.stderr.contains("does not allow signing revocation lists"), "{revoked}");
    let number =
        run(files.tool("openssl", "openssl").args(["x509", "-noout", "-serial", "-in"]).arg(&gone.certificate));
    let number = number.success().text();
    files.doorward(&["ca", "revoke", "--serial", number.trim().strip_prefix("serial=").unwrap()]).not_proved();

    let gate = Gate::start(&config(&files, &backend, true));
    let before = backend.accepted();
    visit(&files, &gate, &lost).failure();
    visit(&files, &gate, &gone).failure();
    gate.wait_rejected("certificate", "revoked", 2);
    assert_eq!(backend.accepted(), before, "the NAS was reached");
    assert_eq!(visit(&files, &gate, &kept).success().text(), PAGE);
    // A device that doorward issues under this root is admitted as well.
    files.doorward(&["ca", "device", "bob-laptop"]).success();
    let new = Pem { certificate: files.home("devices/bob-laptop.pem"), key: files.home("devices/bob-laptop-key.pem") };
    assert_eq!(visit(&files, &gate, &new).success().text(), PAGE);
}

#[test]
fn openssl_rejects_lists_of_mkcert() {
    let files = Walkthrough::new();
    files.doorward(&["ca", "import", "--mkcert"]).success();
    let mut verify = files.tool("openssl", "openssl");
    verify.args(["verify", "-crl_check", "-CRLfile", "pki/mkcert.crl", "-CAfile"]).arg(files.root()).arg("me.pem");
    let refused = run(&mut verify).failure();
    assert!(refused.stderr.contains("key usage does not include CRL signing"), "{refused}");
}

#[test]
fn second_import_changes_nothing_and_needs_the_key() {
    let files = Walkthrough::new();
    let caroot = files.home(".local/share/mkcert");
    let caroot = caroot.to_str().unwrap();
    files.doorward(&["ca", "import", "--mkcert", caroot]).success();
    let before = std::fs::read_to_string(files.home("pki/inventory.toml")).unwrap();
    let again = files.doorward(&["ca", "import", "--mkcert"]).success();
    assert!(again.stderr.contains("was imported before"), "{again}");
    let after = std::fs::read_to_string(files.home("pki/inventory.toml")).unwrap();
    let without_number = |text: &str| text.lines().filter(|line| !line.starts_with("list_number")).collect::<String>();
    assert_eq!(without_number(&before), without_number(&after));

    std::fs::rename(files.home(".local/share/mkcert/rootCA-key.pem"), files.home("away.pem")).unwrap();
    let keyless = files.doorward(&["ca", "import", "--mkcert", "--folder", "other"]).failure();
    assert_eq!(keyless.status.code(), Some(2), "{keyless}");
    assert!(keyless.stderr.contains("rootCA-key.pem") && keyless.stderr.contains("put it back"), "{keyless}");
    let nowhere = files.doorward(&["ca", "import", "--mkcert", "nowhere"]).failure();
    assert!(nowhere.stderr.contains("mkcert -CAROOT"), "{nowhere}");
}
