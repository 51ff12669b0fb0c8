//! What doorward says about configurations: the exact words, for every mistake that people make.
//!
//! `tests/config/wrong/*.toml` are refused, `tests/config/warned/*.toml` are taken with warnings; beside each stands a
//! file `.expected` with what is said, word for word. After a change on purpose: `DOORWARD_BLESS=1 cargo test --test
//! config_errors`, then read every difference as a reader who has never seen a certificate.

#![expect(clippy::expect_used, clippy::panic, reason = "what fails in a helper fails its test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use doorward::config::checked::{
    Allow, Backend, BackendTls, BackendTrust, Banned, CipherStrength, ClientAuthMode, Config, ControlSocket,
    ExpectedClients, ExpiredRevocationList, Format, HeaderPlace, History, KernelTls, Limits, Log, LogFormat, LogOutput,
    Rate, RevocationCheck, RouteMode, SandboxMode, Selector, SendProxyProtocol, StateFolder, Terminate, Timeouts,
};
use doorward::config::{ConfigErrors, load, parse};
use doorward::model::identity::{Serial, Sha256};
use doorward::model::notice::NoticeEvent;
use doorward::model::service::ServiceKind;
use doorward::model::source::Prefixes;
use doorward::model::starttls::Starttls;

#[path = "config/pki.rs"]
mod pki;
#[path = "config/reprint.rs"]
mod reprint;

/// A folder with a `pki` in it, as a configuration finds it.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        pki::make(&folder.path().join("pki"));
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("doorward.toml")
    }

    /// Writes the configuration down and loads it.
    fn load(&self, text: &str) -> Result<Config, ConfigErrors> {
        fs::write(self.file(), text).expect("a configuration");
        load(&self.file())
    }

    /// What was said, with the folder of this run called by one name.
    fn said(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "/etc/doorward")
    }
}

/// The folder of the configurations of a kind.
fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind)
}

/// The names, without their ending, of the files of a folder that have that ending.
fn names(folder: &Path, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let named = entries.filter(|path| path.extension().is_some_and(|extension| extension == ending));
    named.map(|path| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned()).collect()
}

/// Compares what `say` says about every configuration of a kind with what it should say.
fn compare(kind: &str, at_least: usize, say: impl Fn(&Home, &str) -> Result<String, String>) {
    let (folder, home) = (folder(kind), Home::new());
    let configurations = names(&folder, "toml");
    assert!(configurations.len() >= at_least, "only {} configurations in {}", configurations.len(), folder.display());
    let bless = std::env::var_os("DOORWARD_BLESS").is_some();
    let mut failures = String::new();
    for name in &configurations {
        let text = fs::read_to_string(folder.join(name).with_added_extension("toml")).expect(name);
        let expected_file = folder.join(name).with_added_extension("expected");
        let said = match say(&home, &text) {
            Ok(said) => home.said(&said),
            Err(failure) => {
                write!(failures, "== {kind}/{name}.toml\n{failure}\n\n").expect("a string");
                continue;
            }
        };
        if bless {
            fs::write(&expected_file, &said).expect(name);
            continue;
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_else(|error| format!("({error})"));
        if expected != said {
            write!(failures, "== {kind}/{name}.toml\n-- expected:\n{expected}\n-- said:\n{said}\n\n")
                .expect("a string");
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}if this is what should be said: DOORWARD_BLESS=1 cargo test --test config_errors, and read the \
         difference"
    );
    let expectations = names(&folder, "expected");
    assert_eq!(configurations, expectations, "every .toml needs its .expected and the other way round");
}

#[test]
fn wrong_configurations_are_refused_with_expected_text() {
    compare("wrong", 45, |home, text| match home.load(text) {
        Ok(config) => Err(format!("was taken, with these warnings: {:#?}", config.warnings)),
        Err(errors) => Ok(errors.to_string()),
    });
}

#[test]
fn odd_configurations_load_with_expected_warnings() {
    compare("warned", 20, |home, text| match home.load(text) {
        Ok(config) if config.warnings.is_empty() => Err("was taken without a warning".to_owned()),
        Ok(config) => {
            let lines = config.warnings.iter().map(|warning| format!("{}: {}\n", warning.key, warning.message));
            Ok(lines.collect())
        }
        Err(errors) => Err(format!("was refused:\n{errors}")),
    });
}

/// A configuration that is right.
fn right(home: &Home, name: &str) -> Config {
    let text = fs::read_to_string(folder("right").join(name)).expect(name);
    home.load(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn right_revocation_lists_load_without_a_warning() {
    let home = Home::new();
    for name in names(&folder("right"), "toml").iter().filter(|name| name.starts_with("revocation-")) {
        let config = right(&home, &format!("{name}.toml"));
        assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
    }
}

#[test]
fn configuration_printed_by_another_program_is_the_same() {
    let home = Home::new();
    for kind in ["right", "warned"] {
        let folder = folder(kind);
        for name in names(&folder, "toml") {
            let text = fs::read_to_string(folder.join(&name).with_added_extension("toml")).expect(&name);
            // The file is compared, too: whether it is watched depends on it.
            fs::write(home.file(), &text).expect("a configuration");
            reprint::parse_twice(&text, &home.file()).unwrap_or_else(|errors| panic!("{kind}/{name}: {errors}"));
        }
    }
}

fn terminate(config: &Config, route: usize) -> &Terminate {
    match &config.routes[route].mode {
        RouteMode::Terminate(terminate) => terminate,
        RouteMode::Passthrough => panic!("route {route} is a passthrough route"),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn minimal_configuration_has_the_defaults() {
    let home = Home::new();
    let config = right(&home, "minimal.toml");
    assert_eq!(config.warnings, []);
    assert_eq!(config.file, home.file());
    assert_eq!(config.kernel_tls, KernelTls::Off);
    assert_eq!(config.strength, CipherStrength::Bits128);
    assert_eq!(config.log, Log { output: LogOutput::Stdout, format: LogFormat::Text, sampling: true });
    assert_eq!(config.metrics.address, Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180)));
    assert_eq!(config.control.socket, ControlSocket::Off);
    assert_eq!(config.sandbox, SandboxMode::Auto);
    assert_eq!(config.public_port, 443);
    assert_eq!(config.expectations, []);
    let folder = StateFolder::Auto { name: "history", beside: home.folder.path().join("history") };
    assert_eq!(config.history, History { folder: Some(folder), days: 90 });
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.limits, Limits::default());
    let listener = &config.listeners[0];
    assert!(listener.proxy_protocol_from.is_empty() && listener.allow_sources.is_empty());
    assert!(listener.deny_sources.is_empty());
    let route = &config.routes[0];
    assert_eq!(route.send_proxy_protocol, SendProxyProtocol::Off);
    let terminate = terminate(&config, 0);
    assert_eq!(terminate.client_auth.mode, ClientAuthMode::RequireAndVerify);
    assert_eq!(terminate.client_auth.expired_revocation_list, ExpiredRevocationList::Deny);
    assert!(terminate.client_auth.revocation_lists.is_empty());
    assert!(terminate.client_auth.deny.fingerprints.is_empty() && terminate.client_auth.deny.serials.is_empty());
    assert!(terminate.application_protocols.is_empty() && terminate.starttls.is_none());
}

#[test]
fn every_value_is_read_as_written() {
    let home = Home::new();
    let pki = home.folder.path().join("pki");
    let config = right(&home, "sample.toml");

    assert_eq!(config.kernel_tls, KernelTls::Auto);
    assert_eq!(config.strength, CipherStrength::Bits256);
    let output = LogOutput::File(home.folder.path().join("doorward.log"));
    assert_eq!(config.log, Log { output, format: LogFormat::Json, sampling: false });
    assert_eq!(config.metrics.address, Some("127.0.0.1:9181".parse().expect("an address")));
    assert_eq!(config.sandbox, SandboxMode::Require);
    let webhook = config.notify.webhook.as_ref().expect("a webhook");
    assert_eq!((webhook.url.to_string().as_str(), webhook.format), ("http://192.168.1.10:8080", Format::Ntfy));
    assert_eq!(config.notify.command.as_deref().map(<[String]>::len), Some(3));
    assert_eq!(config.notify.events, [NoticeEvent::Impostor, NoticeEvent::Expiring].into());
    let folder = StateFolder::At(home.folder.path().join("kept/history"));
    assert_eq!(config.history, History { folder: Some(folder), days: 30 });
    assert_eq!(config.control.socket, ControlSocket::At(home.folder.path().join("run/control.sock")));
    let listener = &config.listeners[0];
    assert_eq!(listener.name.as_str(), "public");
    assert_eq!(listener.address, "[::]:8443".parse().expect("an address"));
    assert_eq!(texts(&listener.proxy_protocol_from), ["192.168.1.1/32"]);
    assert_eq!(texts(&listener.allow_sources), ["0.0.0.0/0", "192.168.1.0/24"]);
    assert_eq!(texts(&listener.deny_sources), ["203.0.113.0/24", "2001:db8::5/128"]);

    assert_eq!(config.public_port, 4443);
    let expected: Vec<_> =
        config.expectations.iter().map(|one| (one.key.as_str(), one.route.as_str(), one.allowed)).collect();
    assert_eq!(expected, [("expect[1]", "ssh", false), ("expect[2]", "nas", true)]);
    assert_eq!(config.expectations[0].clients, ExpectedClients::Device(Selector::AnyName("carol-phone".to_owned())));
    let ExpectedClients::Group { name, members } = &config.expectations[1].clients else { panic!("a group") };
    assert_eq!((name.as_str(), members.len()), ("family", 2));

    let timeouts = &config.timeouts;
    assert_eq!(timeouts.client_hello, Duration::from_millis(500));
    assert_eq!((timeouts.handshake, timeouts.dial), (seconds(11), seconds(6)));
    assert_eq!((timeouts.idle, timeouts.lifetime), (seconds(3 * 3600), Some(seconds(24 * 3600))));
    assert_eq!((timeouts.half_close, timeouts.drain), (seconds(120), seconds(31)));
    assert_eq!((config.limits.connections, config.limits.handshakes), (20_000, 256));
    assert_eq!(config.limits.connections_per_source, None);
    assert_eq!(config.limits.connection_rate_per_source, Some(Rate { count: 600, per: seconds(60) }));
    assert_eq!((config.limits.penalties, config.limits.banned), (false, Banned::Drop));
    assert_eq!(config.limits.source_prefixes, Prefixes { v4: 24, v6: 56 });

    let [nas, ssh, mail] = config.routes.as_slice() else { panic!("three routes") };
    assert_eq!([&nas.name, &ssh.name, &mail.name].map(doorward::model::names::Name::as_str), ["nas", "ssh", "mail"]);
    let kinds = [nas, ssh, mail].map(|route| route.kind);
    assert_eq!(kinds, [ServiceKind::Other, ServiceKind::Ssh, ServiceKind::Other], "one is given");
    assert_eq!(texts(&nas.server_names), ["nas.home.example"]);
    assert_eq!(nas.backends, [Backend::Address("192.168.1.10:5666".parse().expect("an address"))]);
    assert!(nas.wake.as_ref().is_some_and(|wake| wake.timeout == seconds(120) && wake.broadcast.port() == 9));
    assert_eq!(terminate(&config, 0).allow, Allow { any: true, ..Allow::default() });
    assert_eq!(terminate(&config, 0).application_protocols, [b"http/1.1".to_vec()]);
    assert_eq!(terminate(&config, 0).certificate.chain_file, pki.join("server.pem"));
    assert_eq!(terminate(&config, 0).certificate.certified_key.cert.len(), 2);
    let default = &terminate(&config, 0).client_auth;
    assert_eq!(default.mode, ClientAuthMode::RequireAndVerify);
    assert_eq!(default.trust[0].file, pki.join("clients.pem"));
    assert_eq!(default.revocation_lists[0].file, pki.join("clients.crl"));
    assert_eq!(default.revocation_lists[0].next_update, Some(4_733_510_400), "2120-01-01");
    assert_eq!(default.expired_revocation_list, ExpiredRevocationList::Deny);
    assert_eq!(default.deny.fingerprints, [Sha256::of(b"x")].into());
    assert_eq!(default.deny.serials, [Serial::from_be_bytes(&[0x4a, 0x6f])].into());

    assert_eq!(texts(&ssh.server_names), ["ssh.home.example", "ssh.home.example.org"]);
    let socket = format!("unix:{}", home.folder.path().join("run/ssh.sock").display());
    assert_eq!(texts(&ssh.backends), ["127.0.0.1:22", "[fd00::22]:22", "nas.local:22", &socket]);
    assert_eq!(ssh.send_proxy_protocol, SendProxyProtocol::V2Tls { certificate: false });
    let selectors = [
        Selector::AnyName("alice-phone".to_owned()),
        Selector::Email("bob@home.example".to_owned()),
        Selector::Dns("phone.carol".to_owned()),
    ];
    assert_eq!(terminate(&config, 1).allow, Allow { selectors: selectors.into(), ..Allow::default() });
    assert_eq!(terminate(&config, 1).certificate.chain_file, pki.join("wildcard.pem"));
    let own = &terminate(&config, 1).client_auth;
    assert!(default.announce_trust && !own.announce_trust, "its own");
    assert_eq!(own.mode, ClientAuthMode::VerifyIfGiven, "its own");
    assert_eq!(own.expired_revocation_list, ExpiredRevocationList::Warn, "its own");
    assert_eq!(
        (default.revocation_check, own.revocation_check),
        (RevocationCheck::Chain, RevocationCheck::Leaf),
        "its own"
    );
    assert_eq!(own.deny.serials, default.deny.serials, "what the default denies is denied on every route");
    assert_eq!(own.trust[0].file, pki.join("clients.pem"), "of the default");
    assert_eq!(own.revocation_lists.len(), 1, "of the default");

    assert!(matches!(mail.mode, RouteMode::Passthrough));
    assert_eq!(texts(&mail.server_names), ["mail.home.example", "*.mail.home.example"]);
    assert_eq!(mail.send_proxy_protocol, SendProxyProtocol::V1);

    let warned: Vec<&str> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    let expected = ["route[2] \"ssh\".server_names", "route[2] \"ssh\".allow", "log.output"];
    assert_eq!(warned, expected, "{:#?}", config.warnings);
}

#[test]
fn route_of_a_database_is_read_as_written() {
    let home = Home::new();
    let config = right(&home, "database.toml");
    assert_eq!(config.warnings, []);
    assert_eq!([0, 1].map(|route| terminate(&config, route).starttls), [Some(Starttls::Postgres); 2]);
    assert_eq!(terminate(&config, 0).application_protocols, [b"postgresql".to_vec()], "by default");
    assert_eq!(terminate(&config, 1).application_protocols, [b"x".to_vec(), b"postgresql".to_vec()]);
    let sent = [SendProxyProtocol::V2Tls { certificate: true }, SendProxyProtocol::V2];
    assert_eq!([0, 1].map(|route| config.routes[route].send_proxy_protocol), sent);
}

#[test]
fn backend_tls_is_what_is_written() {
    let home = Home::new();
    let config = right(&home, "backend-tls.toml");
    assert!(config.warnings.is_empty(), "{:#?}", config.warnings);
    let tls: Vec<&BackendTls> = config.routes.iter().map(|route| route.backend_tls.as_deref().expect("TLS")).collect();
    let names = |tls: &BackendTls| tls.server_names.iter().map(|name| name.to_str().into_owned()).collect::<Vec<_>>();
    assert!(
        matches!(&tls[0].trust, BackendTrust::Certificates { own, authorities } if own.len() == 1 && authorities.is_empty())
    );
    assert_eq!((names(tls[0]), tls[0].header), (vec!["nas.local".to_owned()], HeaderPlace::Before));
    assert_eq!(tls[1].trust, BackendTrust::Fingerprint(Sha256([0x5a; 32])));
    assert_eq!((names(tls[1]), tls[1].header), (vec!["192.168.1.10".to_owned()], HeaderPlace::Inside));
    assert!(matches!(&tls[2].trust, BackendTrust::Certificates { authorities, .. } if authorities.len() == 1));
    assert_eq!(names(tls[2]), ["nas.local", "192.168.1.10"]);
    assert!(tls[2].certificate.is_some());
    let pki = home.folder.path().join("pki");
    assert_eq!(tls[2].files, ["clients.pem", "wildcard.pem", "wildcard-key.pem"].map(|name| pki.join(name)));
}

/// The sample of the design.
#[test]
fn sample_of_the_design_loads() {
    let home = Home::new();
    let config = right(&home, "design.toml");
    assert_eq!(config.warnings, []);
    // Every limit and timeout in it is written as the default is.
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.metrics.address, Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180)));
    assert_eq!(config.control.socket, ControlSocket::Auto(home.folder.path().join("control.sock")));
    let family = [Selector::AnyName("alice-phone".to_owned()), Selector::Email("bob@home.example".to_owned())].to_vec();
    assert_eq!(terminate(&config, 0).allow, Allow { any: true, ..Allow::default() });
    assert_eq!(terminate(&config, 1).allow, Allow { selectors: family, ..Allow::default() });
    assert_eq!(terminate(&config, 0).client_auth.deny.fingerprints, [Sha256::of(b"x")].into());
    assert!(matches!(config.routes[2].mode, RouteMode::Passthrough));
}

#[test]
fn routes_share_default_certificate_and_client_auth() {
    let home = Home::new();
    let text = fs::read_to_string(folder("right").join("minimal.toml")).expect("the minimal configuration");
    let second = "[[route]]\nname = \"ssh\"\nserver_names = [\"ssh.home.example\"]\nbackends = \
                  [\"127.0.0.1:22\"]\nallow = [\"any\"]\n";
    let config = home.load(&format!("{text}\n{second}")).unwrap_or_else(|errors| panic!("{errors}"));
    let (first, second) = (terminate(&config, 0), terminate(&config, 1));
    assert!(std::sync::Arc::ptr_eq(&first.certificate, &second.certificate));
    assert!(std::sync::Arc::ptr_eq(&first.client_auth, &second.client_auth));
}

#[test]
fn unreadable_configuration_says_why() {
    let home = Home::new();
    let say = |path: &Path| load(path).map(|_| ()).expect_err("no configuration").to_string();
    assert!(say(&home.folder.path().join("nothing.toml")).contains("there is no file"));
    assert!(say(home.folder.path()).contains("is a folder"));
    fs::write(home.file(), b"kernel_tls = \"auto\"\n# M\xfcller\n").expect("a file");
    assert!(say(&home.file()).contains("line 2 holds bytes that are not UTF-8"));
    fs::write(home.file(), vec![b'#'; 2 * 1024 * 1024]).expect("a file");
    assert!(say(&home.file()).contains("larger than 1 MiB"));
}

#[test]
fn byte_order_mark_and_carriage_returns_are_ignored() {
    let home = Home::new();
    let text = fs::read_to_string(folder("right").join("minimal.toml")).expect("the minimal configuration");
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert!(home.load(&windows).is_ok_and(|config| config.warnings.is_empty()));
}

/// Nesting is where a reader that calls itself runs out of stack.
#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let home = Home::new();
    for text in [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{b = ".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
    ] {
        assert!(parse(&text, &home.file()).is_err());
    }
}

/// Whatever is done to a configuration, an answer comes back, and a refusal says something.
#[test]
fn mutated_configurations_never_panic() {
    let home = Home::new();
    let sample = fs::read(folder("right").join("sample.toml")).expect("the sample");
    let (mut taken, mut refused) = (0_u32, 0_u32);
    let mut feed = |bytes: &[u8]| match parse(&String::from_utf8_lossy(bytes), &home.file()) {
        Ok(_) => taken += 1,
        Err(errors) => {
            refused += 1;
            assert!(errors.iter().count() > 0);
            for error in &errors {
                assert!(!error.message.is_empty() && !error.remedy.is_empty(), "{error}");
                assert!(!error.message.contains("mistake of doorward"), "{error}\n{}", String::from_utf8_lossy(bytes));
            }
        }
    };
    for end in 0..=sample.len() {
        feed(&sample[..end]);
    }
    // xorshift64 (Marsaglia 2003) with a fixed seed: the same rounds every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(bound).expect("a bound")).expect("below the bound")
    };
    const INTERESTING: &[u8] = b"\0\n\r\t \"'#.,=[]{}\\-+:/*09azAZ_\x7f\x80\xc3\xff";
    for _ in 0..3_000 {
        let mut bytes = sample.clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at] = INTERESTING[below(INTERESTING.len())],
                2 => drop(bytes.drain(at..bytes.len().min(at + 1 + below(40)))),
                _ => {
                    let from = below(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + 1 + below(40))].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
            }
        }
        feed(&bytes);
    }
    assert!(taken > 100 && refused > 1_000, "the rounds have to reach both: {taken} taken, {refused} refused");
}
