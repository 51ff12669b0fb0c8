//! What all connections of a running gate share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::admission::descriptors::Descriptors;
use crate::admission::penalties::Voucher;
use crate::backends::resolver::Resolver;
use crate::explain::refusals::Refusals;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Sha256};
use crate::model::names::{Name, ServerName};
use crate::model::rejection::{Cause, Rejection};
use crate::relay::{Order, Support};
use crate::sessions::registry::{Session, Sessions};
use crate::sessions::selector::Whom;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tally::Tally;

/// What all connections of a running gate share.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The configuration of now; a connection loads it once.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The limits, and what counts towards them.
    pub(crate) admission: Admission,
    /// What the kernel takes over.
    pub(crate) kernel: Support,
    /// The file descriptors that the process may have.
    pub(crate) descriptors: Descriptors,
    /// The addresses of backends; what it knows outlasts every snapshot.
    pub(crate) resolver: Resolver,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<Log>,
    /// Who was turned away lately.
    pub(crate) refusals: Arc<Refusals>,
    /// Who is in.
    pub(crate) sessions: Arc<Sessions>,
    /// How many of both.
    pub(crate) tally: Arc<Tally>,
    /// No connection is let in any more; relays go on.
    pub(crate) draining: CancellationToken,
    /// Another snapshot is there, and sessions have been reviewed by it.
    pub(crate) reviewed: Notify,
    ids: AtomicU64,
}

impl Gate {
    pub(crate) fn new(
        snapshot: Snapshot,
        admission: Admission,
        kernel: Support,
        metrics: Arc<Metrics>,
        log: Arc<Log>,
    ) -> Self {
        log.report_to(metrics.log());
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            admission,
            kernel,
            descriptors: Descriptors::of_a_gate(),
            resolver: Resolver::system(1),
            metrics,
            log,
            refusals: Arc::default(),
            sessions: Arc::default(),
            tally: Arc::default(),
            draining: CancellationToken::new(),
            reviewed: Notify::new(),
            ids: AtomicU64::new(1),
        }
    }

    /// How many connections there were: each has taken a number.
    pub(crate) fn accepted(&self) -> u64 {
        self.ids.load(Ordering::Relaxed) - 1
    }

    /// Cuts every session that would not be let in now by the snapshot of now; `at` is when somebody wanted that.
    pub(crate) fn review(&self, at: Instant) -> Reviewed {
        let (snapshot, now) = (self.snapshot.load_full(), UnixTime::now());
        let (mut sessions, _) = self.sessions.newest(usize::MAX);
        // Those that end already were counted when they were told to.
        sessions.retain(|session| session.relay.ordered().is_none());
        let all = sessions.len();
        // First what takes rights away for good, by look-ups. Nothing that a client has sent can delay it.
        sessions.retain(|session| !cut(session, at, || withdrawn(session, &snapshot)));
        let mut verdicts = Verdicts::new(judged(&snapshot, now));
        let kept = sessions.iter().filter(|session| !cut(session, at, || verdicts.of(session))).count();
        self.rights_changed(&snapshot, now);
        Reviewed { kept, cut: all - kept }
    }

    /// To be called when sessions have been reviewed: connections whose backends are being dialled ask once more, and devices
    /// that have lost their right vouch for no source any more.
    fn rights_changed(&self, snapshot: &Snapshot, now: UnixTime) {
        self.reviewed.notify_waiters();
        self.withdraw_unknown(self.admission.vouchers(), snapshot, now);
    }

    /// Devices whose certificate has expired vouch for no source any more, unless a route keeps them. To be called now and then.
    pub(crate) fn withdraw_expired(&self, now: UnixTime) {
        let mut expired = self.admission.vouchers();
        expired.retain(|device| device.chain.good_until < now.as_secs());
        self.withdraw_unknown(expired, &self.snapshot.load(), now);
    }

    /// A connection of `client` was refused although it showed this certificate. If its device vouches for the source and has
    /// lost its right, it does not any more. It is judged by what it showed itself: another client may have copied the certificate.
    pub(crate) fn doubt(&self, client: IpAddr, device: &Sha256) {
        if let Some(device) = self.admission.voucher(client, device) {
            self.withdraw_unknown(vec![device], &self.snapshot.load(), UnixTime::now());
        }
    }

    fn withdraw_unknown(&self, mut devices: Vec<Voucher>, snapshot: &Snapshot, now: UnixTime) {
        devices.retain(|device| !snapshot.knows(&device.chain, now));
        self.admission.withdraw(&devices);
    }

    /// Whether a connection that was let in on `route` may go on to its backends, by the snapshot of now.
    pub(crate) fn still_leads(
        &self,
        server_name: Option<&ServerName>,
        route: &Arc<Route>,
        chain: Option<&Chain>,
    ) -> Result<(), Rejection> {
        let verdict = self.snapshot.load().still_leads(server_name, route, chain, UnixTime::now());
        verdict.map_err(Rejection::silent)
    }

    /// Cuts the sessions that are meant, and says which these are.
    pub(crate) fn cut(&self, whom: &Whom) -> Vec<Arc<Session>> {
        let at = Instant::now();
        let (mut sessions, _) = self.sessions.newest(usize::MAX);
        sessions.retain(|session| {
            whom.means(session, self.admission.source(session.source.ip()))
                && session.relay.order(Order { reason: CloseReason::CutByHand, cause: None, at })
        });
        sessions
    }

    /// Looks again at the sessions of which a certificate has expired, unless their route keeps them.
    pub(crate) fn end_expired(&self, now: UnixTime) {
        let (snapshot, at) = (self.snapshot.load_full(), Instant::now());
        let expired = self.sessions.expired(now.as_secs());
        let mut verdicts = Verdicts::new(judged(&snapshot, now));
        for session in expired.iter().filter(|session| snapshot.ends_expired(&session.route)) {
            cut(session, at, || verdicts.of(session));
        }
    }

    /// A number for a connection.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// What became of the sessions under another snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reviewed {
    /// They go on.
    pub(crate) kept: usize,
    /// They end.
    pub(crate) cut: usize,
}

/// Why a session has to end.
type Verdict = Option<(CloseReason, Option<Box<Cause>>)>;

/// What becomes of sessions. Each chain is judged once for each route, however many sessions have it.
struct Verdicts<F> {
    judge: F,
    known: HashMap<(Name, Option<Sha256>), Verdict>,
}

impl<F: FnMut(&Session) -> Verdict> Verdicts<F> {
    fn new(judge: F) -> Self {
        Self { judge, known: HashMap::new() }
    }

    fn of(&mut self, session: &Session) -> Verdict {
        let key = (session.route.clone(), session.chain.as_ref().map(|chain| chain.digest));
        self.known.entry(key).or_insert_with(|| (self.judge)(session)).clone()
    }
}

/// Whether `snapshot` lets a session go on.
fn judged(snapshot: &Snapshot, now: UnixTime) -> impl FnMut(&Session) -> Verdict {
    move |session| snapshot.keeps(&session.route, session.chain.as_deref(), now).err().map(boxed)
}

fn boxed((reason, cause): (CloseReason, Cause)) -> (CloseReason, Option<Box<Cause>>) {
    (reason, Some(Box::new(cause)))
}

fn withdrawn(session: &Session, snapshot: &Snapshot) -> Verdict {
    snapshot.withdraws(&session.route, session.identity.as_deref(), session.chain.as_deref()).map(boxed)
}

/// Cuts a session if `verdict` says so. It is cut as well if the gate cannot tell: a fault in judging one session must neither
/// keep it in nor leave the others without a verdict.
fn cut(session: &Session, at: Instant, verdict: impl FnOnce() -> Verdict) -> bool {
    let fault = || Some((CloseReason::Internal, Some(Box::new(Cause::NotJudged))));
    let verdict = catch_unwind(AssertUnwindSafe(verdict)).unwrap_or_else(|_| fault());
    let Some((reason, cause)) = verdict else { return false };
    session.relay.order(Order { reason, cause, at });
    true
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::checked::LogFormat;
    use crate::model::identity::{Issued, IssuerKey, Serial};
    use crate::pki::Parts;
    use crate::relay::Path;
    use crate::sessions::registry::Holder;

    impl Gate {
        /// A gate that logs to nowhere, and moves payload without the kernel.
        pub(crate) fn testing(config: &crate::config::checked::Config) -> Arc<Self> {
            let log = Log::new(LogFormat::Json, std::io::sink());
            Arc::new(Self::new(
                Snapshot::build(config).expect("a snapshot"),
                Admission::new(config.limits.clone()),
                Support::none(),
                Arc::new(Metrics::new(config).expect("metrics")),
                Arc::new(log.expect("a log")),
            ))
        }
    }

    #[test]
    fn each_chain_is_judged_once_for_each_route() {
        let name = |text: &str| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let chains = [100, 200].map(|until| {
            // Equal chains need not be one: sessions of former snapshots have their own.
            move || Arc::new(Chain::new(vec![vec![u8::try_from(until).expect("small")].into()], Vec::new(), until))
        });
        let session = |id: u64, route: &str, chain: Option<Arc<Chain>>| {
            let holder = Holder { identity: None, chain };
            Session::new(id, source, name("public"), name(route), holder, Path::Copy)
        };
        let mut judged = Vec::new();
        let mut verdicts = Verdicts::new(|session: &Session| {
            judged.push(session.id);
            (session.route.as_str() == "ssh").then_some((CloseReason::NotAllowed, None))
        });
        for id in 0..1000 {
            for (route, cut) in [("nas", false), ("ssh", true)] {
                for chain in [Some(chains[0]()), Some(chains[1]()), None] {
                    assert_eq!(verdicts.of(&session(id, route, chain)).is_some(), cut);
                }
            }
        }
        assert_eq!(judged, [0; 6]);
    }

    /// attacks.md row 36. What these clients have shown is no chain, so who judges it first says that.
    #[test]
    fn row_36_a_review_asks_the_lists_before_chains_are_judged() {
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
        let gate = Gate::new(
            Snapshot::build(&config).expect("a snapshot"),
            Admission::new(config.limits.clone()),
            Support::none(),
            Arc::new(Metrics::new(&config).expect("metrics")),
            Arc::new(Log::new(LogFormat::Json, std::io::sink()).expect("a log")),
        );
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let entered = [7, 8].map(|serial| {
            let key = IssuerKey { spki: parts.key.to_vec(), digest: Sha256::of(parts.key), signs_lists: true };
            let issued =
                Issued { issuer: parts.subject.to_vec(), key: Some(key), serial: Serial::from_be_bytes(&[serial]) };
            let chain = Arc::new(Chain::new(vec![vec![serial].into()], vec![issued], u64::MAX));
            let holder = Holder { identity: None, chain: Some(chain) };
            let session = Session::new(serial.into(), source, name("public"), name("nas"), holder, Path::Copy);
            Sessions::enter(&gate.sessions, session)
        });
        assert_eq!(gate.review(Instant::now()), Reviewed { kept: 0, cut: 2 });
        let reasons = entered.map(|one| one.session().relay.ordered().map(|order| order.reason));
        assert_eq!(reasons, [Some(CloseReason::Revoked), Some(CloseReason::NotTrusted)]);
    }

    /// attacks.md row 44.
    #[test]
    fn row_44_a_session_whose_review_panics_is_cut() {
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        let session = |id| Session::new(id, source, name("public"), name("nas"), Holder::default(), Path::Copy);
        let sessions = [1, 2, 3].map(session).map(Arc::new);
        let cut: Vec<bool> = sessions
            .iter()
            .map(|session| cut(session, Instant::now(), || if session.id == 2 { panic!("a fault") } else { None }))
            .collect();
        assert_eq!(cut, [false, true, false]);
        assert_eq!(sessions[1].relay.ordered().map(|order| order.reason), Some(CloseReason::Internal));
    }
}
