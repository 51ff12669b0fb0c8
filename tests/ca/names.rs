//! Devices with the names that people give them.

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Finished, run};
use crate::gate::{config, visit};
use crate::home::{Home, refused};

const TABLET: &str = "Omas Tablet Küche";
const PHONE: &str = "小明的手机";

/// Issues a certificate and returns what `--format json` says, and the name of its files.
fn issue(home: &Home, name: &str) -> (Value, String) {
    let made = home.ca(&["device", name, "--format", "json"]).success();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let file =
        made["certificate"].as_str().unwrap().rsplit('/').next().unwrap().strip_suffix(".pem").unwrap().to_owned();
    (made, file)
}

#[test]
fn certificate_and_archive_have_the_name_and_files_are_ascii() {
    let home = Home::with_authorities();
    for name in [TABLET, PHONE] {
        let (made, file) = issue(&home, name);
        assert_eq!(made["name"], name);
        assert!(file.is_ascii() && !file.contains(' '), "{file}");
        let pem = format!("devices/{file}.pem");
        let subject =
            home.openssl(&["x509", "-noout", "-subject", "-nameopt", "utf8,sname", "-in", &pem]).success().text();
        assert_eq!(subject.trim().replace(" = ", "="), format!("subject=CN={name}"), "{subject}");
        let parsed = home.openssl(&["asn1parse", "-in", &pem]).success().text();
        let strings =
            parsed.lines().filter(|line| line.contains("STRING") && line.contains(':') && line.contains("UTF8"));
        // The common names of the issuer and of the device.
        assert_eq!(strings.count(), 2, "{parsed}");
        // The attributes of the key are not encrypted: its friendlyName is a BMPString (RFC 2985 section 5.5.1).
        let password = format!("pass:{}", made["password"].as_str().unwrap());
        for archive in ["", "-compat"] {
            let archive = format!("devices/{file}{archive}.p12");
            home.openssl(&["pkcs12", "-noout", "-legacy", "-passin", &password, "-in", &archive]).success();
            let bytes = std::fs::read(home.path(&archive)).unwrap();
            let text: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let string = [&[0x1e, u8::try_from(text.len()).unwrap()], &text[..]].concat();
            assert!(bytes.windows(string.len()).any(|window| window == string), "{archive}");
        }
        let page = std::fs::read_to_string(home.path(&format!("devices/{file}.html"))).unwrap();
        assert!(page.contains(&format!("<title>Set up {name}</title>")), "{page}");
        assert!(page.contains(&format!("<a href=\"{file}.p12\">{file}.p12</a>")), "{page}");
    }
    for entry in std::fs::read_dir(home.path("devices")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.is_ascii() && !name.contains(' '), "{name}");
    }
}

#[test]
fn commands_take_the_name_as_it_is_written() {
    let home = Home::with_authorities();
    let files: Vec<String> = [TABLET, PHONE].iter().map(|name| issue(&home, name).1).collect();
    let backend = Backend::http("hello");
    // As some keyboards type it: u and a combining mark.
    let decomposed = TABLET.replace('ü', "u\u{308}");
    let config = config(&home, &backend).replace("allow = [\"any\"]", &format!("allow = [\"{decomposed}\"]"));
    let gate = Gate::start_with_control(&config);
    assert_eq!(visit(&home, &gate, &files[0]).success().text(), "hello");
    visit(&home, &gate, &files[1]).failure();
    gate.wait_rejected("policy", "identity_not_allowed", 1);
    let why = gate.ask(&["why", PHONE]).success().text();
    assert!(why.contains(&format!("does not let {PHONE} in")), "{why}");
    gate.wait_closed("nas", 1);

    let listed = home.ca(&["list"]).success().text();
    assert!(listed.contains(TABLET) && listed.contains(PHONE), "{listed}");
    for (name, as_well) in [(TABLET, decomposed.as_str()), (PHONE, files[1].as_str())] {
        let renewed: Finished = home.ca(&["renew", name]).success();
        assert!(renewed.stderr.contains(&format!("Renewed the certificate of {name},")), "{renewed}");
        home.ca(&["export", name, "--output", "out"]).success();
        home.ca(&["renew", as_well]).success();
        let config = gate.folder().join("doorward.toml").display().to_string();
        home.ca(&["revoke", as_well, "--config", &config, "--folder", "pki"]).success();
    }
    assert!(home.devices().iter().all(|device| device.ends_with(" revoked")), "{:?}", home.devices());
    assert_eq!(home.devices().len(), 6);
    visit(&home, &gate, &files[0]).failure();
    gate.wait_rejected("certificate", "revoked", 1);
    let why = gate.ask(&["why", &decomposed.to_uppercase()]).success().text();
    assert!(why.contains(TABLET) && why.contains("was revoked"), "{why}");
    gate.ask(&["cut", TABLET]);
    refused(home.ca(&["renew", TABLET]), 2, &[&format!("doorward ca device '{TABLET}'")]);
}

#[test]
fn misleading_names_are_refused_with_the_reason() {
    let home = Home::with_authorities();
    issue(&home, "alice-phone");
    for (name, why) in [
        ("a\u{202e}b", "U+202E, which changes the direction of the text"),
        ("a\u{7}b", "U+0007, which cannot be seen"),
        ("a/b", "may not contain '/'"),
        ("\u{1f4f1} phone", "use letters, digits, spaces and"),
        ("a ", "may not start or end with a space"),
    ] {
        refused(home.ca(&["device", name]), 2, &[why]);
    }
    // The o is Cyrillic.
    refused(
        home.ca(&["device", "alice-ph\u{43e}ne"]),
        2,
        &["looks like alice-phone, which is another device: alice-ph[U+043E]ne and alice-phone", "choose another name"],
    );
    refused(home.ca(&["device", "ALICE-phone"]), 2, &["already has a certificate"]);
    // Two devices of one command.
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--folder", "other"]);
    let both = run(init.args(["--device", "bob", "--device", "b\u{43e}b"]));
    refused(both, 2, &["looks like"]);
    assert_eq!(home.devices(), ["alice-phone valid"]);
}

#[test]
fn init_takes_names_with_spaces_into_the_configuration() {
    let home = Home::new();
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--folder", "."]);
    let made = run(init.args(["--device", TABLET, "--device", PHONE])).success();
    assert!(made.stderr.contains(&format!("doorward share '{TABLET}' --folder .")), "{made}");
    let checked = run(home.doorward().arg("check")).success();
    assert_eq!(checked.stderr, "", "{checked}");
    let file = home.path("doorward.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("allow = [\"any\"]", &format!("allow = [\"{TABLET}\"]"))).unwrap();
    let checked = run(home.doorward().arg("check")).success();
    assert!(checked.stderr.is_empty() && checked.text().contains(TABLET), "{checked}");
}
