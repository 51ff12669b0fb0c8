//! dns-01: TXT records by real DNS servers (BIND and Knot), and by a program.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod command;
mod network;
mod order;
mod provider;
mod resolver;
mod server;
mod update;
mod visible;

use std::path::Path;
use std::time::Duration;

use doorward::acme::dns::DnsPublisher;
use doorward::config;
use doorward::config::checked::{Challenge, Dns};

/// The name of every test, and its wildcard.
const NAME: &str = "nas.home.example";
const WILDCARD: &str = "*.nas.home.example";

/// Two answers, as an order has them: 43 characters of base64url.
const ONE: &str = "DGyRejmCefe7v4NfDGDKfA1X2RGHqGsi3FzhFdcfm_Q";
const TWO: &str = "-kVb7Tk4l3i9P2m6SxQ0zYhE1wRfUcJdLaOtNgBvX8s";

/// A configuration whose `dns` has these keys.
fn dns(keys: &str) -> Dns {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("doorward.toml");
    let text = format!(
        "[certificate.acme]\nchallenge = \"dns-01\"\ndns = {{ {keys} }}\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"{NAME}\", \"{WILDCARD}\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let (acme, _) = config::load_acme(&file).unwrap_or_else(|errors| panic!("{errors}"));
    let acme = acme.unwrap();
    assert_eq!(acme.names.iter().map(String::as_str).collect::<Vec<_>>(), [WILDCARD, NAME]);
    match &acme.challenge {
        Challenge::Dns01(dns) => dns.clone(),
        other => panic!("{other:?}"),
    }
}

fn publisher(keys: &str) -> DnsPublisher {
    DnsPublisher::new(&dns(keys)).unwrap()
}

/// The keys of a server that takes changes.
fn update_keys(server: &server::Server, key_file: &Path) -> String {
    format!("provider = \"rfc2136\", server = \"{}\", key_file = \"{}\"", server.address, key_file.display())
}

/// Runs what a test asks for, on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(90), future).await };
    runtime.block_on(limited).expect("it ends")
}
