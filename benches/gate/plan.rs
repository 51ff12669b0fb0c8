//! The plan of all measurements, with the bounds for Doorward.

use crate::Size;
use crate::client::Suites;
use crate::gates::{Kind, Mode, Setup};
use crate::operations::{Operation, Way, Who, Wrong};

/// Lines that are measured on the same processes.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) lines: Vec<Line>,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
    pub(crate) setup: Setup,
    /// What its clients offer, if not what all do.
    pub(crate) suites: Option<Suites>,
    /// Connections that are held open during the measurement.
    pub(crate) sessions: usize,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) operation: Operation,
    pub(crate) bounds: Vec<Bound>,
}

/// A bound on a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// One column costs at most `limit` times as much as another one.
    Ratio {
        /// This one,
        of: &'static str,
        /// of that one.
        to: &'static str,
        limit: f64,
    },
    /// One column costs at most `limit` times as much as the cheapest of several others that were measured.
    Best {
        /// This one,
        of: &'static str,
        /// of the cheapest of those.
        to: &'static [&'static str],
        limit: f64,
    },
    /// A column is at most this.
    Most { of: &'static str, limit: f64 },
}

impl Group {
    /// Whether it compares gates, and not Doorward with itself.
    pub(crate) fn compares_gates(&self) -> bool {
        let gates =
            |column: &Column| [Setup::PLAIN, Setup::BACKEND_TLS].contains(&column.setup) && column.sessions == 0;
        self.columns.iter().all(gates) && self.name != "growth"
    }

    /// Whether it needs new clients.
    pub(crate) fn needs_strangers(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.operation, Operation::Handshake(_, Who::Stranger)))
    }
}

fn line(name: &'static str, operation: Operation, bounds: &[Bound]) -> Line {
    Line { name, operation, bounds: bounds.to_vec() }
}

fn gate(kind: Kind) -> Column {
    Column { label: kind.label(), kind, setup: Setup::PLAIN, suites: None, sessions: 0 }
}

/// A gate whose clients prefer AES-128.
fn aes128(label: &'static str, kind: Kind) -> Column {
    Column { label, suites: Some(Suites::Aes128), ..gate(kind) }
}

/// Columns for these gates, for another build of Doorward, and for Doorward and the plain combination with AES-128.
fn with_aes128(kinds: &[Kind]) -> Vec<Column> {
    let mut columns: Vec<Column> = kinds.iter().copied().map(gate).collect();
    let second = kinds.iter().position(|kind| !kind.is_doorward()).unwrap_or(0);
    columns.insert(second, aes128("doorward-aes128", Kind::Doorward));
    columns.insert(second + 2, aes128("tokio-rustls-aes128", Kind::Naive));
    columns
}

const fn beside(peer: Kind, limit: f64) -> Bound {
    Bound::Ratio { of: Kind::Doorward.label(), to: peer.label(), limit }
}

/// The cheapest of HAProxy and nginx.
const fn beside_best(limit: f64) -> Bound {
    const PEERS: &[&str] = &[Kind::Haproxy.label(), Kind::Nginx.label()];
    Bound::Best { of: Kind::Doorward.label(), to: PEERS, limit }
}

const fn most(limit: f64) -> Bound {
    Bound::Most { of: Kind::Doorward.label(), limit }
}

/// All groups.
pub(crate) fn plan(size: Size) -> Vec<Group> {
    [handshakes(), refusals(), bulk(), round_trips(), backend_tls(size), idle(size), growth(size), growing(size)]
        .into_iter()
        .flatten()
        .collect()
}

fn handshakes() -> Vec<Group> {
    use Kind::{Beside, Copy64, Doorward, Haproxy, Naive, Nginx, Splice, Stunnel};
    let handshake = |mode, who| Operation::Handshake(mode, who);
    vec![
        Group {
            name: "handshake",
            unit: "µs",
            columns: with_aes128(&[Doorward, Beside, Naive, Haproxy, Nginx, Stunnel, Copy64]),
            lines: vec![
                line(
                    "full handshake, returning client",
                    handshake(Mode::Terminated, Who::Returning),
                    &[beside(Naive, 0.75)],
                ),
                line("full handshake, new client", handshake(Mode::Terminated, Who::Stranger), &[beside(Naive, 0.80)]),
                line("resumed handshake", handshake(Mode::Terminated, Who::Resumed), &[beside(Naive, 0.90)]),
            ],
        },
        Group {
            name: "passthrough handshake",
            unit: "µs",
            columns: [Doorward, Beside, Naive, Haproxy, Nginx, Copy64, Splice].map(gate).to_vec(),
            lines: vec![line(
                "passthrough handshake",
                handshake(Mode::Passthrough, Who::Returning),
                &[beside(Haproxy, 1.00)],
            )],
        },
    ]
}

fn refusals() -> Vec<Group> {
    use Kind::{Beside, Doorward, Haproxy, Naive, Nginx, Stunnel};
    let refused = |name, wrong, bound| line(name, Operation::Refusal(wrong), &[bound]);
    vec![Group {
        name: "refusal",
        unit: "µs",
        columns: with_aes128(&[Doorward, Beside, Naive, Haproxy, Nginx, Stunnel]),
        lines: vec![
            refused("refused: unknown server name", Wrong::UnknownName, beside_best(0.85)),
            refused("refused: no server name", Wrong::NoName, beside_best(0.85)),
            refused("refused: not TLS", Wrong::NotTls, beside_best(0.85)),
            refused("refused: no certificate", Wrong::NoCertificate, beside(Naive, 1.00)),
            refused("refused: other authority", Wrong::OtherAuthority, beside(Naive, 1.00)),
        ],
    }]
}

fn bulk() -> Vec<Group> {
    use Kind::{Beside, Copy64, Copy256, Doorward, Haproxy, Naive, Nginx, Splice, Stunnel};
    let passthrough = [beside(Splice, 1.20)];
    vec![
        Group {
            name: "bulk",
            unit: "s/GB",
            columns: with_aes128(&[Doorward, Beside, Naive, Haproxy, Nginx, Stunnel, Copy64, Copy256, Splice]),
            lines: vec![
                line("bulk down, 4 streams", Operation::Bulk(Mode::Terminated, Way::Down), &[beside(Haproxy, 0.40)]),
                line("bulk up, 4 streams", Operation::Bulk(Mode::Terminated, Way::Up), &[beside(Haproxy, 0.45)]),
                line("bulk both ways, 4 streams", Operation::Bulk(Mode::Terminated, Way::Both), &[]),
            ],
        },
        Group {
            name: "passthrough bulk",
            unit: "s/GB",
            columns: [Doorward, Beside, Naive, Haproxy, Nginx, Copy64, Copy256, Splice].map(gate).to_vec(),
            lines: vec![
                line("passthrough bulk down, 4 streams", Operation::Bulk(Mode::Passthrough, Way::Down), &passthrough),
                line("passthrough bulk up, 4 streams", Operation::Bulk(Mode::Passthrough, Way::Up), &passthrough),
                line("passthrough bulk both ways, 4 streams", Operation::Bulk(Mode::Passthrough, Way::Both), &[]),
            ],
        },
    ]
}

fn round_trips() -> Vec<Group> {
    use Kind::{Beside, Copy64, Doorward, Haproxy, Naive, Nginx, Splice, Stunnel};
    let bound = [beside(Copy64, 1.05)];
    vec![
        Group {
            name: "round trip",
            unit: "µs",
            columns: [Doorward, Beside, Naive, Haproxy, Nginx, Stunnel, Copy64].map(gate).to_vec(),
            lines: vec![
                line("64 bytes, 1 stream", Operation::RoundTrip(Mode::Terminated, 1), &bound),
                line("64 bytes, 32 streams", Operation::RoundTrip(Mode::Terminated, 32), &bound),
            ],
        },
        Group {
            name: "passthrough round trip",
            unit: "µs",
            columns: [Doorward, Beside, Naive, Haproxy, Nginx, Copy64, Splice].map(gate).to_vec(),
            lines: vec![line("passthrough, 64 bytes, 32 streams", Operation::RoundTrip(Mode::Passthrough, 32), &bound)],
        },
    ]
}

/// TLS to the clients and TLS to the backend.
fn backend_tls(size: Size) -> Vec<Group> {
    let columns = || -> Vec<Column> {
        let gates = [Kind::Doorward, Kind::Beside, Kind::Haproxy, Kind::Nginx].map(gate);
        gates.into_iter().map(|column| Column { setup: Setup::BACKEND_TLS, ..column }).collect()
    };
    let handshake = |who| Operation::Handshake(Mode::Terminated, who);
    let bulk = |way| Operation::Bulk(Mode::Terminated, way);
    let few = if size == Size::Smoke { 20 } else { 1000 };
    vec![
        Group {
            name: "backend_tls",
            unit: "µs",
            columns: columns(),
            lines: vec![
                line("backend_tls: full handshake", handshake(Who::Returning), &[]),
                line("backend_tls: resumed handshake", handshake(Who::Resumed), &[]),
                line("backend_tls: 64 bytes, 32 streams", Operation::RoundTrip(Mode::Terminated, 32), &[]),
            ],
        },
        Group {
            name: "backend_tls bulk",
            unit: "s/GB",
            columns: columns(),
            lines: vec![
                line("backend_tls: bulk down, 4 streams", bulk(Way::Down), &[beside(Kind::Haproxy, 1.00)]),
                line("backend_tls: bulk up, 4 streams", bulk(Way::Up), &[beside(Kind::Haproxy, 1.00)]),
                line("backend_tls: bulk both ways, 4 streams", bulk(Way::Both), &[]),
            ],
        },
        Group {
            name: "backend_tls idle",
            unit: "KiB each",
            columns: columns(),
            lines: vec![line("backend_tls: idle, 1,000 connections", Operation::Idle(Mode::Terminated, few), &[])],
        },
    ]
}

/// Two descriptors for each connection, here and in the gate: 9,500 connections fit a limit of 20,000.
const MANY: usize = 9500;

fn idle(size: Size) -> Vec<Group> {
    use Kind::{Beside, Doorward, Haproxy, Naive, Nginx, Stunnel};
    let few = if size == Size::Smoke { 20 } else { 1000 };
    let group = |name, mode, count, limit: f64| Group {
        name,
        unit: "KiB each",
        columns: match mode {
            Mode::Terminated => [Doorward, Beside, Naive, Haproxy, Nginx, Stunnel].map(gate).to_vec(),
            Mode::Passthrough => [Doorward, Beside, Naive, Haproxy, Nginx].map(gate).to_vec(),
        },
        // Memory grows by pages and arenas, so a few connections give no figure for each.
        lines: vec![Line {
            name,
            operation: Operation::Idle(mode, count),
            bounds: if size == Size::Smoke { vec![] } else { vec![most(limit)] },
        }],
    };
    let mut groups = vec![
        group("idle, 1,000 connections", Mode::Terminated, few, 4.0),
        group("idle, 1,000 passthrough connections", Mode::Passthrough, few, 2.0),
    ];
    if size == Size::Full {
        groups.push(group("idle, 9,500 connections", Mode::Terminated, MANY, 4.0));
        groups.push(group("idle, 9,500 passthrough connections", Mode::Passthrough, MANY, 2.0));
    }
    groups
}

fn growth(size: Size) -> Vec<Group> {
    let (name, count) = match size {
        Size::Smoke => ("growth, MiB after 500 refusals", 500),
        Size::Quick => ("growth, MiB after 20,000 refusals", 20_000),
        Size::Full => ("growth, MiB after 100,000 refusals", 100_000),
    };
    vec![Group {
        name: "growth",
        unit: "",
        columns: vec![gate(Kind::Doorward)],
        lines: vec![
            line(name, Operation::GrowthMemory(count), &[most(4.0)]),
            line("growth, descriptors left open", Operation::GrowthDescriptors, &[most(0.0)]),
        ],
    }]
}

/// How the cost grows with the size of the lookup tables: Doorward compared with itself.
fn growing(size: Size) -> Vec<Group> {
    let column = |label, setup, sessions| Column { label, setup, sessions, ..gate(Kind::Doorward) };
    let lines = |handshake, refusal, from, to| {
        let bound = [Bound::Ratio { of: to, to: from, limit: 1.10 }];
        vec![
            line(handshake, Operation::Handshake(Mode::Terminated, Who::Returning), &bound),
            line(refusal, Operation::Refusal(Wrong::UnknownName), &bound),
        ]
    };
    let names = |names, routes| Setup { names, routes, ..Setup::PLAIN };
    let revoked = |revoked| Setup { revoked, ..Setup::PLAIN };
    let (most_routes, most_revoked, most_sessions) = match size {
        Size::Smoke => (names(100, 10), revoked(100), 20),
        _ => (names(100_000, 1000), revoked(100_000), MANY),
    };
    let middle = if size == Size::Smoke { 10 } else { 1000 };
    vec![
        Group {
            name: "routes",
            unit: "µs",
            columns: vec![
                column("10 names", names(10, 10), 0),
                column("1,000 names", names(middle, middle), 0),
                column("100,000 names", most_routes, 0),
            ],
            lines: lines("routes: handshake", "routes: refused name", "10 names", "100,000 names"),
        },
        Group {
            name: "revoked",
            unit: "µs",
            columns: vec![
                column("1 revoked", revoked(1), 0),
                column("1,000 revoked", revoked(middle), 0),
                column("100,000 revoked", most_revoked, 0),
            ],
            lines: lines("revoked: handshake", "revoked: refused name", "1 revoked", "100,000 revoked"),
        },
        Group {
            name: "sessions",
            unit: "µs",
            columns: vec![
                column("1 session", Setup::PLAIN, 1),
                column("100 sessions", Setup::PLAIN, if size == Size::Smoke { 5 } else { 100 }),
                column("9,500 sessions", Setup::PLAIN, most_sessions),
            ],
            lines: lines("sessions: handshake", "sessions: refused name", "1 session", "9,500 sessions"),
        },
    ]
}
