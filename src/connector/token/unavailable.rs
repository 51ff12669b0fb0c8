//! In place of [`session`](super::session) where this program cannot load the library of a token.

use rustls::SignatureScheme;

use super::error::TokenError;
use super::kind::Kind;
use super::uri::TokenUri;

/// No PIN is ever asked for.
#[derive(Default)]
pub(super) struct Pins;

/// There is none.
pub(super) enum Open {}

pub(super) struct NotSigned {
    pub(super) error: TokenError,
    pub(super) is_stale: bool,
}

impl Open {
    pub(super) const fn new(_: &TokenUri, _: &mut Pins, _: bool) -> Result<Self, TokenError> {
        Err(if cfg!(feature = "pkcs11") { TokenError::Static } else { TokenError::NotBuilt })
    }

    pub(super) const fn is_alive(&self) -> bool {
        match *self {}
    }

    pub(super) const fn spki(&self) -> Option<&[u8]> {
        match *self {}
    }

    pub(super) const fn kind(&self) -> Kind {
        match *self {}
    }

    pub(super) const fn sign(&self, _: SignatureScheme, _: &[u8]) -> Result<Vec<u8>, NotSigned> {
        match *self {}
    }
}
