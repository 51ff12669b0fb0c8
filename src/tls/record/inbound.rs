//! Which records a client may send after the handshake, whether the gate or the kernel opens them.

use super::{RecordError, content};
use crate::model::rejection::Alert;

/// The most KeyUpdates accepted without application data between them, as in rustls.
pub(super) const KEY_UPDATES_MAX: u32 = 32;
/// The most empty records and warnings accepted without application data between them, as in rustls.
pub(super) const EMPTY_MAX: u32 = 32;
/// The longest ClientHello accepted, as for the first one.
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

/// The meaning of an opened record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Application data.
    Data,
    /// An empty record, an alert that is ignored, or a fragment of a message.
    Nothing,
    /// The records that follow are sealed under the next key (RFC 8446 section 4.6.3).
    KeyUpdate {
        /// The peer requests a KeyUpdate in return.
        requested: bool,
    },
    /// See [`Opened::Renegotiation`](super::Opened::Renegotiation).
    Renegotiation,
    /// See [`Opened::Closed`](super::Opened::Closed).
    Closed,
    /// See [`Opened::Alert`](super::Opened::Alert).
    Alert(Alert),
}

/// Checks the records of an established session.
///
/// A handshake message may be fragmented over several records (RFC 8446 section 5.1, RFC 5246 section 6.2.1). Only one type
/// is legal: KeyUpdate in TLS 1.3, ClientHello in TLS 1.2. So only its header and one byte are stored.
#[derive(Debug)]
pub struct InboundState {
    tls13: bool,
    key_updates: u32,
    renegotiated: bool,
    empty: u32,
    /// The first bytes of the incomplete handshake message.
    message: [u8; HEADER + 1],
    /// How many bytes of it have been received.
    received: usize,
}

impl InboundState {
    /// The state after the handshake.
    pub fn new(tls13: bool) -> Self {
        Self { tls13, key_updates: 0, renegotiated: false, empty: 0, message: [0; _], received: 0 }
    }

    /// Whether a handshake message is incomplete: the stream may not end there.
    pub fn is_inside_message(&self) -> bool {
        self.received > 0
    }

    /// Accepts application data, which resets the counters of records without data.
    ///
    /// # Errors
    ///
    /// A handshake message is incomplete (TLS 1.3).
    pub fn accept_data(&mut self) -> Result<(), RecordError> {
        self.check_not_interleaved()?;
        (self.empty, self.key_updates) = (0, 0);
        Ok(())
    }

    /// Accepts a record of the content type `kind`, or a part of a record that is larger than any message.
    ///
    /// # Errors
    ///
    /// The record is illegal, or illegal at this point.
    pub fn accept(&mut self, kind: u8, content: &[u8]) -> Result<Inbound, RecordError> {
        match (kind, content) {
            (content::APPLICATION_DATA, []) => {
                self.check_not_interleaved()?;
                self.count_empty()
            }
            (content::APPLICATION_DATA, _) => self.accept_data().map(|()| Inbound::Data),
            // Neither may be empty (RFC 8446 section 5.4).
            (content::HANDSHAKE | content::ALERT, []) => Err(UNEXPECTED_MESSAGE),
            (content::HANDSHAKE, fragment) if self.tls13 => self.key_update(fragment),
            (content::HANDSHAKE, fragment) => self.renegotiation(fragment),
            (content::ALERT, &[_, description]) if self.tls13 => self.alert(description),
            (content::ALERT, &[level, description]) => self.alert_12(level, description),
            // A record holds exactly one alert (RFC 8446 section 5.1).
            (content::ALERT, _) => Err(DECODE_ERROR),
            _ => Err(UNEXPECTED_MESSAGE),
        }
    }

    /// No other record may come between the fragments of a handshake message (RFC 8446 section 5.1). TLS 1.2 allows it
    /// (RFC 5246 section 6.2.1).
    fn check_not_interleaved(&self) -> Result<(), RecordError> {
        if self.tls13 && self.is_inside_message() { Err(UNEXPECTED_MESSAGE) } else { Ok(()) }
    }

    /// The level has no meaning, and every alert but these two is an error, known or not (RFC 8446 section 6). An error
    /// alert is accepted even inside a message: no answer to it is possible.
    fn alert(&mut self, description: u8) -> Result<Inbound, RecordError> {
        match description {
            CLOSE_NOTIFY => self.check_not_interleaved().map(|()| Inbound::Closed),
            // It announces a close_notify (RFC 8446 section 6.1).
            USER_CANCELED => {
                self.check_not_interleaved()?;
                self.count_empty()
            }
            _ => Ok(Inbound::Alert(Alert(description))),
        }
    }

    /// In TLS 1.2 the level decides whether an alert is fatal (RFC 5246 section 7.2).
    fn alert_12(&mut self, level: u8, description: u8) -> Result<Inbound, RecordError> {
        match (level, description) {
            (1 | 2, CLOSE_NOTIFY) => Ok(Inbound::Closed),
            (1, _) => self.count_empty(),
            (2, _) => Ok(Inbound::Alert(Alert(description))),
            _ => Err(ILLEGAL_PARAMETER),
        }
    }

    /// Accepts a fragment of the one handshake message that a client may send in TLS 1.3.
    fn key_update(&mut self, fragment: &[u8]) -> Result<Inbound, RecordError> {
        self.append(fragment);
        match self.message.get(..self.received).unwrap_or(&self.message) {
            begun if KEY_UPDATE.starts_with(begun) => Ok(Inbound::Nothing),
            // The keys change after it, so its record may hold nothing more (RFC 8446 section 5.1).
            [24, 0, 0, 1, _] if self.received > HEADER + 1 => Err(UNEXPECTED_MESSAGE),
            &[24, 0, 0, 1, request] => {
                self.received = 0;
                self.key_updates += 1;
                match request {
                    _ if self.key_updates > KEY_UPDATES_MAX => Err(UNEXPECTED_MESSAGE),
                    0 | 1 => Ok(Inbound::KeyUpdate { requested: request == 1 }),
                    _ => Err(ILLEGAL_PARAMETER),
                }
            }
            // A KeyUpdate of another length.
            [24, ..] => Err(DECODE_ERROR),
            _ => Err(UNEXPECTED_MESSAGE),
        }
    }

    /// Accepts a fragment of the one handshake message that a client may send in TLS 1.2, once. Its content does not matter:
    /// renegotiation is always declined.
    fn renegotiation(&mut self, fragment: &[u8]) -> Result<Inbound, RecordError> {
        self.append(fragment);
        let [kind, high, middle, low, _] = self.message;
        if kind != CLIENT_HELLO || self.renegotiated {
            return Err(UNEXPECTED_MESSAGE);
        }
        if self.received < HEADER {
            return Ok(Inbound::Nothing);
        }
        let length = u32::from_be_bytes([0, high, middle, low]);
        let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEADER);
        if whole > CLIENT_HELLO_MAX {
            return Err(DECODE_ERROR);
        }
        if self.received < whole {
            return Ok(Inbound::Nothing);
        }
        if self.received > whole {
            // No other message may follow, not even a second ClientHello.
            return Err(UNEXPECTED_MESSAGE);
        }
        self.received = 0;
        self.renegotiated = true;
        Ok(Inbound::Renegotiation)
    }

    /// Adds a fragment to the incomplete message.
    fn append(&mut self, fragment: &[u8]) {
        for (slot, byte) in self.message.iter_mut().skip(self.received).zip(fragment) {
            *slot = *byte;
        }
        self.received = self.received.saturating_add(fragment.len());
    }

    fn count_empty(&mut self) -> Result<Inbound, RecordError> {
        self.empty += 1;
        if self.empty > EMPTY_MAX { Err(UNEXPECTED_MESSAGE) } else { Ok(Inbound::Nothing) }
    }
}
