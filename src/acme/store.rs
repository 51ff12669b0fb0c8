//! What is kept in the folder of `[certificate.acme]`, so that a process that is killed at any moment loses nothing.
//!
//! | file | has |
//! |---|---|
//! | `live/certificate.pem` | the certificate in use: its chain, its key. One file, so that both always fit; HAProxy, nginx and others take it |
//! | `account/key.pem` | the account's key, PKCS#8: written before the account exists, so that there is never a second one |
//! | `account/accounts.json` | the account's URL at each directory |
//! | `account/order.json` | the order under way: its URL, its names, and the key of its certificate |
//! | `account/issued.json` | where the certificate in use was ordered |
//! | `account/tried.json` | where an order has succeeded on trial |
//! | `account/failures.json` | the orders that have failed in a row, and when the next one may begin |
//! | `account/lock` | locked by the process that writes all this |
//!
//! Each is replaced in one step, and only its owner may read it (0600). A gate in its sandbox reads `live` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pem::Pem;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::checked::Acme;
use crate::files::{self, Access, Existing, NewFile};
use crate::model::issuance::FailedOrder;

const ACCOUNT_KEY: &str = "account/key.pem";
const ACCOUNTS: &str = "account/accounts.json";
const ORDER: &str = "account/order.json";
const ISSUED: &str = "account/issued.json";
const TRIED: &str = "account/tried.json";
const FAILURES: &str = "account/failures.json";
const LOCK: &str = "account/lock";

/// The label of a PKCS#8 key (RFC 7468 section 10).
const KEY_LABEL: &str = "PRIVATE KEY";

/// A file of the folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] files::Error),
    /// It cannot be read.
    #[error("failed to read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{path} is damaged ({error}): remove it to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// An account at a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Its URL.
    pub(crate) url: String,
    /// How the server was told that its owner can be reached.
    pub(crate) contact: Option<String>,
}

/// What was ordered, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ordered {
    /// The URL of the server's directory.
    pub(crate) directory: String,
    /// The names.
    pub(crate) names: BTreeSet<String>,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub(crate) at: i64,
}

/// Orders that have failed in a row. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failures {
    /// What was ordered.
    pub(crate) ordered: Ordered,
    /// The last one.
    pub(crate) last: FailedOrder,
    /// When the next one may begin.
    pub(crate) not_before: i64,
}

/// An order that has been placed, and is not over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedOrder {
    /// The URL of the server's directory.
    pub(crate) directory: String,
    /// The URL of the order; empty until the server has it.
    pub(crate) url: String,
    /// The names that it is about.
    pub(crate) names: BTreeSet<String>,
    /// The key of its certificate, PKCS#8 in PEM.
    pub(crate) key: String,
}

impl std::fmt::Debug for PlacedOrder {
    /// Keys are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacedOrder").field("url", &self.url).field("names", &self.names).finish_non_exhaustive()
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

impl Store {
    /// The folder at `path`, which is made when something is written.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The account's key, PKCS#8 in DER; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no such key.
    pub(crate) fn account_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let Some(text) = self.read(ACCOUNT_KEY)? else { return Ok(None) };
        let damaged = |error: String| StoreError::Damaged { path: self.0.join(ACCOUNT_KEY), error };
        let pem = pem::parse(text.as_slice()).map_err(|error| damaged(error.to_string()))?;
        if pem.tag() != KEY_LABEL {
            return Err(damaged(format!("it holds a {}", pem.tag())));
        }
        Ok(Some(Zeroizing::new(pem.into_contents())))
    }

    /// Keeps the account's key.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_account_key(&self, pkcs8: &[u8]) -> Result<(), StoreError> {
        self.write(ACCOUNT_KEY, pem::encode(&Pem::new(KEY_LABEL, pkcs8)).into_bytes())
    }

    /// Puts the account's key, which the server refuses, aside, and forgets all accounts with it.
    ///
    /// # Errors
    ///
    /// A file cannot be renamed or removed.
    pub(crate) fn put_account_key_aside(&self) -> Result<(), StoreError> {
        let (path, aside) = (self.0.join(ACCOUNT_KEY), self.0.join(format!("{ACCOUNT_KEY}.refused")));
        self.remove(ACCOUNTS)?;
        match std::fs::rename(&path, aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Read { path, error }),
            _ => Ok(()),
        }
    }

    /// The account at this directory.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn account(&self, directory: &str) -> Result<Option<Account>, StoreError> {
        Ok(self.accounts()?.remove(directory))
    }

    /// Keeps the account at this directory; `None` for one that the server no longer knows.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_account(&self, directory: &str, account: Option<&Account>) -> Result<(), StoreError> {
        let mut accounts = self.accounts()?;
        match account {
            Some(account) => accounts.insert(directory.to_owned(), account.clone()),
            None => accounts.remove(directory),
        };
        self.write_json(ACCOUNTS, &accounts)
    }

    fn accounts(&self) -> Result<BTreeMap<String, Account>, StoreError> {
        Ok(self.read_json(ACCOUNTS)?.unwrap_or_default())
    }

    /// The order under way for these names.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn order(&self, directory: &str, names: &BTreeSet<String>) -> Result<Option<PlacedOrder>, StoreError> {
        let order = self.read_json::<PlacedOrder>(ORDER)?;
        let is_placed = |order: &PlacedOrder| !order.url.is_empty();
        Ok(order.filter(|order| is_placed(order) && order.directory == directory && order.names == *names))
    }

    /// Keeps an order that has been placed.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_order(&self, order: &PlacedOrder) -> Result<(), StoreError> {
        self.write_json(ORDER, order)
    }

    /// The order is over.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub(crate) fn forget_order(&self) -> Result<(), StoreError> {
        self.remove(ORDER)
    }

    /// The certificate in use, in PEM: its chain, its key.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn certificate(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.read(Acme::CERTIFICATE)
    }

    /// Replaces the certificate in use: its chain, its key.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_certificate(&self, pem: Vec<u8>) -> Result<(), StoreError> {
        self.write(Acme::CERTIFICATE, pem)
    }

    /// Where the certificate in use was ordered.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn issued(&self) -> Result<Option<Ordered>, StoreError> {
        self.read_json(ISSUED)
    }

    /// Keeps where the certificate in use was ordered.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_issued(&self, ordered: &Ordered) -> Result<(), StoreError> {
        self.write_json(ISSUED, ordered)
    }

    /// Where an order has succeeded on trial.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn tried(&self) -> Result<Option<Ordered>, StoreError> {
        self.read_json(TRIED)
    }

    /// Keeps where an order has succeeded on trial.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn keep_tried(&self, ordered: &Ordered) -> Result<(), StoreError> {
        self.write_json(TRIED, ordered)
    }

    /// The orders that have failed in a row.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn failures(&self) -> Result<Option<Failures>, StoreError> {
        self.read_json(FAILURES)
    }

    /// Keeps the orders that have failed in a row; `None` if the last one has not.
    ///
    /// # Errors
    ///
    /// The file cannot be written or removed.
    pub(crate) fn keep_failures(&self, failures: Option<&Failures>) -> Result<(), StoreError> {
        match failures {
            Some(failures) => self.write_json(FAILURES, failures),
            None => self.remove(FAILURES),
        }
    }

    /// Makes the folders, which only their owner may open. In its sandbox, a gate cannot.
    ///
    /// # Errors
    ///
    /// They cannot be made.
    pub(crate) fn make_folders(&self) -> io::Result<()> {
        for file in [Acme::CERTIFICATE, LOCK] {
            let folder = self.0.join(file);
            let folder = folder.parent().unwrap_or(&self.0);
            if folder.is_dir() {
                continue;
            }
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NOSYS) => {
                    io::Error::other(format!("{} is gone: start the gate again, which makes it", folder.display()))
                }
                _ => io::Error::new(error.kind(), format!("{} cannot be made: {error}", folder.display())),
            })?;
        }
        Ok(())
    }

    /// Locks the folder for this process, until the value is dropped; `None` as long as another process has it. Removes what processes
    /// before it have left unfinished.
    ///
    /// # Errors
    ///
    /// The lock's file cannot be made.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        self.make_folders()?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.0.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                for name in [Acme::CERTIFICATE, LOCK] {
                    files::remove_unfinished(self.0.join(name).parent().unwrap_or(&self.0))?;
                }
                Ok(Some(file))
            }
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.0.join(name);
        match files::placed::contents(&path) {
            Ok(contents) => Ok(Some(Zeroizing::new(contents))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::Read { path, error }),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.read(name)? else { return Ok(None) };
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|error| StoreError::Damaged { path: self.0.join(name), error: error.to_string() })
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(value);
        let damaged =
            |error: serde_json::Error| StoreError::Damaged { path: self.0.join(name), error: error.to_string() };
        self.write(name, text.map_err(damaged)?)
    }

    fn write(&self, name: &str, contents: Vec<u8>) -> Result<(), StoreError> {
        let file = NewFile { path: self.0.join(name), contents, access: Access::Private };
        files::write_all(&[file], Existing::Replace)?;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        match files::placed::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Read { path, error }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn everything_comes_back_as_it_was_kept_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(&folder.path().join("acme"));
        assert!(store.account_key().expect("none").is_none() && store.certificate().expect("none").is_none());
        store.keep_account_key(&[7; 48]).expect("a key");
        assert_eq!(store.account_key().expect("a key").as_deref(), Some(&vec![7; 48]));
        let at_a = Account { url: "https://a/1".to_owned(), contact: Some("mailto:me@home.example".to_owned()) };
        store.keep_account("https://a/dir", Some(&at_a)).expect("an account");
        store.keep_account("https://b/dir", Some(&Account { contact: None, ..at_a.clone() })).expect("another one");
        store.keep_account("https://b/dir", None).expect("it is forgotten");
        assert_eq!(store.account("https://a/dir").expect("an account"), Some(at_a));
        assert_eq!(store.account("https://b/dir").expect("none there"), None);
        let names = BTreeSet::from(["nas.home.example".to_owned()]);
        let (directory, url, key) = ("https://a/dir".to_owned(), "https://a/o/1".to_owned(), "a key".to_owned());
        let order = PlacedOrder { directory, url, names: names.clone(), key };
        store.keep_order(&order).expect("an order");
        assert_eq!(store.order("https://a/dir", &names).expect("an order"), Some(order));
        assert_eq!(store.order("https://a/dir", &BTreeSet::new()).expect("not of these"), None);
        store.forget_order().expect("it is over");
        store.forget_order().expect("it is over already");
        assert_eq!(store.order("https://a/dir", &names).expect("none"), None);
        store.keep_certificate(b"chain\nkey\n".to_vec()).expect("a certificate");
        assert_eq!(store.certificate().expect("it").as_deref().map(Vec::as_slice), Some(&b"chain\nkey\n"[..]));
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        let lock = store.lock().expect("a lock");
        assert!(lock.is_some() && store.lock().expect("it is locked").is_none());
        drop(lock);
        assert!(store.lock().expect("a lock").is_some());
        store.put_account_key_aside().expect("it is put aside");
        assert!(store.account_key().expect("none").is_none());
        for name in ["acme", "acme/account", "acme/live"] {
            assert_eq!(mode(&folder.path().join(name)), 0o700, "{name}");
        }
        for name in ["account", "live"] {
            for file in std::fs::read_dir(folder.path().join("acme").join(name)).expect("the folder") {
                assert_eq!(mode(&file.expect("a file").path()), 0o600);
            }
        }
    }

    #[test]
    fn damaged_file_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        store.make_folders().expect("folders");
        std::fs::write(folder.path().join(ORDER), "{").expect("a file");
        let error = store.order("", &BTreeSet::new()).expect_err("it is damaged").to_string();
        assert!(error.contains("order.json is damaged") && error.contains("remove it"), "{error}");
        std::fs::write(folder.path().join(ACCOUNT_KEY), "-----BEGIN X-----\nAA==\n-----END X-----\n").expect("a file");
        let error = store.account_key().expect_err("no key").to_string();
        assert!(error.contains("account/key.pem is damaged (it holds a X)"), "{error}");
    }
}
