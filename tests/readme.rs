//! README.md says what the program does: its tables and samples are compared with the code, both ways.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use doorward::config;
use doorward::config::checked::Config;
use doorward::model::close::CloseReason;
use doorward::model::rejection::Reason;
use doorward::telemetry::log::{Certificate, Durations, Event, LeftOutCause, Tls, Verdict};
use doorward::telemetry::names::{self, Kind};

use common::backend::Backend;
use common::gate::{Gate, LOCAL};
use common::pki::{Authority, Certified, TestPki, days_from_now};
use common::process::{run, tool};

const README: &str = include_str!("../README.md");

/// The rows of the table whose first column has this heading, cell by cell.
#[track_caller]
fn table(first_heading: &str) -> Vec<Vec<String>> {
    let heading = format!("| {first_heading} |");
    let mut lines = README.lines().skip_while(|line| !line.starts_with(&heading));
    assert!(lines.next().is_some(), "the README has no table that starts with {first_heading:?}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The word in a cell: `` `word` `` without its ticks.
fn word(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// A fenced block: its language, its text, and the line before it.
struct Block {
    language: &'static str,
    text: String,
    before: &'static str,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let text = lines.map(|line| format!("{line}\n")).collect();
            blocks.push(Block { language, text, before });
        }
        before = line;
    }
    blocks
}

/// What a `doorward` command writes to stdout.
fn doorward(arguments: &[&str]) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments)).success().text()
}

/// The commands that `--help` names.
fn commands() -> BTreeSet<String> {
    let help = doorward(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").map(str::to_owned).collect()
}

#[test]
fn every_reason_stands_in_its_table_as_it_is() {
    let rows: Vec<[String; 4]> =
        table("stage").iter().map(|row| [0, 1, 2, 3].map(|column| word(&row[column]).to_owned())).collect();
    let reasons: Vec<[String; 4]> = Reason::ALL
        .iter()
        .map(|reason| {
            let alert = reason.alert().map_or_else(|| "–".to_owned(), |alert| alert.to_string());
            [reason.stage().label().to_owned(), reason.label().to_owned(), reason.side().label().to_owned(), alert]
        })
        .collect();
    assert_eq!(rows, reasons);
}

#[test]
fn every_reason_for_a_close_stands_in_its_table() {
    let rows = table("reason");
    let rows: Vec<&str> = rows.iter().map(|row| word(&row[0])).collect();
    let reasons: Vec<&str> = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(rows, reasons);
}

#[test]
fn every_metric_stands_in_its_table_with_its_type_and_labels() {
    let pki = TestPki::new();
    let list = pki.clients.revocation_list(&[], days_from_now(-1), days_from_now(1));
    let list = pki.write("clients.crl", list);
    let client_auth = format!("{}revocation_lists = [{list:?}]\n", pki.config());
    let backend = Backend::echo();
    let gate = Gate::start(&format!(
        "{LOCAL}{client_auth}\n[[route]]\nname = \"nas\"\nserver_names = [\"home.example\"]\nbackends = [\"{}\"]\n\
         allow = [\"any\"]\n",
        backend.address()
    ));
    let (_, scrape) = gate.get("/metrics");

    let mut live: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            live.insert(name, (kind, BTreeSet::new()));
        } else if let Some((series, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let name = series.strip_suffix(end)?;
                live.contains_key(name).then_some(name)
            });
            let (_, labels) = live.get_mut(name.unwrap_or(series)).unwrap_or_else(|| panic!("no type: {line}"));
            let named = rest.split_once('}').unwrap().0.split("\",").map(|label| label.split_once('=').unwrap().0);
            labels.extend(named.filter(|label| *label != "le"));
        }
    }
    let known: BTreeMap<&str, &str> = names::ALL
        .iter()
        .map(|(name, kind, _)| {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (*name, kind)
        })
        .collect();
    assert_eq!(live.iter().map(|(name, (kind, _))| (*name, *kind)).collect::<BTreeMap<_, _>>(), known);

    let rows = table("metric");
    let documented: BTreeMap<&str, (&str, BTreeSet<&str>)> =
        rows.iter().map(|row| (word(&row[0]), (row[1].as_str(), labels(&row[2])))).collect();
    assert_eq!(rows.len(), documented.len(), "a metric stands twice");
    assert_eq!(documented, live);
}

/// The labels in a cell: – is none.
fn labels(cell: &str) -> BTreeSet<&str> {
    cell.split(", ").map(word).filter(|label| *label != "–").collect()
}

/// The keys that `config/raw.rs` reads, as in `listener.name`.
fn keys() -> BTreeSet<String> {
    const RAW: &str = include_str!("../src/config/raw.rs");
    let section = |title: &str| {
        Some(match title {
            "Raw" => "",
            "RawListener" => "listener.",
            "RawCertificate" => "certificate.",
            "RawClientAuth" => "client_auth.",
            "RawRoute" => "route.",
            "RawTimeouts" => "timeouts.",
            "RawLimits" => "limits.",
            "RawControl" => "control.",
            "RawMetrics" => "metrics.",
            "RawLog" => "log.",
            _ => return None,
        })
    };
    let mut keys = BTreeSet::new();
    for (index, part) in RAW.split("\nimpl ").enumerate().skip(1) {
        let title = part.split_once(' ').unwrap().0;
        let section = section(title).unwrap_or_else(|| panic!("raw.rs has a part {index} that is new: {title}"));
        for call in ["table.text(\"", "table.texts(\"", "table.scalar(\"", "root.text(\"", "duration(\""] {
            keys.extend(part.split(call).skip(1).map(|rest| format!("{section}{}", rest.split_once('"').unwrap().0)));
        }
    }
    let own: Vec<String> = keys
        .iter()
        .filter(|key| key.starts_with("certificate.") || key.starts_with("client_auth."))
        .map(|key| format!("route.{key}"))
        .collect();
    keys.extend(own);
    assert!(keys.len() > 40, "raw.rs is not written any more as this test reads it: {keys:?}");
    keys
}

#[test]
fn every_key_stands_in_its_table() {
    let rows = table("key");
    let documented: Vec<&str> = rows.iter().map(|row| word(&row[0])).filter(|key| !key.starts_with('[')).collect();
    let unique: BTreeSet<String> = documented.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(documented.len(), unique.len(), "a key stands twice");
    assert_eq!(unique, keys());
}

/// A folder with the files that a configuration names.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a configuration and what it names, and loads it. Nothing may be wrong with it, nor odd.
    #[track_caller]
    fn load(&self, text: &str) -> Config {
        let document: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        self.write_files(&document, &server_names(&document));
        for route in document.get("route").and_then(toml::Value::as_array).into_iter().flatten() {
            self.write_files(route.as_table().unwrap(), &server_names(&document));
        }
        let file = self.0.path().join("doorward.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert!(config.warnings.is_empty(), "{:?}\n{text}", config.warnings);
        // Each time it is another file that was read.
        Config { seen: config::seen::Seen::default(), ..config }
    }

    /// The files of `[certificate]` and `[client_auth]` in this table.
    fn write_files(&self, table: &toml::Table, server_names: &[String]) {
        let write = |file: &toml::Value, contents: String| {
            use std::os::unix::fs::PermissionsExt;
            let file = self.0.path().join(file.as_str().unwrap());
            if file.exists() {
                return;
            }
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, contents).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        if let Some(certificate) = table.get("certificate") {
            let names: Vec<&str> = server_names.iter().map(String::as_str).collect();
            let issued = Authority::new("Servers").issue(Certified::for_servers(&names));
            if !self.0.path().join(certificate["key"].as_str().unwrap()).exists() {
                write(&certificate["chain"], issued.chain_pem());
                write(&certificate["key"], issued.key_pem());
            }
        }
        for file in table.get("client_auth").and_then(|table| table.get("trust")?.as_array()).into_iter().flatten() {
            write(file, Authority::new("Clients").pem().to_owned());
        }
    }
}

fn server_names(document: &toml::Table) -> Vec<String> {
    let routes = document.get("route").and_then(toml::Value::as_array).into_iter().flatten();
    let names = routes.flat_map(|route| route["server_names"].as_array().unwrap());
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What a fragment is put into.
const AROUND: &str = r#"
[[listener]]
name = "public"
address = "[::]:8443"

[certificate]
chain = "pki/server.pem"
key = "pki/server-key.pem"

[client_auth]
trust = ["pki/clients.pem"]

[[route]]
name = "nas"
server_names = ["nas.home.example"]
backends = ["192.168.1.10:5666"]
allow = ["any"]
"#;

#[test]
fn every_sample_configuration_is_right() {
    let samples: Vec<Block> = blocks().into_iter().filter(|block| block.language == "toml").collect();
    let (fragments, whole): (Vec<_>, Vec<_>) = samples.iter().partition(|block| block.before == "<!-- fragment -->");
    assert!(!fragments.is_empty() && !whole.is_empty());
    for block in whole {
        Home::new().load(&block.text);
    }
    for block in fragments {
        let mut document: toml::Table = AROUND.parse().unwrap();
        document.extend(block.text.parse::<toml::Table>().unwrap());
        Home::new().load(&document.to_string());
    }
}

#[test]
fn the_defaults_are_what_the_table_says() {
    let home = Home::new();
    let mut document: toml::Table = AROUND.parse().unwrap();
    let left_out = format!("{:?}", home.load(&document.to_string()));
    let mut given = 0;
    for row in table("key") {
        let Some(default) = row[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else {
            assert!(["required", "–"].contains(&row[1].as_str()) || row[1].starts_with("from "), "{row:?}");
            continue;
        };
        let key = word(&row[0]);
        let value = format!("x = {default}").parse::<toml::Table>().unwrap().remove("x").unwrap();
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap();
        let mut place = &mut document;
        for section in path {
            let entry = place.entry(section).or_insert_with(|| toml::Table::new().into());
            place = match entry {
                toml::Value::Array(tables) => tables[0].as_table_mut().unwrap(),
                table => table.as_table_mut().unwrap(),
            };
        }
        // Two lists cannot be given as they are left out: nobody trusted is refused, and an empty list of allowed sources
        // earns a warning. The latter means the same, and the former is what AROUND gives.
        if !["client_auth.trust", "listener.allow_sources"].contains(&key) {
            place.insert(last.to_owned(), value);
            given += 1;
        }
    }
    assert!(given > 20, "only {given} defaults");
    assert_eq!(format!("{:?}", home.load(&document.to_string())), left_out);
}

#[test]
fn the_commands_are_those_that_there_are() {
    let commands = commands();
    let documented: BTreeSet<String> =
        table("command").iter().map(|row| word(&row[0]).strip_prefix("doorward ").unwrap().to_owned()).collect();
    assert_eq!(documented, commands);
    // Whatever is to be typed exists, options included.
    for block in blocks().iter().filter(|block| ["sh", "text"].contains(&block.language)) {
        for line in block.text.lines() {
            let line = line.trim_start().trim_start_matches("$ ");
            let Some(arguments) =
                line.strip_prefix("doorward ").or_else(|| Some(line.split_once(" run --release -- ")?.1))
            else {
                continue;
            };
            let mut words = arguments.split_whitespace();
            let command = words.next().unwrap();
            assert!(commands.contains(command), "{line}");
            // `doorward ca` has commands of its own.
            let help = match command {
                "ca" => doorward(&[command, words.next().unwrap(), "--help"]),
                _ => doorward(&[command, "--help"]),
            };
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(&format!("{option} ")), "{option} in {line}");
            }
        }
    }
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let help = doorward(&["--help"]);
    let codes: Vec<String> =
        help.lines().skip_while(|line| *line != "Exit codes:").skip(1).map(|line| line.trim().to_owned()).collect();
    let documented: Vec<String> = table("exit code").iter().map(|row| format!("{}  {}", row[0], row[1])).collect();
    assert_eq!(documented, codes);
    use doorward::cli::exit;
    let constants = [
        exit::OK,
        exit::UNEXPECTED,
        exit::USAGE,
        exit::CONFIG,
        exit::START,
        exit::CUT,
        exit::REFUSED,
        exit::EXISTS,
        exit::NO_GATE,
        exit::NOT_FETCHED,
        exit::NOT_IN_FORCE,
    ];
    let numbers: Vec<u8> = codes.iter().map(|line| line.split_once("  ").unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, constants);
}

#[test]
fn the_fields_of_the_log_are_those_of_its_lines() {
    let full = Verdict {
        server_name: Some(String::new()),
        ja4: Some(String::new()),
        route: Some(String::new()),
        stage: Some(""),
        side: Some(""),
        detail: Some(String::new()),
        alert: Some(String::new()),
        certificate: Some(Certificate {
            name: String::new(),
            fingerprint: String::new(),
            serial: String::new(),
            issuer: String::new(),
            not_after: String::new(),
            verified: true,
        }),
        tls: Some(Tls { version: "", cipher_suite: String::new(), resumed: false }),
        backend: Some(String::new()),
        path: Some(""),
        bytes_to_backend: Some(0),
        bytes_to_client: Some(0),
        durations: Durations {
            admission: Some(0.0),
            hello: Some(0.0),
            handshake: Some(0.0),
            dial: Some(0.0),
            relay: Some(0.0),
        },
        ..Verdict::default()
    };
    let mut fields = fields_of(&serde_json::to_value(full).unwrap());
    fields.insert("time".to_owned());
    let rows = table("field");
    let documented: BTreeSet<String> = rows.iter().map(|row| word(&row[0]).to_owned()).collect();
    assert_eq!(rows.len(), documented.len(), "a field stands twice");
    assert_eq!(documented, fields);

    let left_out = Event::LeftOut {
        lines: 1,
        cause: LeftOutCause::Sampling,
        source: Some(String::new()),
        fingerprint: Some(String::new()),
        stage: Some(""),
        reason: Some(""),
    };
    let rows = table("field of `left_out`");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(left_out).unwrap());
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let told = || vec![String::new()];
    let done = Event::Reloaded {
        cause: "",
        sessions_kept: 0,
        sessions_cut: 0,
        warnings: told(),
        after_restart: told(),
        gained: told(),
        lost: told(),
    };
    let failed = Event::ReloadFailed { cause: "", errors: told(), in_force: told(), sessions_cut: Some(0) };
    let rows = table("field of a reload");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(done).unwrap());
    named.extend(fields_of(&serde_json::to_value(failed).unwrap()));
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let (issuer, number, sha256) = (String::new(), Some(String::new()), String::new());
    let list = Event::RevocationList { issuer, number, sha256, sessions_cut: 0 };
    let documented: BTreeSet<String> =
        table("field of a list").iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(list).unwrap());
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let samples: Vec<Block> = blocks().into_iter().filter(|block| block.language == "json").collect();
    let lines: Vec<&str> = samples.iter().flat_map(|block| block.text.lines()).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(fields_of(&line).is_subset(&fields), "{line}");
        let labels = [&line["stage"], &line["reason"]].map(|label| label.as_str().unwrap_or_default());
        let rejection = Reason::ALL.iter().any(|reason| [reason.stage().label(), reason.label()] == labels);
        let close = CloseReason::ALL.iter().any(|reason| ["", reason.label()] == labels);
        assert!(if line["event"] == "rejected" { rejection } else { close }, "{line}");
    }
}

/// The names of an object's fields, `outer.inner` for those of objects in it.
fn fields_of(value: &serde_json::Value) -> BTreeSet<String> {
    let object = value.as_object().unwrap();
    let names = object.iter().flat_map(|(name, value)| match value {
        serde_json::Value::Object(_) => fields_of(value).into_iter().map(|inner| format!("{name}.{inner}")).collect(),
        _ => vec![name.clone()],
    });
    names.collect()
}

#[test]
fn what_counters_and_log_lines_are_shown_as_exists() {
    for block in blocks() {
        for line in block.text.lines() {
            let line = line.trim_start().trim_start_matches("gate | ");
            if line.starts_with("doorward_") {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(names::ALL.iter().any(|(known, ..)| *known == name), "{line}");
            }
            let Some((_, verdict)) = line.split_once(" rejected ") else { continue };
            let shown = verdict.split(' ').find(|word| word.contains('/')).unwrap();
            assert!(Reason::ALL.iter().any(|reason| reason.to_string() == shown), "{line}");
        }
    }
    // And in the text: `stage/reason`.
    let stages: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.stage().label()).collect();
    for quoted in README.split('`').skip(1).step_by(2) {
        if quoted.split_once('/').is_some_and(|(stage, _)| stages.contains(stage)) {
            assert!(Reason::ALL.iter().any(|reason| reason.to_string() == quoted), "{quoted}");
        }
    }
}

#[test]
fn the_line_for_ssh_is_the_one_that_is_tested() {
    const TESTED: &str = include_str!("real/ssh.rs");
    let line = README.lines().find_map(|line| line.trim_start().strip_prefix("ProxyCommand ")).unwrap();
    // As a format string: with places for the address and for the files.
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let file = words.last().is_some_and(|option| ["-connect", "-CAfile", "-cert", "-key"].contains(option));
        words.push(if file { "{}" } else { word });
    }
    let line = words.join(" ");
    let (server, client) = line.split_once(" -cert ").unwrap();
    // Long strings are broken in the source, by a backslash and the indentation of the next line.
    let source: String = TESTED.split("\\\n").map(str::trim_start).collect();
    assert!(source.contains(&format!("\"{server}\"")), "{server}");
    assert!(source.contains(&format!(" -cert {client}\"")), "-cert {client}");
}

#[test]
fn a_device_gets_in_is_renewed_and_shut_out_as_described() {
    let block = blocks().into_iter().find(|block| block.before == "<!-- run in the folder of init -->").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut init = Command::new(env!("CARGO_BIN_EXE_doorward"));
    init.current_dir(&home).args(["init", "--domain", "home.example", "--device", "alice-phone"]);
    run(init.args(["--route", "nas=192.168.1.10:5666"])).success();
    let folder = Path::new(env!("CARGO_BIN_EXE_doorward")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let in_folder = |script: &str| {
        let mut bash = tool("bash", "bash");
        bash.current_dir(home.path().join("doorward")).env("PATH", &path).args(["-euc", script]);
        run(&mut bash)
    };
    let made = in_folder(&block.text).success();
    assert!(
        made.text().starts_with("yes: nas.home.example leads to route \"nas\", which admits carol-laptop"),
        "{made}"
    );
    assert!(made.text().contains("carol-laptop  device  renewed"), "{made}");
    // Both of its certificates are out, and nobody else.
    for (certificate, answer) in [
        ("devices/carol-laptop.pem", "no: certificate/revoked"),
        ("$(ls -t pki/issued/*.pem | sed -n 2p)", "no: certificate/revoked"),
        ("devices/alice-phone.pem", "yes: "),
    ] {
        let asked = in_folder(&format!("doorward explain --server-name nas.home.example --cert {certificate} || true"));
        assert!(asked.text().starts_with(answer), "{certificate}: {asked}");
    }
}
