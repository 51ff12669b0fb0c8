//! TLS in the kernel: the kernel seals and opens the records, and bytes are spliced between the two sockets without a copy
//! to user memory.
//!
//! How kernel TLS behaves, measured on Linux 6.1, 6.12 and 7.3 and read in net/tls:
//!
//! * `splice` moves one record per call. 0 is the end of the stream *or* an empty record; `MSG_PEEK` tells which.
//! * `EINVAL` is a record of another type than data, which `recvmsg` reads. If `recvmsg` finds none, the bytes were no
//!   record, and the socket reports nothing more.
//! * Bytes that are no record set an error on the socket and, since 6.12, do not make it readable: waiting for readability
//!   alone would wait for ever.
//! * An alert that arrives after unread data causes no new readiness event: a woken task reads until `WouldBlock`.
//! * What `splice` and `sendmsg` have accepted may still be in the TLS layer, which keeps back what TCP has no room for, and
//!   `shutdown` and `close` discard it. So a connection is closed only after TCP has been handed all of it.
//! * The kernel lets us send after a close_notify and does not enforce the record limit of a key. Only Linux 6.14 and later
//!   can change keys.

mod download;
mod support;
#[cfg(test)]
mod tests;
mod upload;

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
use super::{AfterCloseNotify, End, Engine, Moved, Path, ROUNDS_MAX, UNDELIVERED_MAX, client_reset, truncation};
use crate::model::close::{CloseReason, Ending};
use crate::model::rejection::{Alert, Side};
use crate::sys::ktls::{self, Cipher, Direction, Key, Received, Version};
use crate::sys::socket::reset_on_close_beyond;
use crate::sys::splice::Pipe;
use crate::sys::stream::Stream;
use crate::tls::record::{
    Aead, InboundState, Keys, PLAINTEXT_MAX, RESERVED_RECORDS, RecordError, Schedule, Secret, content,
};

/// How many full records are collected in the pipe before they are written to the backend, to save system calls. This many
/// fit a pipe even if each of its pages holds a single fragment.
const BATCH_RECORDS: usize = 3;

/// How many bytes of a record that is not data are read at once. Only a ClientHello of a renegotiation can be longer.
const MESSAGE_MAX: usize = 4096;

/// How many bytes a pipe is filled with at most.
const FILL_MAX: usize = 256 * 1024;

/// The most records into which the content of one pipe is sealed: each but the last is full, or ends at a page boundary.
const RECORDS_MAX: u64 = (FILL_MAX / PLAINTEXT_MAX + FILL_MAX / 4096 + 1) as u64;

/// The interval at which the gate asks whether TCP has been handed everything; doubled each time.
const TCP_POLL_MIN: Duration = Duration::from_millis(5);
const TCP_POLL_MAX: Duration = Duration::from_millis(320);

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
    /// Completes when the client's socket has an error; `None` after that.
    socket_error: Option<SocketError>,
    backend: Stream,
    up: Upload,
    down: Download,
    inbound: InboundState,
    sealed: SealedRecords,
    /// rustls' key schedule, kept only where the kernel can change keys, because it is large.
    schedule: Option<Box<Schedule>>,
    first_ended: Option<Side>,
    moved: Moved,
}

/// Waits until a socket has an error.
struct SocketError(Pin<Box<dyn Future<Output = ()> + Send>>);

impl SocketError {
    fn watch(socket: &Arc<TcpStream>) -> Self {
        let socket = Arc::clone(socket);
        Self(Box::pin(async move {
            // The result does not matter: it only wakes the task, which then reads the error.
            let _ = socket.ready(Interest::ERROR).await;
        }))
    }
}

impl std::fmt::Debug for SocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketError").finish_non_exhaustive()
    }
}

/// From the client to the backend.
#[derive(Debug, Default)]
struct Upload {
    pipe: Option<Pipe>,
    /// Records in the pipe.
    batched: usize,
    /// The pipe is written to the backend before more is read.
    flushing: bool,
    ended: bool,
    shut: bool,
    after_close_notify: AfterCloseNotify,
    /// The error of the backend that accepts nothing more. What it has sent is still delivered. Until the client ends, its
    /// bytes are read and discarded: closing a socket with unread bytes causes a reset (RFC 1122 section 4.2.2.13), which
    /// could overtake the backend's last bytes.
    write_error: Option<io::Error>,
}

/// From the backend to the client.
#[derive(Debug, Default)]
struct Download {
    pipe: Option<Pipe>,
    /// A KeyUpdate must be sent.
    key_update_due: bool,
    /// A `no_renegotiation` alert must be sent.
    no_renegotiation_due: bool,
    ended: bool,
    /// The backend has ended and the close_notify for it has not been sent.
    close_notify_due: bool,
    shut: bool,
    /// The interval and the timer for asking whether TCP has been handed everything.
    tcp_poll: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// Counts what the kernel has sealed.
#[derive(Debug)]
struct SealedRecords {
    version: Version,
    cipher: Cipher,
    /// How many records one key may seal.
    limit: u64,
    /// How many records may be sealed before the kernel must be asked for its count.
    records_left: u64,
    /// Records sealed under earlier keys, minus the sequence number of the first one.
    earlier_records: u64,
    /// [`ktls::handed_to_tcp`] before the first record.
    tcp_bytes_at_start: u64,
    /// Bytes of payload and messages.
    bytes: u64,
}

impl SealedRecords {
    /// The bytes of a record in addition to its payload.
    const fn overhead(&self) -> u64 {
        match (self.version, self.cipher) {
            // Header, content type, tag.
            (Version::Tls13, _) => 5 + 1 + 16,
            // Header, tag.
            (Version::Tls12, Cipher::Chacha20Poly1305) => 5 + 16,
            // Header, explicit nonce, tag.
            (Version::Tls12, _) => 5 + 8 + 16,
        }
    }
}

impl KernelTls {
    /// Hands the keys to the kernel. Nothing may be moved before this has succeeded: a socket with only one of its keys
    /// would forward ciphertext as payload. After a failure the connection cannot return to user space.
    pub(super) fn new(client: TcpStream, keys: Keys, support: &Support, backend: Stream) -> Result<Self, End> {
        let client = Arc::new(client);
        match Self::give_keys(&client, keys, support) {
            Ok((sealed, schedule)) => Ok(Self {
                socket_error: Some(SocketError::watch(&client)),
                client,
                backend,
                up: Upload::default(),
                down: Download::default(),
                inbound: InboundState::new(sealed.version == Version::Tls13),
                sealed,
                schedule,
                first_ended: None,
                moved: Moved::default(),
            }),
            Err(error) => {
                backend.reset_on_close();
                Err(End::because(CloseReason::Internal, format!("the kernel rejected the keys: {error}")))
            }
        }
    }

    fn give_keys(
        client: &TcpStream,
        keys: Keys,
        support: &Support,
    ) -> io::Result<(SealedRecords, Option<Box<Schedule>>)> {
        let Keys { send, receive, schedule } = keys;
        let version = version_of(&schedule);
        let tcp_bytes_at_start = ktls::handed_to_tcp(client)?;
        set_key(client, Direction::Transmit, version, &send)?;
        set_key(client, Direction::Receive, version, &receive)?;
        let (cipher, ..) = cipher_of(&send).ok_or(io::ErrorKind::Unsupported)?;
        let limit = schedule.record_limit();
        let sealed = SealedRecords {
            version,
            cipher,
            limit,
            records_left: limit.saturating_sub(send.sequence()).saturating_sub(RESERVED_RECORDS),
            earlier_records: 0_u64.wrapping_sub(send.sequence()),
            tcp_bytes_at_start,
            bytes: 0,
        };
        let schedule = support.changes_keys.then(|| Box::new(schedule));
        Ok((sealed, schedule))
    }

    /// Sends the alert for a protocol error and ends.
    fn reject(&self, error: RecordError) -> End {
        self.send_fatal_alert(error.0);
        End::because(CloseReason::TlsError, error)
    }

    /// Ends with a fatal alert. After a bad record the kernel sends nothing more, not even the alert.
    fn send_fatal_alert(&self, alert: Alert) {
        // Nothing may be sent after a close_notify.
        if !self.down.ended || self.down.close_notify_due {
            let _ = ktls::send_record(&self.client, content::ALERT, &[2, alert.0]);
        }
        self.close_client();
    }

    /// Shuts the socket down. What the client has sent meanwhile is read first: closing a socket with unread bytes causes a
    /// reset, which could overtake what was sent.
    fn close_client(&self) {
        if !self.down.shut {
            let _ = SockRef::from(&*self.client).shutdown(Shutdown::Write);
        }
        let mut sink = [0; MESSAGE_MAX];
        for _ in 0..ROUNDS_MAX {
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
        let up = self.poll_upload(cx);
        // Nothing may follow an alert.
        let down = if matches!(up, Poll::Ready(Err(_))) { Poll::Pending } else { self.poll_download(cx) };
        let end = ready!(End::combine(up, down, self.first_ended, &mut self.up.write_error));
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

    fn cut(&mut self, ending: Ending) {
        let all_sent = self.down.pipe.as_ref().is_none_or(Pipe::is_empty);
        // What a backend that has ended has sent is complete once the pipe is empty.
        let ending = if self.down.close_notify_due && all_sent { Ending::Complete } else { ending };
        match ending {
            Ending::Complete if all_sent && (!self.down.ended || self.down.close_notify_due) => {
                let _ = ktls::send_record(&self.client, content::ALERT, &[1, 0]);
                self.close_client();
            }
            // What is still in the pipe has not been sealed, so an alert may follow what was.
            Ending::Alert(alert) => self.send_fatal_alert(alert),
            _ => self.close_client(),
        }
        // The backend was not told that the client has ended, so it must not see an orderly end.
        if !self.up.shut {
            self.backend.reset_on_close();
        }
    }

    fn limit_undelivered(&self) {
        reset_on_close_beyond(&self.client, UNDELIVERED_MAX);
    }
}
