//! A home whose gate takes requests, and `curl` and `openssl` as a device that is no program of ours.

use std::path::PathBuf;
use std::process::Command;

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::{Finished, run, tool};
use crate::home::Home;

pub(crate) const RENEW: &str = "renew.home.example";
pub(crate) const REENROLL: &str = "/.well-known/est/simplereenroll";

/// A home with a running gate. The gate is dropped first.
pub(crate) struct House {
    pub(crate) gate: Gate,
    pub(crate) home: Home,
    pub(crate) nas: Backend,
}

/// What `curl` got.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl House {
    /// With these devices.
    pub(crate) fn of(devices: &[&str]) -> Self {
        let home = Home::with_authorities();
        for device in devices {
            home.ca(&["device", device]).success();
        }
        Self::at(home, "")
    }

    /// In this folder, with more lines of configuration.
    pub(crate) fn at(home: Home, more: &str) -> Self {
        let nas = Backend::echo();
        let gate = Gate::start_with_control(&config(&home, &nas, more));
        Self { gate, home, nas }
    }

    /// `doorward ca` with the authorities and the gate of this house.
    pub(crate) fn ca(&self, arguments: &[&str]) -> Finished {
        let config = self.gate.folder().join("doorward.toml").display().to_string();
        let pki = self.home.path("pki").display().to_string();
        self.home.ca(&[arguments, &["--folder", &pki, "--config", &config]].concat())
    }

    /// The owner approves the new key with which a device asks, as if it had been compared.
    pub(crate) fn approve_key(&self, device: &str) {
        let listed = self.ca(&["requests", "--format", "json"]).success();
        let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
        let request = listed.iter().find(|request| request["name"] == device).unwrap();
        self.ca(&["approve", device, "--new-key", request["key_sha256"].as_str().unwrap()]).success();
    }

    /// The folder of requests.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path("renewal")
    }

    /// A request with the key of this file, made by OpenSSL for another name; in base64.
    pub(crate) fn request(&self, key: &str) -> String {
        let key = self.home.path(key).display().to_string();
        let subject = ["-subj", "/CN=bob-laptop/OU=admins", "-addext", "subjectAltName=DNS:nas.home.example"];
        let file = self.home.path("request.der").display().to_string();
        let output = ["req", "-new", "-key", &key, "-outform", "DER", "-out", &file];
        self.home.openssl(&[&output[..], &subject[..]].concat()).success();
        let text = self.home.openssl(&["base64", "-in", &file]).success();
        text.text()
    }

    /// `curl` as a device, to a server name of the house.
    pub(crate) fn curl(&self, device: Option<&str>, name: &str, path: &str) -> Command {
        let mut curl = tool("curl", "curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "20", "--cacert"]);
        curl.arg(self.home.path("pki/server-ca.pem"));
        let address = self.gate.address();
        curl.arg("--resolve").arg(format!("{name}:{}:{}", address.port(), address.ip()));
        if let Some(device) = device {
            curl.arg("--cert").arg(self.home.path(&format!("devices/{device}.pem")));
            curl.arg("--key").arg(self.home.path(&format!("devices/{device}-key.pem")));
        }
        curl.arg(format!("https://{name}:{}{path}", address.port()));
        curl
    }

    /// Sends a body as a request for a certificate.
    pub(crate) fn send(&self, device: &str, body: &str) -> Answer {
        let mut curl = self.curl(Some(device), RENEW, REENROLL);
        curl.args(["--header", "Content-Type: application/pkcs10", "--data-binary", body]);
        answer(&run(&mut curl).success())
    }

    /// The certificate that an answer holds, as OpenSSL reads it, in PEM.
    pub(crate) fn issued(&self, answer: &Answer) -> String {
        let file = self.home.path("answer.p7");
        std::fs::write(&file, format!("-----BEGIN PKCS7-----\n{}-----END PKCS7-----\n", answer.body)).unwrap();
        let printed = self.home.openssl(&["pkcs7", "-print_certs", "-in", &file.display().to_string()]).success();
        printed.text()
    }
}

/// Takes apart what `curl --include` has printed.
pub(crate) fn answer(finished: &Finished) -> Answer {
    let text = String::from_utf8_lossy(&finished.stdout).replace("\r\n", "\n");
    let mut rest = text.as_str();
    loop {
        let (headers, body) = rest.split_once("\n\n").unwrap_or_else(|| panic!("no answer: {finished}"));
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        if status != 100 {
            return Answer { status, headers: headers.to_lowercase(), body: body.to_owned() };
        }
        rest = body;
    }
}

pub(crate) fn config(home: &Home, nas: &Backend, more: &str) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    let local = LOCAL.replace("[metrics]\n", &format!("[metrics]\ninventory = {:?}\n", path("pki/inventory.toml")));
    format!(
        "{local}\n[certificate]\nchain = {:?}\nkey = {:?}\n[client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
         [renewal]\nserver_name = \"{RENEW}\"\nfolder = {:?}\n{more}",
        path("pki/server.pem"),
        path("pki/server-key.pem"),
        path("pki/clients.pem"),
        path("pki/clients.crl"),
        nas.address(),
        path("renewal"),
    )
}
