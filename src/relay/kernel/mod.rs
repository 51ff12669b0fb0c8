//! TLS in the kernel: it seals and opens the records, and bytes are spliced between the two sockets without a copy to user
//! memory.
//!
//! The rules below were found by measurement on Linux 6.1, 6.12 and 7.3, and read in net/tls:
//!
//! * `splice` moves one record a call. 0 is the end of the stream *or* an empty record: a look at what follows tells.
//! * `EINVAL` is a record that is no data, which `recvmsg` takes; if there is none, it was garbage, about which the socket
//!   never says a word again.
//! * What is no record at all is an error of the socket, and since 6.12 no readiness to read: whoever waits for that alone
//!   waits for ever.
//! * An alert that arrives behind unread data gives no new readiness: whoever was woken goes on until `WouldBlock`.
//! * What `splice` and `sendmsg` have taken from us need not be TCP's yet: the layer keeps back what TCP has no room for, and
//!   `shutdown` and `close` throw that away. So the end of a connection waits until TCP has been given all of it.
//! * Nothing keeps us from sending behind a close_notify but ourselves, nobody counts records but ourselves, and keys are
//!   changed by Linux 6.14 and later only.

mod down;
mod support;
#[cfg(test)]
mod tests;
mod up;

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Sleep;

pub use self::support::Support;
use super::{End, Engine, Moved, ON_ITS_WAY, Path, Rest, client_broke, cut_short};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::sys::ktls::{self, Cipher, Direction, Key, Received, Version};
use crate::sys::socket::reset_on_close_beyond;
use crate::sys::splice::{CAPACITY, Pipe};
use crate::sys::stream::Stream;
use crate::tls::record::{Aead, Course, Keys, PLAINTEXT_MAX, RecordError, Schedule, Secret, content};

/// How often one direction goes round before the other one and other connections get their turn.
const TURNS: usize = 16;

/// How many records of the greatest length are gathered before they are passed on: one call to the kernel each way for each
/// record would be more calls than the work is worth. So many fit a pipe even if every page of it holds a single fragment.
const GATHERED: usize = 3;

/// How much of a record that is no data is taken at once. Only a ClientHello of a renegotiation can be longer.
const MESSAGE_MAX: usize = 4096;

/// The most records one pipe can be cut into: each but the last is full, or ends where a page of the pipe does.
const RECORDS_MAX: u64 = (CAPACITY / PLAINTEXT_MAX + CAPACITY / 4096 + 1) as u64;
/// Records that are left for messages of our own when a key is called worn: alerts and KeyUpdates.
const KEPT_BACK: u64 = 8;

/// How long to wait before looking again whether TCP has been given everything; doubled each time.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(320);

fn version_of(schedule: &Schedule) -> Version {
    if schedule.is_tls13() { Version::Tls13 } else { Version::Tls12 }
}

fn cipher_of(secret: &Secret) -> Option<(Cipher, &[u8], &[u8])> {
    let (aead, key, iv) = secret.parts()?;
    let cipher = match aead {
        Aead::Aes128Gcm => Cipher::Aes128Gcm,
        Aead::Aes256Gcm => Cipher::Aes256Gcm,
        Aead::Chacha20Poly1305 => Cipher::Chacha20Poly1305,
    };
    Some((cipher, key, iv))
}

/// A connection whose records the kernel seals and opens.
#[derive(Debug)]
pub(super) struct KernelTls {
    client: Arc<TcpStream>,
    /// Until there is an error of the client's socket.
    errors: Option<Errors>,
    backend: Stream,
    up: Up,
    down: Down,
    course: Course,
    sealed: Sealed,
    /// rustls' key schedule, where the kernel can change keys: it is large, and of no other use.
    schedule: Option<Box<Schedule>>,
    first_ended: Option<Side>,
    moved: Moved,
}

/// Waits for an error of a socket.
struct Errors(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Errors {
    fn of(socket: &Arc<TcpStream>) -> Self {
        let socket = Arc::clone(socket);
        Self(Box::pin(async move {
            // Whatever comes of it, somebody is to look.
            let _ = socket.ready(Interest::ERROR).await;
        }))
    }
}

impl std::fmt::Debug for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errors").finish_non_exhaustive()
    }
}

/// From the client to the backend.
#[derive(Debug, Default)]
struct Up {
    pipe: Option<Pipe>,
    /// Records in the pipe.
    gathered: usize,
    /// What is in the pipe is passed on before more is taken.
    passing_on: bool,
    ended: bool,
    shut: bool,
    rest: Rest,
    /// The backend takes nothing more. What it has still to say is delivered all the same, and until the client has
    /// ended too, what it sends is read and dropped: closing a socket with unread bytes is a reset
    /// (RFC 1122 section 4.2.2.13), and could overtake the backend's last words.
    refused: Option<io::Error>,
}

/// From the backend to the client.
#[derive(Debug, Default)]
struct Down {
    pipe: Option<Pipe>,
    /// A KeyUpdate is to be sent.
    update_key: bool,
    /// A renegotiation is to be declined.
    decline: bool,
    ended: bool,
    /// The backend's end is to be told by a close_notify, which has not been sent yet.
    notify: bool,
    shut: bool,
    look_again: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// What the kernel has sealed.
#[derive(Debug)]
struct Sealed {
    version: Version,
    cipher: Cipher,
    /// Records that one key may seal.
    limit: u64,
    /// Records that may be sealed until the kernel must be asked how many there were.
    budget: u64,
    /// Records that were sealed under earlier keys, less the number of the first one.
    earlier: u64,
    /// [`ktls::given_to_tcp`] before the first record.
    given: u64,
    /// Bytes of payload and messages.
    bytes: u64,
}

impl Sealed {
    /// What a record takes up beside its payload.
    const fn overhead(&self) -> u64 {
        match (self.version, self.cipher) {
            // Header, content type, tag.
            (Version::Tls13, _) => 5 + 1 + 16,
            (Version::Tls12, Cipher::Chacha20Poly1305) => 5 + 16,
            // With a part of the nonce.
            (Version::Tls12, _) => 5 + 8 + 16,
        }
    }
}

impl KernelTls {
    /// Hands the keys to the kernel. Until this has succeeded, nothing may be moved: a socket that has only one of its keys
    /// would pass on ciphertext as if it were payload. After a failure there is no way back to user space.
    pub(super) fn new(client: TcpStream, keys: Keys, support: &Support, backend: Stream) -> Result<Self, End> {
        let client = Arc::new(client);
        match Self::hand_over(&client, keys, support) {
            Ok((sealed, schedule)) => Ok(Self {
                errors: Some(Errors::of(&client)),
                client,
                backend,
                up: Up::default(),
                down: Down::default(),
                course: Course::new(sealed.version == Version::Tls13),
                sealed,
                schedule,
                first_ended: None,
                moved: Moved::default(),
            }),
            Err(error) => {
                backend.reset_on_close();
                Err(End::because(CloseReason::Internal, format!("the kernel did not take the keys: {error}")))
            }
        }
    }

    fn hand_over(client: &TcpStream, keys: Keys, support: &Support) -> io::Result<(Sealed, Option<Box<Schedule>>)> {
        let Keys { send, receive, schedule } = keys;
        let version = version_of(&schedule);
        let given = ktls::given_to_tcp(client)?;
        set_key(client, Direction::Transmit, version, &send)?;
        set_key(client, Direction::Receive, version, &receive)?;
        let (cipher, ..) = cipher_of(&send).ok_or(io::ErrorKind::Unsupported)?;
        let limit = schedule.record_limit();
        let sealed = Sealed {
            version,
            cipher,
            limit,
            budget: limit.saturating_sub(send.sequence()).saturating_sub(KEPT_BACK),
            earlier: 0_u64.wrapping_sub(send.sequence()),
            given,
            bytes: 0,
        };
        let schedule = support.changes_keys.then(|| Box::new(schedule));
        Ok((sealed, schedule))
    }

    /// Tells the client what it did wrong.
    fn protest(&self, error: RecordError) -> End {
        self.give_up(error.0);
        End::because(CloseReason::TlsError, error)
    }

    /// Ends with a fatal alert, where the kernel still sends one: after a bad record it sends nothing more.
    fn give_up(&self, alert: Alert) {
        // Behind a close_notify nothing may be sent.
        if !self.down.ended || self.down.notify {
            let _ = ktls::send_record(&self.client, content::ALERT, &[2, alert.0]);
        }
        self.hang_up();
    }

    /// Ends at once. What the client has sent meanwhile is taken off the socket: closing one with unread bytes is a reset,
    /// and could overtake what was sent.
    fn hang_up(&self) {
        if !self.down.shut {
            let _ = SockRef::from(&*self.client).shutdown(Shutdown::Write);
        }
        let mut sink = [0; MESSAGE_MAX];
        for _ in 0..TURNS {
            if !matches!(
                ktls::receive_record(&self.client, &mut sink, false),
                Ok(Received { content_type: Some(_), .. })
            ) {
                break;
            }
        }
    }
}

fn set_key(client: &TcpStream, direction: Direction, version: Version, secret: &Secret) -> io::Result<()> {
    let (cipher, key, iv) = cipher_of(secret).ok_or(io::ErrorKind::Unsupported)?;
    let iv = iv.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    ktls::set_key(client, direction, &Key { version, cipher, key, iv, sequence: secret.sequence() })
}

impl Engine for KernelTls {
    const PATH: Path = Path::Kernel;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_up(cx);
        // Behind an alert nothing may follow.
        let down = if matches!(up, Poll::Ready(Err(_))) { Poll::Pending } else { self.poll_down(cx) };
        let end = ready!(End::of(up, down, self.first_ended, &mut self.up.refused));
        if matches!(end.reason, CloseReason::ClientReset | CloseReason::TlsError | CloseReason::Internal) {
            self.backend.reset_on_close();
        }
        Poll::Ready(end)
    }

    fn moved(&self) -> Moved {
        self.moved
    }

    fn is_half_closed(&self) -> bool {
        self.first_ended.is_some()
    }

    fn backend(&self) -> &Stream {
        &self.backend
    }

    fn cut(&mut self) {
        // close_notify says that nothing follows; that is true only if nothing was left half sent.
        if self.down.pipe.as_ref().is_none_or(Pipe::is_empty) {
            if !self.down.ended || self.down.notify {
                let _ = ktls::send_record(&self.client, content::ALERT, &[1, 0]);
            }
            self.hang_up();
        }
        // The client has not said that it was done, so the backend is not told so.
        if !self.up.ended {
            self.backend.reset_on_close();
        }
    }

    fn withhold(&self) {
        reset_on_close_beyond(&self.client, ON_ITS_WAY);
    }
}
