//! The settings of a route, as a digest: its session tickets last as long as these stay the same.

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::checked::{
    Allow, Certificate, CertificateSource, CipherStrength, ClientAuth, DenyList, RevocationList, Terminate, TrustAnchor,
};
use crate::model::identity::{Serial, Sha256};

/// The digest of all settings of a route that concern its handshakes, except for what its revocation lists contain:
/// [`tickets`](super::tickets) says why. Two routes may have the same one.
///
/// Every field is named here, so that a new one does not compile before it is in the digest or left out with a reason.
pub(super) fn digest(route: &Terminate, strength: CipherStrength) -> Sha256 {
    let Terminate {
        certificate,
        client_auth,
        allow,
        application_protocols,
        // What comes before a handshake.
        starttls: _,
    } = route;
    let mut settings = Settings(Context::new(&SHA256));
    let Certificate { chain_file: _, key_file: _, certified_key, source } = &**certificate;
    match source {
        CertificateSource::Files => settings.list(certified_key.cert.iter()),
        // It is replaced every few weeks, for no reason that concerns a client that holds a ticket.
        CertificateSource::Acme | CertificateSource::Temporary => settings.value(b"acme"),
    }
    settings.list(application_protocols.iter());
    settings.value(format!("{strength:?}").as_bytes());
    let Allow { any, unverified, selectors } = allow;
    settings.value(&[u8::from(*any), u8::from(*unverified)]);
    // As text for programmers, which names the kind of each selector and quotes its value.
    settings.list(selectors.iter().map(|selector| format!("{selector:?}")));
    settings.client_auth(client_auth);
    let mut digest = [0; 32];
    digest.copy_from_slice(settings.0.finish().as_ref());
    Sha256(digest)
}

/// The same on every processor: gates may share the keys of their tickets.
fn number(count: usize) -> [u8; 8] {
    (count as u64).to_be_bytes()
}

/// What has been hashed so far.
struct Settings(Context);

impl Settings {
    /// With its length, so that two sets of values cannot be cut from the same bytes in different places.
    fn value(&mut self, bytes: &[u8]) {
        self.0.update(&number(bytes.len()));
        self.0.update(bytes);
    }

    fn list(&mut self, values: impl ExactSizeIterator<Item: AsRef<[u8]>>) {
        self.value(&number(values.len()));
        values.for_each(|value| self.value(value.as_ref()));
    }

    fn client_auth(&mut self, client_auth: &ClientAuth) {
        let ClientAuth {
            mode,
            trust,
            revocation_lists,
            // They only revoke, as those do: what lists contain is not in the digest.
            newer_lists: _,
            deny: DenyList { fingerprints, serials },
            // A part of `deny`.
            loaded_deny: _,
            expired_revocation_list,
            revocation_check,
            expired_session,
            announce_trust,
        } = client_auth;
        self.value(mode.word().as_bytes());
        self.list(trust.iter().map(|TrustAnchor { file: _, certificate, kind }| {
            [format!("{kind:?} ").as_bytes(), certificate.as_ref()].concat()
        }));
        self.value(&number(revocation_lists.len()));
        for list in revocation_lists {
            self.authority_of(list);
        }
        let mut fingerprints: Vec<&[u8]> = fingerprints.iter().map(|one| one.0.as_slice()).collect();
        let mut serials: Vec<&[u8]> = serials.iter().map(Serial::as_bytes).collect();
        fingerprints.sort_unstable();
        serials.sort_unstable();
        self.list(fingerprints.into_iter());
        self.list(serials.into_iter());
        let rules = format!("{expired_revocation_list:?} {revocation_check:?} {expired_session:?} {announce_trust}");
        self.value(rules.as_bytes());
    }

    /// Whose list it is, and for which certificates it speaks: an authority without a list is another rule.
    fn authority_of(&mut self, list: &RevocationList) {
        let RevocationList {
            issuer,
            signer,
            whole,
            part,
            file: _,
            // The contents.
            list: _,
            this_update: _,
            next_update: _,
            number: _,
            sha256: _,
        } = list;
        self.value(issuer);
        self.value(signer.as_ref().map(|signer| signer.0.as_slice()).unwrap_or_default());
        self.value(&[u8::from(*whole)]);
        self.list(part.iter());
    }
}
