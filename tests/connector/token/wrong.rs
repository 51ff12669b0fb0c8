//! What is wrong with a token is said in words, and does no harm.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use doorward::bundle::{Bundle, BundleKey};

use super::Tokened;
use crate::common::backend::Backend;
use crate::common::process::{Finished, run, run_with_input, tool};
use crate::common::token::PIN;
use crate::scene::route;

#[track_caller]
fn refused(finished: Finished, said: &[&str]) {
    assert_eq!(finished.status.code(), Some(2), "{finished}");
    for said in said {
        assert!(finished.stderr.contains(said), "{said:?} is not in\n{finished}");
    }
    assert!(!finished.stderr.contains(PIN), "{finished}");
}

impl Tokened {
    /// `doorward connect`, and what it says.
    fn connect(&self) -> Finished {
        run_with_input(&mut self.doorward(&["connect", "echo"]), b"through")
    }
}

#[test]
fn wrong_pin_is_tried_once() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    let token = &tokened.token;
    let before = token.count("logins");
    token.write_pin("000000");
    refused(tokened.connect(), &["the PIN of the token \"alice\" is wrong, and is not tried again"]);
    // Nor by the next program, as one that is started again and again.
    for command in [&["connect", "echo"], &["forward", "echo=0"]] {
        refused(run(&mut tokened.doorward(command)), &["says that a wrong PIN was entered last"]);
    }
    refused(
        run(&mut tokened.doorward(&["renew", "--server-name", "renew.home.example"])),
        &["a wrong PIN was entered last"],
    );
    // Even if it is the right one by now: the token knows of one wrong PIN, and the file may be an old one.
    token.write_pin(PIN);
    refused(tokened.connect(), &["so the one in", "is not tried again"]);
    assert_eq!(token.count("logins"), before + 1);
    token.tool(&["--list-objects"]);
    assert_eq!(tokened.connect().success().text(), "through");
    // The gate has seen none of it.
    assert_eq!(tokened.scene.gate.wait_closed("echo", 1).len(), 1);
}

#[test]
fn locked_token_and_last_try_are_told() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    let token = &tokened.token;
    let before = token.count("logins");
    token.set("locked", true);
    refused(tokened.connect(), &["the PIN of the token \"alice\" is locked", "PUK"]);
    assert_eq!(token.count("logins"), before, "it is not tried");
    token.set("locked", false);
    // Another program may have locked it a moment ago.
    token.set("locking", true);
    refused(tokened.connect(), &["the PIN of the token \"alice\" is locked"]);
    token.set("locking", false);
    token.set("final", true);
    refused(tokened.connect(), &["says that a wrong PIN was entered last"]);
    assert_eq!(token.count("logins"), before + 1);
    // A user may try, and is told that it is the last time.
    let mut command = std::process::Command::new("/usr/bin/env");
    for (variable, value) in token.variables() {
        command.arg(format!("{variable}={}", value.display()));
    }
    command.arg(env!("CARGO_BIN_EXE_doorward")).args(["join", "--request", &token.uri_without_pin()]);
    let (shown, code) = crate::common::terminal::on_a_terminal(&command, &["000000"]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("PIN of the token \"alice\" (one try is left): "), "{shown}");
    assert!(shown.contains("one try is left before the token locks"), "{shown}");
}

#[test]
fn file_with_the_pin_is_this_users_alone() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    let pin = tokened.token.path("pin");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o640)).unwrap();
    refused(tokened.connect(), &["other users can read it", "chmod 600"]);
    fs::write(&pin, "\n").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    refused(tokened.connect(), &["it is empty"]);
    fs::remove_file(&pin).unwrap();
    refused(tokened.connect(), &["the file with the PIN cannot be used", "No such file"]);
    let uri = format!("{}&pin-value={PIN}", tokened.token.uri_without_pin());
    refused(
        run(&mut tokened.doorward(&["join", "--request", &uri])),
        &["a PIN in it is not taken (RFC 7512 section 7)"],
    );
    tokened.rename_key(&uri);
    refused(tokened.connect(), &["a PIN in it is not taken"]);
}

#[test]
fn modules_tokens_and_keys_that_are_not_there_are_named() {
    let tokened = Tokened::new(&route("echo", ([127, 0, 0, 1], 9).into()), "EC:prime256v1");
    let uri = tokened.token.uri();
    let request = |uri: &str| run(&mut tokened.doorward(&["join", "--request", uri]));
    refused(request("pkcs11:token=alice?module-path=/no/such.so"), &["/no/such.so", "is it installed?"]);
    let not_a_module = uri.replace("module-path=", "module-path=/etc/hostname%23");
    refused(request(&not_a_module), &["the library of the token cannot be used"]);
    refused(
        request(&uri.replace("token=alice", "token=bob")),
        &["the token \"bob\" is not there", "there are: \"alice\" (serial "],
    );
    refused(request(&uri.replace("%01", "%02")), &["the token \"alice\" has no private key that the URI fits"]);
    tokened.token.generate("RSA:2048", "02");
    let any = uri.replace(";id=%01", "");
    refused(
        request(&any),
        &["the URI fits several keys of the token \"alice\"", "id=%01;object=laptop", "id=%02;object=laptop"],
    );
    // An identifier that is no key's, and a label that is one's.
    refused(request(&uri.replace("id=%01", "id=%01;object=other")), &["has no private key"]);
    request(&uri.replace("id=%01", "id=%01;object=laptop;type=private")).success();
    tokened.token.generate("EC:secp521r1", "03");
    refused(request(&uri.replace("%01", "%03")), &["its type is not supported", "P-256"]);
    // Two tokens of one name.
    let mut second = tool("softhsm2-util", "softhsm2");
    second.args(["--init-token", "--free", "--label", "alice", "--so-pin", "12345678", "--pin", PIN]);
    run(tokened.token.with(&mut second)).success();
    refused(request(&uri), &["fits several tokens", "\"alice\" (serial ", "add \"serial\""]);
}

#[test]
fn modules_that_the_system_knows_need_no_path() {
    let tokened = Tokened::new(&route("echo", ([127, 0, 0, 1], 9).into()), "EC:prime256v1");
    let pin = tokened.token.path("pin");
    let uri = format!("pkcs11:token=alice;id=%01?pin-source=file:{}", pin.display());
    let request = run(&mut tokened.doorward(&["join", "--request", &uri])).success();
    assert!(request.text().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{request}");
}

#[test]
fn key_that_is_not_that_of_the_certificate_is_not_joined() {
    let backend = Backend::echo();
    for other in ["EC:prime256v1", "EC:secp384r1", "RSA:2048"] {
        let tokened = Tokened::new(&route("echo", backend.address()), "EC:prime256v1");
        let file = tokened.file();
        tokened.token.generate(other, "02");
        let uri = tokened.token.uri().replace("%01", "%02");
        let joined = run(&mut tokened.doorward(&["join", file.to_str().unwrap(), "--key", &uri]));
        refused(joined, &["the key in the token \"alice\" is not that of the certificate", "nothing was written"]);
        assert!(!tokened.user.path(".config").exists());
        // Nor used, if the token holds another key by now; the gate is not asked.
        tokened.join().success();
        tokened.rename_key(&uri);
        refused(tokened.connect(), &["the key in the token \"alice\" is not that of the certificate"]);
        let metrics = tokened.scene.gate.settled();
        assert_eq!(metrics.sum("doorward_connections_accepted_total", &[]), 0.0, "{other}");
    }
}

#[test]
fn library_that_a_strangers_file_names_is_not_run() {
    let tokened = Tokened::new(&route("echo", ([127, 0, 0, 1], 9).into()), "EC:prime256v1");
    let (source, library, ran) = (tokened.user.path("evil.c"), tokened.user.path("evil.so"), tokened.user.path("ran"));
    let text = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void run(void) {{ open({:?}, O_CREAT | O_WRONLY, 0600); }}\n",
        ran.display().to_string()
    );
    fs::write(&source, text).unwrap();
    run(tool("gcc", "gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source)).success();
    let evil = format!("pkcs11:token=alice?module-path={}", library.display());
    let file = tokened.user.given("evil.doorward", &Bundle { key: BundleKey::Token(evil.clone()), ..tokened.bundle() });
    let file = file.to_str().unwrap();
    for command in [&["join", file][..], &["connect", "echo", "--file", file], &["forward", "echo=0", "--file", file]] {
        refused(
            run(&mut tokened.doorward(command)),
            &["the library of a token is run, and a file may come from anywhere"],
        );
        assert!(!ran.exists(), "{command:?}");
    }
    // It is the library that is named with the command.
    run(&mut tokened.doorward(&["join", file, "--key", &tokened.token.uri()])).success();
    assert!(!ran.exists());
    let _ = run(&mut tokened.doorward(&["join", "--request", &evil])).failure();
    assert!(ran.exists(), "the test works");
}

#[test]
fn file_without_a_key_says_where_the_key_is() {
    let tokened = Tokened::new(&route("echo", ([127, 0, 0, 1], 9).into()), "EC:prime256v1");
    let file = tokened.file();
    let file = file.to_str().unwrap();
    for command in [&["join", file][..], &["connect", "echo", "--file", file]] {
        refused(run(&mut tokened.doorward(command)), &["no key", "--key pkcs11:"]);
    }
    let key = ["join", file, "--key", "pkcs12:"];
    refused(run(&mut tokened.doorward(&key)), &["not the URI of a key in a token: it does not begin with \"pkcs11:\""]);
    assert!(!tokened.user.path(".config").exists());
    // A key that was removed since: the token is there, and the key is not.
    tokened.join().success();
    tokened.token.tool(&["--delete-object", "--type", "privkey", "--id", "01"]);
    refused(tokened.connect(), &["has no private key that the URI fits"]);
}
