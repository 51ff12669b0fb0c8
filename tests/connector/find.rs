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
