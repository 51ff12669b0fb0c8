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
    /// Where it was ordered.
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
        Some(served) => schedule::renewal(served.validity, known.window, served.jitter()),
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
