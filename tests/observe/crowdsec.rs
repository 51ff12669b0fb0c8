//! Debian's CrowdSec, with its local API and without the one on the internet, decides about strangers in the log of a
//! live gate and about no other client.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use time::OffsetDateTime;

use crate::common::process::{Daemon, own_loopback, run, tool, wait_until};
use crate::deploy;
use crate::logged::{FORGER, FORMATS, Logged, STRANGER};

/// The stranger's address in the journal's copy of its lines.
const IN_JOURNAL: &str = "127.0.0.14";

struct CrowdSec {
    config: PathBuf,
    _daemon: Daemon,
}

impl CrowdSec {
    /// Starts it on a log of the gate's and on a file as journalctl would write it.
    #[track_caller]
    fn watch(folder: &Path, log: &Path, journal: &Path) -> Self {
        let address = SocketAddrV4::new(own_loopback(), 8080);
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let copy = |from: &Path, to: &str| {
            write(to, &std::fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
        };
        // What is ours.
        for file in ["parsers/s01-parse/doorward-logs.yaml", "scenarios/doorward-strangers.yaml"] {
            copy(&deploy("crowdsec").join(file), &format!("etc/{file}"));
        }
        // What CrowdSec brings.
        let hub = Path::new("/usr/share/crowdsec/hub/parsers");
        for (stage, file) in [("s00-raw", "syslog-logs.yaml"), ("s02-enrich", "dateparse-enrich.yaml")] {
            copy(&hub.join(stage).join("crowdsecurity").join(file), &format!("etc/parsers/{stage}/{file}"));
        }
        for pattern in std::fs::read_dir("/etc/crowdsec/patterns").unwrap() {
            let pattern = pattern.unwrap();
            copy(&pattern.path(), &format!("etc/patterns/{}", pattern.file_name().display()));
        }
        copy(Path::new("/etc/crowdsec/profiles.yaml"), "etc/profiles.yaml");
        for empty in ["data", "hub/parsers", "hub/scenarios", "etc/postoverflows", "etc/collections"] {
            std::fs::create_dir_all(folder.join(empty)).unwrap();
        }
        write("hub/.index.json", r#"{"parsers":{},"postoverflows":{},"scenarios":{},"collections":{}}"#);
        write("etc/simulation.yaml", "simulation: false\n");
        write("etc/client.yaml", &format!("url: http://{address}\n"));
        write(
            "etc/acquis.yaml",
            &format!(
                "filename: {}\nlabels:\n  type: doorward\n---\nfilename: {}\nlabels:\n  type: syslog\n",
                log.display(),
                journal.display()
            ),
        );
        let here = folder.display();
        write(
            "config.yaml",
            &format!(
                "common: {{daemonize: false, log_media: stdout, log_level: info, working_dir: {here}}}\n\
                 config_paths: {{config_dir: {here}/etc, data_dir: {here}/data, hub_dir: {here}/hub,\n  \
                   simulation_path: {here}/etc/simulation.yaml, index_path: {here}/hub/.index.json,\n  \
                   notification_dir: {here}/etc, plugin_dir: {here}/etc}}\n\
                 crowdsec_service: {{acquisition_path: {here}/etc/acquis.yaml, parser_routines: 1}}\n\
                 db_config: {{type: sqlite, db_path: {here}/data/crowdsec.db}}\n\
                 prometheus: {{enabled: false}}\n\
                 api:\n  client: {{credentials_path: {here}/etc/client.yaml}}\n  \
                   server: {{listen_uri: \"{address}\", profiles_path: {here}/etc/profiles.yaml}}\n"
            ),
        );
        let config = folder.join("config.yaml");
        let mut machine = cscli(&config);
        machine
            .args(["machines", "add", "test", "--password", "test", "--force", "-f"])
            .arg(folder.join("etc/client.yaml"));
        run(&mut machine).success();
        let daemon = Daemon::start(tool("crowdsec", "crowdsec").arg("-c").arg(&config), address);
        wait_until("CrowdSec reads the logs", || daemon.output().contains("Starting processing data").then_some(()));
        Self { config, _daemon: daemon }
    }

    /// The addresses it has decided to ban.
    fn banned(&self) -> BTreeSet<String> {
        let text = run(cscli(&self.config).args(["decisions", "list", "--output", "json"])).success().text();
        let alerts: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        // Nothing yet is null.
        let decisions =
            alerts.as_array().into_iter().flatten().filter_map(|alert| alert["decisions"].as_array()).flatten();
        decisions
            .filter(|decision| decision["type"] == "ban")
            .map(|ban| ban["value"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn cscli(config: &Path) -> Command {
    let mut cscli = tool("cscli", "crowdsec");
    cscli.arg("-c").arg(config);
    cscli
}

#[test]
fn crowdsec_bans_strangers_in_both_formats_and_nobody_else() {
    for format in FORMATS {
        let logged = Logged::start(format);
        let journal = logged.folder().join("journal.log");
        std::fs::write(&journal, "").unwrap();
        let crowdsec = CrowdSec::watch(&logged.folder().join("crowdsec"), &logged.log(), &journal);
        logged.friends_come();
        logged.forgers_come();
        logged.strangers_come();

        let stamp =
            time::macros::format_description!("[month repr:short] [day padding:space] [hour]:[minute]:[second]");
        let stamp = OffsetDateTime::now_utc().format(stamp).unwrap();
        let mut copy = String::new();
        let log = std::fs::read_to_string(logged.log()).unwrap();
        for line in log.lines().filter(|line| line.contains(STRANGER)) {
            writeln!(copy, "{stamp} home doorward[7]: {}", line.replace(STRANGER, IN_JOURNAL)).unwrap();
        }
        std::fs::write(&journal, copy).unwrap();

        // Lines about devices and victims are in the log before those that the stranger is banned for.
        let expected = BTreeSet::from([STRANGER, FORGER, IN_JOURNAL].map(str::to_owned));
        wait_until(&format!("{format}: three are banned"), || expected.is_subset(&crowdsec.banned()).then_some(()));
        assert_eq!(crowdsec.banned(), expected, "{format}");
    }
}
