//! `doorward forward`: which routes, of which home, on which addresses; and what is said of rules that cannot be.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use doorward::bundle::Bundle;
use doorward::connector::homes::Homes;
use rustix::process::Signal;

use crate::common::DEADLINE;
use crate::common::bundle::bundle_route;
use crate::common::process::{Finished, run};
use crate::forward::echo;
use crate::scene::{Running, Scene};

/// A user with homes.
struct User<'a>(&'a Scene);

impl User<'_> {
    fn homes(&self) -> Homes {
        Homes::at(self.0.path("doorward/homes"))
    }

    fn joins(&self, name: &str, bundle: &Bundle) {
        self.homes().keep(name, bundle).unwrap();
    }

    fn forward(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("forward").args(arguments).env("XDG_CONFIG_HOME", self.0.folder.path());
        command.env("HOME", self.0.folder.path()).env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// What is said with this file of routes, after its path.
    #[track_caller]
    fn refused(&self, routes: &str, code: i32) -> String {
        let file = self.0.path("doorward/forward.toml");
        fs::write(&file, routes).unwrap();
        let refused = run(&mut self.forward(&[]));
        assert_eq!(refused.status.code(), Some(code), "{refused}");
        let named = format!("error: {}:", file.display());
        refused.stderr.strip_prefix(&named).unwrap_or_else(|| panic!("{named}: {refused}")).trim_start().to_owned()
    }
}

/// Where it listens, in the order of its lines.
fn locals(errors: &str) -> Vec<String> {
    errors.lines().filter_map(|line| Some(line.split_once(" on ")?.1.to_owned())).collect()
}

/// What a session brings back for this.
fn exchange(local: &str, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(local.parse::<SocketAddr>().unwrap())?;
    stream.set_read_timeout(Some(2 * DEADLINE))?;
    stream.write_all(sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

#[test]
fn forwarded_route_stays_that_of_its_home() {
    let ((_backend, scene), (other_backend, other)) = (echo(), echo());
    let user = User(&scene);
    user.joins("home.example", &scene.bundle(&scene.certified()));
    let mut running = Running::start(&mut user.forward(&["echo=0"]));
    running.wait_for("echo on ");
    let local = locals(&running.errors()).remove(0);
    assert_eq!(exchange(&local, b"first").unwrap(), b"first");

    // Another home with a route of the same name.
    user.joins("work", &other.bundle(&other.certified()));
    assert_eq!(exchange(&local, b"second").unwrap(), b"second");
    running.wait_for("new connections use them");

    // It does not take the place of one that is gone.
    user.homes().remove("home.example").unwrap();
    exchange(&local, b"third").unwrap_err();
    running.wait_for("no home called \"home.example\" was joined");
    assert_eq!(other_backend.accepted(), 0);
}

#[test]
fn installed_rules_name_their_home_and_are_checked_first() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    let install = |arguments: &[&str]| run(&mut user.forward(&[arguments, &["--install"]].concat()));
    let unit = scene.path("systemd/user/doorward-forward.service");
    let refused = install(&["echo=2222"]).failure();
    assert!(refused.stderr.contains("this user has joined no home"), "{refused}");
    user.joins("home.example", &scene.bundle(&scene.certified()));
    for (rule, reason) in
        [("photos=2222", "no route is called \"photos\""), ("echo=0.0.0.0:2222", "can be reached from other machines")]
    {
        let refused = install(&[rule]).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(reason), "{refused}");
    }
    assert!(!unit.exists());

    // A second home may have a route of the same name.
    let first = install(&["echo=2222"]).success();
    assert!(fs::read_to_string(&unit).unwrap().contains("forward echo.home.example=2222\n"));
    assert!(!first.text().contains("restart"), "{first}");
    // The one that runs has the earlier routes.
    let second = install(&["echo=2223"]).success();
    assert!(fs::read_to_string(&unit).unwrap().contains("forward echo.home.example=2223\n"));
    assert!(second.text().ends_with("systemctl --user restart doorward-forward\n"), "{second}");
    assert!(second.stderr.starts_with("replaced: "), "{second}");

    let mut running = Running::start(&mut user.forward(&["echo.home.example=0"]));
    running.wait_for("echo on ");
}

#[test]
fn rules_that_share_an_address_are_told() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    let mut bundle = scene.bundle(&scene.certified());
    bundle.routes.push(bundle_route("db"));
    user.joins("home.example", &bundle);
    let socket = format!("unix:{}", scene.path("a.sock").display());
    // A port that is free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (one, other) in [
        (port.to_string(), format!("127.0.0.1:{port}")),
        (port.to_string(), format!("localhost:{port}")),
        (socket.clone(), socket),
    ] {
        let refused = run(&mut user.forward(&[&format!("echo={one}"), &format!("db={other}")]));
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.starts_with("error: echo and db share "), "{refused}");
        assert!(!refused.stderr.contains("another program"), "{refused}");
    }
    let mut running = Running::start(&mut user.forward(&["echo=0", "db=0"]));
    running.wait_for("db on ");
}

#[test]
fn every_route_is_forwarded_however_many_there_are() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    let mut bundle = scene.bundle(&scene.certified());
    for name in ["a", "b", "c", "d", "e", "f"] {
        let mut route = bundle_route(name);
        route.kind = doorward::model::service::ServiceKind::Http;
        bundle.routes.push(route);
    }
    user.joins("home.example", &bundle);
    let mut running = Running::start(&mut user.forward(&[]));
    running.wait_for("f on 127.0.0.1:");
    assert_eq!(locals(&running.errors()).len(), 7, "{}", running.errors());
}

#[test]
fn chosen_port_goes_before_a_usual_one() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    let mut bundle = scene.bundle(&scene.certified());
    bundle.routes.push(bundle_route("vnc"));
    user.joins("home.example", &bundle);
    // The usual port of vnc, if another test does not have it.
    let Ok(free) = TcpListener::bind("127.0.0.1:5900") else { return };
    drop(free);
    let mut running = Running::start(&mut user.forward(&["vnc", "echo=5900"]));
    running.wait_for("echo on 127.0.0.1:5900");
    assert!(locals(&running.errors())[0] != "127.0.0.1:5900", "{}", running.errors());
}

#[test]
fn mistakes_in_the_file_of_routes_have_its_name_and_their_line() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    user.joins("home.example", &scene.bundle(&scene.certified()));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("[[forward]]\nroute = \"echo\"\nlisten = \"{}\"\n", other.local_addr().unwrap());
    let route = |rest: &str| format!("# mine\n\n[[forward]]\nroute = \"echo\"\n{rest}\n");
    for (text, code, line, reason) in [
        (route("listen = \"nas:22\""), 2, 5, "\"nas:22\" is no local address: give a port"),
        (route("listen = \"unix:a.sock\""), 2, 5, "give the whole path"),
        (route("listen = 70000"), 2, 5, "70000 is no port"),
        (route("listen = -1"), 2, 5, "-1 is no port"),
        (route("listen = true"), 2, 5, "a port, ADDRESS:PORT or unix:/PATH"),
        (route("listen = \"0.0.0.0:22\""), 2, 5, "can be reached from other machines"),
        (route("[[forward]]\nroute = \"photos\""), 2, 6, "no route is called \"photos\""),
        (
            route("listen = 4000\n[[forward]]\nroute = \"echo\"\nlisten = 4000"),
            2,
            8,
            "echo and echo share 127.0.0.1:4000",
        ),
        (route("port = 4000"), 2, 5, "unknown field `port`"),
        (taken, 4, 3, "is in use by another program\n  choose another one there: listen = \"ADDRESS:PORT\""),
    ] {
        let said = user.refused(&text, code);
        let has_line = said.starts_with(&format!("{line}: ")) || said.contains(&format!(" at line {line}, "));
        assert!(has_line && said.contains(reason), "{text}: line {line}, {reason}: {said}");
        assert!(!said.contains("untagged"), "{said}");
    }
}

#[test]
fn forwarder_beside_another_says_which_answers() {
    let (_backend, scene) = echo();
    let user = User(&scene);
    user.joins("home.example", &scene.bundle(&scene.certified()));
    let runtime = scene.path("run");
    fs::create_dir(&runtime).unwrap();
    let start = || Running::start(user.forward(&["echo=0"]).env("XDG_RUNTIME_DIR", &runtime));
    let mut first = start();
    first.wait_for("echo on ");
    let mut second = start();
    second.wait_for("another \"doorward forward\" of this user runs: --status tells of that one");
    let status: Finished = run(user.forward(&["--status"]).env("XDG_RUNTIME_DIR", &runtime)).success();
    assert!(status.text().contains(&locals(&first.errors())[0]), "{status}");
    first.signal(Signal::TERM);
    assert!(first.end().success());
    assert_eq!(exchange(&locals(&second.errors())[0], b"hello").unwrap(), b"hello");
}

#[test]
fn user_without_a_home_is_told_so() {
    let (_backend, scene) = echo();
    let refused = run(&mut User(&scene).forward(&[]));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.starts_with("error: this user has joined no home\n"), "{refused}");
}
