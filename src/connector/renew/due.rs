//! Renews without being told to, for programs that use the certificates of a device.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Attempt, Key, RenewError, pending, renew};
use crate::bundle::{Bundle, BundleKey};
use crate::connector::homes::{Home, Homes};
use crate::connector::refusal::validity;
use crate::connector::token::{Token, TokenUri};
use crate::model::shell::word;
use crate::model::text::day_near;

/// How often programs look whether it is time, and the least time between two looks.
const EVERY: Duration = Duration::from_secs(3600);
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Before its end, the user of a certificate that the gate cannot renew is reminded for so long.
const REMINDER: time::Duration = time::Duration::days(14);

/// For so long before its end, what is wrong with a renewal is pressing.
const PRESSING: time::Duration = time::Duration::days(7);

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A sentence for the user.
    pub text: String,
    /// Whether the certificate expires within a week, and is not renewed.
    pub is_pressing: bool,
}

/// The certificates of a user's homes, which are renewed in the last third of their lives.
#[derive(Debug)]
pub struct Renewals {
    homes: Homes,
    /// What was told last about each home.
    told: BTreeMap<String, String>,
}

/// Whether the last third of the certificate's life has begun.
pub fn is_due(bundle: &Bundle, now: OffsetDateTime) -> bool {
    let Some((begin, end)) = bundle.chain.first().and_then(validity) else { return false };
    now >= end - (end - begin) / 3
}

/// Whether the key is in a token whose PIN would have to be asked for.
fn is_locked(home: &Home) -> bool {
    let BundleKey::Token(uri) = &home.bundle.key else { return false };
    TokenUri::parse(uri).is_ok_and(|uri| !Token::of(&uri).is_unattended())
}

impl Renewals {
    /// Those of these homes.
    pub const fn of(homes: Homes) -> Self {
        Self { homes, told: BTreeMap::new() }
    }

    /// Renews what is due: each home at most once an hour, with the key that it has. Tells what was renewed, what the owner has to do, and
    /// what is wrong; the same is told once.
    pub async fn look(&mut self, tell: impl Fn(&Told)) {
        // Files that cannot be read are told where they are used.
        let joined = self.homes.joined().map(|joined| joined.homes).unwrap_or_default();
        for home in &joined {
            let now = OffsetDateTime::now_utc();
            let Some(text) = self.attempt(home, now).await else { continue };
            let is_new = self.told.insert(home.name.clone(), text.clone()).as_ref() != Some(&text);
            if is_new {
                let left = home.bundle.chain.first().and_then(validity).map(|(_, end)| end - now);
                let is_renewed = !is_due(&self.bundle(home), now);
                tell(&Told { text, is_pressing: !is_renewed && left.is_some_and(|left| left < PRESSING) });
            }
        }
    }

    /// As it is now.
    fn bundle(&self, home: &Home) -> Bundle {
        self.homes.get(&home.name).ok().flatten().map_or_else(|| home.bundle.clone(), |home| home.bundle)
    }

    /// What is to be told about a home.
    async fn attempt(&self, home: &Home, now: OffsetDateTime) -> Option<String> {
        let Home { name, bundle, .. } = home;
        let (_, end) = bundle.chain.first().and_then(validity)?;
        // The gate takes an expired one for nothing. That is said where it is used.
        if !is_due(bundle, now) || end <= now {
            return None;
        }
        if is_locked(home) && bundle.renewal.is_some() {
            // The user is not asked for the PIN of a token that is not used.
            let reminder = || {
                format!(
                    "the certificate for {name} expires on {}\n  its key is in a token: doorward renew {name}",
                    day_near(end, now)
                )
            };
            return (end - now < REMINDER).then(reminder);
        }
        if bundle.renewal.is_none() || !matches!(bundle.key, BundleKey::Plain(_) | BundleKey::Token(_)) {
            let reminder = || {
                let device = word(bundle.device.as_str());
                format!(
                    "the certificate for {name} expires on {}\n  ask the owner of {name} for a new file: doorward ca renew {device}",
                    day_near(end, now)
                )
            };
            return (end - now < REMINDER).then(reminder);
        }
        let attempt = match pending::may_ask(&self.homes, name) {
            Ok(false) => return None,
            Ok(true) => renew(&self.homes, home, Key::Same, None).await,
            Err(error) => Err(RenewError::from(error)),
        };
        Some(match attempt {
            Ok(Attempt::Renewed { not_after }) => {
                format!("the certificate for {name} is renewed, valid until {}", not_after.date())
            }
            Ok(Attempt::Waits { .. }) => format!(
                "the certificate for {name} expires on {}, and the next one is asked for\n  the owner of {name} has to approve it: \
                 doorward ca approve {}",
                day_near(end, now),
                word(bundle.device.as_str())
            ),
            Err(error) => {
                format!("the certificate for {name} expires on {}, and is not renewed: {error}", day_near(end, now))
            }
        })
    }

    /// Looks for as long as it is polled: each hour, and when the certificates are `used`, as after a sleep of the machine. `busy` says
    /// whether a look is under way.
    pub async fn keep_looking(mut self, used: &Notify, busy: watch::Sender<bool>, tell: impl Fn(&Told)) {
        loop {
            busy.send_replace(true);
            self.look(&tell).await;
            busy.send_replace(false);
            sleep(EVERY_MIN).await;
            tokio::select! {
                () = sleep(EVERY) => {}
                () = used.notified() => {}
            }
        }
    }
}
