//! The key of a device in a PKCS#11 token: SoftHSM2, and the whole of `doorward`.

mod gone;
mod used;
mod wrong;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use doorward::bundle::{Bundle, BundleKey};
use doorward::pki::CertificateRequest;
use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::common::process::{Finished, run};
use crate::common::token::Token;
use crate::people::{User, doorward};
use crate::scene::Scene;

/// A gate, and a user whose key is in a token.
struct Tokened {
    scene: Scene,
    token: Token,
    user: User,
}

impl Tokened {
    /// With these routes and this type of key. Nothing is joined yet.
    fn new(routes: &str, kind: &str) -> Self {
        Self { scene: Scene::new(routes), token: Token::of(kind), user: User::new() }
    }

    /// With one route, and joined.
    fn joined(name: &str, backend: SocketAddr) -> Self {
        let tokened = Self::new(&crate::scene::route(name, backend), "EC:prime256v1");
        tokened.join().success();
        tokened
    }

    /// `doorward` as the user runs it.
    fn doorward(&self, arguments: &[&str]) -> Command {
        let mut command = doorward();
        command
            .args(arguments)
            .env("HOME", self.user.path(""))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        command.env_remove("SSH_ASKPASS").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        self.token.with(&mut command);
        command
    }

    /// The request that `doorward join --request` prints.
    fn request(&self) -> String {
        run(&mut self.doorward(&["join", "--request", &self.token.uri()])).success().text()
    }

    /// What the owner gives this device: a certificate for the key of its request.
    fn bundle(&self) -> Bundle {
        let der = pem::parse(self.request()).unwrap().into_contents();
        let request = CertificateRequest::read(&der).unwrap();
        self.bundle_for(&SubjectPublicKeyInfo::from_der(request.spki()).unwrap())
    }

    fn bundle_for(&self, key: &SubjectPublicKeyInfo) -> Bundle {
        let chain = self.scene.pki.clients.certify(Scene::device(), key);
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(|one| one.unwrap().into_owned()).collect();
        Bundle { chain, key: BundleKey::OnDevice, ..self.scene.bundle(&self.scene.certified()) }
    }

    /// Its file, without a key.
    fn file(&self) -> PathBuf {
        self.user.given("alice-laptop.doorward", &self.bundle())
    }

    fn join(&self) -> Finished {
        let file = self.file();
        run(&mut self.doorward(&["join", file.to_str().unwrap(), "--key", &self.token.uri()]))
    }

    /// The file of the home.
    fn home(&self) -> PathBuf {
        self.user.home_file("home.example")
    }

    /// Lets the URI of the key in the file of the home be another one.
    fn rename_key(&self, uri: &str) {
        let text = fs::read_to_string(self.home()).unwrap();
        let begin = text.find("\nkey = ").unwrap();
        crate::scene::replace(&self.home(), &format!("{}\nkey = {uri:?}\n", &text[..begin]));
    }
}
