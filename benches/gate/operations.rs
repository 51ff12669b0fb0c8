//! The operations that are measured.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use crate::Result;
use crate::backend::{BOTH, DOWN, ECHO, UP};
use crate::client::{self, Manner, Session, Suites, Transfer, parallel};
use crate::gates::{Gate, Kind, Mode};
use crate::measure::Figure;
use crate::pki::{Certified, PASSTHROUGH, Pki, TERMINATED};

/// The number of concurrent clients.
const WORKERS: usize = 16;
/// The number of connections before the measurement.
const WARM_UP: usize = 64;
/// Streams of a bulk transfer.
const STREAMS: usize = 4;
/// Bytes of a round trip.
const MESSAGE: usize = 64;

/// The certificate or ticket of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The same certificate each time, no ticket.
    Returning,
    /// Another certificate each time.
    Stranger,
    /// With a ticket.
    Resumed,
}

/// Why a client is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It requests an unknown server name.
    UnknownName,
    /// It sends no server name.
    NoName,
    /// It sends HTTP.
    NotTls,
    /// It has no certificate.
    NoCertificate,
    /// Its certificate was issued by another authority.
    OtherAuthority,
}

/// The direction of a bulk transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the client.
    Down,
    /// To the backend.
    Up,
    /// Both at the same time.
    Both,
}

/// One operation to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A connection, a handshake, one echoed byte, and the close; microseconds of CPU.
    Handshake(Mode, Who),
    /// A rejected client; microseconds of CPU.
    Refusal(Wrong),
    /// Payload over four streams; seconds of CPU per 10^9 bytes.
    Bulk(Mode, Way),
    /// An echo of 64 bytes over this many streams; microseconds of CPU.
    RoundTrip(Mode, usize),
    /// Memory per idle connection, with this many; KiB of PSS.
    Idle(Mode, usize),
    /// Growth of memory after this many rejections; MiB of PSS.
    GrowthMemory(usize),
    /// Growth of descriptors after the rejections of [`Operation::GrowthMemory`] just before.
    GrowthDescriptors,
}

impl Operation {
    /// Whether `kind` supports it.
    pub(crate) fn applies_to(self, kind: Kind) -> bool {
        match self {
            Self::Handshake(Mode::Terminated, Who::Stranger | Who::Resumed) => !kind.is_floor(),
            // nginx 1.22 and stunnel check the name after the handshake or never.
            Self::Refusal(Wrong::UnknownName | Wrong::NoName) => {
                kind.is_doorward() || matches!(kind, Kind::Haproxy | Kind::Naive)
            }
            Self::Refusal(_) => !kind.is_floor(),
            Self::Handshake(mode, _) | Self::Bulk(mode, _) | Self::RoundTrip(mode, _) => kind.can(mode),
            Self::Idle(mode, _) => kind.can(mode) && !kind.is_floor(),
            Self::GrowthMemory(_) | Self::GrowthDescriptors => kind.is_doorward(),
        }
    }
}

/// The number of repetitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    pub(crate) handshakes: usize,
    pub(crate) refusals: usize,
    pub(crate) bulk_bytes: u64,
    /// The total number of round trips, over one stream and over several.
    pub(crate) trips: [usize; 2],
}

/// The clients, created before the measurement.
#[derive(Debug)]
pub(crate) struct Clients {
    amounts: Amounts,
    suites: Suites,
    returning: Certified,
    other_authority: Certified,
    strangers: Vec<Certified>,
}

impl Clients {
    /// Clients that offer `suites` to every gate whose column does not say otherwise.
    pub(crate) fn new(pki: &Pki, amounts: Amounts, suites: Suites, strangers: bool) -> Result<Self> {
        let count = if strangers { amounts.handshakes } else { 0 };
        Ok(Self {
            amounts,
            suites,
            returning: pki.client("alice-phone")?,
            other_authority: pki.other_client()?,
            strangers: (0..count).map(|index| pki.client(&format!("client {index}"))).collect::<Result<_>>()?,
        })
    }

    fn config(&self, gate: &Gate, certified: Option<&Certified>, resumption: bool) -> Result<Arc<ClientConfig>> {
        client::config(certified, gate.suites.unwrap_or(self.suites), resumption)
    }

    fn returning(&self, gate: &Gate, mode: Mode) -> Result<Manner> {
        self.manner(gate, mode, &self.config(gate, Some(&self.returning), false)?)
    }

    /// The protocol of a client of this gate.
    fn manner(&self, gate: &Gate, mode: Mode, config: &Arc<ClientConfig>) -> Result<Manner> {
        Ok(match mode {
            _ if gate.kind.is_floor() && mode == Mode::Terminated => Manner::Plain,
            Mode::Terminated => Manner::Terminated(Arc::clone(config), ServerName::try_from(TERMINATED)?),
            Mode::Passthrough => Manner::Passthrough(Arc::clone(config), ServerName::try_from(PASSTHROUGH)?),
        })
    }

    /// Measures `operation` once.
    pub(crate) fn measure(&self, operation: Operation, gate: &Gate) -> Result<Figure> {
        let measured = match operation {
            Operation::Handshake(mode, who) => self.handshake(gate, mode, who),
            Operation::Refusal(wrong) => self.refusal(gate, wrong),
            Operation::Bulk(mode, way) => self.bulk(gate, mode, way),
            Operation::RoundTrip(mode, streams) => self.round_trip(gate, mode, streams),
            Operation::Idle(mode, count) => self.idle(gate, mode, count).map(Figure::from),
            Operation::GrowthMemory(count) => self.growth_memory(gate, count).map(Figure::from),
            Operation::GrowthDescriptors => self.growth_descriptors(gate).map(Figure::from),
        };
        measured.map_err(|error| format!("{}, {operation:?}: {error}", gate.kind.label()).into())
    }

    fn handshake(&self, gate: &Gate, mode: Mode, who: Who) -> Result<Figure> {
        let count = self.amounts.handshakes;
        let address = address(gate, mode);
        let once = |manner: &Manner| -> Result<bool> {
            let mut session = Session::open(address, manner)?;
            session.prove()?;
            let resumed = session.resumed();
            session.close()?;
            Ok(resumed)
        };
        let returning = self.returning(gate, mode)?;
        let warm_up = || parallel(WORKERS, WARM_UP.min(count), |_, _| once(&returning).map(drop));
        match who {
            Who::Returning => {
                warm_up()?;
                micros(gate, count, || parallel(WORKERS, count, |_, _| once(&returning).map(drop)))
            }
            Who::Stranger => {
                warm_up()?;
                let manners: Vec<Manner> = self
                    .strangers
                    .iter()
                    .map(|stranger| self.manner(gate, mode, &self.config(gate, Some(stranger), false)?))
                    .collect::<Result<_>>()?;
                micros(gate, count, || {
                    parallel(WORKERS, count, |_, turn| {
                        once(manners.get(turn).ok_or("more connections than certificates")?).map(drop)
                    })
                })
            }
            Who::Resumed => {
                // Each worker has its own session store with a ticket of an earlier connection.
                let manners: Vec<Manner> = (0..WORKERS)
                    .map(|_| self.manner(gate, mode, &self.config(gate, Some(&self.returning), true)?))
                    .collect::<Result<_>>()?;
                for manner in &manners {
                    once(manner)?;
                }
                let full = Mutex::new(0);
                let figure = micros(gate, count, || {
                    parallel(WORKERS, count, |worker, _| {
                        if !once(manners.get(worker).ok_or("more workers than clients")?)? {
                            *full.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                        }
                        Ok(())
                    })
                })?;
                let full = full.into_inner().unwrap_or_else(PoisonError::into_inner);
                if full * 20 > count {
                    return Err(format!("{full} of {count} handshakes were full ones").into());
                }
                Ok(figure)
            }
        }
    }

    fn refusal(&self, gate: &Gate, wrong: Wrong) -> Result<Figure> {
        let count = self.amounts.refusals;
        let once = self.refused(gate, wrong)?;
        parallel(WORKERS, WARM_UP.min(count), |_, _| once())?;
        micros(gate, count, || parallel(WORKERS, count, |_, _| once()))
    }

    /// Connects to a gate in a way that is rejected.
    fn refused(&self, gate: &Gate, wrong: Wrong) -> Result<Box<dyn Fn() -> Result<()> + Sync>> {
        let address = gate.terminated;
        let (certified, name) = match wrong {
            Wrong::UnknownName => (Some(&self.returning), ServerName::try_from("unknown.bench.example")?),
            // rustls sends no name for an address (RFC 6066 section 3).
            Wrong::NoName => (Some(&self.returning), ServerName::from(std::net::IpAddr::from([192, 0, 2, 1]))),
            Wrong::NoCertificate => (None, ServerName::try_from(TERMINATED)?),
            Wrong::OtherAuthority => (Some(&self.other_authority), ServerName::try_from(TERMINATED)?),
            Wrong::NotTls => {
                let request = b"GET / HTTP/1.1\r\nHost: nas.bench.example\r\n\r\n";
                return Ok(Box::new(move || client::expect_end(address, request)));
            }
        };
        let manner = Manner::Terminated(self.config(gate, certified, false)?, name);
        Ok(Box::new(move || client::expect_refusal(address, &manner)))
    }

    fn bulk(&self, gate: &Gate, mode: Mode, way: Way) -> Result<Figure> {
        let kind = match way {
            Way::Down => DOWN,
            Way::Up => UP,
            Way::Both => BOTH,
        };
        let streams = u64::try_from(STREAMS)?;
        let each = self.amounts.bulk_bytes / streams / if way == Way::Both { 2 } else { 1 };
        let manner = self.returning(gate, mode)?;
        let open = |length| -> Result<Transfer> { Session::open(address(gate, mode), &manner)?.prepare(kind, length) };
        open(each.min(1 << 20))?.run()?;
        let transfers = (0..STREAMS).map(|_| open(each)).collect::<Result<Vec<_>>>()?;
        let bytes = each * streams * if way == Way::Both { 2 } else { 1 };
        let before = gate.processes.moment()?;
        thread::scope(|scope| {
            let running: Vec<_> = transfers.into_iter().map(|transfer| scope.spawn(move || transfer.run())).collect();
            running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client's thread panicked")?)
        })?;
        let done = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and no run moves so many bytes")]
        let gigabytes = bytes as f64 / 1e9;
        let (cpu, threads) = gate.processes.moment()?.since(&before, gigabytes, done);
        Ok(Figure { value: cpu.as_secs_f64() / gigabytes, threads: Some(threads) })
    }

    fn round_trip(&self, gate: &Gate, mode: Mode, streams: usize) -> Result<Figure> {
        let [one, many] = self.amounts.trips;
        let count = if streams == 1 { one } else { many };
        let manner = self.returning(gate, mode)?;
        let message = [ECHO; MESSAGE];
        let mut sessions = Vec::new();
        for _ in 0..streams {
            let mut session = Session::open(address(gate, mode), &manner)?;
            for _ in 0..4 {
                session.trip(&message, &mut [0; MESSAGE])?;
            }
            sessions.push(Mutex::new(session));
        }
        micros(gate, count, || {
            parallel(streams, count, |worker, _| {
                let session = sessions.get(worker).ok_or("more workers than streams")?;
                session.lock().unwrap_or_else(PoisonError::into_inner).trip(&message, &mut [0; MESSAGE])
            })
        })
    }

    /// Opens `count` connections and leaves them idle.
    pub(crate) fn hold(&self, gate: &Gate, mode: Mode, count: usize) -> Result<Vec<TcpStream>> {
        let manner = self.returning(gate, mode)?;
        let held = Mutex::new(Vec::with_capacity(count));
        parallel(WORKERS, count, |_, _| {
            let mut session = Session::open(address(gate, mode), &manner)?;
            session.prove()?;
            held.lock().unwrap_or_else(PoisonError::into_inner).push(session.into_stream());
            Ok(())
        })?;
        Ok(held.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn idle(&self, gate: &Gate, mode: Mode, count: usize) -> Result<f64> {
        let descriptors = gate.processes.descriptors()?;
        drop(self.hold(gate, mode, WARM_UP)?);
        gate.processes.let_go(descriptors + 16)?;
        gate.processes.quiet()?;
        let before = gate.processes.memory()?;
        let held = self.hold(gate, mode, count)?;
        gate.processes.quiet()?;
        let after = gate.processes.memory()?;
        drop(held);
        gate.processes.let_go(descriptors + 16)?;
        Ok((after - before) / number(count))
    }

    /// All kinds of rejections in turn.
    fn refuse_all(&self, gate: &Gate, count: usize) -> Result<()> {
        let all = [Wrong::UnknownName, Wrong::NoName, Wrong::NotTls, Wrong::NoCertificate, Wrong::OtherAuthority];
        let once: Vec<_> = all.into_iter().map(|wrong| self.refused(gate, wrong)).collect::<Result<_>>()?;
        parallel(WORKERS, count, |_, turn| once.get(turn % all.len()).ok_or("no such refusal")?())?;
        gate.processes.quiet()?;
        Ok(())
    }

    fn growth_memory(&self, gate: &Gate, count: usize) -> Result<f64> {
        self.refuse_all(gate, (count / 50).max(WARM_UP))?;
        let before = gate.processes.memory()?;
        self.refuse_all(gate, count)?;
        Ok((gate.processes.memory()? - before) / 1024.0)
    }

    fn growth_descriptors(&self, gate: &Gate) -> Result<f64> {
        let left = gate.processes.let_go(gate.idle_descriptors)?;
        Ok(number(left) - number(gate.idle_descriptors))
    }
}

/// Runs `work` and returns the gate's CPU time in microseconds for each of `count` operations.
fn micros(gate: &Gate, count: usize, work: impl FnOnce() -> Result<()>) -> Result<Figure> {
    let before = gate.processes.moment()?;
    work()?;
    let done = Instant::now();
    let (cpu, threads) = gate.processes.moment()?.since(&before, number(count), done);
    Ok(Figure { value: cpu.as_secs_f64() * 1e6 / number(count), threads: Some(threads) })
}

fn address(gate: &Gate, mode: Mode) -> std::net::SocketAddr {
    match mode {
        Mode::Terminated => gate.terminated,
        Mode::Passthrough => gate.passthrough,
    }
}

/// A count as a factor.
pub(crate) fn number(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
    let number = count as f64;
    number
}
