//! The commands of the gate and its owner, and the options that they share.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use super::{
    ca, certificate, check, cut, demo, diagnostics, exit, explain, failed, history, init, install, notify, reload, run,
    sessions, share, status, upgrade, why,
};
use crate::ca::inventory::Store;
use crate::config;
use crate::config::checked::Config;
use crate::config::credentials::Credentials;
use crate::install::Installed;
use crate::reload::expectations;

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show on this machine how the gate admits a device and refuses other clients
    ///
    /// Starts a small web server as the NAS and a gate in front of it. A device with a certificate connects, then clients
    /// without a valid one. Nothing on this machine is changed, and other machines cannot connect. The gate runs until
    /// Ctrl-C, so that you can try it with curl.
    Demo(demo::DemoArgs),
    /// Create a folder with a configuration, its certificates and the first devices, ready to run
    ///
    /// Each device gets a file to import (.p12) and a password for it. The passwords are shown once and not stored. If one
    /// is lost, the same certificate and key are in the folder as .pem files.
    #[command(after_help = init::EXAMPLE)]
    Init(init::InitArgs),
    /// Install the gate as a service: its user, its files, and what starts it
    ///
    /// Run it as root. It copies what the gate needs from the folder that "doorward init" wrote to /etc/doorward. The keys of
    /// your authorities stay in that folder, where "doorward ca" finds them from any other one. A second run changes what has
    /// changed, and nothing else.
    #[command(after_help = install::EXAMPLE)]
    Install(install::InstallArgs),
    /// Certificates: issue, renew, revoke and inspect them
    Ca(ca::CaArgs),
    /// Show the certificate of the gate, renew it, or use another one
    ///
    /// Which certificate the gate shows, until when, and how the orders for a public one go. Asks the running gate; while none runs,
    /// the configuration and its files are read.
    #[command(after_help = certificate::EXAMPLE)]
    Certificate(certificate::CertificateArgs),
    /// Send a device its certificate over a link in the home network
    ///
    /// Shows a QR code and a password. The link has instructions for each kind of device and a new archive under that
    /// password, which is not stored. It is reachable in your home network only, for one device, expires after minutes,
    /// and ends with the command.
    #[command(after_help = share::EXAMPLE)]
    Share(share::ShareArgs),
    /// Run the gate
    ///
    /// Logs one line on stdout for every connection that was refused or has ended. SIGTERM or SIGINT (Ctrl-C) stops it:
    /// open connections have timeouts.drain (30 seconds) to end; a second signal cuts them at once. SIGHUP reloads, SIGUSR2
    /// upgrades.
    Run(run::RunArgs),
    /// Check the configuration, and show which clients may use which routes
    ///
    /// Reads the configuration and every file it names, prints every error and warning, and the table of access. It binds
    /// no port, so it can be used while the gate runs.
    Check(check::CheckArgs),
    /// Explain whether the gate would admit a certificate, without a connection
    ///
    /// Decides as the gate would decide now, and says what to do about a refusal. The exit code is 0 for yes and 6 for no.
    #[command(after_help = explain::EXAMPLE)]
    Explain(explain::ExplainArgs),
    /// Explain why a client was refused, and what to do about it
    ///
    /// Asks the running gate, which remembers the latest refusals: 512 with a certificate, and 512 without one.
    #[command(after_help = why::EXAMPLE)]
    Why(why::WhyArgs),
    /// Show the state of the running gate
    Status(status::StatusArgs),
    /// List the open connections
    ///
    /// One line for each, the newest first, with the bytes it has sent and received.
    Sessions(sessions::SessionsArgs),
    /// List which devices were admitted, from where, and how much they moved
    ///
    /// One line for the connections of a device to a route from one address, the latest first. Asks the running gate; while none
    /// runs, the files of its history are read.
    #[command(after_help = history::EXAMPLE)]
    History(history::HistoryArgs),
    /// Have the running gate reload its configuration
    ///
    /// Reads the file and all files it names: certificates, trust, revocation lists. If there is an error, the gate keeps
    /// the previous configuration, and every error is printed. Open connections that the new configuration admits stay open;
    /// the others are cut.
    Reload(reload::ReloadArgs),
    /// Cut open connections: of a device, an address, a route, or all
    #[command(after_help = cut::EXAMPLE)]
    Cut(cut::CutArgs),
    /// Replace the running gate by a new process of its program, without a lost connection
    ///
    /// For a new version of the program, and for settings that a reload does not change. The new process reads the configuration
    /// and takes the listening sockets; no connection is refused. Open connections stay with the old process until they end, for
    /// timeouts.drain (30 seconds) at most. If the new process does not start, the old one continues and says why.
    Upgrade(upgrade::UpgradeArgs),
    /// Try the receivers of messages to you: [notify] of the configuration
    ///
    /// Sends a message that says that it is a test, and prints the answer. The exit code is 11 if a receiver does not take it.
    #[command(after_help = notify::EXAMPLE)]
    Notify(notify::NotifyArgs),
    /// Start this program again when the process at stdin asks for it: a part of "doorward run"
    #[command(hide = true)]
    Launcher(run::LauncherArgs),
    /// Send messages to the owner for the process at stdin: a part of "doorward run"
    #[command(hide = true)]
    Notifier(notify::NotifierArgs),
    /// Order public certificates for the process at stdin: a part of "doorward run"
    #[command(hide = true)]
    AcmeAgent(run::RunArgs),
    /// Renew certificates of devices for the process at stdin: a part of "doorward run"
    #[command(hide = true)]
    Renewer(run::RunArgs),
}

/// Runs a command.
pub(super) fn run(command: Command) -> ExitCode {
    diagnostics::start();
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => match init::run(&args) {
            Ok(()) => exit::OK.into(),
            Err(error) => failed(error.exit_code(), &error),
        },
        Command::Install(args) => install::run(&args),
        Command::Ca(args) => ca::run(args),
        Command::Certificate(args) => certificate::run(&args),
        Command::Share(args) => share::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::History(args) => history::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Cut(args) => cut::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Notify(args) => notify::run(&args),
        Command::Launcher(args) => run::launch(&args),
        Command::Notifier(args) => notify::send(&args),
        Command::AcmeAgent(args) => run::order(&args),
        Command::Renewer(args) => run::renew(&args),
    }
}

/// Which configuration.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ConfigArg {
    /// The configuration file [default: doorward.toml here, else the one in "doorward" here, else /etc/doorward/doorward.toml]
    #[arg(long = "config", short, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// Where the keys are that the configuration names as credentials.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct CredentialsArg {
    /// The folder of the service's credentials, for keys such as "credential:gate.key" [default: that of the running service,
    /// which root may read]
    #[arg(long, value_name = "FOLDER")]
    pub(super) credentials: Option<PathBuf>,
}

impl CredentialsArg {
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.credentials.clone().map(Credentials::in_folder)
    }
}

/// The format of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The configuration files that are tried without `--config`, in this order. `doorward init` writes the second one.
const DEFAULT_FILES: [&str; 3] = ["doorward.toml", FROM_INIT, "/etc/doorward/doorward.toml"];

/// The configuration file that `doorward init` writes by default.
pub(super) const FROM_INIT: &str = "doorward/doorward.toml";

impl ConfigArg {
    /// The file, or an error message if there is none.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let found = DEFAULT_FILES.iter().map(Path::new).find(|file| file.exists());
        found.map(in_place_of).ok_or_else(|| {
            let [here, below, system] = DEFAULT_FILES;
            format!(
                "no configuration found: neither {here} nor {below} in this folder, nor {system}\n  give yours with --config \
                 FILE, or create one: doorward init --help"
            )
        })
    }

    /// Loads it. Prints every error and warning to stderr.
    pub(super) fn load(&self) -> Result<Config, ExitCode> {
        self.load_with(None)
    }

    /// The same with these credentials, else those that this user finds.
    pub(super) fn load_with(&self, credentials: Option<Credentials>) -> Result<Config, ExitCode> {
        let file = self.path().map_err(|message| failed(exit::CONFIG, &message))?;
        let credentials = credentials.unwrap_or_else(|| {
            let installed = Installed::find().filter(|installed| installed.config() == file);
            installed.map_or_else(Credentials::of_service, |installed| installed.credentials())
        });
        let loaded = config::load_with(&file, &credentials);
        match loaded.and_then(|config| expectations::check(&config).map(|()| config)) {
            Ok(config) => {
                for warning in &config.warnings {
                    errln!("warning: {}: {}", warning.key, warning.message);
                }
                Ok(config)
            }
            Err(errors) => {
                errln!("{errors}");
                Err(exit::CONFIG.into())
            }
        }
    }
}

/// The installed configuration in place of the one that `doorward install` copied it from, else `file`.
pub(super) fn in_place_of(file: &Path) -> PathBuf {
    let installed = Installed::find().filter(|installed| installed.is_of(&file.with_file_name(ca::FOLDER)));
    installed.map_or_else(|| file.to_owned(), |installed| installed.config())
}

/// The folder that `doorward init` wrote, if `folder` is that of the authorities in it; else `folder`.
pub(super) fn folder_of_init(folder: &Path) -> PathBuf {
    let above =
        folder.parent().filter(|_| Store::is_in(folder) && folder.file_name().is_some_and(|name| name == ca::FOLDER));
    above.map_or_else(
        || folder.to_owned(),
        |above| if above.as_os_str().is_empty() { ".".into() } else { above.to_owned() },
    )
}
