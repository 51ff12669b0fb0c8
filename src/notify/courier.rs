//! What waits for a receiver, and when it is tried again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use super::ledger::Ledger;
use super::message::{FromNotifier, Notice};
use crate::model::notice::{NoticeEvent, NoticeOutcome};

/// The most messages that wait. What comes then is left for a digest.
const WAITING_MAX: usize = 32;

/// The first delay before another attempt, which doubles with each.
const FIRST_DELAY: Duration = Duration::from_secs(5);
/// The longest one.
const LAST_DELAY: Duration = Duration::from_secs(600);

/// How long a message is tried: a router that has lost its line has often been replaced by then.
const KEPT: Duration = Duration::from_secs(6 * 3600);

/// The messages of one receiver. Everything in it is bounded.
#[derive(Debug, Default)]
pub(super) struct Courier {
    ledger: Ledger,
    waiting: VecDeque<Waiting>,
    delay: Option<Duration>,
    next: Option<Instant>,
    error: Option<String>,
    /// What the gate is to be told.
    reports: Vec<FromNotifier>,
}

/// A message that waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    notice: Notice,
    /// What it tells about.
    subjects: Vec<(NoticeEvent, String)>,
}

impl Courier {
    /// Takes a message.
    pub(super) fn take(&mut self, notice: Notice, now: Instant) {
        let event = notice.event;
        let (send, mut later) = self.ledger.take(notice, now);
        let subjects = self.ledger.news();
        if let Some(notice) = send {
            if self.has_room() {
                self.waiting.push_back(Waiting { since: now, notice, subjects });
            } else {
                later += notice.count;
                self.ledger.put_back(notice, now);
            }
        }
        if later > 0 {
            self.reports.push(FromNotifier::Outcome { event, outcome: NoticeOutcome::Digested, count: later });
        }
    }

    /// Makes the digests that are due; all of them at the end.
    pub(super) fn digest(&mut self, now: Instant, end: bool) {
        while self.has_room()
            && let Some(digest) = self.ledger.digest(now, end)
        {
            let subjects = self.ledger.news();
            self.waiting.push_back(Waiting { since: now, notice: digest, subjects });
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// The message that is to be delivered now.
    pub(super) fn next(&self, now: Instant) -> Option<Notice> {
        let first = self.waiting.front()?;
        self.next.is_none_or(|next| next <= now).then(|| first.notice.clone())
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let digest = self.ledger.due().filter(|_| self.has_room());
        let retry = self.next.filter(|_| !self.waiting.is_empty());
        digest.into_iter().chain(retry).min()
    }

    /// Whether nothing waits.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first message was delivered, or was not.
    pub(super) fn delivered(&mut self, result: Result<(), Failure>, now: Instant) {
        let outcome = match result {
            Ok(()) => {
                (self.delay, self.next, self.error) = (None, None, None);
                Some(NoticeOutcome::Sent)
            }
            Err(Failure { error, permanent, retry_after }) => {
                self.error = Some(error);
                let old = self.waiting.front().is_none_or(|first| now.saturating_duration_since(first.since) >= KEPT);
                if permanent {
                    // Another message may be taken: this one's content may be the reason.
                    self.next = None;
                } else {
                    let delay = self.delay.map_or(FIRST_DELAY, |delay| (2 * delay).min(LAST_DELAY));
                    self.delay = Some(delay);
                    self.next = Some(now + delay.max(retry_after.unwrap_or_default().min(LAST_DELAY)));
                }
                (permanent || old).then_some(NoticeOutcome::Failed)
            }
        };
        if let Some(outcome) = outcome
            && let Some(Waiting { notice, subjects, .. }) = self.waiting.pop_front()
        {
            if outcome == NoticeOutcome::Sent {
                let told = subjects.into_iter().map(|(event, subject)| FromNotifier::Told { event, subject });
                self.reports.extend(told);
            }
            self.reports.push(FromNotifier::Outcome { event: notice.event, outcome, count: 1 });
        }
        self.reports.push(FromNotifier::State { error: self.error.clone(), waiting: self.waiting.len() });
    }

    /// An earlier notifier has told about this subject, so long ago.
    pub(super) fn was_told(&mut self, event: NoticeEvent, subject: String, ago: Duration, now: Instant) {
        if let Some(at) = now.checked_sub(ago) {
            self.ledger.was_told(event, subject, at);
        }
    }

    /// Takes what the gate is to be told.
    pub(super) fn reports(&mut self) -> Vec<FromNotifier> {
        std::mem::take(&mut self.reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::notice;

    fn failure(permanent: bool) -> Result<(), Failure> {
        Err(Failure { error: "connection refused".to_owned(), permanent, retry_after: None })
    }

    fn outcomes(courier: &mut Courier) -> Vec<(NoticeOutcome, u64)> {
        let reports = courier.reports().into_iter();
        reports
            .filter_map(|report| match report {
                FromNotifier::Outcome { outcome, count, .. } => Some((outcome, count)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn dead_receiver_is_tried_less_and_less_for_six_hours() {
        let (mut courier, start) = (Courier::default(), Instant::now());
        courier.take(notice(NoticeEvent::Impostor, "phone", 1), start);
        let (mut now, mut delays) = (start, Vec::new());
        while courier.next(now).is_some() {
            courier.delivered(failure(false), now);
            if courier.is_idle() {
                break;
            }
            let next = courier.due().expect("another attempt");
            assert!(courier.next(next - Duration::from_millis(1)).is_none());
            delays.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(delays.get(..9), Some(&[5, 10, 20, 40, 80, 160, 320, 600, 600][..]));
        assert!(now - start >= KEPT && delays.len() < 50, "{delays:?}");
        assert_eq!(outcomes(&mut courier), [(NoticeOutcome::Failed, 1)]);
    }

    #[test]
    fn subject_is_told_when_its_message_was_delivered() {
        let (mut courier, now) = (Courier::default(), Instant::now());
        let told = |courier: &mut Courier| -> Vec<String> {
            let reports = courier.reports().into_iter();
            reports
                .filter_map(|one| if let FromNotifier::Told { subject, .. } = one { Some(subject) } else { None })
                .collect()
        };
        for subject in ["phone", "laptop", "phone"] {
            courier.take(notice(NoticeEvent::Impostor, subject, 1), now);
        }
        courier.delivered(failure(false), now);
        assert_eq!(told(&mut courier), Vec::<String>::new());
        courier.delivered(Ok(()), now);
        assert_eq!(told(&mut courier), ["phone"]);
        courier.delivered(failure(true), now);
        assert_eq!(told(&mut courier), Vec::<String>::new());
        courier.digest(now, true);
        courier.delivered(Ok(()), now);
        assert_eq!(told(&mut courier), ["phone"]);
        // What an earlier one has told counts.
        courier.was_told(NoticeEvent::NewDevice, "phone".to_owned(), Duration::ZERO, now);
        courier.take(notice(NoticeEvent::NewDevice, "phone", 1), now);
        assert_eq!(courier.next(now), None);
    }

    #[test]
    fn messages_that_wait_are_bounded() {
        let (mut courier, mut now) = (Courier::default(), Instant::now());
        // A receiver that is dead for weeks, and events of every kind.
        for n in 0..5000 {
            now += Duration::from_secs(61);
            for event in NoticeEvent::ALL {
                courier.take(notice(event, &format!("subject-{n}"), 1000), now);
            }
            courier.digest(now, false);
            assert!(courier.waiting.len() <= WAITING_MAX);
            courier.reports();
        }
        assert_eq!(courier.waiting.len(), WAITING_MAX);
    }

    #[test]
    fn refused_message_is_given_up_and_the_next_one_is_tried() {
        let (mut courier, now) = (Courier::default(), Instant::now());
        courier.take(notice(NoticeEvent::Impostor, "phone", 1), now);
        courier.take(notice(NoticeEvent::Impostor, "laptop", 1), now);
        courier.delivered(failure(true), now);
        assert_eq!(courier.next(now).map(|notice| notice.subject).as_deref(), Some("laptop"));
        courier.delivered(Ok(()), now);
        assert_eq!(outcomes(&mut courier), [(NoticeOutcome::Failed, 1), (NoticeOutcome::Sent, 1)]);
        assert!(courier.is_idle() && courier.error.is_none());
    }

    #[test]
    fn receiver_that_asks_for_time_gets_it() {
        let (mut courier, now) = (Courier::default(), Instant::now());
        courier.take(notice(NoticeEvent::Impostor, "phone", 1), now);
        let retry_after = Some(Duration::from_secs(120));
        courier.delivered(Err(Failure { error: String::new(), permanent: false, retry_after }), now);
        assert_eq!(courier.due(), Some(now + Duration::from_secs(120)));
        let retry_after = Some(Duration::from_secs(1 << 40));
        courier.delivered(Err(Failure { error: String::new(), permanent: false, retry_after }), now);
        assert_eq!(courier.due(), Some(now + LAST_DELAY));
    }
}
