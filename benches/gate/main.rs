//! Doorward compared with its peers: CPU time per operation and memory of the gate's processes.
//!
//! ```text
//! cargo bench --bench gate                                          everything: about half an hour
//! cargo bench --bench gate -- --quick --only handshake --rounds 5   one group, fewer operations
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench gate                   seconds: only shows that everything works
//! ```
//!
//! Needs two CPUs and the Debian packages of `benches/packages`. The gates run on the first CPU, or the first `--cores`, the
//! generator and the backends on the others, or on the same ones if there are no others. All gates of a group run at the same time and take turns, operation by operation; each round starts new
//! processes. Other load only adds CPU time, so the least of the rounds is the better estimate, and the median is the
//! typical value. Ratios are given for both. `--check` judges CPU time by the least, memory and descriptors by the median.

mod backend;
mod children;
mod client;
mod gates;
mod measure;
mod operations;
mod pki;
mod plan;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use rustls::ServerConfig;
use tokio::time::Instant;

use crate::backend::{Backend, Speaks};
use crate::client::Suites;
use crate::gates::{Gate, Kind, Machine, Mode};
use crate::operations::{Amounts, Clients};
use crate::pki::Pki;
use crate::plan::{Group, plan};
use crate::report::{Measured, Report};

/// Any error, as text.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Compares Doorward with its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only groups or operations with this text in their name; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only columns with this text in their name; may be given several times
    #[arg(long, value_name = "TEXT")]
    gate: Vec<String>,
    /// Rounds, each with fresh processes
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fewer operations, no 9,500 connections
    #[arg(long)]
    quick: bool,
    /// MiB of each bulk transfer [default: 1024; 256 with --quick]
    #[arg(long)]
    mebibytes: Option<u64>,
    /// CPUs of a gate; the generator has the others, or the same ones if there are no others
    #[arg(long, value_name = "N", default_value_t = 1)]
    cores: usize,
    /// Cipher suites that the clients offer
    #[arg(long, value_enum, default_value_t)]
    suites: Suites,
    /// Another build of doorward, which gets a column
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// Fail if a bound is exceeded: by the least of the rounds for CPU time, by the median for memory and descriptors
    #[arg(long)]
    check: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
    Markdown,
}

/// The timeout of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Smoke,
    Quick,
    Full,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == "--child" => children::run(rest),
        _ => bench(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let size = match std::env::var_os("DOORWARD_BENCH_SMOKE") {
        Some(_) => Size::Smoke,
        None if arguments.quick => Size::Quick,
        None => Size::Full,
    };
    let rounds = if size == Size::Smoke { 1 } else { arguments.rounds.max(1) };
    if arguments.check && size == Size::Smoke {
        return Err("a smoke run has too few operations for --check".into());
    }
    let groups = selected(plan(size), arguments);
    if groups.is_empty() {
        return Err("nothing has such a name".into());
    }
    let mut amounts = amounts(size);
    if let Some(mebibytes) = arguments.mebibytes {
        amounts.bulk_bytes = mebibytes << 20;
    }
    let machine = Machine::new(arguments.cores, arguments.beside.clone())?;
    if machine.shared {
        eprintln!("the generator and the gates share {} CPUs: rates are of both together", machine.cores);
    }
    machine.keep_off()?;
    let pki = Pki::new()?;
    let strangers = groups.iter().any(Group::needs_strangers);
    let clients = Clients::new(&pki, amounts, arguments.suites, strangers)?;

    let mut report = Report::new(rounds);
    let measured = measure(&groups, &clients, &machine, &pki, &mut report);
    // Results measured before a failure are printed.
    match arguments.format {
        // The smoke test has too few operations for any figure to be meaningful.
        _ if size == Size::Smoke => println!("smoke run: {} measurements were possible", report.count()),
        Format::Text => print!("{}", report.text(&groups, arguments.cores > 1)),
        Format::Markdown => print!("{}", report.markdown(&groups)),
        Format::Json => println!("{}", report.json(&groups)?),
    }
    measured?;
    let exceeded = report.exceeded(&groups);
    if arguments.check && !exceeded.is_empty() {
        return Err(format!("{} bounds are exceeded:\n{}", exceeded.len(), exceeded.join("\n")).into());
    }
    Ok(())
}

fn measure(groups: &[Group], clients: &Clients, machine: &Machine, pki: &Pki, report: &mut Report) -> Result<()> {
    let server = server(pki)?;
    let mut inside = ServerConfig::clone(&server);
    // Gates resume sessions with their backends.
    inside.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    inside.send_tls13_tickets = 2;
    let inside = Arc::new(inside);
    let runtime = backend::runtime()?;
    let begun = Instant::now();
    for round in 1..=report.rounds {
        for group in groups {
            eprintln!("{:>5} s: round {round} of {}: {}", begun.elapsed().as_secs(), report.rounds, group.name);
            let mut gates = Vec::new();
            for column in &group.columns {
                let inside = if column.setup.backend_tls { Speaks::Tls(Arc::clone(&inside)) } else { Speaks::Plain };
                let plain = Backend::start(&runtime, inside)?;
                let tls = Backend::start(&runtime, Speaks::HandshakeOnly(Arc::clone(&server)))?;
                let gate = Gate::start(column, machine, pki, plain, tls)?;
                let held = clients.hold(&gate, Mode::Terminated, column.sessions)?;
                // In this order, so that no connection delays the stop of the gate.
                gates.push((held, gate, column));
            }
            for line in &group.lines {
                for (_, gate, column) in &gates {
                    if line.operation.applies_to(gate.kind) {
                        let figure = clients.measure(line.operation, gate)?;
                        report.add(Measured { group: group.name, line: line.name, column: column.label, figure });
                    }
                }
            }
        }
    }
    Ok(())
}

fn selected(groups: Vec<Group>, arguments: &Arguments) -> Vec<Group> {
    let wanted = |texts: &[String], name: &str| texts.is_empty() || texts.iter().any(|text| name.contains(text));
    groups
        .into_iter()
        .map(|mut group| {
            if !wanted(&arguments.only, group.name) {
                group.lines.retain(|line| wanted(&arguments.only, line.name));
            }
            group.columns.retain(|column| match column.kind {
                Kind::Beside => arguments.beside.is_some(),
                _ => wanted(&arguments.gate, column.label),
            });
            group
        })
        .filter(|group| !group.lines.is_empty() && !group.columns.is_empty())
        .collect()
}

const fn amounts(size: Size) -> Amounts {
    match size {
        Size::Smoke => Amounts { handshakes: 32, refusals: 32, bulk_bytes: 8 << 20, trips: [32, 128] },
        Size::Quick => Amounts { handshakes: 600, refusals: 1500, bulk_bytes: 256 << 20, trips: [3000, 12_000] },
        Size::Full => Amounts { handshakes: 2000, refusals: 4000, bulk_bytes: 1 << 30, trips: [10_000, 40_000] },
    }
}

/// The TLS configuration of backends: no tickets and no client certificates, because raw bytes follow the handshake.
fn server(pki: &Pki) -> Result<Arc<ServerConfig>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let chain = CertificateDer::pem_file_iter(pki.path("server.pem"))?.collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(pki.path("server-key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
