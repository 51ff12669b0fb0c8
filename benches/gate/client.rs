//! The load generator: blocking clients, one thread each, that cost less than the gates.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme, SupportedCipherSuite,
};

use crate::Result;
use crate::backend::{BOTH, CHUNK, DOWN, ECHO, RAW, UP};
use crate::pki::Certified;

/// The timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(30);

/// The protocol that a gate expects of its clients.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// No TLS: a floor.
    Plain,
    /// TLS terminated by the gate.
    Terminated(Arc<ClientConfig>, ServerName<'static>),
    /// TLS terminated by the backend; raw bytes follow the handshake.
    Passthrough(Arc<ClientConfig>, ServerName<'static>),
}

/// An open connection through a gate.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// The cipher suites that the clients offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suites {
    /// Those of rustls, in its order: AES-256 first
    #[default]
    Default,
    /// The same, AES-128 first
    Aes128,
    /// The same, ChaCha20 first
    Chacha20,
    /// Only AES-256 with SHA-384, of TLS 1.3
    Aes256Only,
}

impl Suites {
    fn of(self, provider: &CryptoProvider) -> Vec<SupportedCipherSuite> {
        use aws_lc_rs::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        };
        let first = match self {
            Self::Default => return provider.cipher_suites.clone(),
            Self::Aes256Only => return vec![TLS13_AES_256_GCM_SHA384],
            Self::Aes128 => TLS13_AES_128_GCM_SHA256,
            Self::Chacha20 => TLS13_CHACHA20_POLY1305_SHA256,
        };
        let others = provider.cipher_suites.iter().copied().filter(|suite| *suite != first);
        std::iter::once(first).chain(others).collect()
    }
}

/// Only X25519, because not all gates have a hybrid group: all agree on keys in the same way.
pub(crate) fn config(certified: Option<&Certified>, suites: Suites, resumption: bool) -> Result<Arc<ClientConfig>> {
    let provider = aws_lc_rs::default_provider();
    let provider = CryptoProvider {
        cipher_suites: suites.of(&provider),
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..provider
    };
    let versions: &[_] = match suites {
        Suites::Aes256Only => &[&rustls::version::TLS13],
        _ => rustls::DEFAULT_VERSIONS,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let mut config = match certified {
        Some(certified) => builder.with_client_auth_cert(certified.chain.clone(), certified.key())?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = if resumption {
        Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)))
    } else {
        Resumption::disabled()
    };
    Ok(Arc::new(config))
}

/// Accepts every server certificate, because the generator must be cheap.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Whether the other side has closed.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

/// Connects, and retries while all local ports are in TIME_WAIT.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("cannot connect to {address}: {error}").into()),
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Runs the handshake until the client considers it complete and has sent its last flight.
fn shake_hands(tls: &mut ClientConnection, stream: &mut TcpStream) -> Result<()> {
    while tls.is_handshaking() || tls.wants_write() {
        while tls.wants_write() {
            tls.write_tls(stream)?;
        }
        if tls.is_handshaking() {
            if tls.read_tls(stream)? == 0 {
                return Err("ended during the handshake".into());
            }
            tls.process_new_packets()?;
        }
    }
    Ok(())
}

impl Session {
    /// Connects and, unless the protocol is plain, completes a handshake.
    pub(crate) fn open(address: SocketAddr, manner: &Manner) -> Result<Self> {
        let mut stream = connect(address)?;
        let tls = match manner {
            Manner::Plain => None,
            Manner::Terminated(config, name) => {
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone())?;
                tls.set_buffer_limit(None);
                shake_hands(&mut tls, &mut stream)?;
                Some(Box::new(tls))
            }
            Manner::Passthrough(config, name) => {
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone())?;
                shake_hands(&mut tls, &mut stream)?;
                let mut said = [0];
                stream.read_exact(&mut said)?;
                if said != [RAW] {
                    return Err("the backend did not say that raw bytes follow".into());
                }
                None
            }
        };
        Ok(Self { stream, tls })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes)?,
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).write_all(bytes)?,
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        match &mut self.tls {
            None => self.stream.read_exact(bytes)?,
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).read_exact(bytes)?,
        }
        Ok(())
    }

    /// Sends a message and waits for its echo.
    pub(crate) fn trip(&mut self, message: &[u8], answer: &mut [u8]) -> Result<()> {
        self.write(message)?;
        self.read(answer)?;
        if message == answer { Ok(()) } else { Err("the echo is another one".into()) }
    }

    /// Echoes one byte, which confirms that the connection is authorized.
    pub(crate) fn prove(&mut self) -> Result<()> {
        self.trip(&[ECHO], &mut [0])
    }

    /// Whether a ticket was used.
    pub(crate) fn resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Closes in order and waits for the other side, unless it has already closed.
    pub(crate) fn close(mut self) -> Result<()> {
        match self.say_goodbye() {
            Err(error) if is_over(&error) => Ok(()),
            other => Ok(other?),
        }
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        let mut sink = [0; 4096];
        while self.stream.read(&mut sink)? > 0 {}
        Ok(())
    }

    /// The socket, to be held open.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Prepares to move `length` bytes, so that the generator's work is done before the measurement.
    pub(crate) fn prepare(mut self, kind: u8, length: u64) -> Result<Transfer> {
        let mut request = vec![kind];
        request.extend(length.to_be_bytes());
        let mut upload = Vec::new();
        if kind != DOWN {
            let mut left = usize::try_from(length)?;
            let chunk = vec![0x5a; CHUNK];
            match &mut self.tls {
                None => upload = chunk,
                Some(tls) => {
                    tls.writer().write_all(&request)?;
                    while left > 0 {
                        let part = chunk.get(..left.min(CHUNK)).unwrap_or_default();
                        tls.writer().write_all(part)?;
                        while tls.wants_write() {
                            tls.write_tls(&mut upload)?;
                        }
                        left -= part.len();
                    }
                    request.clear();
                }
            }
        }
        Ok(Transfer { session: self, kind, length, request, upload })
    }
}

/// A connection with bytes to move.
#[derive(Debug)]
pub(crate) struct Transfer {
    session: Session,
    kind: u8,
    length: u64,
    request: Vec<u8>,
    /// With TLS all records, sealed; without, a block that is sent repeatedly.
    upload: Vec<u8>,
}

impl Transfer {
    /// Moves the bytes, in both directions at the same time if required.
    pub(crate) fn run(mut self) -> Result<()> {
        if !self.request.is_empty() {
            let request = std::mem::take(&mut self.request);
            self.session.write(&request)?;
        }
        match self.kind {
            UP => {
                self.send()?;
                self.session.read(&mut [0])?;
                self.session.close()
            }
            BOTH => {
                thread::scope(|scope| {
                    let sending = scope.spawn(|| self.send());
                    discard(&self.session.stream, self.length)?;
                    sending.join().map_err(|_| "a client's thread panicked")?
                })?;
                self.session.close()
            }
            _ => {
                discard(&self.session.stream, self.length)?;
                self.session.close()
            }
        }
    }

    fn send(&self) -> Result<()> {
        let mut stream = &self.session.stream;
        if self.session.tls.is_some() {
            return Ok(stream.write_all(&self.upload)?);
        }
        let mut left = usize::try_from(self.length)?;
        while left > 0 {
            let part = self.upload.get(..left.min(self.upload.len())).unwrap_or_default();
            stream.write_all(part)?;
            left -= part.len();
        }
        Ok(())
    }
}

/// Discards the next `least` bytes or a few more. Records are not opened, which would cost the generator as much as the
/// gate. So their overhead, a thousandth of the whole, is left to be read when the session is closed: nginx waits for the
/// client.
fn discard(stream: &TcpStream, least: u64) -> Result<()> {
    let mut sink = vec![0; 4 * CHUNK];
    let mut sum = 0;
    while sum < least {
        let (_, taken) = rustix::net::recv(stream, sink.as_mut_slice(), RecvFlags::TRUNC)?;
        if taken == 0 {
            return Err(format!("{sum} bytes came of {least}").into());
        }
        sum += u64::try_from(taken)?;
    }
    Ok(())
}

/// Connects, and fails unless the client is rejected.
pub(crate) fn expect_refusal(address: SocketAddr, manner: &Manner) -> Result<()> {
    let Manner::Terminated(config, name) = manner else { return Err("nothing to refuse".into()) };
    let mut stream = connect(address)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name.clone())?;
    if shake_hands(&mut tls, &mut stream).is_err() {
        return Ok(());
    }
    // A TLS 1.3 client completes its handshake before the gate decides.
    loop {
        match tls.read_tls(&mut stream) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err("was not rejected".into()),
            Err(_) => return Ok(()),
        }
        if tls.process_new_packets().is_err() {
            return Ok(());
        }
    }
}

/// Sends bytes that are not TLS, and fails unless the connection is closed.
pub(crate) fn expect_end(address: SocketAddr, said: &[u8]) -> Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(said)?;
    let mut sink = [0; 1024];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err("was not rejected".into()),
            Err(_) => return Ok(()),
        }
    }
}

/// Calls `each` `count` times on several threads, with the number of the thread and of the call.
pub(crate) fn parallel(workers: usize, count: usize, each: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = |worker| -> Result<()> {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= count {
                return Ok(());
            }
            each(worker, turn)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn({
                    let work = &work;
                    move || work(worker)
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a client's thread panicked")??;
        }
        Ok(())
    })
}
