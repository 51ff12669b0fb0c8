//! Messages between processes of a gate, each with at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest message, in bytes. What is longer goes through a descriptor.
const MESSAGE_MAX: usize = 16 * 1024;

/// One end of a socket pair that keeps messages apart (`SOCK_SEQPACKET`, unix(7)): one arrives whole or not at all, so an end
/// can be handed on between two of them.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

/// Two connected ends.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Whether this is an end of such a pair.
pub(crate) fn is_end(descriptor: impl AsFd) -> bool {
    let of_kind = sockopt::socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::SEQPACKET);
    of_kind && sockopt::socket_domain(&descriptor).is_ok_and(|family| family == AddressFamily::UNIX)
}

impl Channel {
    /// For an end. Must be called within a tokio runtime.
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        let end = std::os::unix::net::UnixStream::from(end);
        end.set_nonblocking(true)?;
        // tokio has no type for these. It only waits for this one; what is sent and received is below.
        Ok(Self(UnixStream::from_std(end)?))
    }

    /// Another descriptor of this end.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Sends a message, with a descriptor of which the other end gets a copy.
    pub(crate) async fn send(&self, message: &impl Serialize, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MESSAGE_MAX {
            return Err(io::Error::other("the message is too long"));
        }
        loop {
            self.0.writable().await?;
            match self.0.try_io(Interest::WRITABLE, || send(self.as_fd(), &bytes, descriptor)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent,
            }
        }
    }

    /// The next message and its descriptor; `None` when the other end is closed.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        loop {
            self.0.readable().await?;
            let (bytes, descriptor) = match self.0.try_io(Interest::READABLE, || receive(self.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                received => received?,
            };
            return understood(&bytes, descriptor);
        }
    }
}

/// The next message of an end that has no runtime, as [`Channel::receive`] returns it. Blocks until there is one.
pub(super) fn wait_for<T: DeserializeOwned>(end: BorrowedFd<'_>) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(end, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match receive(end) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => {
                let (bytes, descriptor) = received?;
                return understood(&bytes, descriptor);
            }
        }
    }
}

fn understood<T: DeserializeOwned>(
    bytes: &[u8],
    descriptor: Option<OwnedFd>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let message = serde_json::from_slice(bytes).map_err(|_| io::Error::other("the message is not understood"))?;
    Ok(Some((message, descriptor)))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send(end: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    Ok(sendmsg(end, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)?)
}

/// The bytes of a message, none at the end, and its descriptor.
fn receive(end: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = match recvmsg(end, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(received) => received,
        // The process at the other end was killed.
        Err(Errno::CONNRESET) => return Ok((Vec::new(), None)),
        Err(error) => return Err(error.into()),
    };
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // There is at most one. More would be closed here.
            descriptor = descriptors.last();
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("the message or its descriptor was cut short: too many open files?"));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::{Channel, is_end, pair, wait_for};
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn message_arrives_with_its_descriptor() {
        let (one, other) = pair().expect("a pair");
        assert!(is_end(&one) && !is_end(std::io::stdin()));
        let (one, other) = (Channel::new(one).expect("a channel"), Channel::new(other).expect("a channel"));
        let (mut near, far) = UnixStream::pair().expect("a pair");
        one.send(&"with", Some(far.as_fd())).await.expect("sent");
        one.send(&"without", None).await.expect("sent");
        drop(far);
        let (text, descriptor): (String, _) = other.receive().await.expect("received").expect("a message");
        assert_eq!(text, "with");
        UnixStream::from(descriptor.expect("a descriptor")).write_all(b"through").expect("written");
        let mut through = String::new();
        near.read_to_string(&mut through).expect("read");
        assert_eq!(through, "through");
        let (text, descriptor): (String, _) = other.receive().await.expect("received").expect("a message");
        assert!(text == "without" && descriptor.is_none());
        drop(one);
        assert!(other.receive::<String>().await.expect("the end").is_none());
    }

    #[test]
    fn message_is_waited_for_without_a_runtime() {
        let (one, other) = pair().expect("a pair");
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let sender = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
            runtime.block_on(async {
                let one = Channel::new(one).expect("a channel");
                one.send(&"with", Some(far.as_fd())).await.expect("sent");
            });
        });
        let (text, descriptor): (String, _) = wait_for(other.as_fd()).expect("received").expect("a message");
        assert_eq!(text, "with");
        UnixStream::from(descriptor.expect("a descriptor")).write_all(b"through").expect("written");
        sender.join().expect("no panic");
        let mut through = String::new();
        near.read_to_string(&mut through).expect("read");
        assert_eq!(through, "through");
        assert!(wait_for::<String>(other.as_fd()).expect("the end").is_none());
    }
}
