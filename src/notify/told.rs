//! What was told lately: for a notifier that comes later, after an upgrade or after one has ended.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::notice::NoticeEvent;

/// The most that is remembered. The notifiers of two receivers tell less than that in an hour, and a home has fewer lasting things.
const TOLD_MAX: usize = 1024;

/// How long it is remembered: what lasts is told once a day.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What was told about a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The receiver that had a message of its own or a digest that names it; `None`: it lasts, and receivers were given a message.
    pub(crate) receiver: Option<String>,
    pub(crate) event: NoticeEvent,
    pub(crate) subject: String,
    /// How long ago.
    pub(crate) ago: Duration,
}

/// What was told, the latest last.
#[derive(Debug, Default)]
pub(super) struct ToldLately(Vec<(Instant, Told)>);

impl ToldLately {
    /// Remembers one, in the place of an earlier one.
    pub(super) fn add(&mut self, told: Told) {
        let now = Instant::now();
        let Some(at) = now.checked_sub(told.ago).filter(|_| told.ago < KEPT) else { return };
        let same = |known: &Told| {
            known.receiver == told.receiver && known.event == told.event && known.subject == told.subject
        };
        self.0.retain(|(at, known)| now.saturating_duration_since(*at) < KEPT && !same(known));
        if self.0.len() >= TOLD_MAX {
            self.0.remove(0);
        }
        self.0.push((at, told));
    }

    /// What is remembered, as of now.
    pub(super) fn all(&self) -> Vec<Told> {
        let ago = |(at, told): &(Instant, Told)| Told { ago: at.elapsed(), ..told.clone() };
        self.0.iter().map(ago).collect()
    }

    /// Forgets what receivers were told.
    pub(super) fn forget_receivers(&mut self) {
        self.0.retain(|(_, told)| told.receiver.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(receiver: Option<&str>, subject: &str, minutes: u64) -> Told {
        let ago = Duration::from_secs(60 * minutes);
        Told { receiver: receiver.map(str::to_owned), event: NoticeEvent::Impostor, subject: subject.to_owned(), ago }
    }

    #[tokio::test(start_paused = true)]
    async fn each_subject_is_remembered_once_and_for_a_day() {
        tokio::time::advance(2 * KEPT).await;
        let mut lately = ToldLately::default();
        lately.add(told(Some("one"), "phone", 30));
        lately.add(told(Some("two"), "phone", 20));
        lately.add(told(None, "phone", 60 * 23));
        lately.add(told(None, "old", 60 * 24));
        lately.add(told(Some("one"), "phone", 10));
        tokio::time::advance(Duration::from_secs(60)).await;
        let expected =
            [told(Some("two"), "phone", 21), told(None, "phone", 60 * 23 + 1), told(Some("one"), "phone", 11)];
        assert_eq!(lately.all(), expected);
        lately.forget_receivers();
        assert_eq!(lately.all(), [told(None, "phone", 60 * 23 + 1)]);
        for n in 0..2 * TOLD_MAX {
            lately.add(told(Some("one"), &n.to_string(), 0));
        }
        assert_eq!(lately.all().len(), TOLD_MAX);
    }
}
