//! What works with a key in a token.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Stdio};

use doorward::connector::homes::read_bundle;

use super::Tokened;
use crate::common::backend::Backend;
use crate::common::process::{own_loopback, run, run_with_input, tool};
use crate::common::terminal::on_a_terminal;
use crate::common::token::PIN;
use crate::people::mode;
use crate::programs::{at_home, home, sshd};
use crate::scene::{noise, route};

const KINDS: [&str; 4] = ["EC:prime256v1", "EC:secp384r1", "EC:edwards25519", "RSA:2048"];

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn key_never_leaves_the_token_and_the_gate_admits_the_device() {
    let backend = Backend::echo();
    for kind in KINDS {
        let tokened = Tokened::new(&route("echo", backend.address()), kind);
        let joined = tokened.join().success();
        assert!(joined.stderr.contains("home.example is joined: this device is alice-laptop there"), "{joined}");
        assert!(joined.stderr.contains("The key stays in its token: "), "{joined}");
        let listed = run(&mut tokened.doorward(&["join", "--list"])).success().text();
        assert!(listed.contains(&format!("  key in a token: {}\n", tokened.token.uri())), "{listed}");

        let sent = noise(3_000_000, 1);
        let back = run_with_input(&mut tokened.doorward(&["connect", "echo"]), &sent).success();
        assert!(back.stdout == sent, "{kind}: {} bytes", back.stdout.len());
        let closed = tokened.scene.gate.wait_closed("echo", 1);
        assert!(closed[0]["certificate"].to_string().contains("alice-laptop"), "{closed:?}");

        // Neither the key nor the PIN is in any file of the user, and the token does not give the key away.
        assert_eq!(mode(&tokened.home()), 0o600);
        for file in files(&tokened.user.path("")) {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            assert!(!text.contains("PRIVATE KEY") && !text.contains(PIN), "{}", file.display());
        }
        let objects = tokened.token.tool(&["--list-objects", "--type", "privkey"]).text();
        assert!(objects.contains("sensitive, always sensitive, never extractable"), "{objects}");
        // Twice is once.
        let again = tokened.join_again();
        assert!(again.stderr.starts_with("home.example is joined already"), "{again}");
    }
}

impl Tokened {
    fn join_again(&self) -> crate::common::process::Finished {
        let file = self.user.path("alice-laptop.doorward");
        run(&mut self.doorward(&["join", file.to_str().unwrap(), "--key", &self.token.uri()])).success()
    }
}

/// OpenSSL in place of a gate: verifies what the token has signed in each version of TLS.
#[test]
fn signatures_are_those_of_both_versions_of_tls() {
    for kind in KINDS {
        let tokened = Tokened::new(&route("echo", ([127, 0, 0, 1], 9).into()), kind);
        tokened.join().success();
        let rsa = kind.starts_with("RSA");
        let schemes: &[&str] = if rsa { &["rsa_pss_rsae_sha256", "RSA+SHA256", "RSA+SHA512"] } else { &["default"] };
        for (version, scheme) in [("-tls1_3", "default"), ("-tls1_2", "default")]
            .into_iter()
            .chain(schemes.iter().map(|scheme| ("-tls1_2", *scheme)))
        {
            let pki = &tokened.scene.pki;
            let mut server = tool("openssl", "openssl");
            server.args(["s_server", version, "-accept", "127.0.0.1:0", "-rev", "-naccept", "1", "-Verify", "1"]);
            server.args(["-verify_return_error", "-CAfile"]).arg(pki.path("clients.pem"));
            server.arg("-cert").arg(pki.path("server.pem")).arg("-key").arg(pki.path("server-key.pem"));
            if scheme != "default" {
                server.args(["-client_sigalgs", scheme]);
            }
            let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
            let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned)).unwrap();
            let text = fs::read_to_string(tokened.home()).unwrap();
            let own = text.lines().find(|line| line.starts_with("port = ")).unwrap();
            crate::scene::replace(&tokened.home(), &text.replace(own, &format!("port = {port}")));
            let said = run_with_input(&mut tokened.doorward(&["connect", "echo"]), b"draw\n");
            let _ = server.kill();
            let _ = server.wait();
            assert_eq!(said.text(), "ward\n", "{kind} {version} {scheme}: {said}");
        }
    }
}

#[test]
fn openssh_reaches_its_server_with_the_token() {
    let address = SocketAddrV4::new(own_loopback(), 2222);
    let tokened = Tokened::joined("ssh", address.into());
    let home = home(&tokened.scene, "home");
    let _sshd = sshd(&home, address);
    run(&mut tokened.doorward(&["join", "--ssh"])).success();
    let host_key = fs::read_to_string(home.join("hostkey.pub")).unwrap();
    fs::write(home.join("known_hosts"), format!("ssh.home.example {host_key}")).unwrap();
    let mut ssh = at_home("ssh", "openssh-client", &home);
    ssh.arg("-F").arg(tokened.user.path(".ssh/doorward_config")).args([
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentityAgent=none",
    ]);
    ssh.arg("-i")
        .arg(home.join("id"))
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", home.join("known_hosts").display()));
    // The URI in the file of the home has the PIN's file, and ssh passes on the environment.
    tokened.token.with(ssh.env("HOME", tokened.user.path("")));
    let typed = noise(2_000_000, 1);
    let cat = run_with_input(ssh.args(["ssh.home.example", "cat; echo bye"]), &typed).success();
    assert!(cat.stdout == [&typed[..], b"bye\n"].concat(), "{} bytes", cat.stdout.len());
    tokened.scene.gate.wait_closed("ssh", 1);
}

#[test]
fn pin_is_asked_for_on_the_terminal_even_if_stdin_is_a_pipe() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    tokened.rename_key(&tokened.token.uri_without_pin());
    let connect = tokened.doorward(&["connect", "echo"]);
    let mut command = Command::new("/usr/bin/env");
    for (variable, value) in tokened.token.variables() {
        command.arg(format!("{variable}={}", value.display()));
    }
    command.arg(format!("HOME={}", tokened.user.path("").display())).args(["sh", "-c"]);
    command.arg(format!("echo through | {} connect echo", connect.get_program().display()));
    let (shown, code) = on_a_terminal(&command, &[PIN]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("PIN of the token \"alice\": ") && shown.contains("through"), "{shown}");
    assert!(!shown.contains(PIN), "{shown}");
    let (shown, code) = on_a_terminal(&command, &["000000"]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the PIN of the token \"alice\" is wrong, and is not tried again"), "{shown}");
}

#[test]
fn pin_is_asked_for_as_ssh_does_without_a_terminal() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    tokened.rename_key(&tokened.token.uri_without_pin());
    let program = tokened.user.path("askpass");
    let write = |text: &str| {
        fs::write(&program, format!("#!/bin/sh\necho \"$1\" >> {}\n{text}\n", tokened.user.path("asked").display()))
            .unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&program, executable).unwrap();
    };
    let connect = |screen: bool| {
        let connect = tokened.doorward(&["connect", "echo"]);
        // Without a terminal, wherever the tests run.
        let mut command = tool("setsid", "util-linux");
        command.arg("--wait").arg(connect.get_program()).args(connect.get_args());
        for (variable, value) in connect.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command.env("SSH_ASKPASS", &program);
        if screen {
            command.env("DISPLAY", ":0");
        }
        run_with_input(&mut command, b"through")
    };
    write(&format!("echo {PIN}"));
    assert_eq!(connect(true).success().text(), "through");
    assert_eq!(fs::read_to_string(tokened.user.path("asked")).unwrap(), "PIN of the token \"alice\":\n");
    let refused = connect(false).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("there is no terminal to ask on"), "{refused}");
    // The user has pressed "cancel".
    write("exit 1");
    let refused = connect(true).failure();
    assert!(refused.stderr.contains("no PIN was given for the token \"alice\""), "{refused}");
    assert_eq!(tokened.token.count("logins"), 3, "to request, to join, to connect");
}

#[test]
fn file_for_a_key_on_the_device_goes_with_the_key_that_is_joined() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    // As after "ca renew": the same key.
    let mut renewed = tokened.bundle();
    let port = read_bundle(&tokened.home()).unwrap().port;
    renewed.port = port;
    let file = tokened.user.given("renewed.doorward", &renewed);
    let replaced = run(&mut tokened.doorward(&["join", file.to_str().unwrap()])).success();
    assert!(replaced.stderr.starts_with("home.example is replaced"), "{replaced}");
    assert_eq!(run_with_input(&mut tokened.doorward(&["connect", "echo"]), b"new").success().text(), "new");
    // Not with another one.
    let key = rcgen::KeyPair::generate().unwrap();
    let other = tokened.bundle_for(
        &rcgen::SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap(),
    );
    let file = tokened.user.given("other.doorward", &other);
    let refused = run(&mut tokened.doorward(&["join", file.to_str().unwrap()])).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("has no key: it was made for one that is on this device"), "{refused}");
}
