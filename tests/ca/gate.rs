//! Who is let in by a running gate.

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::{Finished, run, tool};
use crate::home::Home;

fn config(home: &Home, backend: &Backend) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    format!(
        "{LOCAL}\n[certificate]\nchain = {:?}\nkey = {:?}\n[client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n",
        path("pki/server.pem"),
        path("pki/server-key.pem"),
        path("pki/clients.pem"),
        path("pki/clients.crl"),
        backend.address(),
    )
}

fn visit(home: &Home, gate: &Gate, device: &str) -> Finished {
    let mut curl = tool("curl", "curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(home.path("pki/server-ca.pem"));
    let address = gate.address();
    curl.arg("--resolve").arg(format!("nas.home.example:{}:{}", address.port(), address.ip()));
    curl.arg("--cert").arg(home.path(&format!("devices/{device}.pem")));
    curl.arg("--key").arg(home.path(&format!("devices/{device}-key.pem")));
    run(curl.arg(format!("https://nas.home.example:{}/", address.port())))
}

#[test]
fn a_device_comes_in_at_once_is_renewed_and_is_out_when_it_was_revoked() {
    let home = Home::with_authorities();
    let backend = Backend::http("Hello from the NAS.");
    {
        let gate = Gate::start(&config(&home, &backend));
        // The gate runs already: it knows the authority, and needs to know no device.
        home.ca(&["device", "alice-phone"]).success();
        home.ca(&["device", "bob-laptop"]).success();
        assert_eq!(visit(&home, &gate, "alice-phone").success().text(), "Hello from the NAS.");
        home.ca(&["renew", "alice-phone"]).success();
        assert_eq!(visit(&home, &gate, "alice-phone").success().text(), "Hello from the NAS.");
    }
    home.ca(&["revoke", "alice-phone"]).success();
    // The gate's certificate was renewed meanwhile, and devices notice nothing.
    home.ca(&["renew", "--server"]).success();
    let gate = Gate::start(&config(&home, &backend));
    let before = backend.accepted();
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    assert_eq!(backend.accepted(), before);
    assert_eq!(visit(&home, &gate, "bob-laptop").success().text(), "Hello from the NAS.");
}
