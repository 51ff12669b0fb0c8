//! What the agent does next: a pure function of what it knows.

use time::OffsetDateTime;

use super::schedule::{self, LONGEST_WAIT, Window};
use super::served::Served;
use super::store::{Failures, Ordered};
use crate::config::checked::{Acme, AcmeDirectory};

/// What is known when the next step is chosen.
#[derive(Clone, Debug)]
pub(super) struct Known<'a, 'b> {
    pub(super) acme: &'a Acme,
    /// The certificate in use, if it can be used.
    pub(super) served: Option<&'b Served>,
    /// Where it was ordered, and when it was put in place.
    pub(super) issued: Option<&'b Ordered>,
    /// Where an order has succeeded on trial.
    pub(super) tried: Option<&'b Ordered>,
    /// The orders that have failed in a row.
    pub(super) failures: Option<&'b Failures>,
    /// Whether an order was placed and is not over.
    pub(super) is_placed: bool,
    /// Where the server wants the certificate to be renewed.
    pub(super) window: Option<Window>,
    pub(super) now: OffsetDateTime,
    /// The owner wants a certificate now.
    pub(super) forced: bool,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Order at this directory.
    Order(&'a AcmeDirectory),
    /// Nothing before this moment.
    Wait(OffsetDateTime),
}

/// Chooses the next step.
pub(super) fn next<'a>(known: &Known<'a, '_>) -> Step<'a> {
    let Known { acme, served, failures, now, .. } = *known;
    let (main, is_ours) = (&acme.directory, is_ours(known));
    let due = match served.filter(|_| is_ours && !known.is_placed) {
        Some(served) => {
            let due = schedule::renewal(served.validity, known.window, served.jitter());
            let at = known.issued.and_then(|issued| OffsetDateTime::from_unix_timestamp(issued.at).ok());
            at.filter(|at| *at <= now).map_or(due, |at| due.max(schedule::soonest(at, served.validity, known.window)))
        }
        None => now,
    };
    let not_before = failures.filter(|failures| concerns(acme, &failures.ordered)).map(|failures| {
        let (at, not_before) = (failures.last.at, failures.not_before);
        // A clock that was put back, or was wrong then, must not make the wait longer than it was meant to be.
        let wait = i64::try_from(LONGEST_WAIT.as_secs()).unwrap_or(i64::MAX).min(not_before.saturating_sub(at)).max(0);
        let until = if at > now.unix_timestamp() { now.unix_timestamp() + wait } else { at.saturating_add(wait) };
        OffsetDateTime::from_unix_timestamp(until).unwrap_or(now)
    });
    let begins = not_before.map_or(due, |not_before| due.max(not_before));
    if begins > now && !known.forced {
        return Step::Wait(begins);
    }
    let trial = acme.trial.as_ref().filter(|trial| {
        let was_tried = known.tried.is_some_and(|tried| tried.directory == trial.url && tried.names == acme.names);
        !is_ours && !was_tried
    });
    Step::Order(trial.unwrap_or(main))
}

/// Whether the certificate in use is for the names, and from the directory, of this configuration.
fn is_ours(known: &Known<'_, '_>) -> bool {
    let Known { acme, served, issued, .. } = known;
    served.is_some_and(|served| served.lacks(&acme.names).is_none())
        && issued.is_some_and(|issued| issued.directory == acme.directory.url)
}

/// Whether orders like this one are those of this configuration: others say nothing about it.
fn concerns(acme: &Acme, ordered: &Ordered) -> bool {
    let mut directories = acme.trial.iter().chain([&acme.directory]);
    ordered.names == acme.names && directories.any(|directory| directory.url == ordered.directory)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::acme::schedule::Validity;
    use crate::config::checked::{Challenge, StateFolder};
    use crate::model::issuance::FailedOrder;

    const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
    const END: OffsetDateTime = datetime!(2026-04-01 00:00 UTC);

    fn directory(name: &str) -> AcmeDirectory {
        AcmeDirectory { name: name.to_owned(), url: format!("https://{name}/dir") }
    }

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["nas.home.example".to_owned()])
    }

    fn acme(trial: bool) -> Acme {
        Acme {
            contact: None,
            directory: directory("main"),
            trial: trial.then(|| directory("trial")),
            trust: None,
            challenge: Challenge::TlsAlpn01,
            state: StateFolder::At("/acme".into()),
            profile: None,
            eab: None,
            names: names(),
            files: Vec::new(),
        }
    }

    fn ordered(directory: &str) -> Ordered {
        Ordered { directory: format!("https://{directory}/dir"), names: names(), at: 0 }
    }

    fn served() -> Served {
        Served::of(names(), Validity { not_before: START, not_after: END })
    }

    fn known<'a>(acme: &'a Acme) -> Known<'a, 'static> {
        Known {
            acme,
            served: None,
            issued: None,
            tried: None,
            failures: None,
            is_placed: false,
            window: None,
            now: START,
            forced: false,
        }
    }

    fn failures(at: OffsetDateTime, wait: Duration) -> Failures {
        let at = at.unix_timestamp();
        let last =
            FailedOrder { at, in_a_row: 1, directory: "main".to_owned(), error: "no".to_owned(), remedies: Vec::new() };
        Failures { ordered: ordered("main"), last, not_before: at + wait.whole_seconds() }
    }

    #[test]
    fn first_order_is_placed_on_trial_until_one_has_succeeded() {
        let acme = acme(true);
        assert_eq!(next(&known(&acme)), Step::Order(&directory("trial")));
        let tried = ordered("trial");
        assert_eq!(next(&Known { tried: Some(&tried), ..known(&acme) }), Step::Order(&directory("main")));
        // For other names it says nothing.
        let other = Ordered { names: BTreeSet::from(["ssh.home.example".to_owned()]), ..tried };
        assert_eq!(next(&Known { tried: Some(&other), ..known(&acme) }), Step::Order(&directory("trial")));
    }

    #[test]
    fn certificate_in_use_is_renewed_at_the_directory_without_a_trial() {
        let (acme, served, issued) = (acme(true), served(), ordered("main"));
        let known = Known { served: Some(&served), issued: Some(&issued), ..known(&acme) };
        let Step::Wait(until) = next(&known) else { panic!("it is new") };
        assert!((START + Duration::days(56)..=START + Duration::days(60)).contains(&until), "{until}");
        assert_eq!(next(&Known { now: until, ..known.clone() }), Step::Order(&directory("main")));
        assert_eq!(next(&Known { forced: true, ..known.clone() }), Step::Order(&directory("main")));
        assert_eq!(next(&Known { is_placed: true, ..known.clone() }), Step::Order(&directory("main")), "killed before");
        let window = Window { start: START, end: START + Duration::HOUR };
        assert!(
            matches!(next(&Known { window: Some(window), ..known }), Step::Wait(at) if at < START + Duration::HOUR)
        );
    }

    #[test]
    fn new_certificate_is_not_replaced_at_once_by_a_clock_that_is_wrong() {
        let (acme, served, now) = (acme(false), served(), START + Duration::days(70));
        let issued = |at: OffsetDateTime| Ordered { at: at.unix_timestamp(), ..ordered("main") };
        let known = Known { served: Some(&served), now, ..known(&acme) };
        let (long_ago, just_now, later) = (issued(START), issued(now), issued(now + Duration::DAY));
        let main = directory("main");
        let order = Step::Order(&main);
        assert_eq!(next(&Known { issued: Some(&long_ago), ..known.clone() }), order);
        let new = Known { issued: Some(&just_now), ..known.clone() };
        assert_eq!(next(&new), Step::Wait(now + Duration::DAY));
        assert_eq!(next(&Known { forced: true, ..new }), order);
        // The clock was put back.
        assert_eq!(next(&Known { issued: Some(&later), ..known }), order);
    }

    #[test]
    fn certificate_from_elsewhere_or_for_other_names_is_replaced() {
        let (served, issued, elsewhere) = (served(), ordered("main"), ordered("elsewhere"));
        let (acme, mut more) = (acme(false), acme(false));
        more.names.insert("ssh.home.example".to_owned());
        for (acme, issued, waits) in [
            (&acme, Some(&issued), true),
            (&acme, Some(&elsewhere), false),
            (&acme, None, false),
            (&more, Some(&issued), false),
        ] {
            let step = next(&Known { served: Some(&served), issued, ..known(acme) });
            assert_eq!(matches!(step, Step::Wait(_)), waits, "{step:?}");
        }
    }

    #[test]
    fn failed_order_is_waited_for_by_any_clock() {
        let acme = acme(false);
        let failed = failures(START, Duration::hours(2));
        let at = |now| next(&Known { failures: Some(&failed), now, ..known(&acme) });
        assert_eq!(at(START + Duration::HOUR), Step::Wait(START + Duration::hours(2)));
        assert_eq!(at(START + Duration::hours(2)), Step::Order(&directory("main")));
        // The clock was put back by years: the wait is no longer than it was.
        let back = START - Duration::days(3000);
        assert_eq!(at(back), Step::Wait(back + Duration::hours(2)));
        // Forward by years.
        assert_eq!(at(START + Duration::days(3000)), Step::Order(&directory("main")));
        // A damaged file asks for no wait that is longer than any.
        let endless = Failures { not_before: i64::MAX, ..failed.clone() };
        let step = next(&Known { failures: Some(&endless), ..known(&acme) });
        assert_eq!(step, Step::Wait(START + Duration::DAY));
        // It was of another configuration.
        let other = Failures { ordered: ordered("elsewhere"), ..failed };
        assert_eq!(next(&Known { failures: Some(&other), ..known(&acme) }), Step::Order(&directory("main")));
    }
}
