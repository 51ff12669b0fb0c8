//! A folder with the files that a configuration names, in memory.

use std::fs;
use std::path::{Path, PathBuf};

use doorward::config::ConfigErrors;
use doorward::config::checked::Config;
use tempfile::TempDir;

/// The authority whose key made the seeds.
pub const AUTHORITY: &[u8] = include_bytes!("../pki/authority.pem");

/// The folder.
pub struct House(TempDir);

impl House {
    /// With a certificate of the gate's own, and [`AUTHORITY`] for its clients.
    pub fn new() -> Self {
        let house = Self(in_memory());
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["nas.home.example".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        house.write("server.pem", certificate.pem().as_bytes());
        house.write("server-key.pem", key.serialize_pem().as_bytes());
        house.write("clients.pem", AUTHORITY);
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, contents: &[u8]) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// A configuration with these files.
    pub fn load(&self, chain: &str, key: &str, trust: &str, lists: &[&str]) -> Result<Config, ConfigErrors> {
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:8443\"\n\
             [certificate]\nchain = {chain:?}\nkey = {key:?}\n\
             [client_auth]\ntrust = [{trust:?}]\nrevocation_lists = {lists:?}\n\
             [[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
             allow = [\"alice-phone\"]\n"
        );
        let loaded = doorward::config::parse(&text, &self.path("doorward.toml"));
        if let Err(errors) = &loaded {
            printable(&errors.to_string());
        }
        loaded
    }
}

/// A folder of a file system in memory: each input is written there.
pub fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Text for a terminal: nothing in it may control one.
pub fn printable(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
