//! The TLS record layer of an established connection, working in place.
//!
//! After the handshake rustls hands out the traffic keys through its API for kernel TLS, and records are sealed and opened
//! here, in the buffer for reading and writing: no copy and no allocation per record. The key schedule stays in rustls'
//! `KernelConnection`.
//!
//! TLS 1.3: RFC 8446 section 5. TLS 1.2 with AES-GCM: RFC 5288 section 3; with ChaCha20-Poly1305: RFC 7905 section 2.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::Error;

pub use self::inbound::{Inbound, InboundState};
pub use self::keys::{Aead, Keys, Schedule, Secret};
use crate::model::rejection::Alert;

mod inbound;
mod keys;

/// The header of every record.
const HEADER: usize = 5;
/// The authentication tag of every suite.
const TAG: usize = 16;
/// The most plaintext in one record (RFC 8446 section 5.1).
pub const PLAINTEXT_MAX: usize = 1 << 14;
/// The most that may follow a header: TLS 1.2 allows more than TLS 1.3 (RFC 5246 section 6.2.3, RFC 8446 section 5.2).
const CIPHERTEXT_MAX_12: usize = PLAINTEXT_MAX + 2048;
const CIPHERTEXT_MAX_13: usize = PLAINTEXT_MAX + 256;
/// The longest record.
pub const RECORD_MAX: usize = HEADER + CIPHERTEXT_MAX_12;

/// Records reserved under each key for alerts and KeyUpdates.
pub(crate) const RESERVED_RECORDS: u64 = 8;

/// Content types (RFC 8446 section 5.1).
pub mod content {
    /// change_cipher_spec.
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    /// alert.
    pub const ALERT: u8 = 21;
    /// handshake.
    pub const HANDSHAKE: u8 = 22;
    /// application_data.
    pub const APPLICATION_DATA: u8 = 23;
}

/// The result of opening a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// The record is incomplete: at least this many bytes are needed in total.
    Incomplete(usize),
    /// Application data.
    Data {
        /// The length of the record in bytes.
        consumed: usize,
        /// The range of the plaintext in them.
        plaintext: Range<usize>,
    },
    /// Nothing to forward: an empty record, a message that was handled, or a fragment of one.
    Nothing {
        /// The length of the record in bytes.
        consumed: usize,
    },
    /// The peer requests a KeyUpdate: [`Session::update_key`] (RFC 8446 section 4.6.3).
    KeyUpdateRequested {
        /// The length of the record in bytes.
        consumed: usize,
    },
    /// The peer requests renegotiation (TLS 1.2), which must be declined by `no_renegotiation` (RFC 5246 section 7.2.2).
    /// Allowed once per connection.
    Renegotiation {
        /// The length of the record in bytes.
        consumed: usize,
    },
    /// `close_notify`: the peer sends nothing more (RFC 8446 section 6.1).
    Closed {
        /// The length of the record in bytes.
        consumed: usize,
    },
    /// The peer sent a fatal alert.
    Alert(Alert),
}

/// A protocol error of the peer, or a record that was tampered with. Holds the alert that the RFC requires as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client broke the TLS protocol ({0})")]
pub struct RecordError(pub Alert);

/// No more records may be sealed under the keys: the suite's limit is reached (RFC 8446 section 5.5), and the keys
/// cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// Records that a completed handshake leaves to be moved along with the payload.
#[derive(Debug, Default)]
pub struct Pending {
    /// From the client: bytes received after its handshake, still sealed.
    pub received: Vec<u8>,
    /// For the client: sealed session tickets, so nothing may be sent before them. They are sent together with the first
    /// payload, which saves a system call.
    pub unsent: Vec<u8>,
}

impl Pending {
    /// Whether a record of the client's is there as a whole. Most likely it is payload.
    pub fn has_record(&self) -> bool {
        let Some(&[_, _, _, high, low]) = self.received.first_chunk() else { return false };
        self.received.len() >= HEADER + usize::from(u16::from_be_bytes([high, low]))
    }
}

/// An established session: the keys of both directions and rustls' key schedule.
pub struct Session {
    seal: TrafficKey,
    open: TrafficKey,
    schedule: Schedule,
    tls13: bool,
    /// How many records may be sealed under one key.
    limit: u64,
    inbound: InboundState,
}

impl fmt::Debug for Session {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("tls13", &self.tls13).finish_non_exhaustive()
    }
}

/// The traffic key of one direction.
struct TrafficKey {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// The length of the explicit nonce in TLS 1.2 with AES-GCM.
    explicit_nonce: usize,
}

impl TrafficKey {
    fn new(secret: &Secret, tls13: bool) -> Result<Self, Error> {
        let Some((aead, key, iv)) = secret.parts() else {
            return Err(Error::General("a cipher suite without a record layer".to_owned()));
        };
        let (algorithm, sent_nonce): (&'static Algorithm, _) = match aead {
            Aead::Aes128Gcm => (&AES_128_GCM, 8),
            Aead::Aes256Gcm => (&AES_256_GCM, 8),
            Aead::Chacha20Poly1305 => (&CHACHA20_POLY1305, 0),
        };
        let explicit_nonce = if tls13 { 0 } else { sent_nonce };
        let key = UnboundKey::new(algorithm, key)
            .map_err(|_| Error::General("a traffic key of the wrong length".to_owned()))?;
        let iv = <[u8; 12]>::try_from(iv)
            .map_err(|_| Error::General("an initialization vector of the wrong length".to_owned()))?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence: secret.sequence(), explicit_nonce })
    }

    /// The initialization vector combined with the sequence number (RFC 8446 section 5.3).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }

    /// The additional data of TLS 1.2 (RFC 5246 section 6.2.3.3).
    fn additional_data_12(&self, kind: u8, length: usize) -> Option<[u8; 13]> {
        let [a, b, c, d, e, f, g, h] = self.sequence.to_be_bytes();
        let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
        Some([a, b, c, d, e, f, g, h, kind, 3, 3, high, low])
    }

    /// Opens a complete record in place. Returns its content type and the range of its content.
    fn open(&mut self, tls13: bool, kind: u8, record: &mut [u8]) -> Result<(u8, Range<usize>), RecordError> {
        const BAD_RECORD_MAC: RecordError = RecordError(Alert(20));
        let explicit = self.explicit_nonce;
        let start = HEADER + explicit;
        let length = record.len().checked_sub(start + TAG).ok_or(BAD_RECORD_MAC)?;
        let (header, rest) = record.split_first_chunk_mut::<HEADER>().ok_or(BAD_RECORD_MAC)?;
        let (sent, sealed) = rest.split_at_mut_checked(explicit).ok_or(BAD_RECORD_MAC)?;
        let opened = if tls13 {
            let nonce = Nonce::assume_unique_for_key(self.nonce());
            self.key.open_in_place(nonce, Aad::from(*header), sealed)
        } else {
            let mut nonce = if explicit == 0 { self.nonce() } else { self.iv };
            for (slot, byte) in nonce.iter_mut().skip(4).zip(sent.iter()) {
                *slot = *byte;
            }
            let additional = self.additional_data_12(kind, length).ok_or(BAD_RECORD_MAC)?;
            self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(additional), sealed)
        };
        let plaintext: &[u8] = opened.map_err(|_| BAD_RECORD_MAC)?;
        // The sequence number must not wrap (RFC 8446 section 5.3).
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError(Alert::INTERNAL_ERROR))?;
        // In TLS 1.3 the limit includes padding, but not the content type (RFC 8446 section 5.4).
        if plaintext.len() > PLAINTEXT_MAX + usize::from(tls13) {
            return Err(RecordError(Alert(22)));
        }
        let (kind, length) = if tls13 {
            // The content type is the last byte that is not padding.
            let end = plaintext.iter().rposition(|&byte| byte != 0).ok_or(RecordError(Alert::UNEXPECTED_MESSAGE))?;
            (plaintext.get(end).copied().unwrap_or_default(), end)
        } else {
            (kind, plaintext.len())
        };
        Ok((kind, start..start + length))
    }
}

impl Session {
    /// Takes over the keys of a completed handshake.
    pub fn new(keys: Keys) -> Result<Self, Error> {
        let Keys { send, receive, schedule } = keys;
        let tls13 = schedule.is_tls13();
        let limit = schedule.record_limit();
        Ok(Self {
            seal: TrafficKey::new(&send, tls13)?,
            open: TrafficKey::new(&receive, tls13)?,
            schedule,
            tls13,
            limit,
            inbound: InboundState::new(tls13),
        })
    }

    /// How many bytes of a sealed record precede its payload.
    pub fn prefix_length(&self) -> usize {
        HEADER + self.seal.explicit_nonce
    }

    /// How many bytes of a sealed record follow its payload.
    pub fn suffix_length(&self) -> usize {
        // TLS 1.3 encrypts the content type after the payload.
        usize::from(self.tls13) + TAG
    }

    /// Seals application data in place: `record` holds room for [`prefix_length`](Self::prefix_length), the payload, and room for
    /// [`suffix_length`](Self::suffix_length).
    pub fn seal_data(&mut self, record: &mut [u8]) -> Result<(), Exhausted> {
        self.seal_in_place(content::APPLICATION_DATA, record)
    }

    /// Whether the key may not seal `records` more records. It must then be changed, or where that is impossible (TLS 1.2),
    /// the connection must end while a record is left for the alert.
    pub fn is_near_limit(&self, records: usize) -> bool {
        let needed = u64::try_from(records).unwrap_or(u64::MAX).saturating_add(RESERVED_RECORDS);
        self.limit.saturating_sub(self.seal.sequence) < needed
    }

    /// Appends a KeyUpdate, before which nothing else may be sent, and changes the sending key (RFC 8446 section 4.6.3).
    /// Also the answer to [`Opened::KeyUpdateRequested`].
    pub fn update_key(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        if !self.tls13 {
            return Err(Exhausted);
        }
        // KeyUpdate with update_not_requested, sealed under the old key.
        self.seal_message(content::HANDSHAKE, &[24, 0, 0, 1, 0], out)?;
        let secret = self.schedule.next_to_send().map_err(|_| Exhausted)?;
        self.seal = TrafficKey::new(&secret, true).map_err(|_| Exhausted)?;
        Ok(())
    }

    /// Appends a `close_notify`: nothing may be sealed after it.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.seal_message(content::ALERT, &[1, 0], out)
    }

    /// Appends a fatal alert.
    pub fn fatal(&mut self, alert: Alert, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.seal_message(content::ALERT, &[2, alert.0], out)
    }

    /// Appends the warning `no_renegotiation` (RFC 5246 section 7.2.2).
    pub fn no_renegotiation(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.seal_message(content::ALERT, &[1, 100], out)
    }

    fn seal_message(&mut self, kind: u8, message: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        let start = out.len();
        out.resize(start + self.prefix_length(), 0);
        out.extend(message);
        out.resize(out.len() + self.suffix_length(), 0);
        let sealed = self.seal_in_place(kind, out.get_mut(start..).unwrap_or_default());
        if sealed.is_err() {
            // Unsealed bytes must not be sent.
            out.truncate(start);
        }
        sealed
    }

    fn seal_in_place(&mut self, kind: u8, record: &mut [u8]) -> Result<(), Exhausted> {
        if self.seal.sequence >= self.limit {
            return Err(Exhausted);
        }
        let length = record.len().checked_sub(self.prefix_length() + self.suffix_length()).ok_or(Exhausted)?;
        let sealed = u16::try_from(record.len() - HEADER).map_err(|_| Exhausted)?.to_be_bytes();
        let nonce = self.seal.nonce();
        let (header, rest) = record.split_first_chunk_mut::<HEADER>().ok_or(Exhausted)?;
        let (explicit, rest) = rest.split_at_mut_checked(self.seal.explicit_nonce).ok_or(Exhausted)?;
        let (payload, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(Exhausted)?;
        // TLS 1.3 calls every protected record application data.
        *header = [if self.tls13 { content::APPLICATION_DATA } else { kind }, 3, 3, sealed[0], sealed[1]];
        let made = if self.tls13 {
            *payload.last_mut().ok_or(Exhausted)? = kind;
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.seal.key.seal_in_place_separate_tag(nonce, Aad::from(*header), payload)
        } else {
            let additional = self.seal.additional_data_12(kind, length).ok_or(Exhausted)?;
            for (slot, byte) in explicit.iter_mut().zip(nonce.iter().skip(4)) {
                *slot = *byte;
            }
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.seal.key.seal_in_place_separate_tag(nonce, Aad::from(additional), payload)
        };
        tag.copy_from_slice(made.map_err(|_| Exhausted)?.as_ref());
        self.seal.sequence += 1;
        Ok(())
    }

    /// Whether a handshake message is incomplete: the stream may not end there.
    pub fn is_inside_message(&self) -> bool {
        self.inbound.is_inside_message()
    }

    /// Opens the first record in `received`, in place.
    pub fn open(&mut self, received: &mut [u8]) -> Result<Opened, RecordError> {
        let Some((&[kind, major, minor, high, low], rest)) = received.split_first_chunk::<HEADER>() else {
            return Ok(Opened::Incomplete(HEADER));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let most = if self.tls13 { CIPHERTEXT_MAX_13 } else { CIPHERTEXT_MAX_12 };
        if (major, minor) != (3, 3) {
            return Err(RecordError(Alert::DECODE_ERROR));
        }
        if length > most {
            return Err(RecordError(Alert(22)));
        }
        if self.tls13 && kind != content::APPLICATION_DATA {
            // A ChangeCipherSpec is legal during the handshake only (RFC 8446 section 5).
            return Err(RecordError(Alert::UNEXPECTED_MESSAGE));
        }
        let consumed = HEADER + length;
        if rest.len() < length {
            return Ok(Opened::Incomplete(consumed));
        }
        let record = received.get_mut(..consumed).unwrap_or_default();
        let (kind, plaintext) = self.open.open(self.tls13, kind, record)?;
        let message = record.get(plaintext.clone()).unwrap_or_default();
        self.process(kind, message, consumed, plaintext)
    }

    /// Acts on an opened record.
    fn process(
        &mut self,
        kind: u8,
        message: &[u8],
        consumed: usize,
        plaintext: Range<usize>,
    ) -> Result<Opened, RecordError> {
        Ok(match self.inbound.accept(kind, message)? {
            Inbound::Data => Opened::Data { consumed, plaintext },
            Inbound::Nothing => Opened::Nothing { consumed },
            Inbound::KeyUpdate { requested } => {
                let internal = |_| RecordError(Alert::INTERNAL_ERROR);
                let secret = self.schedule.next_to_receive().map_err(internal)?;
                self.open = TrafficKey::new(&secret, true).map_err(internal)?;
                if requested { Opened::KeyUpdateRequested { consumed } } else { Opened::Nothing { consumed } }
            }
            Inbound::Renegotiation => Opened::Renegotiation { consumed },
            Inbound::Closed => Opened::Closed { consumed },
            Inbound::Alert(alert) => Opened::Alert(alert),
        })
    }
}

#[cfg(test)]
impl Session {
    /// Lowers the record limit, so that a test need not seal 2^24 records.
    pub(crate) fn limit_records(&mut self, limit: u64) {
        self.limit = limit;
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
