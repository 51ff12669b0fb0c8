//! Kernel TLS: Linux seals and opens the records of an established connection, so that plaintext can be spliced.
//!
//! `TCP_ULP "tls"` attaches the TLS layer to a connected socket, which stays a plain TCP socket until `TLS_TX` and `TLS_RX`
//! set its keys. From then on `read`, `write` and `splice` move application data. Records of other types are received and
//! sent by `recvmsg` and `sendmsg` with a control message (Documentation/networking/tls.rst, include/uapi/linux/tls.h).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use zeroize::Zeroizing;

use super::socket::unacknowledged;

// include/uapi/linux/tcp.h and include/uapi/linux/tls.h.
const TCP_ULP: libc::c_int = 31;
const SOL_TLS: libc::c_int = 282;
const TLS_TX: libc::c_int = 1;
const TLS_RX: libc::c_int = 2;
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
const TLS_GET_RECORD_TYPE: libc::c_int = 2;

/// The longest `struct tls12_crypto_info_*` of our suites.
const CRYPTO_INFO_MAX: usize = 56;
/// The length of the sequence number at its end.
const SEQUENCE: usize = 8;
/// The part of an AES-GCM initialization vector that TLS 1.2 calls the salt (RFC 5288 section 3).
const SALT: usize = 4;

/// `struct cmsghdr` and one byte of data, as the kernel lays them out (cmsg(3)): a length of the machine's word size, level,
/// type, data, and padding to the word size.
const WORD: usize = size_of::<usize>();
const CMSG_HEADER: usize = WORD + 2 * size_of::<libc::c_int>();
const CMSG_SPACE: usize = CMSG_HEADER + WORD;

/// The offset of `tcpi_bytes_acked` in `struct tcp_info` (include/uapi/linux/tcp.h); `tcpi_state` is its first byte.
const BYTES_ACKED: usize = 120;
/// `TCP_CLOSE` (include/net/tcp_states.h): the connection is closed.
const TCP_CLOSE: u8 = 7;

/// A protocol version that kernel TLS supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A cipher that kernel TLS supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

impl Version {
    /// Every version.
    pub const ALL: &'static [Self] = &[Self::Tls12, Self::Tls13];

    const fn code(self) -> u16 {
        match self {
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }
}

impl Cipher {
    /// Every cipher.
    pub const ALL: &'static [Self] = &[Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    const fn code(self) -> u16 {
        match self {
            Self::Aes128Gcm => 51,
            Self::Aes256Gcm => 52,
            Self::Chacha20Poly1305 => 54,
        }
    }

    /// The length of its key in bytes.
    pub const fn key_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// The length of its `struct tls12_crypto_info_*` in bytes.
    const fn info_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 40,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 56,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Chacha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// The direction that a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Records that we send.
    Transmit,
    /// Records that we receive.
    Receive,
}

impl Direction {
    const fn option(self) -> libc::c_int {
        match self {
            Self::Transmit => TLS_TX,
            Self::Receive => TLS_RX,
        }
    }
}

/// The key of one direction. It borrows the key bytes, so that no copy is made except the one that is wiped.
pub struct Key<'a> {
    /// The protocol version.
    pub version: Version,
    /// The cipher.
    pub cipher: Cipher,
    /// The key, of the length that the cipher requires.
    pub key: &'a [u8],
    /// The initialization vector.
    pub iv: &'a [u8; 12],
    /// The sequence number of the next record.
    pub sequence: u64,
}

impl fmt::Debug for Key<'_> {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("version", &self.version).field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

impl Key<'_> {
    /// The `struct tls12_crypto_info_*` of the cipher: version and cipher, then the explicit part of the initialization
    /// vector, key, salt, sequence number. ChaCha20-Poly1305 has no salt (RFC 7905 section 2).
    fn info(&self) -> io::Result<Zeroizing<[u8; CRYPTO_INFO_MAX]>> {
        if self.key.len() != self.cipher.key_length() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (salt, explicit) = match self.cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => self.iv.split_at(SALT),
            Cipher::Chacha20Poly1305 => (&[][..], &self.iv[..]),
        };
        let [version, cipher] = [self.version.code().to_ne_bytes(), self.cipher.code().to_ne_bytes()];
        let sequence = self.sequence.to_be_bytes();
        let parts = [&version[..], &cipher, explicit, self.key, salt, &sequence];
        let mut info = Zeroizing::new([0; CRYPTO_INFO_MAX]);
        for (slot, byte) in info.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        Ok(info)
    }
}

/// Attaches the TLS layer to a connected socket, which stays a plain TCP socket until [`set_key`].
///
/// # Errors
///
/// `ENOENT`: the kernel has no TLS, or its module is not loaded. `ENOTCONN`: the connection is already closed.
pub fn attach(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, TCP_ULP, b"tls")
}

/// Gives the kernel the key of one direction. The stream in that direction must be at a record boundary.
///
/// # Errors
///
/// `ENOENT`: the kernel has no module for the cipher. `EBUSY`: the key is already set and cannot be changed (before Linux
/// 6.14, and in TLS 1.2).
pub fn set_key(socket: impl AsFd, direction: Direction, key: &Key<'_>) -> io::Result<()> {
    let info = key.info()?;
    set_option(socket, SOL_TLS, direction.option(), info.get(..key.cipher.info_length()).unwrap_or_default())
}

/// The sequence number of the next record that the kernel will seal.
///
/// # Errors
///
/// Those of `getsockopt(2)`; `EBUSY` without a key.
pub fn next_record(socket: impl AsFd, cipher: Cipher) -> io::Result<u64> {
    // The kernel returns the key too.
    let mut info = Zeroizing::new([0; CRYPTO_INFO_MAX]);
    let length = cipher.info_length();
    get_option(socket, SOL_TLS, TLS_TX, info.get_mut(..length).unwrap_or_default())?;
    let sequence = info.get(length - SEQUENCE..length).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    Ok(u64::from_be_bytes(sequence))
}

/// How many bytes, including record headers and tags, TCP has been handed on this socket since it was opened, plus a
/// constant. Only the difference of two results for the same socket has a meaning.
///
/// The TLS layer keeps back what TCP has no room for: `splice` and `sendmsg` have accepted it, and yet `shutdown` and
/// `close` discard it. The result can be too small while the other side acknowledges, but never too large.
///
/// # Errors
///
/// Those of `getsockopt(2)` and `ioctl(2)`; `NotConnected` if the connection is closed.
pub fn handed_to_tcp(socket: impl AsFd) -> io::Result<u64> {
    let socket = socket.as_fd();
    let mut info = [0; BYTES_ACKED + size_of::<u64>()];
    get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    if info.first() == Some(&TCP_CLOSE) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let acknowledged = info.last_chunk().copied().map(u64::from_ne_bytes).unwrap_or_default();
    // In this order, bytes acknowledged in between are missing from the sum instead of counted twice.
    Ok(acknowledged + unacknowledged(socket)?)
}

/// Sends `message` as one record of this content type, after everything written before. Never waits.
///
/// # Errors
///
/// Those of `sendmsg(2)`; `WouldBlock` if there is no room: nothing was sent.
#[expect(unsafe_code, reason = "rustix has no control messages of TLS")]
pub fn send_record(socket: impl AsFd, content_type: u8, message: &[u8]) -> io::Result<()> {
    // An array of words for the alignment that the kernel requires; CMSG_LEN excludes the padding.
    let mut control = [0_usize; CMSG_SPACE / WORD];
    let length = (CMSG_HEADER + 1).to_ne_bytes();
    let parts = [&length[..], &SOL_TLS.to_ne_bytes(), &TLS_SET_RECORD_TYPE.to_ne_bytes(), &[content_type]];
    let mut bytes = parts.into_iter().flatten().copied();
    for word in &mut control {
        *word = usize::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default()));
    }
    let mut buffer_slice = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    let header = message_header(&mut buffer_slice, &mut control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the descriptor is borrowed for the whole call; `header` points to one iovec over `message` and to
    // `control`, both alive and as long as it says; sendmsg only reads them and keeps no pointer.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) };
    match usize::try_from(sent) {
        Ok(sent) if sent == message.len() => Ok(()),
        // A record is sent completely or not at all.
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The result of [`receive_record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The content type; `None` at the end of the stream.
    pub content_type: Option<u8>,
    /// How many bytes were received.
    pub length: usize,
}

/// Receives the next record, of any type, or as much as fits `buffer`. With `peek` the record stays in the socket. Never
/// waits.
///
/// # Errors
///
/// Those of `recvmsg(2)`; `WouldBlock` if there is no complete record.
#[expect(unsafe_code, reason = "rustix has no control messages of TLS")]
pub fn receive_record(socket: impl AsFd, buffer: &mut [u8], peek: bool) -> io::Result<Received> {
    let mut control = [0_usize; CMSG_SPACE / WORD];
    let mut buffer_slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = message_header(&mut buffer_slice, &mut control);
    let flags = libc::MSG_DONTWAIT | if peek { libc::MSG_PEEK } else { 0 };
    // SAFETY: the descriptor is borrowed for the whole call; `header` points to one iovec over `buffer`, which is borrowed
    // mutably, and to `control`, both alive and as long as it says; the kernel writes no further and keeps no pointer.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut bytes = control.iter().flat_map(|word| word.to_ne_bytes());
    let control_length = usize::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default()));
    let [level, kind] =
        std::array::from_fn(|_| libc::c_int::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default())));
    let content_type =
        bytes.next().filter(|_| control_length > CMSG_HEADER && level == SOL_TLS && kind == TLS_GET_RECORD_TYPE);
    Ok(Received { content_type, length })
}

/// A message header with one buffer and one control message. It points to both, which outlive it in both calls above.
#[expect(unsafe_code, reason = "musl's msghdr has private padding, so a literal is impossible")]
fn message_header(buffer_slice: &mut libc::iovec, control: &mut [usize; CMSG_SPACE / WORD]) -> libc::msghdr {
    // SAFETY: msghdr is plain data of integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = buffer_slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CMSG_SPACE as _;
    header
}

#[expect(unsafe_code, reason = "neither socket2 nor rustix offers TCP_ULP and the options of SOL_TLS")]
fn set_option(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel reads `length` bytes of `value`, which is that
    // long and outlives the call, and keeps no pointer.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fills `value`. A longer option is truncated, a shorter one is an error.
#[expect(unsafe_code, reason = "neither socket2 nor rustix offers TCP_INFO and the options of SOL_TLS")]
fn get_option(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel writes at most `length` bytes to `value`, which is
    // borrowed mutably and that long, writes to `length`, and keeps no pointer.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    match result {
        0 if usize::try_from(length).is_ok_and(|length| length == value.len()) => Ok(()),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What kernel TLS supports on this machine.
#[derive(Debug)]
pub struct Probe {
    /// The result of trying each cipher of each version.
    pub suites: Vec<(Version, Cipher, io::Result<()>)>,
    /// Whether the keys of a TLS 1.3 connection can be changed (Linux 6.14 and later).
    pub changes_keys: bool,
}

/// Tries every cipher of every version: one byte is sealed and opened on a loopback connection.
pub fn probe() -> Probe {
    let mut suites = Vec::new();
    for &version in Version::ALL {
        for &cipher in Cipher::ALL {
            suites.push((version, cipher, try_suite(version, cipher).map(drop)));
        }
    }
    let changes_keys = suites
        .iter()
        .find(|(version, _, result)| *version == Version::Tls13 && result.is_ok())
        .is_some_and(|(version, cipher, _)| {
            let changed = try_suite(*version, *cipher)
                .and_then(|[one, _]| set_key(&one, Direction::Transmit, &dummy_key(*version, *cipher)));
            changed.is_ok()
        });
    Probe { suites, changes_keys }
}

/// A key of zeros, for the probe.
fn dummy_key(version: Version, cipher: Cipher) -> Key<'static> {
    const ZEROS: [u8; 32] = [0; 32];
    let key = ZEROS.get(..cipher.key_length()).unwrap_or_default();
    Key { version, cipher, key, iv: &[0; 12], sequence: 0 }
}

fn try_suite(version: Version, cipher: Cipher) -> io::Result<[TcpStream; 2]> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut one = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    let key = dummy_key(version, cipher);
    for socket in [&one, &other] {
        attach(socket)?;
        set_key(socket, Direction::Transmit, &key)?;
        set_key(socket, Direction::Receive, &key)?;
    }
    other.set_read_timeout(Some(Duration::from_secs(5)))?;
    one.write_all(b"?")?;
    let mut read = [0];
    other.read_exact(&mut read)?;
    if read == *b"?" { Ok([one, other]) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests;
