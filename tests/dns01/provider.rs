//! The HTTP API of a provider: `cloudflare.py` answers in the place of Cloudflare, which cannot be reached from here.

use std::net::TcpStream;
use std::path::Path;

use crate::NAME;
use crate::WILDCARD;
use crate::common::pki::{Authority, Certified};
use crate::common::process::{Daemon, tool, wait_until};
use crate::network::{FIRST, SECOND, alone};
use crate::order::{Pebble, agent, failed, is_in_a_sandbox, issued};
use crate::server::{Kind, Server};

const TOKEN: &str = "v1.0-0a1b2c3d4e5f";

/// The API at the address that its name has for this machine's resolver, and the file of the authority of its HTTPS.
fn cloudflare(server: &Server) -> Daemon {
    let authority = Authority::new("HTTPS of the provider");
    let https = authority.issue(Certified::for_servers(&["api.cloudflare.com"]));
    for (name, text) in
        [("api-ca.pem", authority.pem().to_owned()), ("api.pem", https.chain_pem()), ("api-key.pem", https.key_pem())]
    {
        std::fs::write(server.file(name), text).unwrap();
    }
    let mut python = tool("python3", "python3");
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dns01/cloudflare.py")).arg(SECOND.to_string());
    python.arg(server.file("api.pem")).arg(server.file("api-key.pem")).arg(FIRST.to_string());
    python.arg(&server.key_file).arg(TOKEN);
    Daemon::start_until(&mut python, "it listens", || TcpStream::connect((SECOND, 443)).is_ok())
}

/// A gate in whose eyes the machine trusts that authority.
fn ordered_with(token: &str, test: impl FnOnce(&Server, &Daemon, &crate::common::gate::Gate) + Send) {
    alone(|| {
        let mut server = Server::primary(Kind::Bind, FIRST);
        server.add_zone("cloudflare.com", &format!("api A {SECOND}"));
        let (api, pebble) = (cloudflare(&server), Pebble::start());
        let file = server.file("token");
        std::fs::write(&file, token).unwrap();
        let gate = pebble.gate_with(&format!("provider = \"cloudflare\", token_file = {file:?}"), |command| {
            command.env("SSL_CERT_FILE", server.file("api-ca.pem"));
        });
        test(&server, &api, &gate);
    });
}

#[test]
fn name_and_wildcard_are_ordered_by_the_api_of_a_provider() {
    ordered_with(TOKEN, |server, api, gate| {
        assert_eq!(issued(gate), [WILDCARD, NAME]);
        assert!(is_in_a_sandbox(gate));
        // An answer without an end does not fill the machine.
        let limits = std::fs::read_to_string(agent(gate).join("limits")).unwrap();
        let data: Vec<&str> =
            limits.lines().find(|line| line.starts_with("Max data size")).unwrap().split_whitespace().collect();
        assert_eq!(data[3..], ["536870912", "536870912", "bytes"]);
        wait_until("the records are removed", || server.texts(NAME).is_empty().then_some(()));
        let asked = api.output();
        assert!(asked.contains("GET /client/v4/zones?name=home.example"), "{asked}");
        assert_eq!(asked.matches("POST ").count(), 2, "{asked}");
        wait_until("both are removed by the API", || (api.output().matches("DELETE ").count() == 2).then_some(()));
    });
}

#[test]
fn token_that_a_provider_repeats_is_not_shown() {
    let wrong = "v1.0-ffffffffffff";
    ordered_with(wrong, |_, _, gate| {
        let status = failed(gate);
        assert!(status.contains("cloudflare answers: HTTP 403"), "{status}");
        assert!(status.contains("Invalid access token Bearer [hidden]"), "{status}");
        let told = format!("{status}{:?}{}", gate.lines(), gate.stderr());
        assert!(!told.contains(wrong), "{told}");
    });
}
