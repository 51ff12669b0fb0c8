//! Error messages of `doorward share`: each command that they advise is run and works.

use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use crate::common::process::{Finished, run};
use crate::home::{Home, der};
use crate::shared::{Shared, share};

/// Runs a link until it expires unused.
fn unused(command: &mut Command) -> Finished {
    let shown = run(command.args(["--address", "127.0.0.1", "--expires", "1s"])).failure();
    assert_eq!(shown.status.code(), Some(9), "{shown}");
    shown
}

/// The command fails with this message.
#[track_caller]
fn refused(command: &mut Command, why: &str) -> Finished {
    let refused = run(command.args(["--address", "127.0.0.1"])).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains(why) && refused.stdout.is_empty(), "{why} is missing in {refused}");
    refused
}

/// The commands in an error message, each at the end of a line.
fn advice(shown: &Finished) -> Vec<String> {
    let (_, said) = shown.stderr.split_once("error: ").unwrap();
    let lines = said.lines().skip(1).filter_map(|line| {
        let at = ["doorward ", "openssl "].iter().filter_map(|program| line.find(program)).min()?;
        Some(line[at..].to_owned())
    });
    lines.collect()
}

/// A command line in the folder `at`.
fn bash(home: &Home, at: &Path, line: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_doorward")).parent().unwrap();
    let mut bash = home.tool("bash", "bash");
    bash.current_dir(at).args(["-euc", line]);
    bash.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    bash
}

fn doorward(at: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.current_dir(at).args(words);
    command
}

#[test]
fn missing_device_is_reported_with_those_that_exist() {
    let home = Home::new();
    let (above, folder) = (home.path(""), home.folder());
    let shown =
        refused(&mut doorward(&above, &["share", "bob-laptop"]), "no device called bob-laptop in doorward/devices");
    assert!(shown.stderr.contains("there are: alice-phone\n"), "{shown}");
    let shown = refused(&mut doorward(&folder, &["share", "alice-phone"]), "there is no folder doorward/devices");
    assert_eq!(advice(&shown), ["doorward share alice-phone --folder ."]);
    unused(bash(&home, &folder, &format!("{} \"$@\"", advice(&shown)[0])).arg("bash"));
    let pki = folder.join("pki");
    let shown = refused(&mut doorward(&pki, &["share", "alice-phone"]), "there is no folder doorward/devices");
    assert!(shown.stderr.contains("--folder FOLDER"), "{shown}");
}

#[test]
fn missing_or_encrypted_key_is_reported_with_a_remedy() {
    let home = Home::new();
    let key = home.file("key");
    run(home
        .tool("openssl", "openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:secret", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(home.path("encrypted")))
    .success();
    std::fs::rename(home.path("encrypted"), &key).unwrap();
    let shown = refused(&mut share(&home), "is encrypted");
    // It would ask for the passphrase.
    let [decrypt] = <[String; 1]>::try_from(advice(&shown)).unwrap();
    run(&mut bash(&home, &home.path(""), &decrypt.replace("openssl pkcs8", "openssl pkcs8 -passin pass:secret")))
        .success();
    unused(&mut share(&home));

    std::fs::remove_file(&key).unwrap();
    let shown = refused(&mut share(&home), "the key of alice-phone is missing");
    let [anew] = <[String; 1]>::try_from(advice(&shown)).unwrap();
    run(&mut bash(&home, &home.path(""), &anew)).success();
    unused(&mut share(&home));
}

#[test]
fn revoked_or_expired_certificate_is_not_shared() {
    let home = Home::new();
    let pki = home.folder().join("pki");
    let mut renew = doorward(&home.path(""), &["ca", "revoke", "alice-phone", "--folder"]);
    run(renew.arg(&pki)).success();
    let shown = refused(&mut share(&home), "the certificate of alice-phone is revoked");
    let [again] = <[String; 1]>::try_from(advice(&shown)).unwrap();
    run(&mut bash(&home, &home.path(""), &again)).success();
    unused(&mut share(&home));

    let key = KeyPair::from_pem(&std::fs::read_to_string(home.file("key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "alice-phone");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 2, 3);
    std::fs::write(home.file("certificate"), params.self_signed(&key).unwrap().pem()).unwrap();
    let shown = refused(&mut share(&home), "expired on 2021-02-03");
    let [renew] = <[String; 1]>::try_from(advice(&shown)).unwrap();
    run(&mut bash(&home, &home.path(""), &renew)).success();
    unused(&mut share(&home));
}

#[test]
fn authority_without_name_constraints_has_a_warning() {
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
    let made = run(&mut doorward(&at, &["ca", "device", "dave"])).success();
    let page = std::fs::read_to_string(at.join("devices/dave.html")).unwrap();
    assert!(!page.contains("any authority but this one"), "{page}");
    // Beside the step at which Android warns, and at the end of the page.
    assert_eq!(page.matches("can pose as any site").count(), 2, "{page}");
    // This authority is handed over, and no other.
    assert!(made.stderr.contains("by a link: doorward share dave --folder .\n"), "{made}");
    let mut command = doorward(&at, &["share", "dave", "--folder", "."]);
    let shared = Shared::start_command(&mut command);
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("can pose as any site"), "{page}");
    std::fs::write(home.path("root.pem"), shared.ask("GET", &format!("{}/server-ca.crt", shared.path())).body).unwrap();
    assert_eq!(der(&home.path("root.pem")), der(&caroot.join("rootCA.pem")));
}

#[test]
fn advised_command_makes_a_new_link() {
    let home = Home::new();
    let strange = home.path("it's $(touch pwned)");
    std::fs::rename(home.folder(), &strange).unwrap();
    let mut first = doorward(&home.path(""), &["share", "alice-phone", "--folder"]);
    let shown = unused(first.arg(&strange));
    assert!(shown.stderr.contains("in the same network") && shown.stderr.contains("--address"), "{shown}");
    let again = advice(&shown).pop().unwrap();
    unused(bash(&home, &home.path(""), &format!("{again} \"$@\"")).arg("bash"));

    let pki = strange.join("pki");
    let mut device = doorward(&home.path(""), &["ca", "device", "bob-laptop", "--qr", "--folder"]);
    let shown = unused(device.arg(&pki));
    let (_, said) = shown.stderr.split_once("by a link: ").unwrap();
    for again in [said.lines().next().unwrap(), &advice(&shown).pop().unwrap()] {
        unused(bash(&home, &home.path(""), &format!("{again} \"$@\"")).arg("bash"));
    }
    // For files that share does not find, it is not advised.
    let mut device =
        doorward(&home.path(""), &["ca", "device", "carol-laptop", "--qr", "--output", "elsewhere", "--folder"]);
    let shown = unused(device.arg(&pki));
    assert!(!shown.stderr.contains("doorward share"), "{shown}");
    assert!(!home.path("pwned").exists());
}

#[test]
fn device_is_not_issued_for_an_unsuitable_address() {
    let home = Home::new();
    let pki = home.folder().join("pki");
    let device = |more: &[&str]| {
        let mut device = doorward(&home.path(""), &["ca", "device", "bob-laptop", "--qr", "--folder"]);
        device.arg(&pki).args(more);
        run(&mut device).failure()
    };
    let list = || run(doorward(&home.path(""), &["ca", "list", "--folder"]).arg(&pki)).success();
    let shown = device(&["--address", "203.0.113.9"]);
    assert_eq!(shown.status.code(), Some(2), "{shown}");
    assert!(shown.stderr.contains("is not a private address"), "{shown}");
    assert!(!list().text().contains("bob-laptop"));
    // An address that only the system refuses is not noticed in time: the device is issued.
    let shown = device(&["--address", "203.0.113.9", "--allow-public"]);
    assert_eq!(shown.status.code(), Some(4), "{shown}");
    assert!(list().text().contains("bob-laptop"));
    let again = advice(&shown).pop().unwrap();
    unused(bash(&home, &home.path(""), &format!("{again} \"$@\"")).arg("bash"));
}

#[test]
fn devices_with_colliding_file_names_are_refused() {
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
fn closed_stderr_does_not_end_the_link() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = share(&home);
    command.args(["--address", "127.0.0.1", "--expires", "1s", "--format", "json"]);
    let status = command.stdout(std::process::Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(9));
}

#[test]
fn page_lists_no_passthrough_route() {
    let home = Home::new();
    let file = home.folder().join("doorward.toml");
    let mut configuration = std::fs::read_to_string(&file).unwrap();
    configuration.push_str(
        "\n[[route]]\nname = \"mail\"\nserver_names = [\"mail.home.example\"]\nmode = \"passthrough\"\nbackends = [\"127.0.0.1:993\"]\n",
    );
    std::fs::write(&file, configuration).unwrap();
    let shared = Shared::start(&home, &[]);
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("https://nas.home.example/"), "{page}");
    assert!(!page.contains("https://ssh.home.example/"), "{page}");
    // It asks for no certificate of this gate.
    assert!(!page.contains("mail.home.example"), "{page}");
}

#[test]
fn sharing_works_on_a_read_only_folder() {
    let home = Home::new();
    let read_only = "mount --bind doorward doorward && mount -o remount,ro,bind doorward && exec \"$@\"";
    let mut unshare = home.tool("unshare", "util-linux");
    let share = share(&home);
    unshare.args(["--mount", "bash", "-euc", read_only, "bash"]).arg(share.get_program()).args(share.get_args());
    unused(&mut unshare);
}
