//! Attackers at a steady rate, and what they need of the machine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use crate::MAIL;

/// Attackers at a steady rate, on their own threads.
pub(super) struct Attack {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Attack {
    /// Calls `knock` at this rate with an increasing number. The results are held until the end.
    pub(super) fn start(rate: u32, knock: impl Fn(u32, &mut Vec<StdStream>) + Send + Sync + 'static) -> Self {
        const THREADS: usize = 8;
        let over = Arc::<AtomicBool>::default();
        let (knock, turns, begun) = (Arc::new(knock), Arc::<AtomicUsize>::default(), Instant::now());
        let threads = (0..THREADS)
            .map(|_| {
                let (over, knock, turns) = (Arc::clone(&over), Arc::clone(&knock), Arc::clone(&turns));
                thread::spawn(move || {
                    let mut held = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let turn = u32::try_from(turns.fetch_add(1, Ordering::Relaxed)).unwrap();
                        let due = begun + Duration::from_secs(1) * turn / rate;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        knock(turn, &mut held);
                    }
                })
            })
            .collect();
        Self { over, threads }
    }

    pub(super) fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// A new address.
pub(super) const fn fresh(turn: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0001 + turn)
}

pub(super) fn from(source: Ipv4Addr, gate: SocketAddr) -> std::io::Result<StdStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&gate.into(), Duration::from_secs(5))?;
    let stream = StdStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// The first flight of a client of the passthrough route.
pub(super) fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut bytes = Vec::new();
    let mut tls = ClientConnection::new(Arc::new(config), MAIL.try_into().unwrap()).unwrap();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// Runs the command in its own mount namespace, with another `/etc/resolv.conf`.
pub(super) fn in_namespace(command: &mut Command, resolv: &std::path::Path) {
    wrap(command, "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"", &[resolv.as_os_str()]);
    let inner = std::mem::replace(command, Command::new("unshare"));
    command.arg("--mount").arg(inner.get_program()).args(inner.get_args());
}

/// Runs the command by a shell script, which gets these arguments first.
pub(super) fn wrap(command: &mut Command, script: &str, arguments: &[&std::ffi::OsStr]) {
    let inner = std::mem::replace(command, Command::new("sh"));
    command.args(["-ec", script, "sh"]).args(arguments).arg(inner.get_program()).args(inner.get_args());
}
