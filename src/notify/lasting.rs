//! What lasts: each thing is told once a day.

use std::collections::BTreeSet;
use std::time::Duration;

use super::notices::Notices;
use super::texts;
use super::told::Told;
use crate::explain::clock::Clock;
use crate::explain::finding::{Finding, NotInForce};
use crate::model::expiry::Expiry;
use crate::model::notice::NoticeEvent;

/// How often is looked.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is told.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What was found. When it was told is known to [`Notices`].
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    /// Revocations without effect at the look before: `doorward ca revoke` writes its list before it hands it over.
    without_effect: BTreeSet<String>,
}

impl Lasting {
    /// Tells what expires soon, the next first, and revocations that had no effect at the look before either.
    pub(crate) fn tell(
        &mut self,
        notices: &Notices,
        expiries: &[Expiry],
        without_effect: &[NotInForce],
        clock: &Clock,
    ) {
        let now = clock.now().unix_timestamp();
        let mut told = notices.told();
        told.retain(|told| told.receiver.is_none() && told.ago < AGAIN - LOOK_INTERVAL / 2);
        let mut tell_once = |event: NoticeEvent, subject: &str, finding: &dyn Fn() -> Finding| {
            if !told.iter().any(|told| told.event == event && told.subject == subject) {
                let new = Told { receiver: None, event, subject: subject.to_owned(), ago: Duration::ZERO };
                notices.add_told(new.clone());
                told.push(new);
                notices.tell(event, subject, || texts::found(&finding(), clock));
            }
        };
        for expiry in expiries.iter().filter(|expiry| expiry.is_soon(now)) {
            tell_once(NoticeEvent::Expiring, &expiry.name, &|| Finding::Expiry(expiry.clone()));
        }
        let now = without_effect.iter().map(|one| one.serial.clone()).collect();
        let before = std::mem::replace(&mut self.without_effect, now);
        for revocation in without_effect.iter().filter(|one| before.contains(&one.serial)) {
            let finding = || Finding::RevocationNotInForce(revocation.clone());
            tell_once(NoticeEvent::RevocationNotInForce, &revocation.device, &finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::explain::clock::Zone;
    use crate::model::expiry::Kind;

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_told_once_a_day() {
        const DAY: i64 = 86_400;
        let (notices, mut lasting) = (Notices::default(), Lasting::default());
        notices.want(&[NoticeEvent::Expiring, NoticeEvent::RevocationNotInForce].into());
        let expiry = |days: i64, name: &str| Expiry {
            at: days * DAY,
            kind: Kind::Device,
            name: name.to_owned(),
            renewed_since: None,
        };
        let expiries = [expiry(-1, "old"), expiry(5, "soon"), expiry(15, "later")];
        let revoked = NotInForce {
            device: "lost-phone".to_owned(),
            serial: "4a6f".to_owned(),
            revoked_at: 0,
            not_after: 100 * DAY,
            routes: vec!["nas".to_owned()],
        };
        let clock = Clock::new(OffsetDateTime::UNIX_EPOCH, Zone::utc());
        let mut look = |revoked: &[NotInForce]| -> Vec<String> {
            lasting.tell(&notices, &expiries, revoked, &clock);
            notices.take().0.into_iter().map(|notice| notice.subject).collect()
        };
        let some = std::slice::from_ref(&revoked);
        assert_eq!(look(some), ["old", "soon"], "the revocation may have an effect in a moment");
        tokio::time::advance(LOOK_INTERVAL).await;
        assert_eq!(look(&[]), Vec::<String>::new());
        assert_eq!(look(some), Vec::<String>::new(), "it had an effect");
        assert_eq!(look(some), ["lost-phone"]);
        tokio::time::advance(AGAIN / 2).await;
        assert_eq!(look(some), Vec::<String>::new());
        tokio::time::advance(AGAIN / 2).await;
        assert_eq!(look(some), ["old", "soon", "lost-phone"]);
    }
}
