//! The owner's certification authority as a library: the folder it is kept in, and what it issues, renews and revokes.
//!
//! Nothing here prints or asks: results and errors are values, and a passphrase comes from a
//! [`PassphrasePrompt`](signer::PassphrasePrompt).

pub mod approve;
pub mod authority;
pub mod create;
pub mod device_files;
pub mod encryption;
mod error;
pub mod export;
pub mod import;
pub mod inventory;
pub mod issue;
pub mod list;
pub mod renew;
pub mod renewal;
pub mod request;
pub mod revoke;
pub mod server;
pub mod server_authority;
pub mod signer;

pub use authority::{DeviceAuthority, NameConstraintPolicy, ServerAuthority};
pub use error::Error;
