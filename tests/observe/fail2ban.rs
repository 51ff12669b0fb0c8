//! Debian's fail2ban finds strangers, and only strangers, in the log of a live gate and bans them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::common::process::{Daemon, Finished, run, run_with_input, tool, wait_until};
use crate::deploy;
use crate::logged::{FORGER, FORMATS, FRIEND, Logged, STRANGER, STRANGERS, VICTIM};

/// How often each address is found, in a file or a journal.
#[track_caller]
fn found(log: &str, mode: &str) -> BTreeMap<String, usize> {
    found_by(log, &format!("{}[mode={mode}]", deploy("fail2ban/filter.d/doorward.conf").display()))
}

#[track_caller]
fn found_by(log: &str, filter: &str) -> BTreeMap<String, usize> {
    let result: Finished = run(tool("fail2ban-regex", "fail2ban").args(["--out", "ip", log, filter]));
    let mut found = BTreeMap::new();
    for address in result.success().text().lines().filter(|line| !line.is_empty()) {
        *found.entry(address.to_owned()).or_insert(0) += 1;
    }
    found
}

#[test]
fn strangers_are_found_in_both_formats_and_nobody_else() {
    for format in FORMATS {
        let logged = Logged::start(format);
        logged.friends_come();
        logged.strangers_come();
        let log = logged.log().display().to_string();
        let only_strangers = BTreeMap::from([(STRANGER.to_owned(), STRANGERS)]);
        assert_eq!(found(&log, "normal"), only_strangers, "{format}");
        // A browser without its certificate counts there.
        let aggressive = BTreeMap::from([(STRANGER.to_owned(), STRANGERS), (FRIEND.to_owned(), 12)]);
        assert_eq!(found(&log, "aggressive"), aggressive, "{format}");

        // The same lines in a journal, where the host and the program stand before them.
        let mut journal = String::new();
        for (number, line) in std::fs::read_to_string(logged.log()).unwrap().lines().enumerate() {
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            writeln!(
                journal,
                "__REALTIME_TIMESTAMP={now}{number:06}\n_HOSTNAME=home\n_PID=7\nSYSLOG_IDENTIFIER=doorward\n\
                 _SYSTEMD_UNIT=doorward.service\nPRIORITY=6\nMESSAGE={line}\n"
            )
            .unwrap();
        }
        let file = logged.folder().join("doorward.journal");
        let mut remote = tool("systemd-journal-remote", "systemd-journal-remote");
        run_with_input(remote.arg("--output").arg(&file).arg("-"), journal.as_bytes()).success();
        assert_eq!(
            found(&format!("systemd-journal[journalfiles={}]", file.display()), "normal"),
            only_strangers,
            "{format}"
        );
    }
}

#[test]
fn nobody_puts_another_address_into_the_log() {
    for format in FORMATS {
        let logged = Logged::start(format);
        let count = logged.forgers_come();
        let log = std::fs::read_to_string(logged.log()).unwrap();
        assert!(log.matches(VICTIM).count() >= count / 3, "the log does not repeat what was sent: {log}");
        // A filter that looks for an address anywhere falls for it.
        let naive = found_by(&logged.log().display().to_string(), r"^.*\D<ADDR>:1\D");
        assert!(naive.contains_key(VICTIM), "{format} {naive:?}");
        for mode in ["normal", "aggressive"] {
            let found = found(&logged.log().display().to_string(), mode);
            assert_eq!(found.keys().collect::<Vec<_>>(), [FORGER], "{format} {mode}");
            assert!(found[FORGER] <= count, "a line counted twice: {format} {found:?}");
        }
    }
}

#[test]
fn fail2ban_bans_a_stranger_and_no_device() {
    let logged = Logged::start("text");
    let folder = logged.folder().join("fail2ban");
    let (socket, banned) = (folder.join("socket"), folder.join("banned"));
    configure(&folder, &logged.log(), &banned);
    let mut server = tool("fail2ban-server", "fail2ban");
    server.arg("-f").arg("-c").arg(&folder).arg("-s").arg(&socket).arg("-p").arg(folder.join("pid")).arg("start");
    let server_log = folder.join("log");
    let _server = Daemon::start_until(&mut server, "its jail watches the log", || {
        std::fs::read_to_string(&server_log).is_ok_and(|log| log.contains("Jail 'doorward' started"))
    });
    logged.friends_come();
    logged.strangers_come();
    wait_until("the stranger is banned", || {
        std::fs::read_to_string(&banned).ok().filter(|text| text.lines().any(|line| line == STRANGER))
    });
    let mut client = tool("fail2ban-client", "fail2ban");
    let status =
        run(client.arg("-c").arg(&folder).arg("-s").arg(&socket).args(["status", "doorward"])).success().text();
    assert!(status.contains(&format!("Banned IP list:\t{STRANGER}\n")), "{status}");
    assert!(!status.contains(FRIEND), "{status}");
    assert_eq!(std::fs::read_to_string(&banned).unwrap(), format!("{STRANGER}\n"));
}

/// The filter and the jail as they are shipped, but for where the log is, who is spared, and what a ban does.
fn configure(folder: &Path, log: &Path, banned: &Path) {
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    write(
        "fail2ban.conf",
        &format!(
            "[Definition]\nloglevel = INFO\nlogtarget = {0}/log\nsyslogsocket = auto\nsocket = {0}/socket\n\
             pidfile = {0}/pid\ndbfile = {0}/db\ndbpurgeage = 1d\ndbmaxmatches = 10\n",
            folder.display()
        ),
    );
    write("action.d/note.conf", "[Definition]\nactionban = echo <ip> >> <file>\nactionunban =\n");
    write("filter.d/doorward.conf", &std::fs::read_to_string(deploy("fail2ban/filter.d/doorward.conf")).unwrap());
    write("jail.conf", &format!("[DEFAULT]\naction = note[file={}]\n", banned.display()));
    let jail = std::fs::read_to_string(deploy("fail2ban/jail.d/doorward.conf")).unwrap();
    let (backend, spared) = ("backend = systemd", "ignoreip = 127.0.0.0/8 ::1");
    assert!(jail.contains(backend) && jail.contains(spared));
    let backend_here = format!("backend = polling\nlogpath = {}", log.display());
    write("jail.d/doorward.conf", &jail.replace(backend, &backend_here).replace(spared, "ignoreip ="));
}
