//! What `doorward ca` reports about the gate is true, however the gate gets its files: attacks.md row 33.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use serde_json::{Value, json};

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Daemon, Finished, run, tool, wait_until};
use crate::gate::{config, stay, visit, visit_at};
use crate::home::Home;

/// Runs a gate in its own mount namespace, after `script` has changed the mounts of the home folder, `$1`.
fn mounted(home: &Home, config: &str, script: &str) -> Gate {
    let control = format!("{config}\n[control]\nsocket = \"control.sock\"\n");
    Gate::start_with(&control, |command| {
        let mut unshare = tool("unshare", "util-linux");
        let inner = format!("mount --make-rprivate /; {script}; shift; exec \"$@\"");
        unshare.args(["--mount", "sh", "-euc", &inner, "sh"]).arg(home.path(""));
        unshare.arg(command.get_program()).args(command.get_args());
        *command = unshare;
    })
}

/// Only the files that the gate reads, each mounted separately.
const SINGLE_FILES: &str = "mkdir -p \"$1/.alias\"; mount --bind \"$1\" \"$1/.alias\"; \
     for file in server.pem server-key.pem clients.pem clients.crl; do cp \"$1/pki/$file\" \"$1/.copy-$file\"; done; \
     mount --bind \"$1/pki\" \"$1/.alias/pki\"; mount -t tmpfs none \"$1/pki\"; \
     for file in server.pem server-key.pem clients.pem clients.crl; do \
     touch \"$1/pki/$file\"; mount --bind \"$1/.alias/pki/$file\" \"$1/pki/$file\"; done; umount -l \"$1/.alias\"";

/// `doorward ca` with the gate's configuration and the authorities at home.
fn ca(home: &Home, gate: &Gate, arguments: &[&str]) -> Finished {
    let (file, pki) = (gate.folder().join("doorward.toml"), home.path("pki"));
    let (file, pki) = (file.display().to_string(), pki.display().to_string());
    home.ca(&[arguments, &["--config", &file, "--folder", &pki]].concat())
}

/// What the JSON output says about the gate.
fn in_force(finished: &Finished) -> (bool, bool, u64) {
    let said: Value = serde_json::from_slice(&finished.stdout).unwrap();
    let flag = |key: &str| said[key].as_bool().unwrap();
    (flag("in_force"), flag("after_restart"), said["sessions_cut"].as_u64().unwrap())
}

fn with_two_devices() -> (Home, Backend) {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    (home, Backend::http("Hello from the NAS."))
}

#[test]
fn row_33_single_files_mounted_device_is_rejected_with_warning() {
    let (home, _) = with_two_devices();
    let backend = Backend::echo();
    let gate = mounted(&home, &config(&home, &backend), SINGLE_FILES);
    let mut alice = stay(&home, &gate, "alice-phone");
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (true, false, 1), "{revoked}");
    alice.wait().unwrap();
    for words in ["change is in force", "the next start", "the gate sees another file under the name", "docker restart"]
    {
        assert!(revoked.stderr.contains(words), "{words:?} is missing: {revoked}");
    }
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    let mut bob = stay(&home, &gate, "bob-laptop");
    bob.kill().unwrap();
    bob.wait().unwrap();

    // The gate's own certificate cannot be sent to it.
    let made = ca(&home, &gate, &["server", "--new-key", "--format", "json"]).not_proved();
    assert_eq!(in_force(&made), (false, false, 0), "{made}");
    assert!(made.stderr.contains("the route nas still uses the old certificate"), "{made}");
    assert!(made.stderr.contains("the gate sees another file under the name"), "{made}");
    gate.wait_closed("nas", 2);
}

/// A starting gate may have read files before a command changes them.
#[test]
fn row_33_starting_gate_is_not_reported_as_stopped() {
    let (home, backend) = with_two_devices();
    let (file, ready) = (home.path("doorward.toml"), home.path("ready.toml"));
    std::fs::write(&ready, format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&home, &backend))).unwrap();
    // Reading a FIFO blocks until there is a writer.
    run(tool("mkfifo", "coreutils").arg(&file)).success();
    let mut writer = None;
    let gate =
        Daemon::start_until(home.doorward().args(["run", "--config"]).arg(&file), "it has opened the FIFO", || {
            writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&file).ok();
            writer.is_some()
        });
    let mut writer = writer.unwrap();
    writer.write_all(b"#").unwrap();
    wait_until("the gate reads its configuration", || (ioctl_fionread(&writer).unwrap() == 0).then_some(()));
    // The command reads the configuration without waiting.
    std::fs::rename(&ready, &file).unwrap();
    let revoked = home.ca(&["revoke", "alice-phone"]);
    drop(gate);
    revoked.not_proved();
}

#[test]
fn row_33_configuration_mounted_as_a_single_file_is_reported() {
    let (home, backend) = with_two_devices();
    let text = config(&home, &backend).replace("revocation_lists", "# revocation_lists");
    // The gate still sees the old file.
    let gate = Gate::start_with(&format!("{text}\n[control]\nsocket = \"control.sock\"\n"), |command| {
        let folder = Path::new(command.get_args().last().unwrap()).parent().unwrap().to_owned();
        let mut unshare = tool("unshare", "util-linux");
        let script = "mount --make-rprivate /; mkdir \"$1/other\"; mount --bind \"$1\" \"$1/other\"; \
                      cp \"$1/doorward.toml\" \"$1/old.toml\"; mount --bind \"$1/old.toml\" \"$1/other/doorward.toml\"; \
                      config=\"$1/other/doorward.toml\"; shift; exec \"$1\" run --config \"$config\"";
        unshare.args(["--mount", "sh", "-euc", script, "sh"]).arg(folder).arg(command.get_program());
        *command = unshare;
    });
    std::fs::write(
        gate.folder().join("doorward.toml"),
        format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&home, &backend)),
    )
    .unwrap();
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (true, false, 0), "{revoked}");
    assert!(revoked.stderr.contains("the configuration does not name"), "{revoked}");
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
}

#[test]
fn row_33_gate_in_another_folder_is_fixed_by_the_shown_command() {
    let (home, backend) = with_two_devices();
    let etc = tempfile::tempdir().unwrap();
    let copied = |name: &str| etc.path().join(name).display().to_string();
    for file in ["server.pem", "server-key.pem", "clients.pem", "clients.crl"] {
        std::fs::copy(home.path("pki").join(file), copied(file)).unwrap();
    }
    let text =
        config(&home, &backend).replace(&home.path("pki").display().to_string(), &etc.path().display().to_string());
    let control = format!("{text}\n[control]\nsocket = \"control.sock\"\n");
    {
        let gate = Gate::start(&control);
        let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
        assert_eq!(in_force(&revoked), (true, false, 0), "{revoked}");
        visit(&home, &gate, "alice-phone").failure();
        gate.wait_rejected("certificate", "revoked", 1);
        assert_eq!(visit(&home, &gate, "bob-laptop").success().text(), "Hello from the NAS.");
        // The command as it is shown.
        let (_, command) = revoked.stderr.split_once("copy it: ").unwrap();
        let command = command.lines().next().unwrap();
        assert!(command.starts_with("cp ") && command.contains(&copied("clients.crl")), "{command}");
        run(Command::new("sh").args(["-c", command])).success();
        let (_, reload) = revoked.stderr.rsplit_once("doorward reload --config ").unwrap();
        run(home.doorward().args(["reload", "--config", reload.trim()])).success();
    }
    let gate = Gate::start(&control);
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
}

#[test]
fn row_33_folder_under_another_name_is_in_force() {
    let (home, backend) = with_two_devices();
    let text = config(&home, &backend);
    let (there, here) = (home.path("there").display().to_string(), home.path("pki").display().to_string());
    let script = "mkdir \"$1/there\"; mount --bind \"$1/pki\" \"$1/there\"";
    let gate = mounted(&home, &text.replace(&here, &there), script);
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).success();
    assert_eq!(in_force(&revoked), (true, true, 0), "{revoked}");
    let made = ca(&home, &gate, &["server", "--new-key", "--format", "json"]).success();
    assert_eq!(in_force(&made), (true, true, 0), "{made}");
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
}

#[test]
fn row_33_unreadable_list_file_device_is_rejected_with_warning() {
    let (home, backend) = with_two_devices();
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for folder in ["", "pki"] {
        open(&home.path(folder), 0o755);
    }
    for file in ["server-key.pem", "clients.crl"] {
        open(&home.path("pki").join(file), 0o644);
    }
    let gate =
        Gate::start_with(&format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&home, &backend)), |command| {
            let folder = Path::new(command.get_args().last().unwrap()).parent().unwrap().to_owned();
            open(&folder, 0o777);
            let mut other = tool("setpriv", "util-linux");
            other
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(command.get_program())
                .args(command.get_args());
            *command = other;
        });
    // The gate cannot read its key any more, so a reload fails.
    open(&home.path("pki/server-key.pem"), 0o600);
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).failure();
    assert_eq!((revoked.status.code(), in_force(&revoked)), (Some(3), (true, false, 0)), "{revoked}");
    assert!(revoked.stderr.contains("server-key.pem may not be read by the user that runs doorward"), "{revoked}");
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
}

#[test]
fn row_33_route_that_does_not_verify_is_reported() {
    let (home, backend) = with_two_devices();
    let open = "[[route]]\nname = \"open\"\nserver_names = [\"open.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
                allow = [\"unverified\"]\n[route.client_auth]\nmode = \"request\"\n";
    let gate = Gate::start_with_control(&format!("{}{open}", config(&home, &backend)));
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    assert!(revoked.stderr.contains("the route open verifies no certificate"), "{revoked}");
    assert!(revoked.stderr.contains("mode = \"require_and_verify\""), "{revoked}");
    // The same holds for a gate that is not running.
    drop(gate);
    std::fs::write(home.path("doorward.toml"), format!("{}{open}", config(&home, &backend))).unwrap();
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    assert!(revoked.stderr.contains("the route open verifies no certificate"), "{revoked}");
}

/// A route whose trust anchor is the device's certificate.
#[test]
fn row_33_route_that_pins_the_device_counts_as_any_other() {
    let (home, _) = with_two_devices();
    let backend = Backend::echo();
    let (pin, list) = (home.path("devices/alice-phone.pem"), home.path("pki/clients.crl"));
    let route = |lists: &str| {
        format!(
            "[[route]]\nname = \"pin\"\nserver_names = [\"pin.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
             [route.client_auth]\ntrust = [{pin:?}]\nrevocation_lists = [{lists}]\n",
            backend.address()
        )
    };
    let gate = Gate::start_with_control(&format!("{}{}", config(&home, &backend), route("")));
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (true, false, 0), "{revoked}");
    assert!(revoked.stderr.contains("[route.client_auth] of the route pin must contain"), "{revoked}");
    visit_at(&home, &gate, "pin", "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    drop(gate);
    // The same for a gate that is not running, until its configuration is corrected.
    let write = |route: &str| std::fs::write(home.path("doorward.toml"), config(&home, &backend) + route).unwrap();
    write(&route(""));
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    write(&route(&format!("{list:?}")));
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).success();
    assert_eq!(in_force(&revoked), (false, true, 0), "{revoked}");
}

#[test]
fn row_33_gate_that_trusts_another_authority_is_reported() {
    let (home, backend) = with_two_devices();
    let elsewhere = Home::with_authorities();
    let gate = Gate::start_with_control(&config(&elsewhere, &backend));
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    assert!(revoked.stderr.contains("no route of the gate trusts the authority"), "{revoked}");
}

/// The gate that answers at the socket runs with another configuration.
#[test]
fn row_33_socket_of_another_gate_proves_nothing() {
    let (home, _) = with_two_devices();
    let backend = Backend::echo();
    let text = config(&home, &backend);
    let (other, gate) = (Gate::start_with_control(&text), Gate::start(&format!("{text}[control]\nsocket = \"off\"\n")));
    let socket = other.folder().join("control.sock");
    std::fs::write(gate.folder().join("doorward.toml"), format!("{text}[control]\nsocket = {socket:?}\n")).unwrap();
    let revoked = ca(&home, &gate, &["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    let file = gate.folder().join("doorward.toml").display().to_string();
    for words in ["another gate runs with", &file, &other.folder().join("doorward.toml").display().to_string()] {
        assert!(revoked.stderr.contains(words), "{words:?} is missing: {revoked}");
    }
}

/// A server that is no gate of this release, at the control socket.
fn impostor(home: &Home, backend: &Backend, answer: impl Fn(&Value, &mut UnixStream) + Send + 'static) {
    let socket = home.path("control.sock");
    let text = format!("{}\n[control]\nsocket = \"control.sock\"\n", config(home, backend));
    std::fs::write(home.path("doorward.toml"), text).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            answer(&serde_json::from_str(&line).unwrap_or_default(), &mut stream);
        }
    });
}

fn status(config: PathBuf) -> Value {
    json!({"status": {
        "version": "0.0.9", "pid": 1, "since": "", "seconds": 1, "draining": false, "config": config, "config_since": "",
        "listeners": [], "routes": [], "accepted": 0, "rejected": 0, "sessions": 0,
    }})
}

#[test]
fn row_33_garbage_or_slow_answers_prove_nothing() {
    for (what, answer) in [("garbage", &b"\xff\x00 rubbish\n"[..]), ("nothing", b""), ("another", b"{\"cut\":{}}\n")] {
        let (home, backend) = with_two_devices();
        impostor(&home, &backend, |_, stream| drop(stream.write_all(answer)));
        let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
        assert_eq!(in_force(&revoked), (false, false, 0), "{what}: {revoked}");
        assert!(revoked.stderr.contains("not verified to be in force"), "{what}: {revoked}");
    }
    // An endless answer, byte by byte.
    let (home, backend) = with_two_devices();
    impostor(&home, &backend, |_, stream| {
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
    assert_eq!(in_force(&revoked), (false, false, 0), "{revoked}");
    assert_eq!(home.devices(), ["alice-phone revoked", "bob-laptop valid"]);
}

#[test]
fn row_33_gate_of_another_release_needs_a_restart() {
    let (home, backend) = with_two_devices();
    let config = home.path("doorward.toml");
    impostor(&home, &backend, move |question, stream| {
        let answer = match question["command"].as_str().unwrap() {
            "status" => status(config.clone()),
            "reload" => json!({"reloaded": {
                "warnings": [], "after_restart": [], "gained": [], "lost": [], "sessions_kept": 0, "sessions_cut": 1,
            }}),
            _ => json!({"error": "this is no question that the gate understands"}),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 65536]);
    });
    for command in [&["revoke", "alice-phone", "--format", "json"][..], &["server", "--format", "json"]] {
        let told = home.ca(command).not_proved();
        assert_eq!(in_force(&told), (false, false, 1), "{told}");
        assert!(told.stderr.contains("is not of this release") && told.stderr.contains("systemctl restart"), "{told}");
    }
}
