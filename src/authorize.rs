//! Stage 5: whether a route lets an identity in, and the permit that says so.

use std::sync::Arc;

use crate::config::checked::{Allow, ClientAuthMode, DenyList, Selector, Terminate};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::{Name, printable};
use crate::model::rejection::{Cause, DenyEntry, Rejection, Text};

/// Which clients a route admits.
#[derive(Debug)]
pub struct Policy {
    /// The route, as guest passes name it.
    pub route: Name,
    /// Whether a certificate is required, and whether it must be verified.
    pub mode: ClientAuthMode,
    /// The identities that are admitted.
    pub allow: Allow,
    /// The certificates that are refused whatever `allow` says.
    pub deny: DenyList,
}

impl Policy {
    /// The policy of the route called `name`, which terminates TLS.
    pub fn of(name: &Name, route: &Terminate) -> Self {
        let auth = &route.client_auth;
        Self { route: name.clone(), mode: auth.mode, allow: route.allow.clone(), deny: auth.deny.clone() }
    }

    /// The same, which also refuses these certificates, by their SHA-256: canaries, if their revocation list is not in force.
    #[must_use]
    pub fn denying(mut self, certificates: impl IntoIterator<Item = Sha256>) -> Self {
        self.deny.fingerprints.extend(certificates);
        self
    }

    /// Whether a client without a certificate is refused: by the mode, or because `allow` would refuse it anyway. The handshake
    /// asks this, because only then does the alert say so.
    pub const fn requires_certificate(&self) -> bool {
        self.mode.requires() || !self.allow.unverified
    }
}

/// The permit: the only way to a backend is through a function that takes one, and only this file makes them.
#[derive(Debug)]
pub struct Authorized {
    identity: Option<Arc<Identity>>,
}

impl Authorized {
    /// The identity that the permit is for; `None` on passthrough routes and for clients without a certificate.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}

/// The configuration's decision that a route requires no certificate, because its backend does TLS itself.
/// [`snapshot`](crate::snapshot) makes one for routes with `mode = "passthrough"`.
#[derive(Debug)]
pub struct PassthroughPolicy(());

impl PassthroughPolicy {
    /// To be called for routes with `mode = "passthrough"` only.
    pub const fn configured() -> Self {
        Self(())
    }

    /// The permit for any client of the route.
    pub const fn permit(&self) -> Authorized {
        Authorized { identity: None }
    }
}

/// Returns the permit, or why there is none.
pub fn authorize(identity: Option<Arc<Identity>>, policy: &Policy) -> Result<Authorized, Rejection> {
    match decide(identity.as_deref(), policy) {
        Ok(()) => Ok(Authorized { identity }),
        Err(cause) => Err(Rejection::silent(cause)),
    }
}

/// Whether `policy` admits a client that has shown the certificate of `identity`, or none. The only place that decides this: the
/// verifier asks it during the handshake, while an alert can still tell the client; [`authorize`] asks it for every connection,
/// resumed ones included; `check`, `explain` and the report of a reload ask it without a connection.
pub fn decide(identity: Option<&Identity>, policy: &Policy) -> Result<(), Cause> {
    let Some(identity) = identity else {
        return if policy.requires_certificate() { Err(Cause::NoCertificate) } else { Ok(()) };
    };
    if let Some(entry) = denied(identity, policy) {
        return Err(Cause::Denied(entry));
    }
    let verifies = policy.mode.verifies();
    if !(verifies && identity.verified) {
        // Where certificates are verified, one that is not has been refused already. This holds if it has not.
        return if policy.allow.unverified && !verifies { Ok(()) } else { Err(Cause::Unverified) };
    }
    // Before `allow`: a guest pass is for its routes only, whatever they are opened to.
    if let Some(pass) = &identity.guest_pass
        && !pass.covers(&policy.route)
    {
        let name = Text::new(printable(&identity.display_name(), 64));
        return Err(Cause::GuestElsewhere { name, routes: Text::new(printable(&pass.to_string(), 128)) });
    }
    // `unverified` admits no verified identity: that needs its name, or `any`.
    if policy.allow.any || policy.allow.selectors.iter().any(|selector| matches(selector, identity)) {
        return Ok(());
    }
    let name = Text::new(printable(&identity.display_name(), 64));
    Err(Cause::NameNotAllowed { name, name_constrained: identity.name_constrained })
}

/// Which entry of `deny` has `identity`, if any. Look-ups, whatever else the policy says.
pub fn denied(identity: &Identity, policy: &Policy) -> Option<DenyEntry> {
    let has = |fingerprint: &&Sha256| policy.deny.fingerprints.contains(*fingerprint);
    if !policy.deny.fingerprints.is_empty()
        && let Some(fingerprint) = identity.twins.fingerprints().iter().chain([&identity.fingerprint]).find(has)
    {
        return Some(DenyEntry::Fingerprint(*fingerprint));
    }
    let of_origin = identity.origin.as_deref().and_then(|origin| {
        // Who denies a certificate denies what was made of it.
        let by_fingerprint = has(&&origin.fingerprint).then_some(DenyEntry::Fingerprint(origin.fingerprint));
        let has_serial = || policy.deny.serials.contains(&origin.serial);
        by_fingerprint.or_else(|| has_serial().then(|| DenyEntry::Serial(origin.serial.clone())))
    });
    let own = || policy.deny.serials.contains(&identity.serial).then(|| DenyEntry::Serial(identity.serial.clone()));
    of_origin.or_else(own)
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
    use crate::model::identity::{GuestPass, Serial, Twins};
    use crate::model::rejection::Reason;

    impl Authorized {
        /// A permit for tests of what comes behind.
        pub(crate) fn testing() -> Self {
            Self { identity: None }
        }

        /// That of a verified device.
        pub(crate) fn of_device() -> Self {
            Self { identity: Some(Arc::new(identity())) }
        }
    }

    fn identity() -> Identity {
        Identity {
            verified: true,
            anchored: true,
            of_other_authority: false,
            emails: vec!["bob@Home.example".into()],
            uris: vec!["spiffe://home.example/bob".into()],
            dns_names: vec!["bob-laptop".into()],
            ips: vec![[192, 0, 2, 7].into()],
            common_name: Some("Bob".into()),
            organizational_units: vec!["family".into()],
            name_constrained: false,
            guest_pass: None,
            origin: None,
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

    fn route() -> Name {
        Name::parse("photos").expect("a name")
    }

    fn policy(selectors: Vec<Selector>) -> Policy {
        let mode = ClientAuthMode::RequireAndVerify;
        Policy { route: route(), mode, allow: Allow { selectors, ..Allow::default() }, deny: DenyList::default() }
    }

    fn reason(identity: Option<&Identity>, policy: &Policy) -> Option<Reason> {
        decide(identity, policy).err().map(|cause| cause.reason())
    }

    #[test]
    fn selector_matches_only_what_it_names() {
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
    fn common_name_below_name_constraints_is_no_selector() {
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
    fn certificate_stuffing_unverified_identity_matches_nothing() {
        let bob = Identity { verified: false, ..identity() };
        let mut policy = policy(vec![Selector::CommonName("Bob".into())]);
        policy.mode = ClientAuthMode::Request;
        policy.allow.any = true;
        assert_eq!(reason(Some(&bob), &policy), Some(Reason::IdentityNotAllowed));
        assert_eq!(reason(None, &policy), Some(Reason::CertificateRequired));
        policy.allow.unverified = true;
        assert_eq!(reason(Some(&bob), &policy), None);
        assert_eq!(reason(None, &policy), None);
    }

    #[test]
    fn each_mode_decides_about_each_kind_of_certificate() {
        let (verified, unverified) = (identity(), Identity { verified: false, ..identity() });
        let required = Some(Reason::CertificateRequired);
        let not_allowed = Some(Reason::IdentityNotAllowed);
        // No certificate, one that is not verified, one that is: first with allow = ["any"], then with "unverified" beside it.
        for (mode, any, both) in [
            (ClientAuthMode::Request, [required, not_allowed, not_allowed], [None, None, None]),
            (ClientAuthMode::Require, [required, not_allowed, not_allowed], [required, None, None]),
            (ClientAuthMode::VerifyIfGiven, [required, not_allowed, None], [None, not_allowed, None]),
            (ClientAuthMode::RequireAndVerify, [required, not_allowed, None], [required, not_allowed, None]),
        ] {
            for (admits_unverified, expected) in [(false, any), (true, both)] {
                let allow = Allow { any: true, unverified: admits_unverified, ..Allow::default() };
                let policy = Policy { route: route(), mode, allow, deny: DenyList::default() };
                let clients = [None, Some(&unverified), Some(&verified)];
                assert_eq!(clients.map(|client| reason(client, &policy)), expected, "{mode:?}, {admits_unverified}");
            }
        }
    }

    #[test]
    fn unverified_admits_no_verified_identity_without_its_name() {
        let mut policy = policy(vec![Selector::CommonName("Alice".into())]);
        policy.mode = ClientAuthMode::VerifyIfGiven;
        policy.allow.unverified = true;
        assert_eq!(reason(Some(&identity()), &policy), Some(Reason::IdentityNotAllowed));
    }

    #[test]
    fn deny_overrides_allow() {
        let bob = identity();
        let mut policy = policy(Vec::new());
        policy.mode = ClientAuthMode::VerifyIfGiven;
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
    fn guest_pass_is_for_its_routes_and_gives_no_right() {
        let other = Name::parse("ssh").expect("a name");
        let guest = |routes: &[Name]| Identity { guest_pass: Some(GuestPass::new(routes)), ..identity() };
        let admitted = |guest: &Identity, policy: &Policy| match decide(Some(guest), policy) {
            Ok(()) => true,
            Err(Cause::GuestElsewhere { .. } | Cause::NameNotAllowed { .. }) => false,
            Err(other) => panic!("{other:?}"),
        };
        let by_name = policy(vec![Selector::CommonName("Bob".into())]);
        let mut any = policy(Vec::new());
        any.allow.any = true;
        any.mode = ClientAuthMode::VerifyIfGiven;
        for policy in [&by_name, &any] {
            assert!(admitted(&guest(&[route()]), policy) && admitted(&guest(&[other.clone(), route()]), policy));
            assert!(!admitted(&guest(std::slice::from_ref(&other)), policy) && !admitted(&guest(&[]), policy));
        }
        let (mut by_fingerprint, bob) = (policy(vec![Selector::Fingerprint(Sha256([1; 32]))]), guest(&[other]));
        by_fingerprint.allow.unverified = true;
        assert!(!admitted(&bob, &by_fingerprint), "the owner's own entry widens no pass");
        let cause = decide(Some(&bob), &by_name).expect_err("a refusal");
        assert_eq!(cause.reason(), Reason::IdentityNotAllowed);
        assert!(matches!(cause, Cause::GuestElsewhere { routes, .. } if routes.to_string() == "ssh"));
        // It is no entry of `allow`.
        assert!(!admitted(&guest(&[route()]), &policy(Vec::new())));
    }

    #[test]
    fn empty_allow_admits_no_identity() {
        assert_eq!(reason(Some(&identity()), &policy(Vec::new())), Some(Reason::IdentityNotAllowed));
    }
}
