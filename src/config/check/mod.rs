//! Raw to checked: every value looked at, every file read, every mistake noted.

mod access;
pub(super) mod acme;
mod acme_dns;
mod acme_lints;
mod anchors;
mod backend_tls;
mod backends;
mod certificate;
mod client_auth;
pub(super) mod control;
mod deny;
mod expect;
mod health;
pub(super) mod history;
pub(super) mod inventory;
mod listener;
pub(crate) mod notify;
mod own_authority;
mod own_folder;
mod protocols;
mod public;
mod relations;
pub(super) mod renewal;
mod renewal_issuer;
pub(super) mod revocation_lists;
mod route;
pub(super) mod salvage;
mod tickets;
mod trust;
mod tsig_key;
mod wake;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::checked::{
    Acme, Banned, CanaryRoute, Certificate, CipherStrength, ClientAuth, Config, Expectation, KernelTls, Limits, Log,
    LogFormat, LogOutput, Metrics, Renewal, SandboxMode, Timeouts,
};
use super::file_states::Seen;
use super::raw::{Raw, RawLimits, RawLog, RawRoute, RawSandbox, RawTimeouts};
use super::reader::Scalar;
use super::report::{At, Given, Place, Problem, Report, Text, quoted};
use super::{ConfigErrors, files, folders, values};
use crate::model::names::Name;
use crate::model::service::PUBLIC_PORT;
use crate::model::source::Prefixes;
use crate::model::text::date;
use access::Groups;
use certificate::Loaded;
use route::{Checked, ServerNames};

/// Where the TLS of a route's clients ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// In the gate.
    Terminate,
    /// In the backend.
    Passthrough,
}

/// What the routes are checked against.
struct Checks<'a> {
    raw: &'a Raw,
    listeners: &'a [listener::Checked],
    /// The default certificate, if it is there and right.
    certificate: Option<Loaded>,
    /// The default client authentication, if it is there and right.
    client_auth: Option<Arc<ClientAuth>>,
}

/// Checks everything, then gives the configuration or every mistake.
pub(super) fn check(raw: &Raw, report: &mut Report) -> Result<Config, ConfigErrors> {
    let config = check_all(raw, report);
    // Whatever could not be built has been reported above; were it not, going on without it would be the worst answer.
    let built = config.as_ref().is_some_and(|config| {
        raw.listeners.as_ref().is_some_and(|raw| raw.len() == config.listeners.len())
            && raw.routes.as_ref().is_some_and(|raw| raw.len() == config.routes.len() + config.canaries.len())
            && raw.expectations.len() == config.expectations.len()
    });
    if !built && report.is_clean() {
        report.error(
            &Place { line: None, key: String::new() },
            "the configuration was refused, and doorward cannot say why: this is a mistake of doorward",
            "please report it, together with the configuration",
        );
    }
    let warnings = report.finish()?;
    config.map(|config| Config { warnings, ..config }).ok_or_else(|| ConfigErrors::new(Vec::new()))
}

fn check_all(raw: &Raw, report: &mut Report) -> Option<Config> {
    let kernel_tls = word(
        &raw.kernel_tls,
        &[("auto", KernelTls::Auto), ("off", KernelTls::Off), ("require", KernelTls::Require)],
        // No machine was found where the kernel's encryption is cheaper in both directions: src/manual/cost.md.
        KernelTls::Off,
        report,
    );
    let default = CipherStrength::Bits128;
    let strength = scalar(&raw.strength, values::strength, default, report);
    let watch = word(&raw.watch, &[("on", true), ("off", false)], true, report);
    let listeners = listener::check(raw, report);
    let canaries = check_canaries(raw, report);
    let public_port = scalar(&raw.public_port, values::port, PUBLIC_PORT, report);
    let (acme, certificate) = check_certificate(raw, report);
    let (routes, expectations, renewal) = check_routes(raw, &listeners, certificate, report);
    let tickets = tickets::check(&raw.tickets, report);
    let timeouts = timeouts(&raw.timeouts, report);
    let limits = limits(&raw.limits, report);
    let address = listener::metrics(&raw.metrics.address, &listeners, report);
    let inventory = inventory::check(&raw.metrics.inventory, report);
    let control = control::check(&raw.control, report);
    let log = log(&raw.log, report);
    let history = history::check(&raw.history, report);
    let notify = notify::check(&raw.notify, report);
    let sandbox = sandbox_mode(&raw.sandbox, report);
    let config = Config {
        file: report.file().to_owned(),
        kernel_tls: kernel_tls?,
        strength: strength?,
        watch: watch?,
        public_port: public_port?,
        listeners: listeners.into_iter().map(|listener| listener.value).collect(),
        routes: routes.into_iter().map(|checked| checked.route).collect(),
        canaries: canaries?,
        expectations,
        acme: acme?,
        tickets: tickets?,
        timeouts: timeouts?,
        limits: limits?,
        metrics: Metrics { address: address?, inventory: inventory? },
        control: control?,
        log: log?,
        history: history?,
        notify: notify?,
        renewal: renewal?,
        sandbox: sandbox?,
        warnings: Vec::new(),
        seen: Seen::default(),
    };
    warn_of_log(&config, &raw.log, report);
    renewal_issuer::relations(&config, raw, report);
    if let Some(section) = raw.certificate.value().and_then(|default| default.value.acme.value()) {
        acme_lints::warn(&config, &section.place, report);
    }
    Some(config)
}

/// The sandbox does not open the folder of the configuration to a gate that was taken over: see `Needs::log_folders`.
fn warn_of_log(config: &Config, raw: &RawLog, report: &mut Report) {
    let (LogOutput::File(log), Some(text)) = (&config.log.output, raw.output.value()) else { return };
    let folders = folders::to_read(log);
    let shares = |file: &PathBuf| folders.iter().any(|folder| folders::is_above(folder, file));
    if config.sandbox != SandboxMode::Off && config.files().iter().any(shares) {
        report.warn(
            &text.place,
            "files of the configuration are in the folder of the log or below it, so the sandbox lets the gate write to this file, \
             but not make a new one after a rotation; write the path of a file in a folder of its own, or have logrotate use \
             copytruncate",
        );
    }
}

/// The routes that are canaries; `None` if one is wrong.
fn check_canaries(raw: &Raw, report: &mut Report) -> Option<Vec<CanaryRoute>> {
    let routes = raw.routes.as_deref().unwrap_or_default();
    // All of them are looked at, so that everything wrong is told.
    let checked: Vec<_> =
        routes.iter().filter(|route| route::is_canary(route)).map(|route| route::canary(route, report)).collect();
    checked.into_iter().collect()
}

pub(super) fn sandbox_mode(raw: &RawSandbox, report: &mut Report) -> Option<SandboxMode> {
    let modes = &[("auto", SandboxMode::Auto), ("require", SandboxMode::Require), ("off", SandboxMode::Off)];
    word(&raw.mode, modes, SandboxMode::Auto, report)
}

/// The certificate of routes that have none of their own, and what is ordered.
#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn check_certificate(raw: &Raw, report: &mut Report) -> (Option<Option<Arc<Acme>>>, Option<Loaded>) {
    let Some(default) = raw.certificate.value() else { return (Some(None), None) };
    match &default.value.acme {
        Given::Absent => (Some(None), certificate::check(default, report)),
        Given::Refused => (None, None),
        Given::Value(section) => match acme::check(default, raw, report) {
            None => (None, None),
            Some(acme) => {
                let loaded = acme::load(&acme, &section.place, report);
                (Some(Some(Arc::new(acme))), loaded)
            }
        },
    }
}

/// Reads a certificate and its key from the contents of one file, and the host names that it is for.
pub(super) fn one_file_certificate(path: &Path, contents: &[u8]) -> Result<(Arc<Certificate>, Vec<String>), String> {
    let file = files::NamedFile { path: path.to_owned(), bytes: contents.to_vec(), owner: 0, mode: 0o600 };
    certificate::of_one_file(&file).map(|loaded| (loaded.certificate, loaded.dns_names))
}

fn check_routes(
    raw: &Raw,
    listeners: &[listener::Checked],
    certificate: Option<Loaded>,
    report: &mut Report,
) -> (Vec<Checked>, Vec<Expectation>, Option<Option<Renewal>>) {
    // The defaults are checked even if no route uses them: a file that is named has to be right.
    let routes = raw.routes.as_deref().unwrap_or_default();
    let in_use =
        !raw.renewal.is_absent() || routes.iter().any(|route| route.client_auth.is_absent() && !is_passthrough(route));
    let client_auth = raw
        .client_auth
        .value()
        .and_then(|default| client_auth::check(None, Some(&default.value), &default.place, in_use, report));
    let mut groups = Groups::check(&raw.groups, report);
    if raw.routes.as_ref().is_some_and(|routes| routes.iter().all(route::is_canary)) {
        report.error(
            &Place { line: None, key: "route".to_owned() },
            "there is no route, so nothing could be reached",
            "add these lines (with your names and addresses):\n[[route]]\nname = \"nas\"\nserver_names = \
             [\"nas.home.example\"]\nbackends = [\"192.168.1.10:5666\"]\nallow = [\"any\"]",
        );
    }
    let checks = Checks { raw, listeners, certificate, client_auth };
    let mut names: Vec<(&RawRoute, ServerNames)> = Vec::new();
    let mut all = Vec::new();
    for route in routes {
        if route::is_canary(route) {
            names.push((route, route::silent_names(route)));
            all.push(None);
            continue;
        }
        let (route_names, right) = route::check(route, &checks, &mut groups, report);
        names.push((route, route_names));
        all.push(right);
    }
    let pairs: Vec<(&RawRoute, Option<&Checked>)> =
        routes.iter().zip(all.iter().map(Option::as_ref)).filter(|(route, _)| !route::is_canary(route)).collect();
    public::report_public_authorities(raw, &pairs, report);
    own_authority::warn(raw, &pairs, report);
    let checked: Vec<Checked> = all.into_iter().flatten().collect();
    report_twins(routes.iter().map(|route| &route.name), "route", report);
    relations::report_shared_names(&names, report);
    relations::warn_of_shared_backends(&checked, report);
    relations::warn_of_browsers(&checked, report);
    relations::warn_of_coalescing(&checked, report);
    groups.warn_of_unused(report);
    let expectations = expect::check(&raw.expectations, routes, &groups, report);
    (checked, expectations, renewal::check(&checks, report))
}

fn is_passthrough(route: &RawRoute) -> bool {
    route.mode.value().is_some_and(|mode| mode.value == "passthrough")
}

fn timeouts(raw: &RawTimeouts, report: &mut Report) -> Option<Timeouts> {
    let default = Timeouts::default();
    let mut one = |given: &Given<Scalar>, default: Duration| scalar(given, values::duration, default, report);
    let (client_hello, handshake) =
        (one(&raw.client_hello, default.client_hello), one(&raw.handshake, default.handshake));
    let (dial, idle) = (one(&raw.dial, default.dial), one(&raw.idle, default.idle));
    let (half_close, drain) = (one(&raw.half_close, default.half_close), one(&raw.drain, default.drain));
    let lifetime = scalar(&raw.lifetime, values::duration_or_off, default.lifetime, report);
    Some(Timeouts {
        client_hello: client_hello?,
        handshake: handshake?,
        dial: dial?,
        idle: idle?,
        lifetime: lifetime?,
        half_close: half_close?,
        drain: drain?,
    })
}

fn limits(raw: &RawLimits, report: &mut Report) -> Option<Limits> {
    let default = Limits::default();
    let connections = scalar(&raw.connections, values::count, default.connections, report);
    let per_source = scalar(&raw.connections_per_source, values::count_or_off, default.connections_per_source, report);
    let rate = scalar(&raw.connection_rate_per_source, values::rate_or_off, default.connection_rate_per_source, report);
    let handshakes = scalar(&raw.handshakes, values::count, default.handshakes, report);
    let penalties = word(&raw.penalties, &[("on", true), ("off", false)], default.penalties, report);
    let banned = word(&raw.banned, &[("close", Banned::Close), ("drop", Banned::Drop)], default.banned, report);
    let v4 = scalar(&raw.source_prefix_v4, |bits| values::prefix(bits, 32), default.source_prefixes.v4, report);
    let v6 = scalar(&raw.source_prefix_v6, |bits| values::prefix(bits, 128), default.source_prefixes.v6, report);
    Some(Limits {
        connections: connections?,
        connections_per_source: per_source?,
        connection_rate_per_source: rate?,
        handshakes: handshakes?,
        penalties: penalties?,
        banned: banned?,
        source_prefixes: Prefixes { v4: v4?, v6: v6? },
    })
}

fn log(raw: &RawLog, report: &mut Report) -> Option<Log> {
    let output = match &raw.output {
        Given::Absent => Some(LogOutput::Stdout),
        Given::Refused => None,
        Given::Value(text) => {
            let output = values::log_output(&text.value, files::folder_of(report.file()));
            report.taken(&text.place, output)
        }
    };
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = word(&raw.format, formats, LogFormat::Text, report);
    let sampling = word(&raw.sampling, &[("on", true), ("off", false)], true, report);
    if let (Some(LogOutput::Journald), Some(text)) = (&output, raw.format.value()) {
        report.warn(
            &text.place,
            "journald is sent fields and not lines, so this changes nothing; remove it, or read what is there with journalctl \
             --output=json",
        );
    }
    Some(Log { output: output?, format: format?, sampling: sampling? })
}

fn scalar<T>(
    given: &Given<Scalar>,
    read: impl FnOnce(&Scalar) -> Result<T, Problem>,
    default: T,
    report: &mut Report,
) -> Option<T> {
    match given {
        Given::Absent => Some(default),
        Given::Refused => None,
        Given::Value(at) => report.taken(&at.place, read(&at.value)),
    }
}

fn word<T: Copy>(given: &Given<String>, words: &[(&str, T)], default: T, report: &mut Report) -> Option<T> {
    match given {
        Given::Absent => Some(default),
        Given::Refused => None,
        Given::Value(at) => report.taken(&at.place, values::word(&at.value, words)),
    }
}

/// The name of a listener or route.
fn name(given: &Given<String>, parent: &Place, example: &str, report: &mut Report) -> Option<Name> {
    match given {
        Given::Refused => None,
        Given::Value(text) => Name::parse(&text.value)
            .map_err(|error| {
                report.error(&text.place, error.to_string(), format!("write it like this: name = \"{example}\""))
            })
            .ok(),
        Given::Absent => {
            report.error(
                &parent.child("name"),
                "\"name\" is missing: it is what the log and the metrics will call this",
                format!("add a line: name = \"{example}\""),
            );
            None
        }
    }
}

/// Reports names that are given twice.
fn report_twins<'a>(names: impl Iterator<Item = &'a Given<String>>, what: &str, report: &mut Report) {
    let mut first: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for text in names.filter_map(Given::value) {
        match first.get(text.value.as_str()) {
            Some(line) => {
                let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
                report.error(
                    &text.place,
                    format!("there is another {what} with the name {}{line}", quoted(&text.value)),
                    "give each of them a name of its own",
                );
            }
            None => {
                first.insert(&text.value, text.place.line);
            }
        }
    }
}

/// Seconds since 1970, negative before.
fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// Reads every file of a list, or `None` if one of them is wrong. A file that is named has to be right in every mode:
/// falling back to something else instead is how CVE-2026-27586 came about.
fn each_file<T>(
    given: &Given<Vec<Text>>,
    report: &mut Report,
    mut read: impl FnMut(&Text, &mut Report) -> Option<Vec<T>>,
) -> Option<Vec<At<T>>> {
    let list = match given {
        Given::Absent => return Some(Vec::new()),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let mut all = Some(Vec::new());
    for text in &list.value {
        match (read(text, report), &mut all) {
            (Some(read), Some(all)) => {
                all.extend(read.into_iter().map(|value| At { value, place: text.place.clone() }));
            }
            _ => all = None,
        }
    }
    all
}
