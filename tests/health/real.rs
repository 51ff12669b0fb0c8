//! Checks of real services: sshd, nginx, and TLS behind a passthrough route.

use std::net::SocketAddrV4;

use doorward::model::identity::Sha256;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, own_loopback, run, tool, wait_until};
use crate::common::tls_backend;
use crate::home::House;
use crate::{ANY, HEALTHY};

/// Keys of a route that is checked so.
fn checked(health: &str) -> String {
    format!("{ANY}\nhealth = {{ every = \"200ms\", timeout = \"30s\", rise = 1, fall = 1, {health} }}")
}

#[test]
fn sshd_is_told_from_a_web_server_by_what_they_say() {
    let pki = TestPki::new();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    run(tool("ssh-keygen", "openssh-client").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(file("key")))
        .success();
    let ssh = SocketAddrV4::new(own_loopback(), 2222);
    let config =
        format!("ListenAddress {ssh}\nHostKey {}\nPidFile none\nStrictModes no\nUsePAM no\n", file("key").display());
    std::fs::write(file("sshd_config"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        // As RuntimeDirectory= of Debian's unit; sshd as root requires it.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let mut sshd = tool("sshd", "openssh-server");
    let _sshd = Daemon::start(sshd.args(["-D", "-e", "-f"]).arg(file("sshd_config")), ssh);
    let web = SocketAddrV4::new(own_loopback(), 8080);
    let config = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {0}/body;\n  proxy_temp_path {0}/proxy;\n  fastcgi_temp_path {0}/fastcgi;\n  \
         uwsgi_temp_path {0}/uwsgi;\n  scgi_temp_path {0}/scgi;\n  server {{\n    listen {web};\n    return 200 hello;\n  }}\n  \
         server {{\n    listen {1} proxy_protocol;\n    return 200 hello;\n  }}\n}}\n",
        folder.path().display(),
        SocketAddrV4::new(*web.ip(), 8081),
    );
    std::fs::write(file("nginx.conf"), config).unwrap();
    let mut nginx = tool("nginx", "nginx");
    let _nginx = Daemon::start(nginx.arg("-p").arg(folder.path()).arg("-c").arg(file("nginx.conf")), web);
    let (ssh, web) = (ssh.to_string(), web.to_string());
    let behind_header = web.replace(":8080", ":8081");
    let (says_ssh, asks) =
        ("expect = \"SSH-2.0-OpenSSH\"", "send = \"HEAD / HTTP/1.0\\r\\n\\r\\n\", expect = \"HTTP/1.1 200 \"");
    let gate = House::new(&pki)
        .route_with("ssh", &[&ssh], &checked(says_ssh))
        .route_with("web", &[&web], &checked(asks))
        .route_with("v1", &[&behind_header], &format!("send_proxy_protocol = \"v1\"\n{}", checked(asks)))
        .route_with("v2", &[&behind_header], &format!("send_proxy_protocol = \"v2-tls\"\n{}", checked(asks)))
        // What is wrong: the other service's words, and no header where one is expected.
        .route_with("swapped-ssh", &[&ssh], &checked(asks))
        .route_with("swapped-web", &[&web], &checked("send = \"HEAD / HTTP/1.0\\r\\n\\r\\n\", expect = \"SSH-\""))
        .route_with("no-header", &[&behind_header], &checked(asks))
        .open();
    let detail = |route: &str| {
        let is_it = |line: &serde_json::Value| line["event"] == "backend_unhealthy" && line["routes"][0] == *route;
        gate.wait_for_line(route, is_it)["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail("swapped-ssh").starts_with("answered \"SSH-2.0-OpenSSH"), "{}", detail("swapped-ssh"));
    assert!(detail("swapped-web").contains("expected \"SSH-\""), "{}", detail("swapped-web"));
    assert!(detail("no-header").contains("expected \"HTTP/1.1 200 \""), "{}", detail("no-header"));
    for route in ["ssh", "web", "v1", "v2"] {
        assert_eq!(gate.metrics().sum(HEALTHY, &[("route", route)]), 1.0, "{route}");
    }
    // And the checked routes lead there.
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let visit = Client::handshaken(gate.address(), &alice, "web.home.example").unwrap();
    visit.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (page, _) = visit.read_to_end();
    assert!(page.ends_with(b"hello"), "{}", String::from_utf8_lossy(&page));
}

/// The backend of a passthrough route is another gate: it speaks TLS, and shows a certificate that this machine does not trust.
#[test]
fn backend_that_speaks_tls_passes_a_handshake_and_another_does_not() {
    let (pki, elsewhere) = (TestPki::new(), TestPki::new());
    let echo = Backend::echo();
    let backend = House::new(&elsewhere).route("mail", echo.address()).open();
    let plain = Backend::serve(("127.0.0.1", 0), |mut stream, _| {
        let _ = std::io::Write::write_all(&mut stream, b"220 no TLS\r\n");
    });
    let keys = checked("tls = true").replace(ANY, "mode = \"passthrough\"");
    let gate = House::new(&pki)
        .route_with("mail", &[&backend.address().to_string()], &keys)
        .route_with("plain", &[&plain.address().to_string()], &keys)
        .open();
    let line = gate.wait_for_line("the other one fails", |line| line["event"] == "backend_unhealthy");
    assert_eq!(line["routes"], serde_json::json!(["plain"]));
    assert!(line["detail"].as_str().unwrap().starts_with("failed the TLS handshake: "), "{line}");
    // Each check is a handshake without a certificate, which the other gate tells; it was asked for the route's name.
    let is_check = |line: &serde_json::Value| line["reason"] == "required";
    let lines = backend.wait_for_lines("checks", 3, is_check);
    assert!(lines.iter().all(|line| line["server_name"] == "mail.home.example"), "{lines:?}");
    assert_eq!(gate.metrics().sum(HEALTHY, &[("route", "mail")]), 1.0);
    assert_eq!(echo.accepted(), 0);
    drop(gate);
}

/// With `backend_tls`, a check makes the handshake that a device's connection would have.
#[test]
fn certificate_that_the_gate_does_not_accept_fails_the_check() {
    let pki = TestPki::new();
    let (certified, _) = tls_backend::certificate(&pki, "backend.pem");
    let inside = tls_backend::echo(tls_backend::server(&certified));
    let address = inside.address().to_string();
    let pinned = |fingerprint: &str| {
        format!(
            "{}\nbackend_tls = {{ trust = \"sha256:{fingerprint}\" }}",
            checked("send = \"hello\", expect = \"hello\"")
        )
    };
    let seen = Sha256::of(&certified.chain()[0]).to_string();
    let gate = House::new(&pki)
        .route_with("right", &[&address], &pinned(&seen))
        .route_with("wrong", &[&address], &pinned(&"00".repeat(32)))
        .open();
    let line = gate.wait_for_line("the other fingerprint is refused", |line| line["event"] == "backend_unhealthy");
    assert_eq!(line["routes"], serde_json::json!(["wrong"]), "{line}");
    assert!(line["detail"].as_str().unwrap().contains(&seen), "{line}");
    let before = inside.accepted();
    wait_until("both were checked again", || (inside.accepted() >= before + 4).then_some(()));
    assert_eq!(gate.metrics().sum(HEALTHY, &[("route", "right")]), 1.0);
    drop(gate);
}
