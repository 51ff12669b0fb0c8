//! A client that holds its own keys and can seal any record, legal or not.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, ConnectionTrafficSecrets, ProtocolVersion};

const HEADER: usize = 5;
const TAG: usize = 16;

/// Content types (RFC 8446 section 5.1).
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// KeyUpdates (RFC 8446 section 4.6.3).
pub(crate) const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];
pub(crate) const KEY_UPDATE_REQUESTED: &[u8] = &[24, 0, 0, 1, 1];

/// A decrypted record: content type and content.
pub(crate) type Plain = (u8, Vec<u8>);

/// A client after its handshake.
pub(crate) struct Forger {
    seal: TrafficKey,
    open: TrafficKey,
    schedule: KernelConnection<ClientConnectionData>,
    tls13: bool,
    /// The part of a handshake message that has been sent.
    message: Vec<u8>,
    /// Received bytes that are not a complete record.
    received: Vec<u8>,
}

/// The traffic key of one direction.
struct TrafficKey {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// The length of the explicit nonce in TLS 1.2 with AES-GCM (RFC 5288 section 3).
    explicit_nonce: usize,
}

impl TrafficKey {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), tls13: bool) -> Self {
        let (algorithm, sent_nonce, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, 8, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, 8, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, 0, key, iv),
            _ => panic!("an unknown cipher suite"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        let explicit_nonce = if tls13 { 0 } else { sent_nonce };
        Self { key, iv: iv.as_ref().try_into().unwrap(), sequence, explicit_nonce }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }

    fn additional_data(&self, tls13: bool, header: [u8; HEADER], length: usize) -> Vec<u8> {
        if tls13 {
            return header.to_vec();
        }
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&self.sequence.to_be_bytes()[..], &header[..3], &length].concat()
    }
}

impl Forger {
    /// Completes a handshake. `exchange` sends bytes and, if its second argument is true, returns the answer.
    pub(crate) fn handshake(
        mut config: ClientConfig,
        name: &'static str,
        mut exchange: impl FnMut(&[u8], bool) -> Vec<u8>,
    ) -> Self {
        config.enable_secret_extraction = true;
        let name = ServerName::try_from(name).unwrap();
        let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
        let (mut received, mut out) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { discard, state } = client.process_tls_records(&mut received);
            let waits = match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = out.len();
                    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                        data.encode(&mut [])
                    {
                        out.resize(start + required_size, 0);
                    }
                    data.encode(&mut out[start..]).unwrap();
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::BlockedHandshake => Some(true),
                ConnectionState::WriteTraffic(_) => Some(false),
                other => panic!("{other:?}"),
            };
            received.drain(..discard);
            if let Some(waits) = waits {
                received.extend(exchange(&std::mem::take(&mut out), waits));
            }
            if waits == Some(false) {
                break;
            }
        }
        let tls13 = client.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (secrets, schedule) = client.dangerous_into_kernel_connection().unwrap();
        let [seal, open] = [secrets.tx, secrets.rx].map(|secrets| TrafficKey::new(secrets, tls13));
        Self { seal, open, schedule, tls13, message: Vec::new(), received }
    }

    /// A record sealed under the current key. A complete KeyUpdate changes the key.
    pub(crate) fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let inner = if self.tls13 { [content, &[kind]].concat() } else { content.to_vec() };
        let record = self.inner(kind, &inner);
        if kind == HANDSHAKE {
            self.message.extend(content);
            if self.tls13 && [KEY_UPDATE, KEY_UPDATE_REQUESTED].contains(&self.message.as_slice()) {
                self.seal = TrafficKey::new(self.schedule.update_tx_secret().unwrap(), true);
            }
            if let &[_, high, middle, low, ref body @ ..] = self.message.as_slice()
                && body.len() == u32::from_be_bytes([0, high, middle, low]) as usize
            {
                self.message.clear();
            }
        }
        record
    }

    /// Whether a handshake message is incomplete.
    pub(crate) fn is_inside_message(&self) -> bool {
        !self.message.is_empty()
    }

    /// A record sealed under the current key; in TLS 1.3 `inner` is its TLSInnerPlaintext (RFC 8446 section 5.2).
    pub(crate) fn inner(&mut self, kind: u8, inner: &[u8]) -> Vec<u8> {
        let key = &mut self.seal;
        let nonce = key.nonce();
        let explicit = nonce[12 - key.explicit_nonce..].to_vec();
        let length = u16::try_from(explicit.len() + inner.len() + TAG).unwrap().to_be_bytes();
        let kind = if self.tls13 { APPLICATION_DATA } else { kind };
        let header = [kind, 3, 3, length[0], length[1]];
        let additional = key.additional_data(self.tls13, header, inner.len());
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce, Aad::from(additional), &mut sealed).unwrap();
        key.sequence += 1;
        [&header, explicit.as_slice(), &sealed].concat()
    }

    /// Opens the records of the server and follows its KeyUpdates. Session tickets are omitted.
    pub(crate) fn open_records(&mut self, wire: &[u8]) -> Vec<Plain> {
        self.received.extend(wire);
        let mut received = Vec::new();
        while let &[kind, _, _, high, low, ..] = self.received.as_slice() {
            let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
            if self.received.len() < length {
                break;
            }
            let record: Vec<u8> = self.received.drain(..length).collect();
            let (kind, content) = self.open(kind, &record);
            match (kind, content.as_slice()) {
                (HANDSHAKE, [4, ..]) => continue,
                (HANDSHAKE, &[24, ..]) => self.open = TrafficKey::new(self.schedule.update_rx_secret().unwrap(), true),
                _ => {}
            }
            received.push((kind, content));
        }
        received
    }

    fn open(&mut self, kind: u8, record: &[u8]) -> Plain {
        let key = &mut self.open;
        let (header, rest) = record.split_first_chunk::<HEADER>().unwrap();
        let (explicit, sealed) = rest.split_at(key.explicit_nonce);
        let mut nonce = key.nonce();
        nonce[12 - key.explicit_nonce..].copy_from_slice(explicit);
        let additional = key.additional_data(self.tls13, *header, sealed.len() - TAG);
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.key.open_in_place(nonce, Aad::from(additional), &mut opened);
        let opened = opened.expect("the server's record under the server's key");
        key.sequence += 1;
        if !self.tls13 {
            return (kind, opened.to_vec());
        }
        let end = opened.iter().rposition(|&byte| byte != 0).expect("a content type");
        (opened[end], opened[..end].to_vec())
    }
}
