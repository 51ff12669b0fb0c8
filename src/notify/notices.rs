//! Collects events in the gate. It never waits, whatever happens to the receivers, and its size is bounded.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::sync::Notify;

use super::message::Notice;
use super::told::{Told, ToldLately};
use crate::model::names::visible;
use crate::model::notice::NoticeEvent;

/// The most subjects that wait at once; they wait for a second.
const PENDING_MAX: usize = 64;
/// The longest subject, in characters.
const SUBJECT_MAX: usize = 128;

/// What has happened and was not handed over yet.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// A bit for each event that is told.
    wanted: AtomicU32,
    pending: Mutex<Pending>,
    wake: Notify,
    receivers: Mutex<Vec<ReceiverState>>,
    told: Mutex<ToldLately>,
}

#[derive(Debug, Default)]
struct Pending {
    notices: Vec<Notice>,
    /// How many had no room, by event.
    dropped: [u64; NoticeEvent::ALL.len()],
}

/// What is told about an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) message: String,
    pub(crate) route: Option<String>,
    pub(crate) source: Option<String>,
    /// What was told before is over.
    pub(crate) resolved: bool,
}

/// Whether a receiver takes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceiverState {
    /// Scheme and host, or a path.
    pub(crate) name: String,
    /// Why it does not, and since when.
    pub(crate) error: Option<(String, OffsetDateTime)>,
    /// How many wait for it.
    pub(crate) waiting: usize,
}

impl Notices {
    /// From now on these events are told.
    pub(crate) fn want(&self, events: &BTreeSet<NoticeEvent>) {
        let bits = events.iter().fold(0, |bits, event| bits | bit(*event));
        self.wanted.store(bits, Ordering::Relaxed);
    }

    /// Something has happened to `subject`. The text is made only if it is told.
    pub(crate) fn tell(&self, event: NoticeEvent, subject: &str, text: impl FnOnce() -> Text) {
        if self.wanted.load(Ordering::Relaxed) & bit(event) == 0 {
            return;
        }
        let mut pending = self.pending();
        let Pending { notices, dropped } = &mut *pending;
        let known = notices.iter_mut().find(|notice| notice.event == event && notice.subject == subject);
        if let Some(known) = known {
            known.count = known.count.saturating_add(1);
            return;
        }
        if notices.len() >= PENDING_MAX {
            if let Some(dropped) = dropped.get_mut(event as usize) {
                *dropped = dropped.saturating_add(1);
            }
            return;
        }
        let Text { title, message, route, source, resolved } = text();
        let (subject, time) = (subject.to_owned(), OffsetDateTime::now_utc());
        let (count, domain, digest, test) = (1, None, false, false);
        let new = Notice { event, subject, title, message, time, count, domain, route, source, resolved, digest, test };
        notices.push(new.bounded());
        drop(pending);
        self.wake.notify_one();
    }

    /// Waits until something has happened.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Ends the next wait at once.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes what has happened, and how many events had no room.
    pub(crate) fn take(&self) -> (Vec<Notice>, Vec<(NoticeEvent, u64)>) {
        let Pending { notices, dropped } = std::mem::take(&mut *self.pending());
        let dropped = NoticeEvent::ALL.into_iter().zip(dropped).filter(|(_, count)| *count > 0);
        (notices, dropped.collect())
    }

    /// The receivers.
    pub(crate) fn receivers(&self) -> Vec<ReceiverState> {
        self.states().clone()
    }

    /// These are the receivers now; nothing is known of them yet.
    pub(crate) fn set_receivers(&self, names: impl Iterator<Item = String>) {
        *self.states() = names.map(|name| ReceiverState { name, error: None, waiting: 0 }).collect();
    }

    /// What is known of a receiver. Returns whether it takes messages again, or no longer.
    pub(crate) fn receiver_is(&self, index: usize, error: Option<String>, waiting: usize) -> bool {
        let mut states = self.states();
        let Some(state) = states.get_mut(index) else { return false };
        let changed = state.error.is_some() != error.is_some();
        let since = state.error.as_ref().map_or_else(OffsetDateTime::now_utc, |(_, since)| *since);
        state.error = error.map(|error| (error, since));
        state.waiting = waiting;
        changed
    }

    /// A receiver has taken a message about a subject, or receivers were given one about what lasts.
    pub(crate) fn add_told(&self, told: Told) {
        let subject = visible(&told.subject, SUBJECT_MAX);
        self.told_lately().add(Told { subject, ..told });
    }

    /// What was told lately.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told_lately().all()
    }

    /// The receivers are others now: they were told nothing.
    pub(crate) fn forget_receivers(&self) {
        self.told_lately().forget_receivers();
    }

    fn told_lately(&self) -> MutexGuard<'_, ToldLately> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, Vec<ReceiverState>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn bit(event: NoticeEvent) -> u32 {
    1 << event as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_subject_and_bounded() {
        let notices = Notices::default();
        notices.tell(NoticeEvent::Impostor, "phone", || panic!("it is not wanted"));
        notices.want(&[NoticeEvent::Impostor].into());
        for _ in 0..1000 {
            notices.tell(NoticeEvent::Impostor, "phone", Text::default);
        }
        notices.tell(NoticeEvent::BackendDown, "nas", || panic!("it is not wanted"));
        for n in 0..1000 {
            notices.tell(NoticeEvent::Impostor, &format!("device-{n}"), Text::default);
        }
        let (taken, dropped) = notices.take();
        assert_eq!((taken.len(), taken.first().map(|notice| notice.count)), (PENDING_MAX, Some(1000)));
        assert_eq!(dropped, [(NoticeEvent::Impostor, 1001 - PENDING_MAX as u64)]);
        assert_eq!(notices.take(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn receiver_fails_since_its_first_error() {
        let notices = Notices::default();
        notices.set_receivers(["https://ntfy.sh".to_owned()].into_iter());
        assert!(notices.receiver_is(0, Some("one".to_owned()), 1));
        let since = notices.receivers()[0].error.clone().expect("an error").1;
        assert!(!notices.receiver_is(0, Some("two".to_owned()), 2));
        assert_eq!(notices.receivers()[0].error, Some(("two".to_owned(), since)));
        assert!(
            notices.receiver_is(0, None, 0) && !notices.receiver_is(0, None, 0) && !notices.receiver_is(1, None, 0)
        );
    }
}
