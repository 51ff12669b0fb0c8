//! What may come on an established session, whether the gate or the kernel opens its records.

use super::{RecordError, content};
use crate::model::rejection::Alert;

/// KeyUpdates taken without a byte of application data between them, as in rustls.
pub(super) const KEY_UPDATES_MAX: u32 = 32;
/// Empty records and warnings taken without a byte of application data between them, as in rustls.
pub(super) const EMPTY_MAX: u32 = 32;
/// The longest ClientHello that is waited for, as long as the first one may be.
const CLIENT_HELLO_MAX: usize = 1 << 16;

const UNEXPECTED_MESSAGE: RecordError = RecordError(Alert::UNEXPECTED_MESSAGE);
const DECODE_ERROR: RecordError = RecordError(Alert::DECODE_ERROR);
const ILLEGAL_PARAMETER: RecordError = RecordError(Alert(47));

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// The type and the length of a KeyUpdate (RFC 8446 section 4.6.3); one byte follows.
const KEY_UPDATE: [u8; HEADER] = [24, 0, 0, 1];
const CLIENT_HELLO: u8 = 1;
/// The header of a handshake message (RFC 8446 section 4).
const HEADER: usize = 4;

/// What an opened record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Application data.
    Data,
    /// Nothing that matters, or a part of a message.
    Nothing,
    /// What follows is sealed under the next key (RFC 8446 section 4.6.3).
    KeyUpdate {
        /// The peer wants our next records under a new key too.
        requested: bool,
    },
    /// See [`Opened::Renegotiation`](super::Opened::Renegotiation).
    Renegotiation,
    /// See [`Opened::Closed`](super::Opened::Closed).
    Closed,
    /// See [`Opened::Alert`](super::Opened::Alert).
    Alert(Alert),
}

/// What may come on an established session, and how much of what is no data.
///
/// A handshake message may come in several records (RFC 8446 section 5.1, RFC 5246 section 6.2.1). Only one type of message
/// may come at all: KeyUpdate in TLS 1.3, ClientHello in TLS 1.2. So the header and one byte are all that is kept of it.
#[derive(Debug)]
pub struct Course {
    tls13: bool,
    key_updates: u32,
    renegotiated: bool,
    empty: u32,
    /// The first bytes of the handshake message that is coming in.
    message: [u8; HEADER + 1],
    /// How many bytes of it have come.
    came: usize,
}

impl Course {
    /// That of a session that begins.
    pub fn new(tls13: bool) -> Self {
        Self { tls13, key_updates: 0, renegotiated: false, empty: 0, message: [0; _], came: 0 }
    }

    /// Whether a handshake message has begun and is not complete: the stream may not end there.
    pub fn is_inside_message(&self) -> bool {
        self.came > 0
    }

    /// Takes note of application data. What is bounded without it may begin anew.
    ///
    /// # Errors
    ///
    /// A handshake message is incomplete.
    pub fn data(&mut self) -> Result<(), RecordError> {
        self.no_interleaving()?;
        (self.empty, self.key_updates) = (0, 0);
        Ok(())
    }

    /// Takes note of a record of the content type `kind`, or of a part of a record if it is larger than any message.
    ///
    /// # Errors
    ///
    /// The record may not come, or not here.
    pub fn take(&mut self, kind: u8, content: &[u8]) -> Result<Meaning, RecordError> {
        match (kind, content) {
            (content::APPLICATION_DATA, []) => {
                self.no_interleaving()?;
                self.nothing()
            }
            (content::APPLICATION_DATA, _) => self.data().map(|()| Meaning::Data),
            // Neither is ever sent with a length of zero (RFC 8446 section 5.4).
            (content::HANDSHAKE | content::ALERT, []) => Err(UNEXPECTED_MESSAGE),
            (content::HANDSHAKE, fragment) if self.tls13 => self.key_update(fragment),
            (content::HANDSHAKE, fragment) => self.renegotiation(fragment),
            (content::ALERT, &[_, description]) if self.tls13 => self.alert(description),
            (content::ALERT, &[level, description]) => self.alert_12(level, description),
            // A record holds one alert, whole (RFC 8446 section 5.1).
            (content::ALERT, _) => Err(DECODE_ERROR),
            _ => Err(UNEXPECTED_MESSAGE),
        }
    }

    /// No other record may come between the fragments of a handshake message (RFC 8446 section 5.1). In TLS 1.2 records
    /// of different types may be interleaved (RFC 5246 section 6.2.1).
    fn no_interleaving(&self) -> Result<(), RecordError> {
        if self.tls13 && self.is_inside_message() { Err(UNEXPECTED_MESSAGE) } else { Ok(()) }
    }

    /// The level has no meaning, and every alert that does not announce an orderly end is an error, known or not
    /// (RFC 8446 section 6). An error ends the connection even inside a message: there is no peer left to answer.
    fn alert(&mut self, description: u8) -> Result<Meaning, RecordError> {
        match description {
            CLOSE_NOTIFY => self.no_interleaving().map(|()| Meaning::Closed),
            // It announces a close_notify (RFC 8446 section 6.1).
            USER_CANCELED => {
                self.no_interleaving()?;
                self.nothing()
            }
            _ => Ok(Meaning::Alert(Alert(description))),
        }
    }

    /// In TLS 1.2 the level decides (RFC 5246 section 7.2).
    fn alert_12(&mut self, level: u8, description: u8) -> Result<Meaning, RecordError> {
        match (level, description) {
            (1 | 2, CLOSE_NOTIFY) => Ok(Meaning::Closed),
            (1, _) => self.nothing(),
            (2, _) => Ok(Meaning::Alert(Alert(description))),
            _ => Err(ILLEGAL_PARAMETER),
        }
    }

    /// Takes a fragment of the one handshake message that a client may send in TLS 1.3.
    fn key_update(&mut self, fragment: &[u8]) -> Result<Meaning, RecordError> {
        self.append(fragment);
        match self.message.get(..self.came).unwrap_or(&self.message) {
            begun if KEY_UPDATE.starts_with(begun) => Ok(Meaning::Nothing),
            // The keys change behind it, so nothing may follow in its record (RFC 8446 section 5.1).
            [24, 0, 0, 1, _] if self.came > HEADER + 1 => Err(UNEXPECTED_MESSAGE),
            &[24, 0, 0, 1, request] => {
                self.came = 0;
                self.key_updates += 1;
                match request {
                    _ if self.key_updates > KEY_UPDATES_MAX => Err(UNEXPECTED_MESSAGE),
                    0 | 1 => Ok(Meaning::KeyUpdate { requested: request == 1 }),
                    _ => Err(ILLEGAL_PARAMETER),
                }
            }
            // A KeyUpdate of another length.
            [24, ..] => Err(DECODE_ERROR),
            _ => Err(UNEXPECTED_MESSAGE),
        }
    }

    /// Takes a fragment of the one handshake message that a client may send in TLS 1.2, once. What it says does not
    /// matter: the answer is no.
    fn renegotiation(&mut self, fragment: &[u8]) -> Result<Meaning, RecordError> {
        self.append(fragment);
        let [kind, high, middle, low, _] = self.message;
        if kind != CLIENT_HELLO || self.renegotiated {
            return Err(UNEXPECTED_MESSAGE);
        }
        if self.came < HEADER {
            return Ok(Meaning::Nothing);
        }
        let length = u32::from_be_bytes([0, high, middle, low]);
        let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEADER);
        if whole > CLIENT_HELLO_MAX {
            return Err(DECODE_ERROR);
        }
        if self.came < whole {
            return Ok(Meaning::Nothing);
        }
        if self.came > whole {
            // No message may follow: not even a second ClientHello.
            return Err(UNEXPECTED_MESSAGE);
        }
        self.came = 0;
        self.renegotiated = true;
        Ok(Meaning::Renegotiation)
    }

    /// Adds a fragment to the message that is coming in.
    fn append(&mut self, fragment: &[u8]) {
        for (slot, byte) in self.message.iter_mut().skip(self.came).zip(fragment) {
            *slot = *byte;
        }
        self.came = self.came.saturating_add(fragment.len());
    }

    fn nothing(&mut self) -> Result<Meaning, RecordError> {
        self.empty += 1;
        if self.empty > EMPTY_MAX { Err(UNEXPECTED_MESSAGE) } else { Ok(Meaning::Nothing) }
    }
}
