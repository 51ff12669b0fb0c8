//! What people are told when there is nothing to hand over, or nobody came: each word of advice is followed.

use std::path::Path;
use std::process::Command;

use crate::common::process::run;
use crate::home::Home;
use crate::shared::share;

fn doorward(at: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.current_dir(at).args(words);
    command
}

#[test]
fn an_authority_that_can_vouch_for_any_site_is_not_said_to_be_harmless() {
    let home = Home::new();
    let limited = std::fs::read_to_string(home.file("steps")).unwrap();
    assert!(limited.contains("which can vouch for your own domain only") && !limited.contains("any site"), "{limited}");

    let caroot = home.path("mkcert");
    std::fs::create_dir(&caroot).unwrap();
    run(home.tool("openssl", "openssl").current_dir(&caroot).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]).args(
        [
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "rootCA-key.pem",
            "-out",
            "rootCA.pem",
            "-subj",
            "/O=mkcert development CA/CN=mkcert anye@mac",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ],
    ))
    .success();
    let at = home.path("mine");
    std::fs::create_dir(&at).unwrap();
    run(doorward(&at, &["ca", "import", "--mkcert"]).arg(&caroot)).success();
    run(&mut doorward(&at, &["ca", "device", "dave"])).success();
    let page = std::fs::read_to_string(at.join("devices/dave.html")).unwrap();
    assert!(!page.contains("any authority but this one"), "{page}");
    // Beside the step at which Android warns, and at the end of the page.
    assert_eq!(page.matches("can pose as any site").count(), 2, "{page}");
}

#[test]
fn of_two_devices_neither_takes_a_file_of_the_other() {
    let home = Home::new();
    let pki = home.folder().join("pki");
    let device = |name: &str, more: &[&str]| {
        let mut device = doorward(&home.path(""), &["ca", "device", name, "--folder"]);
        device.arg(&pki).args(more);
        run(&mut device)
    };
    for (first, second) in [("a-key", "a"), ("b", "b-key"), ("c-compat", "c"), ("d", "D-Compat")] {
        device(first, &[]).success();
        let shown = device(second, &["--force"]).failure();
        assert_eq!(shown.status.code(), Some(2), "{shown}");
        assert!(shown.stderr.contains(&format!("files of {first}")), "{shown}");
    }
    assert!(std::fs::read_to_string(home.folder().join("devices/a-key.pem")).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn who_reads_along_may_leave() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = share(&home);
    command.args(["--address", "127.0.0.1", "--expires", "1s", "--format", "json"]);
    let status = command.stdout(std::process::Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(9));
}
