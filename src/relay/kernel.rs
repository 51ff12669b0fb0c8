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

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::pipes::{keep_pipe, take_pipe};
use super::{End, Engine, Moved, Path};
use crate::close::CloseReason;
use crate::record::{Course, Keys, Meaning, PLAINTEXT_MAX, RecordError, content, record_limit};
use crate::rejection::{Alert, Side};
use crate::sys::ktls::{self, Cipher, Direction, Key, Probe, Received, Version};
use crate::sys::splice::{CAPACITY, Pipe};
use crate::sys::stream::Stream;

/// How often one direction goes round before the other one and other connections get their turn.
const TURNS: usize = 16;

/// How many records of the greatest length are gathered before they are passed on: one call to the kernel each way for each
/// record would be more calls than the work is worth. So many fit a pipe even if every page of it holds a single fragment.
const GATHERED: usize = 3;

/// The longest message that is no data and is taken. A ClientHello of a renegotiation is the longest there is.
const MESSAGE_MAX: usize = 4096;

/// The most records one pipe can be cut into: each but the last is full, or ends where a page of the pipe does.
const RECORDS_MAX: u64 = (CAPACITY / PLAINTEXT_MAX + CAPACITY / 4096 + 1) as u64;
/// Records that are left for messages of our own when a key is called worn: alerts and KeyUpdates.
const KEPT_BACK: u64 = 8;

/// How long to wait before looking again whether TCP has been given everything; doubled each time.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(320);

/// What the kernel of this machine can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    suites: Vec<(Version, Cipher)>,
    changes_keys: bool,
    missing: Vec<String>,
}

impl Support {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// What was found out at the start.
    pub fn found(probe: Probe) -> Self {
        let mut support = Self { changes_keys: probe.changes_keys, ..Self::default() };
        for (version, cipher, result) in probe.suites {
            match result {
                Ok(()) => support.suites.push((version, cipher)),
                Err(error) => support.missing.push(format!("{version} with {cipher}: {error}")),
            }
        }
        support
    }

    /// Whether it can take over anything.
    pub fn any(&self) -> bool {
        !self.suites.is_empty()
    }

    /// What it cannot take over, and why.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether it can take over a connection with these keys.
    pub fn fits(&self, keys: &Keys) -> bool {
        cipher_of(&keys.secrets.tx.1)
            .is_some_and(|(cipher, ..)| self.suites.contains(&(version_of(&keys.schedule), cipher)))
    }
}

fn version_of(schedule: &KernelConnection<ServerConnectionData>) -> Version {
    match schedule.protocol_version() {
        ProtocolVersion::TLSv1_3 => Version::Tls13,
        _ => Version::Tls12,
    }
}

fn cipher_of(secrets: &ConnectionTrafficSecrets) -> Option<(Cipher, &[u8], &[u8])> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Some((Cipher::Aes128Gcm, key.as_ref(), iv.as_ref())),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Some((Cipher::Aes256Gcm, key.as_ref(), iv.as_ref())),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            Some((Cipher::Chacha20Poly1305, key.as_ref(), iv.as_ref()))
        }
        _ => None,
    }
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
    schedule: Option<Schedule>,
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

struct Schedule(Box<KernelConnection<ServerConnectionData>>);

impl std::fmt::Debug for Schedule {
    /// Keys are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
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

    fn hand_over(client: &TcpStream, keys: Keys, support: &Support) -> io::Result<(Sealed, Option<Schedule>)> {
        let Keys { secrets, schedule } = keys;
        let version = version_of(&schedule);
        let given = ktls::given_to_tcp(client)?;
        set_key(client, Direction::Transmit, version, &secrets.tx)?;
        set_key(client, Direction::Receive, version, &secrets.rx)?;
        let (cipher, ..) = cipher_of(&secrets.tx.1).ok_or(io::ErrorKind::Unsupported)?;
        let limit = record_limit(&schedule);
        let sealed = Sealed {
            version,
            cipher,
            limit,
            budget: limit.saturating_sub(secrets.tx.0).saturating_sub(KEPT_BACK),
            earlier: 0_u64.wrapping_sub(secrets.tx.0),
            given,
            bytes: 0,
        };
        let schedule = support.changes_keys.then(|| Schedule(Box::new(schedule)));
        Ok((sealed, schedule))
    }

    /// One direction: ready when it has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.errors.as_mut().is_some_and(|errors| errors.0.as_mut().poll(cx).is_ready()) {
            self.errors = None;
            self.look_for_error()?;
        }
        for _ in 0..TURNS {
            if self.up.passing_on {
                ready!(self.poll_pass_on(cx));
                continue;
            }
            if self.up.ended {
                if self.up.gathered > 0 {
                    self.up.passing_on = true;
                    continue;
                }
                keep_pipe(&mut self.up.pipe);
                if !self.up.shut {
                    self.up.shut = true;
                    // A backend that is gone already needs no telling.
                    let _ = self.backend.shutdown_write();
                }
                return Poll::Ready(Ok(()));
            }
            if self.up.pipe.is_none() {
                // Without bytes in hand no pipe is held while waiting.
                ready!(self.client.poll_read_ready(cx)).map_err(client_broke)?;
                if self.up.refused.is_some() {
                    self.drop_record()?;
                    continue;
                }
                self.up.pipe = Some(take_pipe().map_err(no_pipe)?);
            }
            self.take_record()?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one record into the pipe.
    fn take_record(&mut self) -> Result<(), End> {
        let Self { client, up, .. } = self;
        let Some(pipe) = up.pipe.as_mut() else { return Ok(()) };
        let taken = client.try_io(Interest::READABLE, || match pipe.fill(&**client) {
            // That can also mean that the pipe is full; only an empty one says something about the socket.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !pipe.is_empty() => Ok(None),
            result => result.map(Some),
        });
        match taken {
            Ok(None) => up.passing_on = true,
            Ok(Some(0)) => self.look()?,
            Ok(Some(length)) => {
                self.course.data();
                up.gathered += 1;
                up.passing_on = length < PLAINTEXT_MAX || up.gathered == GATHERED;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if up.gathered > 0 {
                    up.passing_on = true;
                } else {
                    keep_pipe(&mut up.pipe);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.take_message()?,
            Err(error) => self.client_failed(error)?,
        }
        Ok(())
    }

    /// `splice` gave 0: the end, or an empty record.
    fn look(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Ok(Received { content_type: None, length: 0, .. }) => self.fin(),
            Ok(Received { content_type: Some(kind), .. }) if kind != content::APPLICATION_DATA => {
                self.empty_record()?;
                self.take_message()
            }
            Ok(_) => self.empty_record(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.empty_record(),
            Err(error) => self.client_failed(error),
        }
    }

    /// The socket has an error, which need not be one of what it is read for.
    fn look_for_error(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && !self.up.ended => self.client_failed(error),
            // What there is comes the usual way.
            _ => Ok(()),
        }
    }

    fn empty_record(&mut self) -> Result<(), End> {
        match self.course.take(content::APPLICATION_DATA, &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.protest(error)),
        }
    }

    /// The stream has ended without a close_notify. Many clients end so; what they sent is passed on whole, and what is
    /// still on its way to them too.
    fn fin(&mut self) -> Result<(), End> {
        if rustix::io::ioctl_fionread(&self.client).is_ok_and(|left| left > 0) {
            return Err(End::because(CloseReason::ClientReset, "ended inside a record"));
        }
        self.up.ended = true;
        self.first_ended.get_or_insert(Side::Client);
        Ok(())
    }

    /// Takes a record that is no data.
    fn take_message(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        match ktls::receive_record(&self.client, &mut message, false) {
            Ok(Received { content_type: Some(kind), length, whole: true }) if kind != content::APPLICATION_DATA => {
                self.heed(kind, message.get(..length).unwrap_or_default())
            }
            Ok(_) => Err(self.protest(RecordError(Alert::UNEXPECTED_MESSAGE))),
            // There is no record: what came has no header of one.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.protest(RecordError(Alert::DECODE_ERROR)))
            }
            Err(error) => self.client_failed(error),
        }
    }

    /// Takes a part of a record, of whatever type, for nobody.
    fn drop_record(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        let client = &self.client;
        let received = client.try_io(Interest::READABLE, || ktls::receive_record(client, &mut message, false));
        match received {
            Ok(Received { content_type: None, .. }) => self.fin(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), length: 0, .. }) => self.empty_record(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), .. }) => {
                self.course.data();
                Ok(())
            }
            Ok(Received { content_type: Some(kind), length, whole: true }) => {
                self.heed(kind, message.get(..length).unwrap_or_default())
            }
            Ok(_) => Err(self.protest(RecordError(Alert::UNEXPECTED_MESSAGE))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.client_failed(error),
        }
    }

    /// Does what a message that is no data asks for.
    fn heed(&mut self, kind: u8, message: &[u8]) -> Result<(), End> {
        match self.course.take(kind, message) {
            Ok(Meaning::Data | Meaning::Nothing) => Ok(()),
            Ok(Meaning::KeyUpdate { requested }) => {
                let Some(Schedule(schedule)) = self.schedule.as_mut() else {
                    // No record that follows can be opened any more.
                    self.give_up(Alert::INTERNAL_ERROR);
                    let detail = "the client changed its key, which Linux follows from 6.14 on";
                    return Err(End::because(CloseReason::TlsError, detail));
                };
                let secrets =
                    schedule.update_rx_secret().map_err(|error| End::because(CloseReason::Internal, error))?;
                set_key(&self.client, Direction::Receive, self.sealed.version, &secrets)
                    .map_err(|error| End::because(CloseReason::Internal, error))?;
                // One answer serves all requests that came before it is sent (RFC 8446 section 4.6.3).
                self.down.update_key |= requested;
                Ok(())
            }
            Ok(Meaning::Renegotiation) => {
                self.down.decline = true;
                Ok(())
            }
            Ok(Meaning::Closed) => {
                self.up.ended = true;
                self.first_ended.get_or_insert(Side::Client);
                Ok(())
            }
            Ok(Meaning::Alert(alert)) => Err(End::because(CloseReason::ClientReset, format!("alert {alert}"))),
            Err(error) => Err(self.protest(error)),
        }
    }

    /// The client's socket gave an error on reading.
    fn client_failed(&mut self, error: io::Error) -> Result<(), End> {
        let deserved = match error.raw_os_error() {
            Some(libc::EBADMSG) => Alert(20),
            Some(libc::EMSGSIZE) => Alert(22),
            Some(libc::EINVAL | libc::EIO | libc::EKEYEXPIRED) => Alert::UNEXPECTED_MESSAGE,
            // It has read our close_notify and is gone; a client that leaves session tickets unread resets.
            _ if self.down.shut => {
                self.up.ended = true;
                return Ok(());
            }
            _ => return Err(client_broke(error)),
        };
        Err(self.protest(RecordError(deserved)))
    }

    fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { backend, up, moved, .. } = self;
        let Some(pipe) = up.pipe.as_mut().filter(|pipe| !pipe.is_empty()) else {
            (up.passing_on, up.gathered) = (false, 0);
            return Poll::Ready(());
        };
        let error = match backend.try_io(Interest::WRITABLE, || pipe.empty(&*backend)) {
            Ok(length) => {
                moved.to_backend += u64::try_from(length).unwrap_or(u64::MAX);
                return Poll::Ready(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match ready!(backend.poll_write_ready(cx)) {
                Ok(()) => return Poll::Ready(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.refused(error);
        Poll::Ready(())
    }

    fn refused(&mut self, error: io::Error) {
        // Not given back: it has bytes in it.
        self.up.pipe = None;
        (self.up.passing_on, self.up.gathered) = (false, 0);
        self.up.refused = Some(error);
        self.first_ended.get_or_insert(Side::Backend);
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..TURNS {
            if self.down.shut {
                return Poll::Ready(Ok(()));
            }
            // Behind a close_notify nothing may be sent, and no answer is worth waiting for then.
            let open = !self.down.ended || self.down.notify;
            if self.down.update_key && open {
                ready!(self.poll_update_key(cx))?;
                continue;
            }
            if self.down.decline && open {
                ready!(self.poll_send(cx, content::ALERT, &[1, 100])).map_err(client_broke)?;
                self.down.decline = false;
                continue;
            }
            if self.down.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
                ready!(self.poll_seal(cx))?;
                continue;
            }
            if self.down.notify {
                let sent = ready!(self.poll_send(cx, content::ALERT, &[1, 0]));
                // When both sides have said all they had to say, only our close_notify was not wanted any more.
                if !self.up.ended {
                    sent.map_err(client_broke)?;
                }
                self.down.notify = false;
                continue;
            }
            if self.down.ended {
                ready!(self.poll_given_to_tcp(cx));
                self.down.shut = true;
                // The client's own end can have been the last thing it did.
                let _ = SockRef::from(&*self.client).shutdown(Shutdown::Write);
                continue;
            }
            ready!(self.poll_read_backend(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has the kernel seal what is in the pipe, as much as the client takes.
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.sealed.budget < RECORDS_MAX && self.is_worn()? {
            if self.schedule.is_some() && self.sealed.version == Version::Tls13 {
                self.down.update_key = true;
                return Poll::Ready(Ok(()));
            }
            self.give_up(Alert::INTERNAL_ERROR);
            let detail = "the cipher suite's record limit is reached";
            return Poll::Ready(Err(End::because(CloseReason::TlsError, detail)));
        }
        let Self { client, down, sealed, moved, .. } = self;
        let Some(pipe) = down.pipe.as_mut() else { return Poll::Ready(Ok(())) };
        match client.try_io(Interest::WRITABLE, || pipe.empty(&**client)) {
            Ok(length) => {
                let length = u64::try_from(length).unwrap_or(u64::MAX);
                moved.to_client += length;
                sealed.bytes += length;
                sealed.budget = sealed.budget.saturating_sub(length.min(RECORDS_MAX));
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.poll_write_ready(cx).map_err(client_broke)
            }
            Err(error) => Poll::Ready(Err(client_broke(error))),
        }
    }

    /// Asks the kernel how many records there were. True if the key may not seal a whole pipe more.
    fn is_worn(&mut self) -> Result<bool, End> {
        let next = ktls::next_record(&self.client, self.sealed.cipher)
            .map_err(|error| End::because(CloseReason::Internal, error))?;
        self.sealed.budget = self.sealed.limit.saturating_sub(next).saturating_sub(KEPT_BACK);
        Ok(self.sealed.budget < RECORDS_MAX)
    }

    /// Changes the key that we send with, and says so.
    fn poll_update_key(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // KeyUpdate, update_not_requested, under the key that it ends.
        ready!(self.poll_send(cx, content::HANDSHAKE, &[24, 0, 0, 1, 0])).map_err(client_broke)?;
        self.down.update_key = false;
        Poll::Ready(self.change_key().map_err(|error| End::because(CloseReason::Internal, error)))
    }

    fn change_key(&mut self) -> io::Result<()> {
        let Some(Schedule(schedule)) = self.schedule.as_mut() else { return Err(io::ErrorKind::Unsupported.into()) };
        let sealed = ktls::next_record(&self.client, self.sealed.cipher)?;
        let secrets = schedule.update_tx_secret().map_err(io::Error::other)?;
        set_key(&self.client, Direction::Transmit, self.sealed.version, &secrets)?;
        self.sealed.earlier = self.sealed.earlier.wrapping_add(sealed);
        self.sealed.budget = self.sealed.limit.saturating_sub(KEPT_BACK);
        Ok(())
    }

    /// Sends a record that is no data.
    fn poll_send(&mut self, cx: &mut Context<'_>, kind: u8, message: &[u8]) -> Poll<io::Result<()>> {
        loop {
            match self.client.try_io(Interest::WRITABLE, || ktls::send_record(&self.client, kind, message)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.client.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => {
                    self.sealed.bytes += u64::try_from(message.len()).unwrap_or_default();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Waits until everything that was sealed is in TCP's hands, where neither shutdown nor close can harm it.
    fn poll_given_to_tcp(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // On a connection that is no more there is nothing to wait for.
            if self.is_given_to_tcp().unwrap_or(true) {
                self.down.look_again = None;
                return Poll::Ready(());
            }
            // TCP's room is announced to the layer, whose worker then uses it; that worker tells nobody.
            let (pause, timer) = self.down.look_again.get_or_insert_with(|| (LOOK_AGAIN, Box::pin(sleep(LOOK_AGAIN))));
            ready!(timer.as_mut().poll(cx));
            let pause = (*pause * 2).min(LOOK_AGAIN_MAX);
            self.down.look_again = Some((pause, Box::pin(sleep(pause))));
        }
    }

    fn is_given_to_tcp(&self) -> io::Result<bool> {
        let sealed = &self.sealed;
        let records = sealed.earlier.wrapping_add(ktls::next_record(&self.client, sealed.cipher)?);
        let wanted = sealed.given + sealed.bytes + records * sealed.overhead();
        Ok(ktls::given_to_tcp(&self.client)? >= wanted)
    }

    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { backend, down, .. } = self;
        let filled = if let Err(error) = ready!(backend.poll_read_ready(cx)) {
            Err(error)
        } else {
            if down.pipe.is_none() {
                down.pipe = Some(take_pipe().map_err(no_pipe)?);
            }
            let Some(pipe) = down.pipe.as_mut() else { return Poll::Ready(Ok(())) };
            backend.try_io(Interest::READABLE, || pipe.fill(&*backend))
        };
        match filled {
            Ok(0) => {
                keep_pipe(&mut down.pipe);
                (down.ended, down.notify) = (true, true);
                self.first_ended.get_or_insert(Side::Backend);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => keep_pipe(&mut down.pipe),
            Err(error) => {
                keep_pipe(&mut down.pipe);
                // No close_notify: the client can tell that there was more to come (RFC 8446 section 6.1).
                down.ended = true;
                self.refused(error);
                // The other direction may be waiting for a backend that is no more.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
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

fn set_key(
    client: &TcpStream,
    direction: Direction,
    version: Version,
    (sequence, secrets): &(u64, ConnectionTrafficSecrets),
) -> io::Result<()> {
    let (cipher, key, iv) = cipher_of(secrets).ok_or(io::ErrorKind::Unsupported)?;
    let iv = iv.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    ktls::set_key(client, direction, &Key { version, cipher, key, iv, sequence: *sequence })
}

fn client_broke(error: io::Error) -> End {
    End::because(CloseReason::ClientReset, error)
}

fn no_pipe(error: io::Error) -> End {
    End::because(CloseReason::Internal, error)
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
}

#[cfg(test)]
mod tests;
