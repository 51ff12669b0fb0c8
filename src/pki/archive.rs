//! PKCS#12 archives (RFC 7292): certificate, key and root in one file, which phones and browsers import.

use std::fmt;

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Error, random};
use crate::model::device_name::DeviceName;
use crate::model::identity::Sha256;

/// How an archive is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// AES-256-CBC with PBKDF2 (PBES2), HMAC-SHA-256. What current systems read.
    Modern,
    /// Triple DES and SHA-1, for the key and the certificates. Older systems need it: the macOS keychain and many
    /// versions of iOS and Android report "wrong password" for anything newer. Never RC2, which other tools combine with
    /// it and OpenSSL 3 no longer reads.
    Compat,
}

impl Profile {
    /// Encryption, authentication, and the number of rounds for each.
    ///
    /// A [`Password`] cannot be guessed at any speed, so the numbers are the usual ones: those of the JDK and of OpenSSL.
    const fn algorithms(self) -> (EncryptionAlgorithm, MacAlgorithm, u32) {
        match self {
            Self::Modern => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256, 10_000),
            Self::Compat => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1, 2_048),
        }
    }
}

/// The password of an archive, as it is typed into a phone: `k7mw-9xbq-…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Without `0` `o`, `1` `i` `l`, and characters that need the shift key on a phone.
    const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
    const GROUPS: usize = 5;
    const GROUP: usize = 4;

    /// A new random one: five groups of four characters, 99 bits. The hyphens are part of it.
    pub fn generate() -> Result<Self, Error> {
        let mut text = String::with_capacity(Self::GROUPS * (Self::GROUP + 1));
        for group in 0..Self::GROUPS {
            if group > 0 {
                text.push('-');
            }
            for _ in 0..Self::GROUP {
                text.push(Self::character()?);
            }
        }
        Ok(Self(text))
    }

    /// A uniformly random character: a byte beyond the last multiple of the alphabet's length is drawn again.
    fn character() -> Result<char, Error> {
        let count = Self::ALPHABET.len();
        loop {
            let [byte] = random()?;
            let byte = usize::from(byte);
            if let (true, Some(&c)) = (byte < 256 / count * count, Self::ALPHABET.get(byte % count)) {
                return Ok(char::from(c));
            }
        }
    }

    /// The password as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// An archive for the device called `name`: its certificate, its key (PKCS#8), and `root`, the certificate of the server
/// authority if the device has to trust one.
///
/// Systems that import the root from the archive (as Windows does, after one question) trust the gate without a second
/// file; the root is limited to one domain. The certificate of the device authority is left out: those systems would trust
/// it as well, and no device needs it.
///
/// Systems show `name` for the key (`friendlyName`); `p12-keystore` names certificates by their subject.
pub fn device_archive(
    name: &DeviceName,
    certificate: &CertificateDer<'_>,
    key: &PrivateKeyDer<'_>,
    root: Option<&CertificateDer<'_>>,
    profile: Profile,
    password: &Password,
) -> Result<Vec<u8>, Error> {
    // The leaf first: some readers depend on the order.
    let certificates: Result<Vec<_>, _> =
        std::iter::once(certificate).chain(root).map(|der| Certificate::from_der(der)).collect();
    let chain = PrivateKeyChain::new(
        Sha256::of(certificate).0.as_slice(),
        PrivateKey::from_der(key.secret_der())?,
        certificates?,
    );
    let mut store = KeyStore::new();
    store.add_entry(name.as_str(), KeyStoreEntry::PrivateKeyChain(chain));
    let (encryption, mac, iterations) = profile.algorithms();
    let archive = store
        .writer(password.as_str())
        .encryption_algorithm(encryption)
        .encryption_iterations(iterations)
        .mac_algorithm(mac)
        .mac_iterations(iterations)
        .write()?;
    Ok(archive)
}

impl From<p12_keystore::error::Error> for Error {
    fn from(error: p12_keystore::error::Error) -> Self {
        Self::Archive(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use p12_keystore::Pkcs12Archive;

    use super::*;
    use crate::ca::{DeviceAuthority, ServerAuthority};
    use crate::model::names::ServerName;

    #[test]
    fn passwords_are_easy_to_type_and_random() {
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let password = Password::generate().expect("random bytes");
            let groups: Vec<&str> = password.as_str().split('-').collect();
            assert_eq!(groups.len(), 5, "{}", password.as_str());
            assert!(groups.iter().all(|group| group.len() == 4), "{}", password.as_str());
            assert!(!password.as_str().contains(['0', 'o', '1', 'i', 'l']), "{}", password.as_str());
            seen.insert(password.0);
        }
        assert_eq!(seen.len(), 200);
        let used: HashSet<char> = seen.iter().flat_map(|password| password.chars()).filter(|&c| c != '-').collect();
        // 4000 draws leave one of 31 characters out with a chance of 31 * (30/31)^4000, about 10^-55.
        assert_eq!(used.len(), Password::ALPHABET.len(), "every character is drawn");
        let bits = f64::from(u8::try_from(Password::ALPHABET.len()).expect("small")).log2() * 20.0;
        assert!(bits > 80.0, "{bits}");
    }

    #[test]
    fn archive_opens_only_with_its_password() {
        let name = DeviceName::parse("alice-phone").expect("a name");
        let servers = ServerAuthority::new(&ServerName::parse("home.example").expect("a name")).expect("an authority");
        let root = servers.authority().certificate();
        let device = DeviceAuthority::new().expect("an authority").issue(&name).expect("a device");
        for (profile, root) in
            [Profile::Modern, Profile::Compat].into_iter().flat_map(|profile| [(profile, Some(root)), (profile, None)])
        {
            let password = Password::generate().expect("random bytes");
            let archive = device_archive(&name, device.certificate(), &device.key(), root, profile, &password);
            let archive = archive.expect("an archive");
            let read = Pkcs12Archive::from_pkcs12(&archive, password.as_str()).expect("the password fits");
            assert_eq!(read.keys.len(), 1);
            assert_eq!(read.keys[0].friendly_name.as_deref(), Some("alice-phone"));
            assert_eq!(read.keys[0].key.as_der(), device.key().secret_der());
            let certificates: Vec<&[u8]> = read.certs.iter().map(|bag| bag.cert.as_der()).collect();
            let expected: Vec<&[u8]> = std::iter::once(device.certificate()).chain(root).map(|der| &der[..]).collect();
            assert_eq!(certificates, expected);
            assert_eq!(read.certs[0].local_key_id.as_deref(), read.keys[0].local_key_id.as_ref().map(AsRef::as_ref));
            let other = Password::generate().expect("random bytes");
            assert!(Pkcs12Archive::from_pkcs12(&archive, other.as_str()).is_err());
            assert!(Pkcs12Archive::from_pkcs12(&archive, "").is_err());
        }
    }

    #[test]
    fn debug_output_contains_no_password() {
        assert_eq!(format!("{:?}", Password::generate().expect("random bytes")), "Password(…)");
    }
}
