//! Kernel TLS: Linux seals and opens the records of an established connection itself, so that plaintext can be spliced.
//!
//! `TCP_ULP "tls"` attaches the layer to a connected socket, which goes on as a plain TCP socket until it is given keys by
//! `TLS_TX` and `TLS_RX`. From then on `read`, `write` and `splice` move application data, and records of other types
//! come and go by `recvmsg` and `sendmsg` with a control message (Documentation/networking/tls.rst, include/uapi/linux/tls.h).

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

/// The longest `struct tls12_crypto_info_*` there is for our suites.
const CRYPTO_INFO_MAX: usize = 56;
/// Where its sequence number stands: at its end.
const SEQUENCE: usize = 8;
/// The part of an AES-GCM initialization vector that TLS 1.2 calls the salt (RFC 5288 section 3).
const SALT: usize = 4;

/// `struct cmsghdr` and one byte of data, as the kernel lays them out (cmsg(3)): a length of the machine's word size, level,
/// type, data, and padding to the word size.
const WORD: usize = size_of::<usize>();
const CMSG_HEADER: usize = WORD + 2 * size_of::<libc::c_int>();
const CMSG_SPACE: usize = CMSG_HEADER + WORD;

/// Where `tcpi_bytes_acked` stands in `struct tcp_info` (include/uapi/linux/tcp.h); `tcpi_state` is its first byte.
const BYTES_ACKED: usize = 120;
/// `TCP_CLOSE` (include/net/tcp_states.h): the connection is no more.
const TCP_CLOSE: u8 = 7;

/// A protocol version that the kernel can take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// An encryption that the kernel can take over.
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
    /// Every encryption.
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

/// Which way a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What we send.
    Transmit,
    /// What we receive.
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

/// One direction's key. It borrows, so that no further copy of the key is made but the one that is wiped.
pub struct Key<'a> {
    /// The protocol version.
    pub version: Version,
    /// The encryption.
    pub cipher: Cipher,
    /// The key, as long as the encryption wants it.
    pub key: &'a [u8],
    /// The initialization vector.
    pub iv: &'a [u8; 12],
    /// The number of the next record.
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

/// Attaches the layer to a connected socket, which stays a plain TCP socket until [`set_key`].
///
/// # Errors
///
/// `ENOENT`: the kernel has no TLS, or its module is not loaded. `ENOTCONN`: the other side has already ended.
pub fn attach(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, TCP_ULP, b"tls")
}

/// Gives the kernel the key of one direction. The bytes of that direction must stand exactly on the boundary between two
/// records.
///
/// # Errors
///
/// `ENOENT`: the kernel has no module for the cipher. `EBUSY`: there is a key already, and this kernel changes none (those
/// before 6.14, and any on TLS 1.2).
pub fn set_key(socket: impl AsFd, direction: Direction, key: &Key<'_>) -> io::Result<()> {
    let info = key.info()?;
    set_option(socket, SOL_TLS, direction.option(), info.get(..key.cipher.info_length()).unwrap_or_default())
}

/// The number of the next record that the kernel is going to seal.
///
/// # Errors
///
/// Those of `getsockopt(2)`; `EBUSY` without a key.
pub fn next_record(socket: impl AsFd, cipher: Cipher) -> io::Result<u64> {
    // The kernel gives the key along.
    let mut info = Zeroizing::new([0; CRYPTO_INFO_MAX]);
    let length = cipher.info_length();
    get_option(socket, SOL_TLS, TLS_TX, info.get_mut(..length).unwrap_or_default())?;
    let sequence = info.get(length - SEQUENCE..length).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    Ok(u64::from_be_bytes(sequence))
}

/// How many bytes, record headers and tags included, TCP has been given on this socket since it was opened, but for a
/// constant: to be compared with another answer for the same socket.
///
/// The layer keeps back what TCP has no room for: `splice` and `sendmsg` have taken it, and yet `shutdown` and `close`
/// throw it away. What this says can be less than the truth while the other side acknowledges, and never more.
///
/// # Errors
///
/// Those of `getsockopt(2)` and `ioctl(2)`; `NotConnected` if the connection is no more.
pub fn handed_to_tcp(socket: impl AsFd) -> io::Result<u64> {
    let socket = socket.as_fd();
    let mut info = [0; BYTES_ACKED + size_of::<u64>()];
    get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    if info.first() == Some(&TCP_CLOSE) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let acknowledged = info.last_chunk().copied().map(u64::from_ne_bytes).unwrap_or_default();
    // In this order: what is acknowledged in between is then missing from the sum, not in it twice.
    Ok(acknowledged + unacknowledged(socket)?)
}

/// Sends `message` as one record of this content type, behind everything that was written before. Never waits.
///
/// # Errors
///
/// Those of `sendmsg(2)`; `WouldBlock` if there is no room, and then nothing was sent.
#[expect(unsafe_code, reason = "rustix has no control messages of TLS")]
pub fn send_record(socket: impl AsFd, content_type: u8, message: &[u8]) -> io::Result<()> {
    // An array of words, for the kernel's alignment; CMSG_LEN counts without the padding.
    let mut control = [0_usize; CMSG_SPACE / WORD];
    let length = (CMSG_HEADER + 1).to_ne_bytes();
    let parts = [&length[..], &SOL_TLS.to_ne_bytes(), &TLS_SET_RECORD_TYPE.to_ne_bytes(), &[content_type]];
    let mut bytes = parts.into_iter().flatten().copied();
    for word in &mut control {
        *word = usize::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default()));
    }
    let mut piece = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    let header = message_header(&mut piece, &mut control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the descriptor is borrowed for the whole call; `header` points to one iovec over `message` and to
    // `control`, both alive and as long as it says; sendmsg only reads them and keeps no pointer.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) };
    match usize::try_from(sent) {
        Ok(sent) if sent == message.len() => Ok(()),
        // A record is sent whole or not at all.
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// What [`receive_record`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The content type. `None` is the end of the stream.
    pub content_type: Option<u8>,
    /// How many bytes were received.
    pub length: usize,
}

/// Receives from the record at the head of the socket, of whatever type, or only looks at it. Never waits.
///
/// # Errors
///
/// Those of `recvmsg(2)`; `WouldBlock` if there is no whole record.
#[expect(unsafe_code, reason = "rustix has no control messages of TLS")]
pub fn receive_record(socket: impl AsFd, buffer: &mut [u8], look_only: bool) -> io::Result<Received> {
    let mut control = [0_usize; CMSG_SPACE / WORD];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = message_header(&mut piece, &mut control);
    let flags = libc::MSG_DONTWAIT | if look_only { libc::MSG_PEEK } else { 0 };
    // SAFETY: the descriptor is borrowed for the whole call; `header` points to one iovec over `buffer`, which is borrowed
    // mutably, and to `control`, both alive and as long as it says; the kernel writes no further and keeps no pointer.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut bytes = control.iter().flat_map(|word| word.to_ne_bytes());
    let told = usize::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default()));
    let [level, kind] =
        std::array::from_fn(|_| libc::c_int::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default())));
    let content_type = bytes.next().filter(|_| told > CMSG_HEADER && level == SOL_TLS && kind == TLS_GET_RECORD_TYPE);
    Ok(Received { content_type, length })
}

/// A message of one piece and one control message. It points to both, and outlives neither in the two calls above.
#[expect(unsafe_code, reason = "musl's msghdr has private padding, so there is no other way to make one")]
fn message_header(piece: &mut libc::iovec, control: &mut [usize; CMSG_SPACE / WORD]) -> libc::msghdr {
    // SAFETY: msghdr is plain data of integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = piece;
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

/// Fills `value`; an option that is longer is cut off, one that is shorter is an error.
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

/// What the kernel of this machine can do.
#[derive(Debug)]
pub struct Probe {
    /// What has been tried out, and failed or not.
    pub suites: Vec<(Version, Cipher, io::Result<()>)>,
    /// Whether the keys of a TLS 1.3 connection can be changed (Linux 6.14).
    pub changes_keys: bool,
}

/// Tries out, on connections of the gate with itself, what the kernel can take over: one byte is sealed and opened under
/// every cipher of every version.
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

/// A key for nobody's data.
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
mod tests {
    use super::*;
    use crate::sys::test_kernel::has_tls;

    #[test]
    fn the_layouts_are_those_of_the_kernels_headers() {
        let key: Vec<u8> = (100..132).collect();
        let iv = std::array::from_fn(|place| u8::try_from(place).expect("small"));
        let info = |version, cipher: Cipher| {
            let key = &key[..cipher.key_length()];
            let made = Key { version, cipher, key, iv: &iv, sequence: 0x0102 }.info().expect("it is made");
            assert!(made[cipher.info_length()..].iter().all(|&byte| byte == 0));
            made[..cipher.info_length()].to_vec()
        };
        let sequence = [0, 0, 0, 0, 0, 0, 1, 2];
        let aes = info(Version::Tls12, Cipher::Aes128Gcm);
        assert_eq!(aes[..4], [0x0303_u16.to_ne_bytes(), 51_u16.to_ne_bytes()].concat());
        assert_eq!(aes[4..], [&iv[4..], &key[..16], &iv[..4], &sequence].concat());
        let aes = info(Version::Tls13, Cipher::Aes256Gcm);
        assert_eq!(aes[4..], [&iv[4..], &key, &iv[..4], &sequence].concat());
        let chacha = info(Version::Tls13, Cipher::Chacha20Poly1305);
        assert_eq!(chacha[..4], [0x0304_u16.to_ne_bytes(), 54_u16.to_ne_bytes()].concat());
        assert_eq!(chacha[4..], [&iv[..], &key, &sequence].concat());
        let short = Key { key: &key[..16], ..dummy_key(Version::Tls13, Cipher::Aes256Gcm) };
        assert!(short.info().is_err());
        assert!(!format!("{short:?}").contains("100"), "keys are never printed");
    }

    #[test]
    fn the_probe_says_what_there_is_or_why_not() {
        let probe = probe();
        assert_eq!(probe.suites.len(), Version::ALL.len() * Cipher::ALL.len());
        for (version, cipher, result) in &probe.suites {
            match result {
                Ok(()) => assert!(has_tls(), "{version} {cipher}"),
                Err(error) => {
                    assert!(!has_tls(), "{version} {cipher}: {error}");
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{version} {cipher}: {error}");
                }
            }
        }
        assert!(has_tls() || !probe.changes_keys);
    }

    #[test]
    fn records_of_every_type_go_through_and_are_numbered() {
        if !has_tls() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
            let socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            let key = set_key(&socket, Direction::Transmit, &dummy_key(Version::Tls13, Cipher::Aes128Gcm));
            let errors = [attach(&socket), key].map(|result| result.expect_err("no TLS here").raw_os_error());
            assert_eq!(errors, [Some(libc::ENOENT), Some(libc::ENOPROTOOPT)]);
            return;
        }
        let [one, other] = try_suite(Version::Tls13, Cipher::Aes128Gcm).expect("the kernel can");
        assert_eq!(next_record(&one, Cipher::Aes128Gcm).expect("a number"), 1);
        let before = handed_to_tcp(&one).expect("a count");
        send_record(&one, 22, b"\x04\0\0\x01\0").expect("sent");
        send_record(&one, 21, b"\x01\0").expect("sent");
        assert_eq!(next_record(&one, Cipher::Aes128Gcm).expect("a number"), 3);
        // Header, content type and tag of each.
        assert_eq!(handed_to_tcp(&one).expect("a count") - before, 5 + 2 + 2 * (5 + 1 + 16));
        drop(one);
        let mut buffer = [0; 16];
        let looked = receive_record(&other, &mut buffer[..3], true).expect("a record");
        assert_eq!(looked, Received { content_type: Some(22), length: 3 });
        let received = receive_record(&other, &mut buffer, false).expect("a record");
        assert_eq!(received, Received { content_type: Some(22), length: 5 });
        assert_eq!(buffer[..5], *b"\x04\0\0\x01\0");
        // A record that is taken in parts says each time what it is.
        for _ in 0..2 {
            let part = receive_record(&other, &mut buffer[..1], false).expect("a part of a record");
            assert_eq!(part, Received { content_type: Some(21), length: 1 });
        }
        let end = receive_record(&other, &mut buffer, false).expect("the end");
        assert_eq!((end.content_type, end.length), (None, 0));
    }
}
