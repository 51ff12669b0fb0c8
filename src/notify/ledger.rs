//! One message for each subject and hour, ten for each event and hour, and a digest of the rest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::message::Notice;
use crate::model::notice::NoticeEvent;

/// For which there is one message about a subject.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The most messages about an event in that time, besides a digest.
const MESSAGES_MAX: usize = 10;

/// The most subjects that a digest names.
const SUBJECTS_MAX: usize = 12;

/// What was told in the last hour, and what was not.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: HashMap<NoticeEvent, OfEvent>,
    /// What was told since that was asked for.
    news: Vec<(NoticeEvent, String)>,
}

#[derive(Debug, Default)]
struct OfEvent {
    /// At most [`MESSAGES_MAX`] subjects, and those of the last digest.
    told: VecDeque<(Instant, String)>,
    digest: Option<Digest>,
}

/// What waits for a digest.
#[derive(Debug)]
struct Digest {
    due: Instant,
    /// The latest one.
    last: Notice,
    total: u64,
    /// Counts and latest titles of some subjects.
    subjects: BTreeMap<String, (u64, String)>,
    /// Events that are about others.
    others: u64,
}

impl Ledger {
    /// Takes a message. Returns it if it is to be sent now, for one event; and how many events are left for a digest.
    pub(super) fn take(&mut self, notice: Notice, now: Instant) -> (Option<Notice>, u64) {
        let event = self.events.entry(notice.event).or_default();
        event.told.retain(|(at, _)| now.saturating_duration_since(*at) < HOUR);
        let is_new = !event.told.iter().any(|(_, subject)| *subject == notice.subject);
        if is_new && event.told.len() < MESSAGES_MAX {
            event.told.push_back((now, notice.subject.clone()));
            self.news.push((notice.event, notice.subject.clone()));
            let more = notice.count.saturating_sub(1);
            if more > 0 {
                event.later(Notice { count: more, ..notice.clone() }, now);
            }
            return (Some(Notice { count: 1, ..notice }), more);
        }
        let count = notice.count;
        event.later(notice, now);
        (None, count)
    }

    /// An earlier notifier has told about this subject at that time.
    pub(super) fn was_told(&mut self, event: NoticeEvent, subject: String, at: Instant) {
        let event = self.events.entry(event).or_default();
        if event.told.len() < MESSAGES_MAX + SUBJECTS_MAX {
            event.told.push_back((at, subject));
        }
    }

    /// Takes what was told since the last call.
    pub(super) fn news(&mut self) -> Vec<(NoticeEvent, String)> {
        std::mem::take(&mut self.news)
    }

    /// Leaves a message for the digest that was to be sent.
    pub(super) fn put_back(&mut self, notice: Notice, now: Instant) {
        self.events.entry(notice.event).or_default().later(notice, now);
    }

    /// When the next digest is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.events.values().filter_map(|event| Some(event.digest.as_ref()?.due)).min()
    }

    /// A digest that is due; any one if `end`.
    pub(super) fn digest(&mut self, now: Instant, end: bool) -> Option<Notice> {
        let is_due = |event: &OfEvent| event.digest.as_ref().is_some_and(|digest| end || digest.due <= now);
        let event = self.events.values_mut().find(|event| is_due(event))?;
        let digest = event.digest.take()?;
        self.news.extend(digest.subjects.keys().map(|subject| (digest.last.event, subject.clone())));
        // It has told about these.
        event.told.retain(|(_, subject)| !digest.subjects.contains_key(subject));
        event.told.extend(digest.subjects.keys().map(|subject| (now, subject.clone())));
        Some(digest.notice())
    }
}

impl OfEvent {
    fn later(&mut self, notice: Notice, now: Instant) {
        let digest = self.digest.get_or_insert_with(|| Digest {
            due: now + HOUR,
            last: notice.clone(),
            total: 0,
            subjects: BTreeMap::new(),
            others: 0,
        });
        digest.total = digest.total.saturating_add(notice.count);
        if digest.subjects.len() < SUBJECTS_MAX || digest.subjects.contains_key(&notice.subject) {
            let (count, title) = digest.subjects.entry(notice.subject.clone()).or_default();
            *count = count.saturating_add(notice.count);
            title.clone_from(&notice.title);
        } else {
            digest.others = digest.others.saturating_add(notice.count);
        }
        digest.last = notice;
    }
}

impl Digest {
    fn notice(self) -> Notice {
        let Self { last, total, subjects, others, .. } = self;
        let mut message = String::from("Since the last message, also:");
        for (count, title) in subjects.values() {
            let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
            // Writing to a String cannot fail.
            let _ = write!(message, "\n{title}{times}");
        }
        if others > 0 {
            let _ = write!(message, "\nand {others} more");
        }
        if total > 1 {
            let _ = write!(message, "\nThe latest: {}", last.message);
        }
        Notice {
            subject: "digest".to_owned(),
            title: format!("{} (and {} more)", last.title, total.saturating_sub(1)),
            message,
            time: OffsetDateTime::now_utc(),
            count: total,
            digest: true,
            ..last
        }
        .without_more_of_one()
    }
}

impl Notice {
    /// A digest of one event has its title.
    fn without_more_of_one(self) -> Self {
        let title = self.title.strip_suffix(" (and 0 more)").map(str::to_owned);
        Self { title: title.unwrap_or(self.title), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::notice;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn subject_has_one_message_an_hour_and_a_digest() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let impostor = |count| notice(NoticeEvent::Impostor, "alice-phone", count);
        // As of a flood from a thousand addresses.
        let (sent, later) = ledger.take(impostor(1), start);
        assert!(sent.is_some_and(|notice| notice.count == 1 && !notice.digest) && later == 0);
        for _ in 0..3 {
            assert_eq!(ledger.take(impostor(333), start + MINUTE), (None, 333));
        }
        // Another event about it is another matter.
        let (sent, _) = ledger.take(notice(NoticeEvent::NewDevice, "alice-phone", 1), start + MINUTE);
        assert!(sent.is_some());
        assert_eq!(ledger.due(), Some(start + MINUTE + HOUR));
        assert_eq!(ledger.digest(start + HOUR, false), None);
        let due = start + MINUTE + HOUR;
        let digest = ledger.digest(due, false).expect("a digest");
        assert!(digest.digest && digest.count == 999, "{digest:?}");
        assert_eq!(digest.title, "about alice-phone (and 998 more)");
        assert!(digest.message.contains("\nabout alice-phone (999 times)\n"), "{}", digest.message);
        assert_eq!((ledger.digest(due, false), ledger.due()), (None, None));
        // The digest was this hour's message.
        assert_eq!(ledger.take(impostor(1), due + MINUTE), (None, 1));
        let one = ledger.digest(due + MINUTE + HOUR, false).expect("a digest");
        assert_eq!(one.title, "about alice-phone");
        let (sent, _) = ledger.take(impostor(1), due + MINUTE + HOUR + HOUR);
        assert!(sent.is_some());
    }

    #[test]
    fn event_has_ten_messages_an_hour_whatever_their_subjects() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let told = |ledger: &mut Ledger, n: usize| {
            ledger.take(notice(NoticeEvent::Impostor, &format!("device-{n:03}"), 1), now).0.is_some()
        };
        assert_eq!((0..200).filter(|n| told(&mut ledger, *n)).count(), MESSAGES_MAX);
        let digest = ledger.digest(now + HOUR, false).expect("a digest");
        assert_eq!(digest.count, 190);
        assert!(digest.message.contains("\nand 178 more\n"), "{}", digest.message);
        assert_eq!(digest.message.matches("\nabout device-").count(), SUBJECTS_MAX);
        // It is bounded, whatever comes.
        assert_eq!((0..10_000).filter(|n| told(&mut ledger, *n)).count(), 0);
        let event = ledger.events.get(&NoticeEvent::Impostor).expect("it is known");
        assert!(event.told.len() <= MESSAGES_MAX + SUBJECTS_MAX);
    }

    #[test]
    fn hour_goes_on_in_the_next_notifier() {
        let (mut former, mut ledger, start) = (Ledger::default(), Ledger::default(), Instant::now());
        for subject in ["alice-phone", "bob-laptop", "alice-phone"] {
            former.take(notice(NoticeEvent::Impostor, subject, 1), start);
        }
        let told = former.news();
        assert_eq!(told, ["alice-phone", "bob-laptop"].map(|subject| (NoticeEvent::Impostor, subject.to_owned())));
        former.digest(start, true).expect("a digest");
        assert_eq!(former.news(), [(NoticeEvent::Impostor, "alice-phone".to_owned())]);
        assert_eq!(former.news(), []);
        for (event, subject) in told {
            ledger.was_told(event, subject, start);
        }
        let mut is_told = |subject: &str, minutes| {
            ledger.take(notice(NoticeEvent::Impostor, subject, 1), start + minutes * MINUTE).0.is_some()
        };
        assert!(!is_told("alice-phone", 59) && is_told("carol-phone", 59) && is_told("bob-laptop", 60));
        for n in 0..1000 {
            ledger.was_told(NoticeEvent::Impostor, n.to_string(), start);
        }
        assert_eq!(ledger.events[&NoticeEvent::Impostor].told.len(), MESSAGES_MAX + SUBJECTS_MAX);
    }

    #[test]
    fn end_does_not_wait_for_a_digest() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.take(notice(NoticeEvent::BackendDown, "nas", 3), now);
        assert!(ledger.digest(now, false).is_none());
        assert_eq!(ledger.digest(now, true).map(|notice| notice.count), Some(2));
    }
}
