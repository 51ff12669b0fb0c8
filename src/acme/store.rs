//! What is kept in the folder of `[certificate.acme]`, so that a process that is killed at any moment loses nothing.
//!
//! | file | has |
//! |---|---|
//! | `account-key.pem` | the account's key, PKCS#8: written before the account exists, so that there is never a second one |
//! | `account-key.old.pem` | the key before that, if its account was deactivated |
//! | `account.json` | the account's URL, and its directory |
//! | `order.json` | the order under way: its URL, its names, and the key of its certificate |
//! | `certificate.pem` | the certificate in use: its chain, its key. One file, so that both always fit; HAProxy, nginx and others take it |
//!
//! Each is replaced in one step, and only its owner may read it (0600).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pem::Pem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{self, Access, Existing, NewFile};

const ACCOUNT_KEY: &str = "account-key.pem";
/// A key that the server does not take any more.
const OLD_ACCOUNT_KEY: &str = "account-key.old.pem";
const ACCOUNT: &str = "account.json";
const ORDER: &str = "order.json";
/// The certificate in use.
pub const CERTIFICATE: &str = "certificate.pem";

/// The label of a PKCS#8 key (RFC 7468 section 10).
const KEY_LABEL: &str = "PRIVATE KEY";

/// A file of the folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
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
pub struct Account {
    /// The URL of the server's directory.
    pub directory: String,
    /// The URL of the account.
    pub url: String,
    /// How the server was told that its owner can be reached.
    #[serde(default)]
    pub contact: Vec<String>,
}

/// An order that has been placed, and is not over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOrder {
    /// The URL of the server's directory.
    pub directory: String,
    /// The URL of the order.
    pub url: String,
    /// The names that it is about.
    pub names: BTreeSet<String>,
    /// The key of its certificate, PKCS#8 in PEM.
    pub key: String,
}

impl std::fmt::Debug for PlacedOrder {
    /// Keys are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacedOrder").field("url", &self.url).field("names", &self.names).finish_non_exhaustive()
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// The folder at `path`, which is made when something is written.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The account's key, PKCS#8 in DER; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no such key.
    pub fn account_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
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
    pub fn keep_account_key(&self, pkcs8: &[u8]) -> Result<(), StoreError> {
        self.write(ACCOUNT_KEY, pem::encode(&Pem::new(KEY_LABEL, pkcs8)).into_bytes())
    }

    /// Sets the account's key aside: another one is made. Only the last one is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be renamed.
    pub fn set_account_key_aside(&self) -> Result<(), StoreError> {
        let path = self.0.join(ACCOUNT_KEY);
        fs::rename(&path, self.0.join(OLD_ACCOUNT_KEY)).map_err(|error| StoreError::Read { path, error })
    }

    /// The account at this directory; `None` if there is none, or only one elsewhere.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn account(&self, directory: &str) -> Result<Option<Account>, StoreError> {
        Ok(self.read_json::<Account>(ACCOUNT)?.filter(|account| account.directory == directory))
    }

    /// Keeps the account.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn keep_account(&self, account: &Account) -> Result<(), StoreError> {
        self.write_json(ACCOUNT, account)
    }

    /// Forgets the account, which the server no longer knows.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget_account(&self) -> Result<(), StoreError> {
        self.remove(ACCOUNT)
    }

    /// The order under way for these names.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn order(&self, directory: &str, names: &BTreeSet<String>) -> Result<Option<PlacedOrder>, StoreError> {
        let order = self.read_json::<PlacedOrder>(ORDER)?;
        Ok(order.filter(|order| order.directory == directory && order.names == *names))
    }

    /// Keeps an order that has been placed.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn keep_order(&self, order: &PlacedOrder) -> Result<(), StoreError> {
        self.write_json(ORDER, order)
    }

    /// The order is over.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget_order(&self) -> Result<(), StoreError> {
        self.remove(ORDER)
    }

    /// The certificate in use, in PEM: its chain, its key.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn certificate(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.read(CERTIFICATE)
    }

    /// Replaces the certificate in use.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn keep_certificate(&self, chain: &str, key: &str) -> Result<(), StoreError> {
        let (chain, key) = (chain.trim_end(), key.trim_end());
        self.write(CERTIFICATE, format!("{chain}\n{key}\n").into_bytes())
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
        let account =
            Account { directory: "https://a/dir".to_owned(), url: "https://a/1".to_owned(), contact: Vec::new() };
        store.keep_account(&account).expect("an account");
        assert_eq!(store.account("https://a/dir").expect("an account"), Some(account));
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
        store.keep_certificate("chain\n\n", "key").expect("a certificate");
        assert_eq!(store.certificate().expect("it").as_deref().map(Vec::as_slice), Some(&b"chain\nkey\n"[..]));
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("acme")), 0o700);
        for file in std::fs::read_dir(folder.path().join("acme")).expect("the folder") {
            assert_eq!(mode(&file.expect("a file").path()), 0o600);
        }
    }

    #[test]
    fn damaged_file_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        std::fs::write(folder.path().join(ORDER), "{").expect("a file");
        let error = store.order("", &BTreeSet::new()).expect_err("it is damaged").to_string();
        assert!(error.contains("order.json is damaged") && error.contains("remove it"), "{error}");
        std::fs::write(folder.path().join(ACCOUNT_KEY), "-----BEGIN X-----\nAA==\n-----END X-----\n").expect("a file");
        let error = store.account_key().expect_err("no key").to_string();
        assert!(error.contains("account-key.pem is damaged (it holds a X)"), "{error}");
    }
}
