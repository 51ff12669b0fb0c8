//! What a configuration needs of the system once the gate runs: the one list that the sandbox allows at the start, and that a
//! reload is compared with.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use hyper::Uri;

use crate::config::checked::{Acme, Backend, Challenge, Config, LogOutput, StateFolder};
use crate::config::folders;

/// The files that getaddrinfo(3) reads: their folders are where an editor, a DHCP client or a resolver puts the next ones.
const NAME_SERVICE_FILES: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];

/// Where the modules that nsswitch.conf names are, with their libraries and their data.
const NAME_SERVICE_FOLDERS: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/run/systemd/resolve",
    "/var/cache/nscd",
    "/var/lib/sss",
];

/// How many processors there are, which the C library's allocator asks when there are many threads.
const PROCESSORS: &str = "/sys/devices/system/cpu";

/// DNS over TCP, for answers that are too long for a datagram.
const DNS: u16 = 53;

const HTTPS: u16 = 443;

/// What the gate uses after its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Files of the configuration, which are read again by each reload.
    pub(super) files: BTreeSet<PathBuf>,
    /// The log, if it is a file.
    pub(super) log: Option<PathBuf>,
    /// The folder of the history, or of the public certificate in the process that orders it, if it is there.
    pub(super) history: Option<PathBuf>,
    /// The folder of requests for certificates.
    pub(super) renewal: Option<PathBuf>,
    /// The control socket, whose file the gate removes when it stops.
    pub(super) control: Option<PathBuf>,
    /// That of a gate that this process replaces, if it is another one: its file is removed when that one accepts no more.
    pub(super) former_control: Option<PathBuf>,
    /// Listeners. The metrics listener is never bound again.
    pub(super) listeners: Vec<(String, SocketAddr)>,
    /// Backends by the name of their route.
    pub(super) backends: Vec<(String, Backend)>,
    /// Routes that wake the machine of their backend.
    pub(super) wakes: Vec<String>,
    /// Whether it has nothing to do with any network: it makes no sockets.
    pub(super) no_sockets: bool,
}

impl Needs {
    /// Whether there is a file to write: a log or a history.
    pub(super) const fn writes_files(&self) -> bool {
        self.log.is_some() || self.replaces_files()
    }

    /// Whether files are written beside their predecessors, and then renamed.
    pub(super) const fn replaces_files(&self) -> bool {
        self.history.is_some() || self.renewal.is_some()
    }

    /// Those of a gate with this configuration, and these runtime folders of the service manager.
    pub(crate) fn of(config: &Config, runtime_folders: Option<&OsStr>) -> Self {
        let mut files: BTreeSet<PathBuf> = config.seen.files().map(Path::to_owned).collect();
        files.extend(config.files());
        let log = match &config.log.output {
            LogOutput::File(path) => Some(path.clone()),
            LogOutput::Stdout | LogOutput::Journald => None,
        };
        let backends = config
            .routes
            .iter()
            .flat_map(|route| route.backends.iter().map(|backend| (route.name.to_string(), backend.clone())));
        Self {
            files,
            log,
            history: config.history.folder.as_ref().map(StateFolder::of_this_process),
            renewal: config.renewal.as_ref().map(|renewal| renewal.folder.of_this_process()),
            control: config.control.socket.path(runtime_folders),
            former_control: None,
            listeners: config.listeners.iter().map(|one| (one.name.to_string(), one.address)).collect(),
            backends: backends.collect(),
            wakes: config.routes.iter().filter(|one| one.wake.is_some()).map(|one| one.name.to_string()).collect(),
            no_sockets: false,
        }
    }

    /// Those of a process that connects to this host and port.
    pub(super) fn to_reach(host: &str, port: u16) -> Self {
        let backend = host
            .parse::<IpAddr>()
            .map_or_else(|_| Backend::Host(host.to_owned(), port), |address| Backend::Address((address, port).into()));
        Self { backends: vec![("notify".to_owned(), backend)], ..Self::default() }
    }

    /// Those of the process that orders public certificates: an ACME server may have its parts on several hosts, with the port of
    /// its directory or that of HTTPS.
    pub(super) fn to_order(acme: &Acme, folder: &Path) -> Self {
        let directories = acme.trial.iter().chain([&acme.directory]);
        let mut ports: BTreeSet<u16> =
            directories.filter_map(|directory| directory.url.parse::<Uri>().ok()?.port_u16()).chain([HTTPS]).collect();
        if let Challenge::Dns01(dns) = &acme.challenge {
            ports.extend(dns.needs().into_iter().map(|(_, port)| port));
        }
        // Not one of these hosts in particular.
        let backends = ports.into_iter().map(|port| ("acme".to_owned(), Backend::Host(String::new(), port)));
        Self { backends: backends.collect(), history: Some(folder.to_owned()), ..Self::default() }
    }

    /// Those of the process that renews certificates: it reads the configuration and what that names, as the gate does, and writes
    /// answers to this folder.
    pub(super) fn to_renew(config: &Config, folder: &Path) -> Self {
        Self {
            files: Self::of(config, None).files,
            renewal: Some(folder.to_owned()),
            no_sockets: true,
            ..Self::default()
        }
    }

    /// The folder by which a gate with these needs could read this file: once it has been taken over, it does.
    pub(crate) fn would_read(&self, file: &Path) -> Option<PathBuf> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let written = self.state_folders().map(Path::to_owned).chain(self.log_folders()).chain(self.control_folders());
        let mut readable = self.reads().into_iter().chain(written);
        readable.find(|at| real(file).starts_with(real(at)))
    }

    /// Whether names of hosts are looked up.
    pub(super) fn looks_up_names(&self) -> bool {
        self.backends.iter().any(|(_, backend)| matches!(backend, Backend::Host(..)))
    }

    /// Whether UDP sockets are made: for name servers, or for packets that wake a machine. Landlock does not restrict where they send.
    pub(super) fn sends_datagrams(&self) -> bool {
        self.looks_up_names() || !self.wakes.is_empty()
    }

    /// Whether Unix sockets are connected to that are no datagram sockets: a backend, or a service that the resolver asks.
    pub(super) fn connects_unix_streams(&self) -> bool {
        self.looks_up_names() || self.backends.iter().any(|(_, backend)| matches!(backend, Backend::Unix(_)))
    }

    /// The ports that TCP connections are made to.
    pub(super) fn connect_ports(&self) -> BTreeSet<u16> {
        let ports = self.backends.iter().filter_map(|(_, backend)| port(backend));
        ports.chain(self.looks_up_names().then_some(DNS)).collect()
    }

    /// The ports that listeners are bound to.
    pub(super) fn bind_ports(&self) -> BTreeSet<u16> {
        self.listeners.iter().map(|(_, address)| address.port()).collect()
    }

    /// What is read: files, and the folders in which their next contents may be.
    pub(super) fn reads(&self) -> BTreeSet<PathBuf> {
        let mut reads: BTreeSet<PathBuf> = self.files.iter().flat_map(|file| readable(file)).collect();
        reads.insert(PathBuf::from(PROCESSORS));
        if self.looks_up_names() {
            reads.extend(NAME_SERVICE_FILES.iter().flat_map(|file| readable(Path::new(file))));
            reads.extend(NAME_SERVICE_FOLDERS.iter().map(PathBuf::from));
        }
        reads
    }

    /// The folders of the history and of requests, if nothing that the gate must not change is in them: a right to a folder is one to
    /// all that is below.
    pub(super) fn state_folders(&self) -> impl Iterator<Item = &Path> {
        let folders = self.history.iter().chain(&self.renewal);
        folders.filter_map(|folder| self.state_folder(folder))
    }

    fn state_folder<'a>(&self, folder: &'a Path) -> Option<&'a Path> {
        let real = folder.canonicalize().ok()?;
        let program = std::env::current_exe().ok();
        // One that is not there yet is judged by its folders.
        let keeps_out = |file: &PathBuf| !folders::is_above(&real, file);
        self.files.iter().chain(&program).all(keeps_out).then_some(folder)
    }

    /// The folders that a log file is written and made anew in.
    pub(super) fn log_folders(&self) -> BTreeSet<PathBuf> {
        self.log.iter().flat_map(|file| folders::to_read(file)).filter(|folder| self.may_change(folder)).collect()
    }

    /// The folders that control sockets are removed from.
    pub(super) fn control_folders(&self) -> BTreeSet<PathBuf> {
        let sockets = self.control.iter().chain(&self.former_control);
        sockets.flat_map(|socket| folders::to_read(socket)).filter(|folder| self.may_change(folder)).collect()
    }

    /// Whether what is in the folder may be changed, or files be made in it or removed: a right to a folder is one to all that is
    /// below. So it may contain neither the configuration, which can turn off the sandbox of the next process, nor the program.
    fn may_change(&self, folder: &Path) -> bool {
        let program = std::env::current_exe().ok();
        let keeps_out = |file: &PathBuf| !folders::is_above(folder, file);
        folder.parent().is_some() && self.files.iter().chain(&program).all(keeps_out)
    }
}

/// The port of a backend with TCP.
pub(super) fn port(backend: &Backend) -> Option<u16> {
    match backend {
        Backend::Address(address) => Some(address.port()),
        Backend::Host(_, port) => Some(*port),
        Backend::Unix(_) => None,
    }
}

/// A file and the folders in which its next contents may be. A folder `/` would be every file of the machine: a file in it can
/// be changed, but not replaced.
fn readable(file: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let folders = folders::to_read(file).into_iter().filter(|folder| folder.parent().is_some());
    folders.chain([file.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(backend: Backend) -> Needs {
        Needs { backends: vec![("nas".to_owned(), backend)], ..Needs::default() }
    }

    #[test]
    fn folder_of_a_file_is_read_but_never_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("doorward.toml");
        std::fs::write(&file, "").expect("a file");
        let needs = Needs { files: [file.clone(), PathBuf::from("/doorward.toml")].into(), ..Needs::default() };
        let reads = needs.reads();
        assert!(reads.contains(folder.path()) && reads.contains(&file), "{reads:?}");
        assert!(!reads.contains(Path::new("/")), "{reads:?}");
    }

    #[test]
    fn folder_of_the_configuration_is_never_changed() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        for folder in ["etc", "etc/log", "var"] {
            std::fs::create_dir(at(folder)).expect("a folder");
        }
        std::fs::write(at("etc/doorward.toml"), "").expect("a file");
        std::os::unix::fs::symlink(at("etc"), at("var/link")).expect("a link");
        let program = std::env::current_exe().expect("a program");
        let beside_the_program = program.with_file_name("doorward.log");
        for (file, folder) in [
            (at("etc/log/doorward.log"), Some("etc/log")),
            (at("var/doorward.log"), Some("var")),
            (at("etc/doorward.log"), None),
            (at("var/link/doorward.log"), None),
            (at("doorward.log"), None),
            (beside_the_program, None),
            (PathBuf::from("/doorward.log"), None),
        ] {
            let files = [at("etc/doorward.toml")].into();
            let needs = Needs { files, log: Some(file.clone()), control: Some(file.clone()), ..Needs::default() };
            let expected: BTreeSet<PathBuf> = folder.into_iter().map(at).collect();
            assert_eq!(
                (needs.log_folders(), needs.control_folders()),
                (expected.clone(), expected),
                "{}",
                file.display()
            );
        }
    }

    #[test]
    fn files_of_the_resolver_are_read_only_for_names() {
        let address = backend(Backend::Address(([192, 168, 1, 10], 5666).into()));
        assert_eq!((address.reads(), address.connect_ports()), ([PathBuf::from(PROCESSORS)].into(), [5666].into()));
        let name = backend(Backend::Host("nas.lan".to_owned(), 22));
        assert!(name.reads().contains(Path::new("/etc")), "{:?}", name.reads());
        assert_eq!(name.connect_ports(), [22, DNS].into());
    }
}
