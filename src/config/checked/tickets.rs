//! `[tickets]`: keys for session tickets that several gates share.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use crate::model::identity::Sha256;

/// `[tickets]`. Without a key, each gate has keys of its own, in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tickets {
    /// `keys`: the first one seals tickets, all of them open tickets.
    pub keys: Vec<TicketSecret>,
}

/// What a key file contains. Never used as a key: each route derives its own from it, see `handshake::shared_tickets`.
///
/// Tickets contain the certificates of their client, and the client's proof that it holds the key is not repeated. So it admits
/// like the key of an authority: with it, a ticket can be made for any certificate that is known and admitted.
#[derive(Clone)]
pub struct TicketSecret {
    /// The file.
    pub file: PathBuf,
    /// The digest of its contents.
    pub id: Sha256,
    secret: Prk,
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecret").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PartialEq for TicketSecret {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, &self.id) == (&other.file, &other.id)
    }
}

impl Eq for TicketSecret {}

/// Why the contents of a file are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakSecret {
    /// It has this many bytes.
    Length(usize),
    /// Random bytes are not printable, all of them.
    Text,
    /// Random bytes differ from each other.
    Repetitive,
}

impl fmt::Display for WeakSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "has {length} bytes, and a key for session tickets has 80 (or 48)"),
            Self::Text => f.write_str("is text, and a key for session tickets is made of random bytes"),
            Self::Repetitive => f.write_str("repeats few bytes, and a key for session tickets is random"),
        }
    }
}

impl TicketSecret {
    /// The lengths of a key: those of nginx' `ssl_session_ticket_key`.
    pub const LENGTHS: [usize; 2] = [80, 48];

    /// Of 48 random bytes, about 44 differ from each other; fewer than this many do not occur.
    const DIFFERENT: usize = 24;

    /// Takes the contents of `file`.
    ///
    /// # Errors
    /// If they are none that this program, `openssl rand` or `/dev/urandom` would have written.
    pub fn new(file: PathBuf, contents: &[u8]) -> Result<Self, WeakSecret> {
        if !Self::LENGTHS.contains(&contents.len()) {
            return Err(WeakSecret::Length(contents.len()));
        }
        if contents.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            return Err(WeakSecret::Text);
        }
        if contents.iter().collect::<BTreeSet<_>>().len() < Self::DIFFERENT {
            return Err(WeakSecret::Repetitive);
        }
        let secret = Salt::new(HKDF_SHA256, b"doorward session tickets").extract(contents);
        Ok(Self { file, id: Sha256::of(contents), secret })
    }

    /// New contents for a file.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let [length, _] = Self::LENGTHS;
        let mut contents = Zeroizing::new(vec![0; length]);
        aws_lc_rs::rand::fill(&mut contents)?;
        Ok(contents)
    }

    /// A secret for one purpose, from which keys are derived. It says nothing about this one, nor about those of other purposes.
    ///
    /// # Errors
    /// Never, for a purpose of any length.
    pub fn derive(&self, purpose: &[u8]) -> Result<Prk, Unspecified> {
        self.secret.expand(&[purpose], HKDF_SHA256).map(Prk::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_random_bytes_of_a_known_length_are_a_key() {
        let new = |contents: &[u8]| TicketSecret::new(PathBuf::new(), contents).err();
        let random = TicketSecret::generate().expect("random bytes");
        assert_eq!(random.len(), 80);
        assert_ne!(random, TicketSecret::generate().expect("random bytes"));
        for length in 0..=80 {
            let expected = (!TicketSecret::LENGTHS.contains(&length)).then_some(WeakSecret::Length(length));
            assert_eq!(new(&random[..length]), expected);
        }
        let hexadecimal: String = random[..40].iter().map(|byte| format!("{byte:02x}")).collect();
        for (contents, weakness) in [
            (vec![0; 80], WeakSecret::Repetitive),
            (vec![0xff; 48], WeakSecret::Repetitive),
            (random[..20].repeat(4), WeakSecret::Repetitive),
            ([&random[..16], &[0; 32]].concat(), WeakSecret::Repetitive),
            (hexadecimal.into_bytes(), WeakSecret::Text),
            (b"correct horse battery staple, and then some mor\n".to_vec(), WeakSecret::Text),
        ] {
            assert_eq!(new(&contents), Some(weakness), "{contents:02x?}");
        }
    }

    #[test]
    fn contents_of_a_key_are_not_shown() {
        let contents = TicketSecret::generate().expect("random bytes");
        let secret = TicketSecret::new(PathBuf::from("a.key"), &contents).expect("a key");
        assert_eq!(format!("{secret:?}"), "TicketSecret { file: \"a.key\", .. }");
        let same = TicketSecret::new(PathBuf::from("a.key"), &contents).expect("a key");
        assert_eq!(secret, same);
    }
}
