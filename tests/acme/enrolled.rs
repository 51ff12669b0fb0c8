//! A home from `doorward init --acme`: what devices trust already is enough, and what the gate asks of them is not less.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::process::{Daemon, Finished, own_loopback, run};
use crate::home::{Home, PAGE};
use crate::pebble::{Pebble, Settings};

const URL: &str = "https://nas.home.example/";

fn doorward(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).arg("--config").arg(home.path("doorward/doorward.toml"));
    command
}

#[test]
fn programs_that_trust_the_public_root_get_in_with_the_archive_alone() {
    let (address, nas) = (SocketAddr::from((own_loopback(), 443)), Backend::http(PAGE));
    let std::net::IpAddr::V4(host) = address.ip() else { unreachable!("own_loopback() is IPv4") };
    let pebble = Pebble::start(host, address.port(), &Settings::default());
    let (directory, trust) = (format!("https://{}/dir", pebble.address()), pebble.https_authority());
    let (route, listen) = (format!("nas={}", nas.address()), address.to_string());
    let acme = ["--acme", "--acme-directory", &directory, "--acme-trust", trust.to_str().unwrap()];
    let home = Home::with(&[&["--route", &route, "--listen", &listen][..], &acme].concat());
    // The page of another gate may have the usual port.
    let config = home.path("doorward/doorward.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("address = \"127.0.0.1:9180\"", "address = \"127.0.0.1:0\"")).unwrap();

    let issued = || {
        let shown = run(&mut doorward(&home, &["certificate", "--format", "json"]));
        let shown: Option<Value> = serde_json::from_str(&shown.text()).ok();
        shown.is_some_and(|shown| shown["running"] == true && shown["certificates"][0]["kind"] == "public")
    };
    let mut gate = doorward(&home, &["run"]);
    let gate = Daemon::start_until(&mut gate, "the certificate is issued", issued);

    // Only the root of the ACME server is trusted, and only the archive is there.
    std::fs::write(home.path("root.pem"), pebble.root_pem()).unwrap();
    let archive = home.file("archive").display().to_string();
    let curl = |more: &str| -> Finished {
        let script = format!("curl --silent --show-error --max-time 20 --cacert root.pem {more} {URL}");
        run(&mut home.bash_at(address.ip(), &script))
    };
    let with_archive = format!("--cert-type P12 --cert {archive}:{}", home.password());
    assert_eq!(curl(&with_archive).success().text(), PAGE);
    let without = curl("").failure();
    assert!(!without.text().contains("NAS") && without.stderr.contains("certificate required"), "{without}");

    let database = home.nss_store();
    let chromium = || -> Finished {
        let script = format!("{} --dump-dom {URL}", home.chromium());
        run(&mut home.bash_at(address.ip(), &script))
    };
    let certutil = ["-A", "-t", "C,,", "-n", "public", "-i", "root.pem", "-d", &database];
    run(home.tool("certutil", "libnss3-tools").args(certutil)).success();
    let without = chromium();
    assert!(!without.text().contains("The NAS says hello."), "{without}");
    assert!(without.stderr.contains("ERR_BAD_SSL_CLIENT_AUTH_CERT"), "{without}");
    let import = ["-d", &database, "-K", "", "-W", home.password(), "-i", &archive];
    run(home.tool("pk12util", "libnss3-tools").args(import)).success();
    // Nothing but the device's certificate has come with it.
    let listed = run(home.tool("certutil", "libnss3-tools").args(["-L", "-d", &database])).success().text();
    assert!(!listed.contains("Doorward"), "{listed}");
    let with_archive = chromium().success();
    assert!(with_archive.text().contains("<h1 id=\"marker\">The NAS says hello.</h1>"), "{with_archive}");

    // A second one, at once.
    let renewed = run(&mut doorward(&home, &["certificate", "renew"])).success();
    assert!(renewed.text().contains("A public certificate, which devices trust already:"), "{renewed}");
    assert_eq!(pebble.orders(), 2, "{}", pebble.log());
    drop(gate);
}
