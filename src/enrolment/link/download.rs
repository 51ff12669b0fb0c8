//! The downloads that a link is for, all of one device, and the token that authorizes them.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use tokio::sync::watch;

use crate::enrolment::Form;
use crate::pki;

/// The link is closed after so many requests for other paths: they are attempts to guess it. No guess succeeds, but its owner
/// should know. Paths that browsers request unasked do not count.
const WRONG_PATHS_MAX: u32 = 100;

/// 128 random bits, as they are written in a path.
pub(super) struct Token(String);

impl Token {
    pub(super) fn new() -> Result<Self, pki::Error> {
        let bytes: [u8; 16] = pki::random()?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// Whether `text` is this token, in constant time.
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

/// How a link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has expired.
    Expired,
    /// There were too many requests for other paths; the last one came from this address.
    Guessed(IpAddr),
    /// It was stopped, while this address was fetching a file, if any was.
    Stopped(Option<IpAddr>),
}

/// The state of the downloads.
#[derive(Debug)]
pub(super) struct Download {
    state: Mutex<State>,
    outcome: watch::Sender<Option<Outcome>>,
}

#[derive(Debug, Default)]
struct State {
    /// The client of the delivery that is under way.
    client: Option<IpAddr>,
    /// The first client that has received a whole file. From then on the link is for this one only.
    device: Option<IpAddr>,
    closed: bool,
    wrong_paths: u32,
}

impl State {
    fn check(&self, by: IpAddr) -> Result<(), Unavailable> {
        match self {
            Self { closed: true, .. } => Err(Unavailable::Closed),
            Self { device: Some(device), .. } if *device != by => Err(Unavailable::OtherDevice),
            Self { client: Some(_), .. } => Err(Unavailable::Busy),
            Self { .. } => Ok(()),
        }
    }
}

/// Why no delivery can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// Another one is under way.
    Busy,
    /// Another address has received a file.
    OtherDevice,
    /// The link has ended.
    Closed,
}

impl Download {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), outcome: watch::Sender::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the link has ended, once it has.
    pub(super) fn outcome(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.subscribe()
    }

    /// The client of the delivery that is under way.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.state().client
    }

    /// Whether a delivery to the address `by` could begin now.
    pub(super) fn check(&self, by: IpAddr) -> Result<(), Unavailable> {
        self.state().check(by)
    }

    /// Begins a delivery; there is one at a time.
    pub(super) fn begin(self: &Arc<Self>, by: IpAddr, form: Form) -> Result<Delivery, Unavailable> {
        let mut state = self.state();
        state.check(by)?;
        state.client = Some(by);
        drop(state);
        Ok(Delivery { download: Arc::clone(self), by, form })
    }

    /// Counts a request for another path.
    pub(super) fn count_wrong_path(&self, by: IpAddr) {
        let mut state = self.state();
        state.wrong_paths = state.wrong_paths.saturating_add(1);
        if state.wrong_paths >= WRONG_PATHS_MAX && !state.closed {
            state.closed = true;
            drop(state);
            self.outcome.send_replace(Some(Outcome::Guessed(by)));
        }
    }

    /// Lets no further delivery begin.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }
}

/// A delivery that is under way. When it is dropped another one can begin: to any client, or only to this one if it was
/// [`complete`](Self::complete).
#[derive(Debug)]
pub(super) struct Delivery {
    download: Arc<Download>,
    by: IpAddr,
    form: Form,
}

impl Delivery {
    /// The client has received the whole file.
    pub(super) fn complete(&self) -> (IpAddr, Form) {
        self.download.state().device.get_or_insert(self.by);
        (self.by, self.form)
    }

    /// The client and the file, if the link is still open to another attempt.
    pub(super) fn interrupted(&self) -> Option<(IpAddr, Form)> {
        (!self.download.state().closed).then_some((self.by, self.form))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.download.state().client = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use super::*;

    const PHONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 24));

    #[test]
    fn tokens_are_128_bits_distinct_and_hidden_in_debug_output() {
        let [one, other] = [Token::new().expect("random"), Token::new().expect("random")];
        assert!(one.as_str().len() == 32 && one.as_str().chars().all(|c| c.is_ascii_hexdigit()), "{}", one.as_str());
        assert_ne!(one.as_str(), other.as_str());
        assert!(one.is(one.as_str()) && !one.is(other.as_str()) && !one.is("") && !one.is(&one.as_str()[..31]));
        assert_eq!(format!("{one:?}"), "Token(…)");
    }

    #[test]
    fn every_digit_of_a_token_is_random() {
        let tokens: Vec<Token> = (0..64).map(|_| Token::new().expect("random")).collect();
        for place in 0..32 {
            let digits: HashSet<u8> = tokens.iter().map(|token| token.as_str().as_bytes()[place]).collect();
            // That all 64 are the same by chance has a probability of 16^-63; fewer than five, about 10^-35.
            assert!(digits.len() >= 5, "digit {place} is one of {digits:?}");
        }
    }

    #[test]
    fn one_delivery_at_a_time_and_one_device_in_all() {
        let download = Arc::new(Download::new());
        let first = download.begin(PHONE, Form::Profile).expect("free");
        assert_eq!(download.begin(PHONE, Form::Profile).err(), Some(Unavailable::Busy));
        // It was interrupted.
        drop(first);
        let second = download.begin(PHONE, Form::Archive).expect("free again");
        assert_eq!(download.check(OTHER), Err(Unavailable::Busy), "a delivery that is under way binds nothing");
        assert_eq!(second.complete(), (PHONE, Form::Archive));
        drop(second);
        // The browser has discarded the file, or it was the wrong one.
        assert_eq!((download.check(PHONE), *download.outcome().borrow()), (Ok(()), None));
        assert_eq!(download.begin(OTHER, Form::Archive).err(), Some(Unavailable::OtherDevice));
        drop(download.begin(PHONE, Form::ArchiveCompat).expect("free for this device"));
        assert_eq!(
            download.check(OTHER),
            Err(Unavailable::OtherDevice),
            "an interrupted delivery frees it for no other"
        );
        download.close();
        assert_eq!(download.begin(PHONE, Form::Archive).err(), Some(Unavailable::Closed));
    }

    #[test]
    fn guessing_paths_closes_the_link() {
        let download = Arc::new(Download::new());
        for _ in 1..WRONG_PATHS_MAX {
            download.count_wrong_path(PHONE);
        }
        assert_eq!((download.check(PHONE), *download.outcome().borrow()), (Ok(()), None));
        download.count_wrong_path(PHONE);
        assert_eq!(*download.outcome().borrow(), Some(Outcome::Guessed(PHONE)));
        assert_eq!(download.begin(PHONE, Form::Archive).err(), Some(Unavailable::Closed));
    }
}
