//! The files that start `doorward forward` when a user logs in.

use std::path::{Path, PathBuf};

use plist::{Dictionary, Value};

/// A file that starts it, and what the user does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where the file belongs.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// The commands that start it now and at every login.
    pub start: Vec<String>,
    /// The same where an earlier file was replaced, by which it may run.
    pub restart: Vec<String>,
    /// The commands that undo that.
    pub stop: Vec<String>,
}

/// What launchd knows it by.
const LABEL: &str = "doorward.forward";

/// The service of a system, as `std::env::consts::OS` calls it; `None` if there is none for it.
pub fn service(system: &str, home: &Path, config: &Path, program: &Path, arguments: &[String]) -> Option<Service> {
    match system {
        "linux" => Some(systemd(config, program, arguments)),
        "macos" => launchd(home, program, arguments),
        _ => None,
    }
}

fn systemd(config: &Path, program: &Path, arguments: &[String]) -> Service {
    let path = config.join("systemd/user/doorward-forward.service");
    let program = program.display().to_string();
    let command: Vec<String> =
        std::iter::once(program.as_str()).chain(arguments.iter().map(String::as_str)).map(quoted).collect();
    let text = format!(
        "# Written by \"doorward forward --install\".\n\
         [Unit]\n\
         Description=Local ports of the services at home (doorward forward)\n\
         Documentation=man:doorward-forward(1)\n\
         \n\
         [Service]\n\
         ExecStart={}\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         NoNewPrivileges=yes\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        command.join(" ")
    );
    let start = ["systemctl --user daemon-reload", "systemctl --user enable --now doorward-forward"].map(str::to_owned);
    let restart = "systemctl --user restart doorward-forward".to_owned();
    Service {
        restart: start.iter().cloned().chain([restart]).collect(),
        start: start.to_vec(),
        stop: vec!["systemctl --user disable --now doorward-forward".to_owned(), format!("rm {}", path.display())],
        path,
        text,
    }
}

/// A word of ExecStart= (systemd.service(5), "Command lines"): `%` and `$` are special there.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

fn launchd(home: &Path, program: &Path, arguments: &[String]) -> Option<Service> {
    let path = home.join(format!("Library/LaunchAgents/{LABEL}.plist"));
    let command = std::iter::once(program.display().to_string()).chain(arguments.iter().cloned());
    let log = home.join("Library/Logs/doorward-forward.log").display().to_string();
    let mut job = Dictionary::new();
    job.insert("Label".to_owned(), LABEL.into());
    job.insert("ProgramArguments".to_owned(), Value::Array(command.map(Value::String).collect()));
    job.insert("RunAtLoad".to_owned(), true.into());
    let mut keep = Dictionary::new();
    keep.insert("SuccessfulExit".to_owned(), false.into());
    job.insert("KeepAlive".to_owned(), keep.into());
    job.insert("StandardErrorPath".to_owned(), log.into());
    let mut text = Vec::new();
    Value::Dictionary(job).to_writer_xml(&mut text).ok()?;
    let shown = path.display();
    let start = format!("launchctl bootstrap gui/$(id -u) {shown}");
    let stop = format!("launchctl bootout gui/$(id -u) {shown}");
    Some(Service {
        restart: vec![stop.clone(), start.clone()],
        start: vec![start],
        stop: vec![stop, format!("rm {shown}")],
        text: String::from_utf8(text).ok()?,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(system: &str) -> Option<Service> {
        let arguments = ["forward", "ssh=2222", "a b%"].map(str::to_owned);
        let home = Path::new("/home/alice");
        service(system, home, &home.join(".config"), Path::new("/usr/bin/doorward"), &arguments)
    }

    #[test]
    fn systemd_starts_the_program_with_its_arguments() {
        let service = of("linux").unwrap();
        assert_eq!(service.path, Path::new("/home/alice/.config/systemd/user/doorward-forward.service"));
        assert!(
            service.text.contains("\nExecStart=/usr/bin/doorward forward ssh=2222 \"a b%%\"\n"),
            "{}",
            service.text
        );
        assert_eq!(quoted("a\"b\\$c"), r#""a\"b\\$$c""#);
    }

    #[test]
    fn launchd_starts_the_program_with_its_arguments() {
        let service = of("macos").unwrap();
        assert_eq!(service.path, Path::new("/home/alice/Library/LaunchAgents/doorward.forward.plist"));
        let job = Value::from_reader_xml(service.text.as_bytes()).unwrap().into_dictionary().unwrap();
        let command: Vec<_> = job["ProgramArguments"].as_array().unwrap().iter().filter_map(Value::as_string).collect();
        assert_eq!(command, ["/usr/bin/doorward", "forward", "ssh=2222", "a b%"]);
        assert!(of("windows").is_none());
    }
}
