//! Orders as the gate's agent places them, without a gate: pebble does not look at challenges here, unless a test says so.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use doorward::acme::Client;
use doorward::acme::order::{Failed, Issued, Responder, Wanted, obtain};
use doorward::acme::store::Store;
use doorward::model::identity::Sha256;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::common::process::own_loopback;
use crate::pebble::{Pebble, Settings};
use crate::relay::Relay;

pub(crate) const NAMES: [&str; 2] = ["nas.home.example", "photos.home.example"];

/// A server, and the folder of a gate.
pub(crate) struct Direct {
    pub(crate) pebble: Pebble,
    pub(crate) relay: Relay,
    folder: TempDir,
    pub(crate) wanted: Wanted,
}

/// Remembers what was offered.
#[derive(Default)]
pub(crate) struct Offered(Mutex<Vec<String>>);

impl Offered {
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
    }
}

impl Responder for Offered {
    fn offer(&self, name: &str, _: Sha256) -> impl Future<Output = Result<(), String>> + Send {
        self.add(name);
        async { Ok(()) }
    }

    fn withdraw(&self, _: &BTreeSet<String>) -> impl Future<Output = ()> + Send {
        self.add("none");
        async {}
    }
}

impl Direct {
    pub(crate) fn new() -> Self {
        Self::with(&Settings { validates: false, ..Settings::default() })
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        let pebble = Pebble::start(own_loopback(), 5443, settings);
        let relay = Relay::start(pebble.address(), &pebble.https_authority());
        let wanted = Wanted {
            directory: relay.directory(),
            contact: vec!["mailto:alice@home.example".to_owned()],
            names: NAMES.iter().map(|&name| name.to_owned()).collect(),
            profile: None,
            external_account: None,
        };
        Self { pebble, relay, folder: tempfile::tempdir().unwrap(), wanted }
    }

    /// A path in the gate's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    pub(crate) fn client(&self) -> Client {
        let trust = CertificateDer::from_pem_file(self.relay.authority()).unwrap();
        Client::new(Some(&[trust])).unwrap()
    }

    /// One attempt, from the beginning to the end.
    pub(crate) async fn attempt(&self) -> Result<Issued, Failed> {
        obtain(&self.wanted, &self.store(), &self.client(), &Offered::default()).await
    }

    /// An attempt that ends well, with what its caller does then.
    #[track_caller]
    pub(crate) fn order(&self) -> impl Future<Output = Issued> {
        let at = std::panic::Location::caller();
        async move {
            let issued = self.attempt().await.unwrap_or_else(|failed| panic!("{at}: {failed}"));
            self.store().keep_certificate(&issued.chain, &issued.key).unwrap();
            self.store().forget_order().unwrap();
            issued
        }
    }

    /// An attempt that fails, and its words.
    #[track_caller]
    pub(crate) fn fails(&self) -> impl Future<Output = Failed> {
        let at = std::panic::Location::caller();
        async move {
            let Err(failed) = self.attempt().await else { panic!("{at}: it should have failed") };
            failed
        }
    }

    /// Whether an order is kept to be gone on with.
    pub(crate) fn has_order(&self) -> bool {
        self.path("order.json").exists()
    }
}

/// The certificates of a chain.
pub(crate) fn certificates(issued: &Issued) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect()
}
