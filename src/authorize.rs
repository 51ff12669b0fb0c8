//! Stage 5: whether a route lets an identity in, and the permit that says so.

use std::sync::Arc;

use crate::config::checked::{Allow, DenyList, Selector};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;
use crate::model::rejection::{Cause, DenyEntry, Rejection, Text};

/// Whom a route lets in.
#[derive(Debug)]
pub struct Policy {
    /// Whom it names.
    pub allow: Allow,
    /// Whom it turns away whatever `allow` says.
    pub deny: DenyList,
}

/// The permit: the only way to a backend is through a function that takes one, and only this file makes them.
#[derive(Debug)]
pub struct Authorized {
    identity: Option<Arc<Identity>>,
}

impl Authorized {
    /// Who the permit was given to; `None` on passthrough routes and for clients without a certificate.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}

/// The word of the configuration that a route asks nobody for a certificate, because its backend does TLS itself.
/// [`snapshot`](crate::snapshot) makes one for routes with `mode = "passthrough"`.
#[derive(Debug)]
pub struct PassthroughPolicy(());

impl PassthroughPolicy {
    /// To be called where a route says `mode = "passthrough"` and nowhere else.
    pub const fn configured() -> Self {
        Self(())
    }

    /// The permit for anybody who asked for the route.
    pub const fn permit(&self) -> Authorized {
        Authorized { identity: None }
    }
}

/// Gives the permit, or says why not.
pub fn authorize(identity: Option<Arc<Identity>>, policy: &Policy) -> Result<Authorized, Rejection> {
    match decide(identity.as_deref(), policy) {
        Ok(()) => Ok(Authorized { identity }),
        Err(cause) => Err(Rejection::silent(cause)),
    }
}

/// Whether `policy` lets `identity` in. Pure: the verifier asks it during the handshake, while the client can still be
/// told by an alert; [`authorize`] asks it again for every connection, resumed ones included; `check` and `explain` ask
/// it without a connection.
pub fn decide(identity: Option<&Identity>, policy: &Policy) -> Result<(), Cause> {
    if let Some(entry) = identity.and_then(|identity| denied(identity, policy)) {
        return Err(Cause::Denied(entry));
    }
    match identity {
        // The word speaks for nobody whom a trust anchor vouches for: they are let in by name or by "any".
        None if policy.allow.unverified => Ok(()),
        Some(identity) if !identity.verified && policy.allow.unverified => Ok(()),
        None => Err(Cause::CertificateNotShown),
        Some(identity) if !identity.verified => Err(Cause::Unverified),
        Some(_) if policy.allow.any => Ok(()),
        Some(identity) => {
            if policy.allow.selectors.iter().any(|selector| matches(selector, identity)) {
                Ok(())
            } else {
                let name = Text::new(printable(&identity.display_name(), 64));
                Err(Cause::NameNotAllowed { name, name_constrained: identity.name_constrained })
            }
        }
    }
}

/// Which entry of `deny` has `identity`, if any. Look-ups, whatever else the policy says.
pub fn denied(identity: &Identity, policy: &Policy) -> Option<DenyEntry> {
    let has = |fingerprint: &&Sha256| policy.deny.fingerprints.contains(*fingerprint);
    if !policy.deny.fingerprints.is_empty()
        && let Some(fingerprint) = identity.twins.fingerprints().iter().chain([&identity.fingerprint]).find(has)
    {
        return Some(DenyEntry::Fingerprint(*fingerprint));
    }
    policy.deny.serials.contains(&identity.serial).then(|| DenyEntry::Serial(identity.serial.clone()))
}

/// Whether `selector` picks `identity` out. Host names and e-mail domains are compared without regard to case
/// (RFC 4343, RFC 5280 section 7.5), everything else exactly.
fn matches(selector: &Selector, identity: &Identity) -> bool {
    match selector {
        Selector::AnyName(name) => {
            has_common_name(identity, name)
                || has_dns(identity, name)
                || has_email(identity, name)
                || identity.uris.iter().any(|uri| uri == name)
                || identity.ips.iter().any(|ip| name.parse() == Ok(*ip))
        }
        Selector::CommonName(name) => has_common_name(identity, name),
        Selector::OrganizationalUnit(name) => {
            !identity.name_constrained && identity.organizational_units.iter().any(|unit| unit == name)
        }
        Selector::Dns(name) => has_dns(identity, name),
        Selector::Email(name) => has_email(identity, name),
        Selector::Uri(name) => identity.uris.iter().any(|uri| uri == name),
        Selector::Ip(address) => identity.ips.contains(address),
        Selector::Fingerprint(digest) => identity.fingerprint == *digest,
        Selector::Spki(digest) => identity.spki == *digest,
    }
}

/// Name constraints do not reach the subject: an issuer that they bind could write any name there.
fn has_common_name(identity: &Identity, name: &str) -> bool {
    !identity.name_constrained && identity.common_name.as_deref() == Some(name)
}

fn has_dns(identity: &Identity, name: &str) -> bool {
    identity.dns_names.iter().any(|dns| dns.eq_ignore_ascii_case(name))
}

fn has_email(identity: &Identity, name: &str) -> bool {
    let Some((wanted_local, wanted_domain)) = name.rsplit_once('@') else { return false };
    identity
        .emails
        .iter()
        .filter_map(|email| email.rsplit_once('@'))
        .any(|(local, domain)| local == wanted_local && domain.eq_ignore_ascii_case(wanted_domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::{Serial, Twins};
    use crate::model::rejection::Reason;

    fn identity() -> Identity {
        Identity {
            verified: true,
            anchored: true,
            emails: vec!["bob@Home.example".into()],
            uris: vec!["spiffe://home.example/bob".into()],
            dns_names: vec!["bob-laptop".into()],
            ips: vec![[192, 0, 2, 7].into()],
            common_name: Some("Bob".into()),
            organizational_units: vec!["family".into()],
            name_constrained: false,
            fingerprint: Sha256([1; 32]),
            twins: Twins::known(vec![Sha256([9; 32])]),
            unsupported_key: None,
            spki: Sha256([2; 32]),
            serial: Serial::from_be_bytes(&[3]),
            issuer: "CN=test".into(),
            not_before: 0,
            not_after: i64::MAX,
        }
    }

    fn policy(selectors: Vec<Selector>) -> Policy {
        Policy { allow: Allow { selectors, ..Allow::default() }, deny: DenyList::default() }
    }

    fn reason(identity: Option<&Identity>, policy: &Policy) -> Option<Reason> {
        decide(identity, policy).err().map(|cause| cause.reason())
    }

    #[test]
    fn each_selector_picks_out_what_it_names_and_nothing_else() {
        let bob = identity();
        let text = |kind: fn(String) -> Selector, value: &str| kind(value.to_owned());
        for selector in [
            text(Selector::AnyName, "Bob"),
            text(Selector::AnyName, "BOB-laptop"),
            text(Selector::AnyName, "bob@home.example"),
            text(Selector::AnyName, "spiffe://home.example/bob"),
            text(Selector::AnyName, "192.0.2.7"),
            text(Selector::CommonName, "Bob"),
            text(Selector::OrganizationalUnit, "family"),
            text(Selector::Dns, "bob-laptop"),
            text(Selector::Email, "bob@home.example"),
            text(Selector::Uri, "spiffe://home.example/bob"),
            Selector::Ip([192, 0, 2, 7].into()),
            Selector::Fingerprint(Sha256([1; 32])),
            Selector::Spki(Sha256([2; 32])),
        ] {
            assert_eq!(reason(Some(&bob), &policy(vec![selector.clone()])), None, "{selector}");
        }
        for selector in [
            text(Selector::AnyName, "bob"),
            text(Selector::AnyName, "family"),
            text(Selector::CommonName, "bob-laptop"),
            text(Selector::OrganizationalUnit, "Bob"),
            text(Selector::Dns, "Bob"),
            text(Selector::Dns, "laptop"),
            text(Selector::Email, "Bob@home.example"),
            text(Selector::Email, "bob@home.example.evil"),
            text(Selector::Uri, "spiffe://home.example/"),
            Selector::Ip([192, 0, 2, 8].into()),
            Selector::Fingerprint(Sha256([2; 32])),
            Selector::Spki(Sha256([1; 32])),
        ] {
            let got = reason(Some(&bob), &policy(vec![selector.clone()]));
            assert_eq!(got, Some(Reason::IdentityNotAllowed), "{selector}");
        }
    }

    #[test]
    fn below_name_constraints_the_subject_is_no_selector() {
        let bob = Identity { name_constrained: true, ..identity() };
        for (selector, admitted) in [
            (Selector::AnyName("Bob".into()), false),
            (Selector::CommonName("Bob".into()), false),
            (Selector::OrganizationalUnit("family".into()), false),
            (Selector::AnyName("bob-laptop".into()), true),
            (Selector::Dns("bob-laptop".into()), true),
            (Selector::Email("bob@home.example".into()), true),
            (Selector::Fingerprint(Sha256([1; 32])), true),
        ] {
            assert_eq!(reason(Some(&bob), &policy(vec![selector.clone()])).is_none(), admitted, "{selector}");
        }
    }

    #[test]
    fn certificate_stuffing_an_unverified_identity_matches_nothing_but_the_word() {
        let bob = Identity { verified: false, ..identity() };
        let mut policy = policy(vec![Selector::CommonName("Bob".into())]);
        policy.allow.any = true;
        assert_eq!(reason(Some(&bob), &policy), Some(Reason::IdentityNotAllowed));
        assert_eq!(reason(None, &policy), Some(Reason::IdentityNotAllowed));
        policy.allow.unverified = true;
        assert_eq!(reason(Some(&bob), &policy), None);
        assert_eq!(reason(None, &policy), None);
    }

    #[test]
    fn unverified_lets_in_no_verified_identity_that_is_not_named() {
        let mut policy = policy(vec![Selector::CommonName("Alice".into())]);
        policy.allow.unverified = true;
        assert_eq!(reason(Some(&identity()), &policy), Some(Reason::IdentityNotAllowed));
    }

    #[test]
    fn the_deny_list_stands_above_everything() {
        let bob = identity();
        let mut policy = policy(Vec::new());
        policy.allow.any = true;
        policy.allow.unverified = true;
        policy.deny.fingerprints.insert(bob.fingerprint);
        assert_eq!(reason(Some(&bob), &policy), Some(Reason::Denied));
        policy.deny = DenyList::default();
        policy.deny.fingerprints.insert(bob.twins.fingerprints()[0]);
        assert_eq!(reason(Some(&bob), &policy), Some(Reason::Denied));
        policy.deny = DenyList::default();
        policy.deny.serials.insert(Serial::from_be_bytes(&[0, 3]));
        assert_eq!(reason(Some(&bob), &policy), Some(Reason::Denied));
        assert_eq!(reason(None, &policy), None);
    }

    #[test]
    fn an_empty_allow_lets_nobody_in() {
        assert_eq!(reason(Some(&identity()), &policy(Vec::new())), Some(Reason::IdentityNotAllowed));
    }
}
