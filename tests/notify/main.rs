//! Messages to the owner: what receivers are sent, and that nothing waits for them.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/home.rs"]
mod home;

#[expect(dead_code, reason = "shared with tests/ca")]
#[path = "../ca/home.rs"]
mod folder;

mod delivery;
mod processes;
mod receiver;
mod renewal;
mod tried;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use client::Client;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use home::House;

const NAS: &str = "nas.home.example";

/// A gate in front of a backend that can be taken down and brought back, and a device.
pub(crate) struct Scene {
    pub(crate) pki: TestPki,
    device: Arc<ClientConfig>,
    backend: Option<Backend>,
    address: SocketAddr,
    config: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let device = client::client(&pki, Some(&pki.client("alice-phone")));
        let address = backend.address();
        let config = House::new(&pki).route("nas", address).config();
        let config = format!("{config}\n[control]\nsocket = \"control.sock\"\n");
        Self { pki, device, backend: Some(backend), address, config }
    }

    /// The configuration with these keys of `[notify]`.
    pub(crate) fn config(&self, notify: &str) -> String {
        format!("{}\n[notify]\n{notify}\n", self.config)
    }

    /// The same without `[notify]`.
    pub(crate) fn silent(&self) -> &str {
        &self.config
    }

    /// Has the device connect, and the gate see whether the backend answers.
    #[track_caller]
    pub(crate) fn connect(&self, gate: &Gate) {
        let client = Client::handshaken(gate.address(), &self.device, NAS).unwrap();
        assert_eq!(client.ping().is_ok(), self.backend.is_some(), "the backend answers if it is there");
        drop(client);
        gate.settled();
    }

    /// Takes the backend down, and has the gate see it.
    #[track_caller]
    pub(crate) fn down(&mut self, gate: &Gate) {
        self.backend = None;
        self.connect(gate);
    }

    /// Brings it back, and has the gate see it.
    #[track_caller]
    pub(crate) fn up(&mut self, gate: &Gate) {
        self.backend = Some(Backend::serve(self.address, |mut stream, state| {
            state.each_read(stream, |bytes| std::io::Write::write_all(&mut stream, bytes).is_ok());
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }));
        self.connect(gate);
    }

    pub(crate) fn backend_address(&self) -> String {
        self.address.to_string()
    }
}

/// `doorward status` as JSON.
#[track_caller]
pub(crate) fn status(gate: &Gate) -> Value {
    serde_json::from_slice(&gate.ask(&["status", "--format", "json"]).success().stdout).unwrap()
}
