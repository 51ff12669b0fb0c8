//! The key of a device in a PKCS#11 token: a YubiKey, a TPM, a smart card. It signs there, and never leaves it.
//!
//! A token is slow, may wait for a touch, and may be unplugged at any time. So nothing here is called on a thread that moves bytes: see
//! [`dial`](super::dial). What is known of a token holds for the whole process ([`Token::of`]), since PKCS#11 has it so: a program logs
//! in once, and a PIN that was wrong is wrong for all who use the token.

mod error;
mod kind;
#[cfg(all(feature = "pkcs11", not(all(unix, target_feature = "crt-static"))))]
mod session;
#[cfg(not(all(feature = "pkcs11", not(all(unix, target_feature = "crt-static")))))]
#[path = "unavailable.rs"]
mod session;
mod signer;
mod uri;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::SignatureScheme;
use tokio::time::Instant;

pub use self::error::TokenError;
pub use self::signer::TokenKey;
pub use self::uri::{InvalidUri, SCHEME, TokenUri};

use self::session::{NotSigned, Open, Pins};

/// A gate waits ten seconds for a handshake by default: what took longer than half of them may have been too slow.
const SLOW: Duration = Duration::from_secs(5);
/// By then, the gate's answer to what was signed has arrived.
const JUST_NOW: Duration = Duration::from_secs(3);

/// A key in a token.
pub struct Token {
    uri: TokenUri,
    state: Mutex<State>,
    was_open: AtomicBool,
    last: Mutex<Option<Signed>>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    pins: Pins,
}

/// An attempt to sign: when it ended, and how long it took.
struct Signed {
    end: Instant,
    took: Duration,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("uri", &self.uri.as_str()).finish_non_exhaustive()
    }
}

/// All tokens of this process.
static TOKENS: Mutex<Vec<Arc<Token>>> = Mutex::new(Vec::new());

impl Token {
    /// The key that is meant: the same value for the same URI. Nothing is opened yet.
    pub fn of(uri: &TokenUri) -> Arc<Self> {
        let mut tokens = lock(&TOKENS);
        if let Some(known) = tokens.iter().find(|token| token.uri == *uri) {
            return Arc::clone(known);
        }
        let token = Arc::new(Self {
            uri: uri.clone(),
            state: Mutex::default(),
            was_open: AtomicBool::new(false),
            last: Mutex::default(),
        });
        tokens.push(Arc::clone(&token));
        token
    }

    /// Where it is.
    pub const fn uri(&self) -> &TokenUri {
        &self.uri
    }

    /// Whether it can be used without asking the user: it was already, or a file has the PIN. Does not wait for the token.
    pub fn is_unattended(&self) -> bool {
        self.uri.pin_file.is_some() || self.was_open.load(Ordering::Relaxed)
    }

    /// Why a gate may have given up a moment ago: a signature took long.
    pub(super) fn late(&self) -> Option<TokenError> {
        let last = lock(&self.last);
        let last = last.as_ref().filter(|last| last.took > SLOW && last.end.elapsed() < JUST_NOW)?;
        Some(TokenError::Late { token: self.uri.describe(), took: last.took })
    }

    /// That it does not answer.
    pub(super) fn silent(&self) -> TokenError {
        TokenError::Silent { token: self.uri.describe() }
    }

    /// Opens it, unless it is open; the user may be asked for the PIN. Returns the SubjectPublicKeyInfo, if the token shows it.
    fn unlock(&self) -> Result<Option<Vec<u8>>, TokenError> {
        self.opened(&mut lock(&self.state), true)
    }

    /// The same without asking.
    fn prepare(&self) -> Result<Option<Vec<u8>>, TokenError> {
        self.opened(&mut lock(&self.state), false)
    }

    fn opened(&self, state: &mut State, ask: bool) -> Result<Option<Vec<u8>>, TokenError> {
        let State { open, pins } = state;
        if !open.as_ref().is_some_and(Open::is_alive) {
            // First the old session, which may hold what the new one needs.
            *open = None;
            let new = Open::new(&self.uri, pins, ask).map_err(|error| match error {
                TokenError::Absent { wanted, .. } if self.was_open.load(Ordering::Relaxed) => {
                    TokenError::Removed { token: wanted }
                }
                other => other,
            })?;
            self.was_open.store(true, Ordering::Relaxed);
            *open = Some(new);
        }
        Ok(open.as_ref().and_then(Open::spki).map(<[u8]>::to_vec))
    }

    /// Signs a message, with one more attempt after the token was plugged in again. Blocks for as long as the token does.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let mut state = lock(&self.state);
        let begin = Instant::now();
        let signed = self.sign_with(&mut state, scheme, message);
        *lock(&self.last) = Some(Signed { end: Instant::now(), took: begin.elapsed() });
        signed
    }

    fn sign_with(&self, state: &mut State, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        for last in [false, true] {
            if state.open.is_none() {
                self.opened(state, false)?;
            }
            let Some(open) = &state.open else { continue };
            if !open.kind().schemes().contains(&scheme) {
                let uri = &self.uri;
                return Err(TokenError::OtherKey { token: uri.describe(), uri: uri.to_string() });
            }
            match open.sign(scheme, message) {
                Ok(signature) => return Ok(signature),
                Err(NotSigned { error, is_stale }) => {
                    if !is_stale || last {
                        return Err(error);
                    }
                    state.open = None;
                }
            }
        }
        Err(self.silent())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
