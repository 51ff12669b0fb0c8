//! Which route is meant.

use doorward::bundle::Bundle;
use doorward::connector::homes::{Homes, NotFound};
use doorward::model::names::ServerName;
use doorward::model::service::ServiceKind;

use crate::people::{Issuer, route};

fn homes() -> (tempfile::TempDir, Homes) {
    let folder = tempfile::tempdir().unwrap();
    let homes = Homes::at(folder.path().join("homes"));
    let issuer = Issuer::new();
    let routes = vec![
        route("ssh", ServiceKind::Ssh, "ssh.home.example"),
        route("nas", ServiceKind::Http, "*.nas.home.example"),
        route("nas", ServiceKind::Http, "nas.home.example"),
        route("lab", ServiceKind::Other, "*.lab.home.example"),
        route("desk", ServiceKind::Ssh, "desk.lab.home.example"),
    ];
    let bundle = Bundle { routes, address: Some("192.0.2.1".to_owned()), port: 8443, ..issuer.bundle("laptop", -1, 9) };
    homes.keep("home.example", &bundle).unwrap();
    let parents = Bundle {
        home: ServerName::parse("parents.example").unwrap(),
        routes: vec![
            route("ssh", ServiceKind::Ssh, "ssh.parents.example"),
            route("photos", ServiceKind::Http, "photos.parents.example"),
        ],
        ..issuer.bundle("laptop", -1, 9)
    };
    homes.keep("parents.example", &parents).unwrap();
    (folder, homes)
}

#[test]
fn names_homes_and_server_names_lead_to_routes() {
    let (_folder, homes) = homes();
    for (wanted, server_name, host, port) in [
        ("photos", "photos.parents.example", "photos.parents.example", 443),
        ("ssh.home.example", "ssh.home.example", "192.0.2.1", 8443),
        ("SSH.Parents.example.", "ssh.parents.example", "ssh.parents.example", 443),
        ("photos.parents.example", "photos.parents.example", "photos.parents.example", 443),
        // Of several server names the one that can be dialled.
        ("nas", "nas.home.example", "192.0.2.1", 8443),
        ("a.nas.home.example", "a.nas.home.example", "192.0.2.1", 8443),
        ("a.lab.home.example", "a.lab.home.example", "192.0.2.1", 8443),
        ("desk.home.example", "desk.lab.home.example", "192.0.2.1", 8443),
    ] {
        let target = homes.find(wanted).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        assert_eq!((target.server_name.as_str(), target.host(), target.port()), (server_name, host, port), "{wanted}");
    }
    // As at the gate, a name goes before a pattern.
    assert_eq!(homes.find("desk.lab.home.example").unwrap().route.name.as_str(), "desk");
}

#[test]
fn what_cannot_be_told_is_said_with_what_there_is() {
    let (folder, homes) = homes();
    let error = |wanted: &str| homes.find(wanted).unwrap_err();
    match error("ssh") {
        NotFound::Ambiguous { choices, .. } => assert_eq!(choices, ["ssh.home.example", "ssh.parents.example"]),
        other => panic!("{other}"),
    }
    let known = ["desk", "lab", "nas", "photos", "ssh.home.example", "ssh.parents.example"];
    for wanted in ["sssh", "ssh.example", "home.example", "", "../ssh", "x.y.lab.home.example"] {
        match error(wanted) {
            NotFound::Unknown { known: there, .. } => assert_eq!(there, known, "{wanted}"),
            other => panic!("{wanted}: {other}"),
        }
    }
    assert!(!error("a\u{1b}[2J").to_string().contains('\u{1b}'));
    let pattern = error("lab").to_string();
    assert!(pattern.contains("answers to every name like *.lab.home.example"), "{pattern}");
    let empty = Homes::at(folder.path().join("none"));
    assert!(matches!(empty.find("ssh"), Err(NotFound::NoHomes)));
    // It may be in the file that cannot be read.
    std::fs::write(homes.file("broken").unwrap(), "version = 1\n").unwrap();
    assert!(matches!(error("sssh"), NotFound::Homes(_)));
    assert!(homes.find("photos").is_ok());
}

/// A file of a stranger that was joined: its names must not lead what the user means elsewhere.
#[test]
fn names_of_one_home_are_not_taken_over_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let homes = Homes::at(folder.path().join("homes"));
    let own = Bundle {
        routes: vec![
            route("ssh", ServiceKind::Ssh, "box.home.example"),
            route("lab", ServiceKind::Ssh, "*.lab.home.example"),
            route("desk", ServiceKind::Ssh, "desk.home.example"),
        ],
        ..Issuer::new().bundle("laptop", -1, 9)
    };
    homes.keep("home.example", &own).unwrap();
    let evil = Bundle {
        home: ServerName::parse("evil.example").unwrap(),
        routes: vec![
            // What the route of the other home is called when it is told from this one.
            route("ssh", ServiceKind::Ssh, "ssh.home.example"),
            // More exact than its pattern.
            route("a", ServiceKind::Ssh, "a.lab.home.example"),
        ],
        ..Issuer::new().bundle("laptop", -1, 9)
    };
    homes.keep("evil.example", &evil).unwrap();
    for (wanted, expected) in [
        ("ssh.home.example", vec!["box.home.example", "ssh.evil.example"]),
        ("ssh", vec!["box.home.example", "ssh.evil.example"]),
        ("a.lab.home.example", vec!["lab", "a"]),
    ] {
        match homes.find(wanted) {
            Err(NotFound::Ambiguous { mut choices, .. }) => {
                choices.sort_unstable();
                let mut expected = expected;
                expected.sort_unstable();
                assert_eq!(choices, expected, "{wanted}");
            }
            Err(other) => panic!("{wanted}: {other}"),
            Ok(target) => panic!("{wanted} leads to {} of {}", target.server_name, target.home.name),
        }
    }
    let found = homes.find("box.home.example").unwrap();
    assert_eq!((found.home.name.as_str(), found.server_name.as_str()), ("home.example", "box.home.example"));
    assert_eq!(homes.find("desk").unwrap().home.name, "home.example");
    assert_eq!(homes.find("ssh.evil.example").unwrap().home.name, "evil.example");
    let wide = Bundle { routes: vec![route("any", ServiceKind::Ssh, "*.home.example")], ..evil };
    homes.keep("wide", &wide).unwrap();
    assert!(
        matches!(homes.find("desk.home.example"), Err(NotFound::Ambiguous { choices, .. }) if choices == ["desk", "any"])
    );
}
