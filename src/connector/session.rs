//! One session: bytes from a local program to the gate and back, until both sides have ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio::time::{sleep, timeout};

use super::dial::Stream;
use super::fault::Fault;
use super::tls::Tls;

/// How much is moved at a time. It holds four records of TLS, and as much as a pipe.
const BUFFER: usize = 64 * 1024;

/// How long the local program may be silent after the gate has ended its side. A program that has read the end may still have
/// something to send; one that does nothing at all would keep the session for ever, since a service that has gone altogether
/// looks the same from here.
pub const SILENT_AFTER_END: Duration = Duration::from_secs(3);

/// How long each side has to take the last bytes of a session that was ended here.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the gate has to say why it takes no more bytes.
const LAST_WORD: Duration = Duration::from_secs(5);

/// What was moved so far.
#[derive(Debug, Default)]
pub struct Moved {
    to_gate: AtomicU64,
    from_gate: AtomicU64,
    /// What this counts for as well.
    total: Option<Arc<Self>>,
}

impl Moved {
    /// For one of several sessions that are counted together.
    pub fn part_of(total: Arc<Self>) -> Self {
        Self { total: Some(total), ..Self::default() }
    }

    fn count(&self, which: fn(&Self) -> &AtomicU64, bytes: u64) {
        which(self).fetch_add(bytes, Ordering::Relaxed);
        if let Some(total) = &self.total {
            which(total).fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes that the gate was sent.
    pub fn to_gate(&self) -> u64 {
        self.to_gate.load(Ordering::Relaxed)
    }

    /// Bytes that came from the gate. More than none: the device was admitted.
    pub fn from_gate(&self) -> u64 {
        self.from_gate.load(Ordering::Relaxed)
    }
}

/// How a session has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Both sides said that they were done, or the local program does not read any more.
    Orderly,
    /// This program was told to stop.
    Stopped,
    /// Before anything came from the gate.
    Refused(Fault),
    /// Later: bytes may be missing.
    Cut(Fault),
    /// The local side failed, other than by leaving: bytes may be missing, and the gate was not told that this was all.
    Local(LocalFault),
}

/// What failed on the side of the local program.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalFault {
    /// Its output cannot be read: a program that was killed, or a folder as standard input.
    Read(io::Error),
    /// It cannot be given what came from the gate: a full disk.
    Write(io::Error),
}

/// Moves bytes both ways until the end, or until it is to `stop`.
pub async fn run<R, W>(local: (R, W), gate: Stream, tls: &Tls, moved: &Moved, stop: impl Future<Output = ()>) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut local_reader, mut local_writer) = local;
    let (mut gate_reader, mut gate_writer) = split(gate);
    let mut up = Box::pin(async {
        match copy(&mut local_reader, &mut gate_writer, |bytes| moved.count(|moved| &moved.to_gate, bytes)).await {
            Ok(()) if gate_writer.shutdown().await.is_ok() => Up::Ended,
            Ok(()) | Err(Broken::Writer(_)) => Up::Refused,
            Err(Broken::Reader(error)) => Up::Unread(error),
        }
    });
    let mut down = Box::pin(async {
        let copied =
            copy(&mut gate_reader, &mut local_writer, |bytes| moved.count(|moved| &moved.from_gate, bytes)).await;
        // The end is passed on. After a failure there is none: the reader of standard output would take it for one, and might end
        // this process before the user was told.
        if copied.is_ok() {
            let _ = local_writer.shutdown().await;
        }
        copied
    });
    let mut stop = Box::pin(stop);
    let mut up_is_done = false;
    let came_down = loop {
        tokio::select! {
            biased;
            came_down = &mut down => break Ok(Some(came_down)),
            () = &mut stop => break Ok(None),
            taken = &mut up, if !up_is_done => match taken {
                Up::Ended => up_is_done = true,
                Up::Refused => {
                    up_is_done = true;
                    // The gate has closed; why, is in what it sent before.
                    let last = timeout(LAST_WORD, &mut down).await;
                    break Ok(Some(last.unwrap_or_else(|_| Err(Broken::Reader(io::ErrorKind::BrokenPipe.into())))));
                }
                Up::Unread(error) => break Err(error),
            }
        }
    };
    let end = match came_down {
        Err(error) => {
            drop((up, down));
            return unread(gate_reader.unsplit(gate_writer), error);
        }
        Ok(None) => End::Stopped,
        // As after SIGPIPE: what the program had still to send is not known, so an end that it did not send is not made up.
        Ok(Some(Err(Broken::Writer(error)))) if has_left(&error) => return End::Orderly,
        Ok(Some(Err(Broken::Writer(error)))) => return End::Local(LocalFault::Write(error)),
        Ok(Some(Err(Broken::Reader(error)))) => {
            let fault = Fault::of(&error, tls);
            return if moved.from_gate() == 0 { End::Refused(fault.before_the_first_byte()) } else { End::Cut(fault) };
        }
        Ok(Some(Ok(()))) => {
            while !up_is_done {
                let before = moved.to_gate();
                tokio::select! {
                    biased;
                    () = &mut stop => break,
                    taken = &mut up => match taken {
                        Up::Unread(error) => {
                            drop((up, down));
                            return unread(gate_reader.unsplit(gate_writer), error);
                        }
                        Up::Ended | Up::Refused => up_is_done = true,
                    },
                    () = sleep(SILENT_AFTER_END) => up_is_done = moved.to_gate() == before,
                }
            }
            End::Orderly
        }
    };
    // Each side is told that this was all, where it does not know.
    drop((up, down));
    let _ = timeout(FAREWELL, async { tokio::join!(gate_writer.shutdown(), local_writer.shutdown()) }).await;
    end
}

/// Ends a session whose local program cannot be read. The gate is reset: an end would tell the service that it has everything.
fn unread(gate: Stream, error: io::Error) -> End {
    // Not vital: without close_notify, the end is none in TLS.
    let _ = SockRef::from(gate.get_ref().0.get_ref()).set_linger(Some(Duration::ZERO));
    End::Local(LocalFault::Read(error))
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Broken {
    Reader(io::Error),
    Writer(io::Error),
}

/// How the direction to the gate has ended.
enum Up {
    /// The local program has ended its side, and the gate was told so.
    Ended,
    /// The gate takes no more.
    Refused,
    /// The local program cannot be read.
    Unread(io::Error),
}

/// Whether the reader of the output has gone, which is no failure.
fn has_left(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Copies to the end of the reader, and counts what the writer has taken.
async fn copy<R, W>(reader: &mut R, writer: &mut W, count: impl Fn(u64)) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    // What rustls has refused or received, such as an alert.
    let mut fault = None;
    loop {
        let mut gathered = ReadBuf::new(&mut buffer);
        let ended = std::future::poll_fn(|cx| match gather(reader, cx, &mut gathered) {
            Poll::Pending if fault.is_some() => Poll::Ready(None),
            gathered => gathered,
        })
        .await;
        let bytes = gathered.filled();
        if !bytes.is_empty() {
            writer.write_all(bytes).await.map_err(Broken::Writer)?;
            // What the last write left in a buffer would wait for the next one.
            writer.flush().await.map_err(Broken::Writer)?;
            count(bytes.len() as u64);
        }
        fault = match (fault, ended) {
            (None, None) => None,
            (None, Some(Ok(()))) => return Ok(()),
            // Bytes that came with an alert, and before it, are given to those who read on.
            (None, Some(Err(error))) if error.kind() == io::ErrorKind::InvalidData => Some(error),
            (Some(error), None) if !bytes.is_empty() => Some(error),
            (Some(error), _) | (None, Some(Err(error))) => return Err(Broken::Reader(error)),
        };
    }
}

/// Waits for bytes, and takes all that are there: TLS gives one record at a time. Returns the end or the error that came after
/// them, which is not asked for twice: a terminal would wait for another Ctrl-D.
fn gather<R: AsyncRead + Unpin>(
    reader: &mut R,
    cx: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
) -> Poll<Option<io::Result<()>>> {
    loop {
        let before = into.filled().len();
        match Pin::new(&mut *reader).poll_read(cx, into) {
            Poll::Pending if before == 0 => return Poll::Pending,
            Poll::Pending => return Poll::Ready(None),
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) if into.filled().len() == before => return Poll::Ready(Some(Ok(()))),
            Poll::Ready(Ok(())) if into.remaining() == 0 => return Poll::Ready(None),
            Poll::Ready(Ok(())) => {}
        }
    }
}
