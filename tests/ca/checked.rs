//! `doorward check`: what its options tell about the files, the backends and the port.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::Value;

use crate::common::process::{Finished, run};
use crate::home::{Home, refused};

/// A folder as `doorward init` leaves it.
fn initialised(routes: &[String]) -> Home {
    let home = Home::new();
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--device", "alice-phone", "--folder", "."]);
    init.args(routes.iter().flat_map(|route| ["--route", route]));
    run(&mut init).success();
    home
}

fn check(home: &Home, arguments: &[&str]) -> Finished {
    run(home.doorward().arg("check").args(arguments))
}

#[test]
fn files_are_read_with_the_rights_of_the_gates_user() {
    let home = initialised(&["nas=127.0.0.1:9".to_owned()]);
    refused(check(&home, &["--user", "no-such-user"]), 2, &["there is no such user"]);
    if !rustix::process::geteuid().is_root() {
        refused(check(&home, &["--user", "nobody"]), 2, &["only root", "sudo doorward check"]);
        return;
    }
    // The folder itself, which is temporary, is root's alone.
    refused(check(&home, &["--user", "nobody"]), 3, &["cannot read", "may not enter the folder", "doorward install"]);
    let set = |name: &str, mode: u32| {
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    refused(check(&home, &["--user", "nobody"]), 3, &["client_auth.trust", "may not enter the folder", "/pki\n"]);
    set("pki", 0o755);
    let said = check(&home, &["--user", "nobody"]);
    refused(
        said,
        3,
        &["certificate.key: the gate's user, nobody, cannot read", "server-key.pem: the file's owner and mode"],
    );
    set("pki/server-key.pem", 0o644);
    // The gate does without the inventory.
    let said = check(&home, &["--user", "nobody"]).success();
    assert!(said.stderr.contains("warning: metrics.inventory: the gate's user, nobody, cannot read"), "{said}");
    assert!(said.text().contains("The gate's user, nobody, can read every file that it needs."), "{said}");
    set("pki/server-key.pem", 0o600);
    check(&home, &["--user", "root"]).success();
    check(&home, &[]).success();
}

#[test]
fn backends_are_dialled_and_what_answers_is_told() {
    let ssh = TcpListener::bind("127.0.0.1:0").unwrap();
    let ssh_at = ssh.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in ssh.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"SSH-2.0-Test\r\n");
        }
    });
    let routes = [format!("shell={ssh_at},kind=ssh"), format!("web={ssh_at},kind=http"), "off=127.0.0.1:9".to_owned()];
    let home = initialised(&routes);
    let said = check(&home, &["--connect"]).success();
    let text = said.text();
    let row = |name: &str| text.lines().rev().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(row("shell ").ends_with("answers: SSH-2.0-Test"), "{text}");
    assert!(row("off ").contains("nothing listens there"), "{text}");
    assert!(said.stderr.contains("route \"web\": kind is \"http\", and the backend answers: SSH-2.0-Test"), "{said}");
    assert!(!said.stderr.contains("\"shell\""), "{said}");

    let json = check(&home, &["--connect", "--format", "json"]).success();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let connected: Vec<bool> =
        json["backends"].as_array().unwrap().iter().map(|one| one["connected"].as_bool().unwrap()).collect();
    assert_eq!(connected, [true, true, false]);
    let json = check(&home, &["--format", "json"]).success();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json.get("backends").is_none(), "nothing is dialled without being asked to: {json}");
}

#[test]
fn test_from_outside_has_the_name_and_the_port() {
    let home = initialised(&["nas=127.0.0.1:9".to_owned()]);
    let said = check(&home, &["--from-outside"]).success().text();
    for needed in [
        "TCP port 443",
        "nas.home.example has no address",
        "open https://nas.home.example/",
        "openssl s_client -connect nas.home.example:443",
        "doorward why --config",
    ] {
        assert!(said.contains(needed), "{needed} is missing in\n{said}");
    }
}
