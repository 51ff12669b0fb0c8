//! What the link is good for: one delivery, before it expires, for who knows its token.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use tokio::sync::watch;

use crate::enrolment::Form;
use crate::pki;

/// So many requests for something else than the link, and it is closed: somebody is looking for it. Nobody finds it, but
/// its owner should know. What browsers ask for by themselves does not count.
pub(super) const WRONG_MAX: u32 = 100;

/// 128 bits that nobody can guess, as they stand in a path.
pub(super) struct Token(String);

impl Token {
    pub(super) fn new() -> Result<Self, pki::Error> {
        let bytes: [u8; 16] = pki::random()?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// Whether `text` is it; how long that takes does not tell how much of it is right.
    pub(super) fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), text.as_bytes()).is_ok()
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How the link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Who has fetched what.
    Fetched(IpAddr, Form),
    /// Its time is over.
    Expired,
    /// There were too many requests for something else; the last one came from here.
    Guessed(IpAddr),
    /// It was told to end, while this one was fetching it, if anybody was.
    Stopped(Option<IpAddr>),
}

/// The one delivery, and whether it has been made.
#[derive(Debug)]
pub(super) struct Ticket {
    state: Mutex<State>,
    outcome: watch::Sender<Option<Outcome>>,
}

#[derive(Debug, Default)]
struct State {
    /// To whom.
    delivering: Option<IpAddr>,
    closed: bool,
    wrong: u32,
}

impl State {
    const fn check(&self) -> Result<(), Refused> {
        match self {
            Self { closed: true, .. } => Err(Refused::Gone),
            Self { delivering: Some(_), .. } => Err(Refused::Busy),
            Self { .. } => Ok(()),
        }
    }
}

/// Why there is no delivery now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another one is being made at this moment.
    Busy,
    /// It has been made, or the link has ended in another way.
    Gone,
}

impl Ticket {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), outcome: watch::Sender::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it has ended, once it has.
    pub(super) fn outcome(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.subscribe()
    }

    /// To whom a delivery is being made at this moment.
    pub(super) fn delivering(&self) -> Option<IpAddr> {
        self.state().delivering
    }

    /// Whether a delivery could be begun now.
    pub(super) fn check(&self) -> Result<(), Refused> {
        self.state().check()
    }

    /// Begins the delivery, of which there is only one at a time.
    pub(super) fn begin(self: &Arc<Self>, by: IpAddr, form: Form) -> Result<Delivery, Refused> {
        let mut state = self.state();
        state.check()?;
        state.delivering = Some(by);
        drop(state);
        Ok(Delivery { ticket: Arc::clone(self), by, form })
    }

    /// Counts a request for something else.
    pub(super) fn wrong(&self, by: IpAddr) {
        let mut state = self.state();
        state.wrong = state.wrong.saturating_add(1);
        if state.wrong >= WRONG_MAX && !state.closed {
            state.closed = true;
            drop(state);
            self.outcome.send_replace(Some(Outcome::Guessed(by)));
        }
    }

    /// No further delivery is begun.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }
}

/// A delivery that is being made. If it is dropped before it was [`made`](Self::made), it may be tried again: a phone may
/// lose its network.
#[derive(Debug)]
pub(super) struct Delivery {
    ticket: Arc<Ticket>,
    by: IpAddr,
    form: Form,
}

impl Delivery {
    /// The whole file has arrived.
    pub(super) fn made(self) {
        self.ticket.close();
        self.ticket.outcome.send_replace(Some(Outcome::Fetched(self.by, self.form)));
    }

    /// Who has begun to fetch what, if it can be tried again.
    pub(super) fn broken_off(&self) -> Option<(IpAddr, Form)> {
        (self.ticket.check() != Err(Refused::Gone)).then_some((self.by, self.form))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.ticket.state().delivering = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use super::*;

    const PHONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23));

    #[test]
    fn tokens_are_128_bits_never_the_same_and_not_to_be_seen_in_a_log() {
        let [one, other] = [Token::new().expect("random"), Token::new().expect("random")];
        assert!(one.as_str().len() == 32 && one.as_str().chars().all(|c| c.is_ascii_hexdigit()), "{}", one.as_str());
        assert_ne!(one.as_str(), other.as_str());
        assert!(one.is(one.as_str()) && !one.is(other.as_str()) && !one.is("") && !one.is(&one.as_str()[..31]));
        assert_eq!(format!("{one:?}"), "Token(…)");
    }

    #[test]
    fn every_digit_of_a_token_is_drawn() {
        let tokens: Vec<Token> = (0..64).map(|_| Token::new().expect("random")).collect();
        for place in 0..32 {
            let digits: HashSet<u8> = tokens.iter().map(|token| token.as_str().as_bytes()[place]).collect();
            // That all 64 are the same by chance has a probability of 16^-63; fewer than five, about 10^-35.
            assert!(digits.len() >= 5, "digit {place} is one of {digits:?}");
        }
    }

    #[test]
    fn there_is_one_delivery_at_a_time_and_one_in_all() {
        let ticket = Arc::new(Ticket::new());
        let first = ticket.begin(PHONE, Form::Profile).expect("free");
        assert_eq!(ticket.begin(PHONE, Form::Profile).err(), Some(Refused::Busy));
        // It did not arrive.
        drop(first);
        let second = ticket.begin(PHONE, Form::Archive).expect("free again");
        assert_eq!(*ticket.outcome().borrow(), None);
        second.made();
        assert_eq!(*ticket.outcome().borrow(), Some(Outcome::Fetched(PHONE, Form::Archive)));
        assert_eq!(ticket.begin(PHONE, Form::Archive).err(), Some(Refused::Gone));
    }

    #[test]
    fn who_looks_for_it_long_enough_closes_it() {
        let ticket = Arc::new(Ticket::new());
        for _ in 1..WRONG_MAX {
            ticket.wrong(PHONE);
        }
        assert_eq!((ticket.check(), *ticket.outcome().borrow()), (Ok(()), None));
        ticket.wrong(PHONE);
        assert_eq!(*ticket.outcome().borrow(), Some(Outcome::Guessed(PHONE)));
        assert_eq!(ticket.begin(PHONE, Form::Archive).err(), Some(Refused::Gone));
    }
}
