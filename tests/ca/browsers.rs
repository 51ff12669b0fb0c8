//! Cross-protocol requests: what a web page in a browser with a certificate can send to services that are not HTTP.

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::{Finished, run, run_with_input, tool};
use crate::home::Home;

/// A gate with the routes of a configuration that `init` wrote.
fn gate(home: &Home) -> Gate {
    let written = std::fs::read_to_string(home.path("doorward/doorward.toml")).unwrap();
    let (_, routes) = written.split_once("\n[[route]]").unwrap();
    let (routes, _) = routes.split_once("\n# The status page").unwrap();
    let path = |file: &str| home.path("doorward/pki").join(file).display().to_string();
    Gate::start(&format!(
        "{LOCAL}\n[certificate]\nchain = {:?}\nkey = {:?}\n[client_auth]\ntrust = [{:?}]\n[[route]]{routes}",
        path("server.pem"),
        path("server-key.pem"),
        path("clients.pem"),
    ))
}

/// `openssl s_client` with these options sends five bytes, with the device's certificate.
#[track_caller]
fn client(home: &Home, gate: &Gate, name: &str, options: &[&str]) -> Finished {
    let mut openssl = tool("openssl", "openssl");
    openssl.current_dir(home.path("doorward")).args(["s_client", "-quiet", "-no_ign_eof", "-servername", name]);
    openssl.args(["-connect", &gate.address().to_string(), "-CAfile", "pki/server-ca.pem", "-verify_return_error"]);
    openssl.args(["-cert", "devices/alice.pem", "-key", "devices/alice-key.pem"]).args(options);
    run_with_input(&mut openssl, b"hello")
}

#[test]
fn browser_cannot_post_into_raw_routes_that_init_wrote() {
    let home = Home::new();
    let (raw, web) = (Backend::echo(), Backend::http("a page"));
    let routes = ["ssh", "redis", "files-smb", "postgres"];
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--device", "alice"]);
    for route in routes {
        init.args(["--route", &format!("{route}={}", raw.address())]);
    }
    run(init.args(["--route", &format!("web={}", web.address())])).success();
    let gate = gate(&home);
    let browse = |name: &str| {
        let mut curl = tool("curl", "curl");
        curl.current_dir(home.path("doorward")).args(["--silent", "--show-error", "--http0.9", "--max-time", "20"]);
        curl.args(["--cacert", "pki/server-ca.pem", "--cert", "devices/alice.pem", "--key", "devices/alice-key.pem"]);
        let (ip, port) = (gate.address().ip(), gate.address().port());
        curl.args(["--resolve", &format!("{name}:{port}:{ip}"), "--data", "CONFIG SET dir /tmp"]);
        run(curl.arg(format!("https://{name}:{port}/")))
    };
    for (count, route) in routes.iter().enumerate() {
        browse(&format!("{route}.home.example")).failure();
        gate.wait_rejected("handshake", "no_application_protocol", count + 1);
    }
    assert_eq!((raw.accepted(), raw.received()), (0, 0), "the services have heard nothing");
    // The same browser gets to the page.
    assert_eq!(browse("web.home.example").success().text(), "a page");

    // Clients without ALPN (ssh through OpenSSL, stunnel, smb clients), and those that offer the service's own.
    let clients = [
        ("ssh", &[][..]),
        ("redis", &["-tls1_2"]),
        ("files-smb", &[]),
        ("postgres", &["-alpn", "postgresql"]),
        ("ssh", &["-alpn", "ssh"]),
    ];
    for ((route, options), count) in clients.into_iter().zip(1..) {
        client(&home, &gate, &format!("{route}.home.example"), options).success();
        raw.wait_received(count * 5);
    }
}
