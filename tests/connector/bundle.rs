//! The file for a computer, as the owner's commands write it.

use std::fs;
use std::path::Path;

use doorward::bundle::{Bundle, BundleError, BundleKey, Trust};
use doorward::connector::homes::read_bundle;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::process::{run, tool};
use crate::people::{Owner, doorward, file_of, mode};

fn names(bundle: &Bundle) -> Vec<String> {
    bundle.routes.iter().map(|route| format!("{} {} {}", route.name, route.kind, route.server_name)).collect()
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

#[test]
fn init_writes_what_the_device_needs() {
    let owner = Owner::with(&["--public-port", "8443"]);
    let (file, password) = owner.file();
    assert_eq!(file, owner.path("devices/alice-laptop.doorward"));
    assert_eq!(mode(&file), 0o600);
    let bundle = read_bundle(&file).unwrap();
    assert_eq!((bundle.home.as_str(), bundle.device.as_str(), bundle.port), ("home.example", "alice-laptop", 8443));
    assert_eq!(names(&bundle), ["nas http nas.home.example", "ssh ssh ssh.home.example", "smb smb smb.home.example"]);
    assert_eq!(bundle.trust, Trust::Authorities(vec![certificate(&owner.path("pki/server-ca.pem"))]));
    assert_eq!(bundle.chain, [certificate(&owner.path("devices/alice-laptop.pem"))]);
    // The key is the device's, under the password that was shown, and no other.
    let key = PrivateKeyDer::from_pem_file(owner.path("devices/alice-laptop-key.pem")).unwrap();
    assert_eq!(bundle.unlock(&password), Ok(key));
    for wrong in ["", "password", &password[1..], &password.to_uppercase(), &password.replace('-', "")] {
        assert_eq!(bundle.unlock(wrong), Err(BundleError::WrongPassword), "{wrong:?}");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&password) && !text.contains("BEGIN PRIVATE KEY"), "{text}");
}

#[test]
fn openssl_reads_the_key_with_the_password_and_its_parameters_are_strong() {
    let owner = Owner::new();
    let (file, password) = owner.file();
    let BundleKey::Encrypted(pem) = read_bundle(&file).unwrap().key else { panic!("an encrypted key") };
    let key = owner.path("key.pem");
    fs::write(&key, pem).unwrap();
    let open = |password: &str| {
        let mut openssl = tool("openssl", "openssl");
        run(openssl.args(["pkcs8", "-passin", &format!("pass:{password}"), "-in"]).arg(&key))
    };
    let opened = open(&password).success().text();
    assert_eq!(opened.trim(), fs::read_to_string(owner.path("devices/alice-laptop-key.pem")).unwrap().trim());
    open("wrong").failure();
    let mut openssl = tool("openssl", "openssl");
    let parameters = run(openssl.args(["asn1parse", "-in"]).arg(&key)).success().text();
    for needed in ["PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc", "INTEGER           :0927C0"] {
        assert!(parameters.contains(needed), "{needed} is not in\n{parameters}");
    }
    assert_eq!(0x09_27C0, 600_000);
}

#[test]
fn only_routes_that_the_device_may_use_are_in_its_file() {
    let owner = Owner::new();
    let everything = read_bundle(&file_of(&owner.ca(&["device", "bob"])).0).unwrap();
    assert_eq!(names(&everything).len(), 3);
    let text = fs::read_to_string(owner.path("doorward.toml")).unwrap();
    let ssh = text.split("[[route]]").find(|route| route.contains("\"ssh.home.example\"")).unwrap();
    let allow = ssh.lines().find(|line| line.starts_with("allow")).unwrap();
    owner.edit(ssh, &ssh.replace(allow, "allow = [\"alice-laptop\"]"));
    let limited = read_bundle(&file_of(&owner.ca(&["device", "carol"])).0).unwrap();
    assert_eq!(names(&limited), ["nas http nas.home.example", "smb smb smb.home.example"]);
    // What the home is called does not depend on what the device may use.
    let guest = read_bundle(&file_of(&owner.ca(&["device", "guest", "--for", "2h", "--route", "nas"])).0).unwrap();
    assert_eq!((names(&guest), guest.home.as_str()), (vec!["nas http nas.home.example".to_owned()], "home.example"));
}

#[test]
fn device_that_no_route_admits_has_no_file_until_one_does() {
    let owner = Owner::new();
    for name in ["nas", "ssh", "smb"] {
        let text = fs::read_to_string(owner.path("doorward.toml")).unwrap();
        let route = text.split("[[route]]").find(|route| route.contains(&format!("\"{name}.home.example\""))).unwrap();
        let allow = route.lines().find(|line| line.starts_with("allow")).unwrap();
        owner.edit(route, &route.replace(allow, "allow = [\"alice-laptop\"]"));
    }
    let csr = owner.path("dora.csr");
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    fs::write(&csr, request.pem().unwrap()).unwrap();
    let with_request = owner.ca(&["device", "dora", "--request", csr.to_str().unwrap()]);
    for (name, written) in [("carol", owner.ca(&["device", "carol"])), ("dora", with_request)] {
        assert!(written.get("bundle").is_none(), "{name}: {written}");
        assert!(!owner.path(&format!("devices/{name}.doorward")).exists(), "{name}");
        assert!(owner.path(&format!("devices/{name}.pem")).exists(), "{name}");
    }
    let page = fs::read_to_string(owner.path("devices/carol.html")).unwrap();
    assert!(page.contains("https://nas.home.example") && !page.contains("carol.doorward"), "{page}");
    // What the warning says to do.
    owner.edit("allow = [\"alice-laptop\"]", "allow = [\"alice-laptop\", \"carol\", \"dora\"]");
    for name in ["carol", "dora"] {
        owner.ca(&["renew", name]);
        let bundle = read_bundle(&owner.path(&format!("devices/{name}.doorward"))).unwrap();
        assert!(names(&bundle).contains(&"nas http nas.home.example".to_owned()), "{:?}", names(&bundle));
    }
}

#[test]
fn renewal_writes_it_anew() {
    let owner = Owner::new();
    let (file, password) = owner.file();
    let before = read_bundle(&file).unwrap();
    for more in [&["renew", "alice-laptop"][..], &["renew", "alice-laptop", "--new-key"]] {
        let renewed = owner.ca(more);
        let (same, new_password) = file_of(&renewed["device"]);
        assert_eq!((&same, mode(&same)), (&file, 0o600));
        let after = read_bundle(&same).unwrap();
        assert_eq!(after.chain, [certificate(&owner.path("devices/alice-laptop.pem"))]);
        assert_ne!(after.chain, before.chain);
        assert_eq!(Bundle { chain: before.chain.clone(), key: before.key.clone(), ..after.clone() }, before);
        let key = PrivateKeyDer::from_pem_file(owner.path("devices/alice-laptop-key.pem")).unwrap();
        assert_eq!(after.unlock(&new_password), Ok(key));
        assert_eq!(after.unlock(&password), Err(BundleError::WrongPassword));
    }
}

#[test]
fn public_certificate_needs_no_authority_of_the_owners() {
    let owner = Owner::new();
    fs::remove_file(owner.path("doorward.toml")).unwrap();
    // Without a configuration it is not known what the device may use.
    let device = owner.ca(&["device", "bob"]);
    assert!(device.get("bundle").is_none(), "{device}");
    assert!(!owner.path("devices/bob.doorward").exists() && owner.path("devices/bob.p12").exists());
    let pages =
        ["alice-laptop", "bob"].map(|name| fs::read_to_string(owner.path(&format!("devices/{name}.html"))).unwrap());
    assert_eq!(pages.each_ref().map(|page| page.matches("doorward join ").count()), [3, 0], "in three languages");

    let home = tempfile::tempdir().unwrap();
    let mut init = doorward();
    init.args([
        "init",
        "--format",
        "json",
        "--domain",
        "alice.duckdns.org",
        "--device",
        "a",
        "--route",
        "ssh=127.0.0.1:22",
    ]);
    init.args(["--acme", "--no-wildcard", "--folder"]).arg(home.path());
    let written: serde_json::Value = serde_json::from_str(&run(&mut init).success().text()).unwrap();
    let bundle = read_bundle(&file_of(&written["devices"][0]).0).unwrap();
    assert_eq!((bundle.trust, bundle.home.as_str()), (Trust::Public, "alice.duckdns.org"));
}

#[test]
fn damaged_text_is_refused_and_never_a_panic() {
    let owner = Owner::new();
    let (file, password) = owner.file();
    let text = fs::read_to_string(&file).unwrap();
    let good = read_bundle(&file).unwrap();
    let key = good.unlock(&password).unwrap();
    let (mut tried, mut noticed) = (0, 0);
    for at in (0..text.len()).step_by(3) {
        for put in ["\"", "\n", "=", "]", "A", "\0", "\u{202e}", ""] {
            let mut damaged = text.clone();
            damaged.replace_range(at..=at, put);
            // What still reads is a bundle: it is written and read back, and opens as before or not at all.
            let Ok(bundle) = Bundle::parse(&damaged) else { continue };
            assert_eq!(Bundle::parse(&bundle.to_text()).as_ref(), Ok(&bundle), "{damaged}");
            // Each costs 600,000 rounds of PBKDF2. A line break that is gone changes the text of the key, and not the key.
            if bundle.key != good.key && tried < 5 {
                tried += 1;
                match bundle.unlock(&password) {
                    Ok(opened) => assert_eq!(opened, key, "{damaged}"),
                    Err(_) => noticed += 1,
                }
            }
        }
    }
    assert!(noticed > 0, "some damage in the key is noticed only when it is decrypted");
}
