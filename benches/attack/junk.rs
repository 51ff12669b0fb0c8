//! Certificates that are made to send the search for a path the wrong way.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::JUNK;
use crate::scene::Scene;

/// Certificates with the name of the gate's client authority that it did not issue.
pub(super) struct Junk {
    name: String,
    authorities: Vec<CertificateDer<'static>>,
}

impl Junk {
    pub(super) fn new(scene: &Scene) -> Self {
        let authority = CertificateDer::from_pem_slice(&scene.pem("pki/clients.pem")).unwrap();
        let (_, authority) = X509Certificate::from_der(&authority).unwrap();
        let name = authority.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
        let mut params = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let forger = Issuer::new(params.clone(), KeyPair::generate().unwrap());
        let forge = || params.signed_by(&KeyPair::generate().unwrap(), &forger).unwrap().der().clone();
        let authorities: Vec<_> = std::iter::repeat_with(forge).take(JUNK).collect();
        let (_, first) = X509Certificate::from_der(&authorities[0]).unwrap();
        assert_eq!(first.subject().as_raw(), authority.subject().as_raw(), "the authority's name, byte for byte");
        Self { name, authorities }
    }

    /// All of them, in the permutation of this number.
    pub(super) fn ordered(&self, mut number: usize) -> Vec<CertificateDer<'static>> {
        let mut left = self.authorities.clone();
        let mut ordered = Vec::new();
        while !left.is_empty() {
            ordered.push(left.remove(number % left.len()));
            number /= left.len() + 1;
        }
        ordered
    }

    /// A certificate that claims to be the authority's.
    pub(super) fn stranger(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let forger = Issuer::new(named(&self.name), KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = named("stranger").signed_by(&key, &forger).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
