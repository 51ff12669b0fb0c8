//! The review of open sessions after a change: each session that the new snapshot would not admit is cut.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustls::pki_types::UnixTime;
use tokio::time::Instant;

use super::registry::{Session, Sessions};
use crate::model::close::CloseReason;
use crate::model::identity::Sha256;
use crate::model::names::Name;
use crate::model::rejection::Cause;
use crate::relay::Order;
use crate::snapshot::Snapshot;

/// How many sessions a review has kept and cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reviewed {
    /// They stay open.
    pub(crate) kept: usize,
    /// They are ordered to end.
    pub(crate) cut: usize,
}

/// Cuts every session that `snapshot` does not admit `now`; `requested` is when the change was asked for.
pub(crate) fn review(sessions: &Sessions, snapshot: &Snapshot, now: UnixTime, requested: Instant) -> Reviewed {
    let (mut sessions, _) = sessions.newest(usize::MAX);
    // Sessions that are ending already were counted when they were ordered to.
    sessions.retain(|session| session.relay.ordered().is_none());
    let all = sessions.len();
    // First the revocation lists and `deny`, by look-ups: no chain that a client has sent can delay these.
    sessions.retain(|session| !cut_if(session, requested, || withdrawn(session, snapshot)));
    let mut verdicts = Verdicts::new(|session| admission(session, snapshot, now));
    let kept = sessions.iter().filter(|session| !cut_if(session, requested, || verdicts.get(session))).count();
    Reviewed { kept, cut: all - kept }
}

/// Cuts the sessions whose certificate has expired, except on routes that keep them.
pub(crate) fn cut_expired(sessions: &Sessions, snapshot: &Snapshot, now: UnixTime) {
    let at = Instant::now();
    let expired = sessions.expired(now.as_secs());
    let mut verdicts = Verdicts::new(|session| admission(session, snapshot, now));
    for session in expired.iter().filter(|session| snapshot.cuts_expired(&session.route)) {
        cut_if(session, at, || verdicts.get(session));
    }
}

/// Why a session has to end; `None` if it stays.
type Verdict = Option<(CloseReason, Option<Box<Cause>>)>;

/// The verdicts of a review. Each chain is judged once for each route, however many sessions have it.
struct Verdicts<F> {
    judge: F,
    known: HashMap<(Name, Option<Sha256>), Verdict>,
}

impl<F: FnMut(&Session) -> Verdict> Verdicts<F> {
    fn new(judge: F) -> Self {
        Self { judge, known: HashMap::new() }
    }

    fn get(&mut self, session: &Session) -> Verdict {
        let key = (session.route.clone(), session.chain.as_ref().map(|chain| chain.digest));
        self.known.entry(key).or_insert_with(|| (self.judge)(session)).clone()
    }
}

/// Whether `snapshot` would admit the session's client now.
fn admission(session: &Session, snapshot: &Snapshot, now: UnixTime) -> Verdict {
    snapshot.keeps_session(&session.route, session.chain.as_deref(), now).err().map(boxed)
}

/// Whether a revocation list or `deny` names the session's client.
fn withdrawn(session: &Session, snapshot: &Snapshot) -> Verdict {
    snapshot.withdrawn(&session.route, session.identity.as_deref(), session.chain.as_deref()).map(boxed)
}

fn boxed((reason, cause): (CloseReason, Cause)) -> (CloseReason, Option<Box<Cause>>) {
    (reason, Some(Box::new(cause)))
}

/// Cuts a session if `verdict` says so, and if `verdict` panics: a fault in judging one session must neither keep that one
/// open nor leave the others without a verdict.
fn cut_if(session: &Session, requested: Instant, verdict: impl FnOnce() -> Verdict) -> bool {
    let fault = || Some((CloseReason::Internal, Some(Box::new(Cause::NotJudged))));
    let verdict = catch_unwind(AssertUnwindSafe(verdict)).unwrap_or_else(|_| fault());
    let Some((reason, cause)) = verdict else { return false };
    session.relay.order(Order { reason, cause, at: requested });
    true
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::model::identity::{Chain, Issued, IssuerKey, Serial};
    use crate::pki::Parts;
    use crate::relay::Path;
    use crate::sessions::registry::PeerCertificate;

    #[test]
    fn each_chain_is_judged_once_for_each_route() {
        let name = |text: &str| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let chains = [100, 200].map(|until| {
            // Equal chains may be two objects: sessions of former snapshots have their own.
            move || Arc::new(Chain::new(vec![vec![u8::try_from(until).expect("small")].into()], Vec::new(), until))
        });
        let session = |id: u64, route: &str, chain: Option<Arc<Chain>>| {
            let certificate = PeerCertificate { identity: None, chain };
            Session::new(id, source, name("public"), name(route), certificate, Path::Copy, Arc::default())
        };
        let mut judged = Vec::new();
        let mut verdicts = Verdicts::new(|session: &Session| {
            judged.push(session.id);
            (session.route.as_str() == "ssh").then_some((CloseReason::NotAllowed, None))
        });
        for id in 0..1000 {
            for (route, cut) in [("nas", false), ("ssh", true)] {
                for chain in [Some(chains[0]()), Some(chains[1]()), None] {
                    assert_eq!(verdicts.get(&session(id, route, chain)).is_some(), cut);
                }
            }
        }
        assert_eq!(judged, [0; 6]);
    }

    /// attacks.md row 36. The chains cannot be verified, so a review that verified them first would give another reason.
    #[test]
    fn row_36_a_review_checks_the_lists_before_it_verifies_chains() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a certificate");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        write("it.pem", authority.pem());
        write("key.pem", key.serialize_pem());
        let parts = Parts::read(authority.der()).expect("a certificate");
        let this_update = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        let revoked = rcgen::RevokedCertParams {
            serial_number: 7_u64.into(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update,
            next_update: this_update + time::Duration::days(9),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&rcgen::Issuer::new(params, key)).expect("a list");
        write("it.crl", list.pem().expect("text"));
        let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
                    key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\nrevocation_lists = [\"it.crl\"]\n\
                    [[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
                    allow = [\"any\"]\n";
        let config = crate::config::parse(text, &folder.path().join("doorward.toml")).expect("a configuration");
        let snapshot = Snapshot::build(&config).expect("a snapshot");
        let sessions = Arc::<Sessions>::default();
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let guards = [7, 8].map(|serial| {
            let key = IssuerKey { spki: parts.key.to_vec(), digest: Sha256::of(parts.key), signs_lists: true };
            let issued =
                Issued { issuer: parts.subject.to_vec(), key: Some(key), serial: Serial::from_be_bytes(&[serial]) };
            let chain = Arc::new(Chain::new(vec![vec![serial].into()], vec![issued], u64::MAX));
            let certificate = PeerCertificate { identity: None, chain: Some(chain) };
            let session = Session::new(
                serial.into(),
                source,
                name("public"),
                name("nas"),
                certificate,
                Path::Copy,
                Arc::default(),
            );
            Sessions::register(&sessions, session)
        });
        let reviewed = review(&sessions, &snapshot, UnixTime::now(), Instant::now());
        assert_eq!(reviewed, Reviewed { kept: 0, cut: 2 });
        let reasons = guards.map(|one| one.session().relay.ordered().map(|order| order.reason));
        assert_eq!(reasons, [Some(CloseReason::Revoked), Some(CloseReason::NotTrusted)]);
    }

    /// attacks.md row 44.
    #[test]
    fn row_44_a_session_whose_review_panics_is_cut() {
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let session = |id| {
            Session::new(
                id,
                source,
                name("public"),
                name("nas"),
                PeerCertificate::default(),
                Path::Copy,
                Arc::default(),
            )
        };
        let sessions = [1, 2, 3].map(session).map(Arc::new);
        let cut: Vec<bool> = sessions
            .iter()
            .map(|session| cut_if(session, Instant::now(), || if session.id == 2 { panic!("a fault") } else { None }))
            .collect();
        assert_eq!(cut, [false, true, false]);
        assert_eq!(sessions[1].relay.ordered().map(|order| order.reason), Some(CloseReason::Internal));
    }
}
