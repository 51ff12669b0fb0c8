//! The keys that a completed handshake leaves: the one file of the record layer, and of kernel TLS, that knows rustls' types for
//! them.

use std::fmt;

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{CipherSuite, ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};

/// What seals records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AEAD_AES_128_GCM.
    Aes128Gcm,
    /// AEAD_AES_256_GCM.
    Aes256Gcm,
    /// AEAD_CHACHA20_POLY1305.
    Chacha20Poly1305,
}

impl Aead {
    /// The AEAD of a cipher suite. `None` for a suite that the gate never offers.
    pub const fn of(suite: CipherSuite) -> Option<Self> {
        use CipherSuite as S;
        match suite {
            S::TLS13_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Self::Aes128Gcm),
            S::TLS13_AES_256_GCM_SHA384
            | S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Self::Aes256Gcm),
            S::TLS13_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }
}

/// One direction's key, and the number of the next record under it.
pub struct Secret {
    sequence: u64,
    secrets: ConnectionTrafficSecrets,
}

impl Secret {
    /// The number of the next record.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What it is for, the key and the initialization vector. `None` for an algorithm that the gate never offers.
    pub fn parts(&self) -> Option<(Aead, &[u8], &[u8])> {
        match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Some((Aead::Aes128Gcm, key.as_ref(), iv.as_ref())),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Some((Aead::Aes256Gcm, key.as_ref(), iv.as_ref())),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                Some((Aead::Chacha20Poly1305, key.as_ref(), iv.as_ref()))
            }
            _ => None,
        }
    }
}

impl From<(u64, ConnectionTrafficSecrets)> for Secret {
    fn from((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        Self { sequence, secrets }
    }
}

impl fmt::Debug for Secret {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What is left of the protocol when the handshake is over: rustls' key schedule.
pub struct Schedule(KernelConnection<ServerConnectionData>);

impl Schedule {
    /// TLS 1.3, not TLS 1.2.
    pub fn is_tls13(&self) -> bool {
        self.0.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// How many records the suite lets one key seal (RFC 8446 section 5.5).
    pub fn record_limit(&self) -> u64 {
        match self.0.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        }
    }

    /// The next key to send with (RFC 8446 section 7.2).
    ///
    /// # Errors
    ///
    /// TLS 1.2 has none.
    pub fn next_to_send(&mut self) -> Result<Secret, Error> {
        self.0.update_tx_secret().map(Secret::from)
    }

    /// The next key to receive with.
    ///
    /// # Errors
    ///
    /// TLS 1.2 has none.
    pub fn next_to_receive(&mut self) -> Result<Secret, Error> {
        self.0.update_rx_secret().map(Secret::from)
    }
}

impl fmt::Debug for Schedule {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
    }
}

/// The traffic keys of a completed handshake, before a relay takes them.
#[derive(Debug)]
pub struct Keys {
    /// To send with.
    pub send: Secret,
    /// To receive with.
    pub receive: Secret,
    /// The keys that follow.
    pub schedule: Schedule,
}

impl Keys {
    /// The keys as rustls hands them out.
    pub fn new(secrets: ExtractedSecrets, schedule: KernelConnection<ServerConnectionData>) -> Self {
        Self { send: secrets.tx.into(), receive: secrets.rx.into(), schedule: Schedule(schedule) }
    }
}
