//! The answers, made of what is known.

use time::{Duration, OffsetDateTime};

use super::counts::{HOUR, HourCounts, Reasons, Summary};
use super::overview::{Hour, Noise, Overview};
use super::sources::Sources;
use super::state::State;

impl State {
    /// What is known now; whether it is kept, and why not, is added by the caller.
    pub(super) fn overview(&self, now: OffsetDateTime) -> Overview {
        let day = now - Duration::days(1);
        let mut visits: Vec<_> =
            self.now.visits.iter().filter(|visit| visit.open > 0 || visit.until > day).cloned().collect();
        visits.sort_by_key(|visit| std::cmp::Reverse(visit.until));
        let mut impostors = self.now.impostors.clone();
        impostors.sort_by_key(|impostor| std::cmp::Reverse(impostor.last));
        let mut backends = self.now.backends.clone();
        backends.sort_by(|one, other| (&one.route, &one.backend).cmp(&(&other.route, &other.backend)));
        let hours: Vec<Hour> =
            self.older.iter().copied().chain(self.hours.iter().map(Summary::from)).filter_map(hour).collect();
        Overview {
            since: hours.first().map(|hour| hour.start),
            trouble: None,
            is_kept: false,
            devices: self.now.devices.clone(),
            visits,
            impostors,
            backends,
            day: self.noise_since(day),
            week: self.noise_since(now - Duration::days(7)),
            hours,
        }
    }

    /// Of the hours that had not ended by then, but for the one in which it is: 24 hours are not 25.
    fn noise_since(&self, since: OffsetDateTime) -> Noise {
        let first = since.unix_timestamp().div_euclid(HOUR) + 1;
        let (mut reasons, mut sources) = (Reasons::default(), Sources::default());
        let recent = |counts: &&HourCounts| counts.hour >= first;
        for counts in self.hours.iter().filter(recent) {
            reasons.add_all(&counts.noise);
            sources.add_all(&counts.sources);
        }
        Noise { reasons: reasons.ranked(), sources: sources.estimate() }
    }
}

fn hour(summary: Summary) -> Option<Hour> {
    Some(Hour {
        start: OffsetDateTime::from_unix_timestamp(summary.hour.checked_mul(HOUR)?).ok()?,
        admitted: summary.admitted,
        noise: summary.noise,
        devices_refused: summary.devices_refused,
        impostors: summary.impostors,
    })
}
