//! Chains of open sessions, judged again.

use super::*;

#[test]
fn review_checks_no_signature() {
    let root = Ca::new("Devices");
    let middle = root.below({
        let mut params = authority_params("Middle");
        params.serial_number = Some(SerialNumber::from(40_u64));
        params
    });
    let before = Scene::new(&[&root.certificate], Vec::new());
    let (lost, kept) = (root.device(numbered("lost", 1)), root.device(numbered("kept", 2)));
    let below = middle.device(numbered("below", 1));
    let chains = [
        before.admits("lost", &lost, &[]),
        before.admits("kept", &kept, &[]),
        before.admits("below", &below, &[&middle.certificate]),
    ];
    for (revoked, expected) in
        [(vec![], [false, false, false]), (vec![1], [true, false, false]), (vec![40], [false, false, true])]
    {
        let mut list = root.list(&revoked, 7, None);
        list.signer = Parts::read(&root.certificate).map(|root| Sha256::of(root.key));
        let after = Scene::new(&[&root.certificate], vec![list]);
        let cut = chains.each_ref().map(|chain| after.authorities.revoke(chain));
        assert_eq!(cut, expected, "{revoked:?}");
        assert_eq!(after.count.load(Ordering::Relaxed), 0, "{revoked:?}");
    }
}

#[test]
fn session_is_refused_once_its_certificate_expires() {
    let root = Ca::new("Devices");
    let now = UnixTime::now().as_secs();
    let mut short = params("alice");
    short.not_after = OffsetDateTime::from_unix_timestamp(i64::try_from(now + 60).expect("a time")).expect("a time");
    let leaf = root.device(short);
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let at = |seconds| scene.authorities.verify(&leaf, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    for (seconds, reason) in [(now, None), (now + 60, None), (now + 61, Some(Reason::Expired))] {
        let verdict = at(seconds);
        assert_eq!(verdict.err().map(|(_, refused)| refused.cause.reason()), reason, "after {} s", seconds - now);
    }
    assert_eq!(at(now).expect("valid").1, now + 60);
}

#[test]
fn only_the_path_decides_how_long_a_chain_is_valid() {
    let root = Ca::new("Devices");
    let now = OffsetDateTime::now_utc();
    let mut needless = authority_params("Needless");
    needless.not_after = now + time::Duration::minutes(1);
    let needless = Ca::new("Other").below(needless).certificate;
    let mut short = authority_params("Short");
    short.not_after = now + time::Duration::minutes(2);
    let short = root.below(short);
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let (long, below) = (root.device(params("alice")), short.device(params("bob")));
    let until = |chain: Arc<Chain>| i64::try_from(chain.good_until).expect("a time") - now.unix_timestamp();
    assert!(until(scene.admits("a needless one", &long, &[&needless])) > 3600);
    assert_eq!(until(scene.admits("an intermediate", &below, &[&short.certificate, &needless])), 120);
}
