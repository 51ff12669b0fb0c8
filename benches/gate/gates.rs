//! The gates, each configured for speed as its documentation advises.
//!
//! All of them: one thread or worker for each CPU of the gate, no access log, `TCP_NODELAY`, session tickets, the same
//! certificates, TLS 1.2 and 1.3. Doorward keeps its metrics and formats its log lines; they go to `/dev/null`.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::Result;
use crate::backend::Backend;
use crate::client::Suites;
use crate::measure::Processes;
use crate::pki::{PASSTHROUGH, Pki, TERMINATED};
use crate::plan::Column;

/// Whether the gate terminates TLS or passes it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It terminates TLS and requests a client certificate.
    Terminated,
    /// The backend terminates TLS.
    Passthrough,
}

/// The gates that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// This program.
    Doorward,
    /// Another build of it, given with `--beside`.
    Beside,
    /// `haproxy`, with buffers of 64 KiB.
    Haproxy,
    /// `nginx`, its stream module, with buffers of 64 KiB.
    Nginx,
    /// `stunnel4`.
    Stunnel,
    /// tokio-rustls and `copy_bidirectional`.
    Naive,
    /// A floor: `recv` and `send` with 64 KiB.
    Copy64,
    /// A floor: `recv` and `send` with 256 KiB.
    Copy256,
    /// A floor: `splice`.
    Splice,
}

impl Kind {
    /// The label of its column.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Doorward => "doorward",
            Self::Beside => "doorward-beside",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Stunnel => "stunnel",
            Self::Naive => "tokio-rustls",
            Self::Copy64 => "copy-64k",
            Self::Copy256 => "copy-256k",
            Self::Splice => "splice",
        }
    }

    /// Whether it is a build of this program.
    pub(crate) const fn is_doorward(self) -> bool {
        matches!(self, Self::Doorward | Self::Beside)
    }

    /// Whether it only moves bytes.
    pub(crate) const fn is_floor(self) -> bool {
        matches!(self, Self::Copy64 | Self::Copy256 | Self::Splice)
    }

    /// Whether it supports this mode; floors do not parse TLS, so they support both.
    pub(crate) const fn can(self, mode: Mode) -> bool {
        match mode {
            Mode::Terminated => true,
            Mode::Passthrough => !matches!(self, Self::Stunnel),
        }
    }
}

/// The size of Doorward's lookup tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Server names of routes.
    pub(crate) names: usize,
    /// Routes that share the names.
    pub(crate) routes: usize,
    /// Serial numbers on the revocation list; 0 is no list.
    pub(crate) revoked: usize,
    /// Whether the backend of the terminating route speaks TLS.
    pub(crate) backend_tls: bool,
}

impl Setup {
    /// Two routes, no list.
    pub(crate) const PLAIN: Self = Self { names: 1, routes: 1, revoked: 0, backend_tls: false };
    /// The same, with TLS to the backend.
    pub(crate) const BACKEND_TLS: Self = Self { backend_tls: true, ..Self::PLAIN };
}

/// A running gate with its own backends.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) kind: Kind,
    /// What its clients offer, if not what all do.
    pub(crate) suites: Option<Suites>,
    pub(crate) terminated: SocketAddr,
    pub(crate) passthrough: SocketAddr,
    pub(crate) processes: Processes,
    /// Descriptors that are open before the first connection.
    pub(crate) idle_descriptors: usize,
    /// Dropped before its folder.
    _process: Process,
    _folder: TempDir,
    _backends: [Backend; 2],
}

/// A process that is killed when dropped.
#[derive(Debug)]
struct Process(Child);

/// Where the processes run.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The CPUs of the gates.
    gates: CpuSet,
    /// The CPUs of the generator and the backends.
    others: CpuSet,
    /// How many CPUs a gate has.
    pub(crate) cores: usize,
    /// Whether the gates and the generator share CPUs, because there are no others.
    pub(crate) shared: bool,
    /// Another build of Doorward.
    pub(crate) beside: Option<PathBuf>,
}

impl Machine {
    /// The gates get the first `cores` CPUs that this process may use, everything else the rest.
    pub(crate) fn new(cores: usize, beside: Option<PathBuf>) -> Result<Self> {
        let usable = sched_getaffinity(None)?;
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu)).collect();
        if cores == 0 || cpus.len() < cores {
            return Err(format!("--cores {cores}: this process may use {} CPUs", cpus.len()).into());
        }
        let (first, rest) = cpus.split_at(cores);
        let set = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu));
            set
        };
        let shared = rest.is_empty();
        Ok(Self { gates: set(first), others: set(if shared { first } else { rest }), cores, shared, beside })
    }

    /// Keeps the calling thread, and the threads and processes that it starts, to the CPUs of the generator.
    pub(crate) fn keep_off(&self) -> Result<()> {
        sched_setaffinity(None, &self.others).map_err(|error| format!("cannot keep to some CPUs: {error}").into())
    }

    /// A child inherits the CPUs of the thread that starts it.
    fn spawn(&self, command: &mut Command) -> Result<Child> {
        sched_setaffinity(None, &self.gates)?;
        let spawned = command.spawn();
        self.keep_off()?;
        spawned.map_err(|error| format!("cannot start {:?}: {error}", command.get_program()).into())
    }
}

impl Gate {
    /// Starts a gate and waits until it listens.
    pub(crate) fn start(column: &Column, machine: &Machine, pki: &Pki, plain: Backend, tls: Backend) -> Result<Self> {
        let &Column { kind, setup, suites, .. } = column;
        let folder = tempfile::tempdir()?;
        let terminated = free_address()?;
        let passthrough = if kind.is_doorward() { terminated } else { free_address()? };
        let places = Places {
            pki,
            machine,
            folder: folder.path(),
            terminated,
            passthrough,
            plain: plain.address,
            tls: tls.address,
        };
        let mut command = places.command(kind, setup)?;
        let errors = folder.path().join("stderr");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&errors)?);
        let mut process = Process(machine.spawn(&mut command)?);
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(terminated).is_err() {
            let ended = process.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("{} does not listen ({ended:?}): {said}", kind.label()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        // nginx listens before it has its workers.
        let count = if kind == Kind::Nginx { 1 + machine.cores } else { 1 };
        let processes = loop {
            let processes = Processes::of(process.0.id(), kind == Kind::Stunnel)?;
            if processes.count() >= count {
                break processes;
            }
            if Instant::now() > deadline {
                return Err(format!("{} has fewer than {count} processes", kind.label()).into());
            }
            thread::sleep(Duration::from_millis(5));
        };
        processes.quiet()?;
        let idle_descriptors = processes.descriptors()?;
        Ok(Self {
            kind,
            suites,
            terminated,
            passthrough,
            processes,
            idle_descriptors,
            _process: process,
            _folder: folder,
            _backends: [plain, tls],
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A free address. The peers cannot report the port that the kernel chose, so it is chosen before.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

struct Places<'a> {
    pki: &'a Pki,
    machine: &'a Machine,
    folder: &'a Path,
    terminated: SocketAddr,
    passthrough: SocketAddr,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Places<'_> {
    fn command(&self, kind: Kind, setup: Setup) -> Result<Command> {
        let own = |arguments: &[&str]| -> Result<Command> {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--child").args(arguments);
            for address in [self.terminated, self.plain, self.passthrough, self.tls] {
                command.arg(address.to_string());
            }
            Ok(command)
        };
        let with_file = |program: &str, option: Option<&str>, name: &str, text: String| -> Result<Command> {
            let file = self.folder.join(name);
            std::fs::write(&file, text)?;
            let mut command = Command::new(program);
            command.args(option).arg(file);
            Ok(command)
        };
        match kind {
            Kind::Doorward | Kind::Beside => {
                let own = Path::new(env!("CARGO_BIN_EXE_doorward"));
                let program = match (kind, &self.machine.beside) {
                    (Kind::Beside, Some(other)) => other,
                    _ => own,
                };
                let file = self.folder.join("doorward.toml");
                std::fs::write(&file, self.doorward(setup)?)?;
                let mut command = Command::new(program);
                command.args(["run", "--config"]).arg(file);
                Ok(command)
            }
            Kind::Haproxy => with_file("/usr/sbin/haproxy", Some("-f"), "haproxy.cfg", self.haproxy(setup)?),
            Kind::Nginx => with_file("/usr/sbin/nginx", Some("-c"), "nginx.conf", self.nginx(setup)),
            Kind::Stunnel => with_file("/usr/bin/stunnel4", None, "stunnel.conf", self.stunnel()),
            Kind::Naive => own(&["tls", &self.pki.folder().to_string_lossy(), &self.machine.cores.to_string()]),
            Kind::Copy64 => own(&["copy", "65536"]),
            Kind::Copy256 => own(&["copy", "262144"]),
            Kind::Splice => own(&["splice"]),
        }
    }

    /// Without limits per source: all clients have the same source.
    fn doorward(&self, setup: Setup) -> Result<String> {
        let Self { pki, terminated, plain, tls, .. } = self;
        let path = |name| pki.path(name).display().to_string();
        let mut text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"{terminated}\"\n\n\
             [certificate]\nchain = {:?}\nkey = {:?}\n\n\
             [client_auth]\nmode = \"require_and_verify\"\ntrust = [{:?}]\n",
            path("server.pem"),
            path("server-key.pem"),
            path("clients.pem"),
        );
        if setup.revoked > 0 {
            let list = pki.path(&format!("revoked-{}.crl", setup.revoked));
            if !list.exists() {
                pki.revocation_list(setup.revoked)?;
            }
            writeln!(text, "revocation_lists = [{:?}]", list.display().to_string())?;
        }
        text.push_str(
            "\n[limits]\nconnections = 100000\nhandshakes = 100000\nconnections_per_source = \"off\"\n\
             connection_rate_per_source = \"off\"\npenalties = \"off\"\n\n[metrics]\naddress = \"127.0.0.1:0\"\n",
        );
        let routes = setup.routes.max(1);
        for route in 0..routes {
            // Short names, because a configuration is limited to 1 MiB.
            let mut names: Vec<String> =
                (route..setup.names).step_by(routes).map(|name| format!("{name:x}.b")).collect();
            if route == 0 {
                TERMINATED.clone_into(names.first_mut().ok_or("no server name")?);
            }
            let names = names.join("\",\"");
            writeln!(
                text,
                "\n[[route]]\nname = \"terminated-{route}\"\nserver_names = [\"{names}\"]\nbackends = [\"{plain}\"]\n\
                 allow = [\"any\"]"
            )?;
            if setup.backend_tls {
                let trust = path("servers.pem");
                writeln!(text, "backend_tls = {{ trust = {trust:?}, server_name = \"{TERMINATED}\" }}")?;
            }
        }
        writeln!(
            text,
            "\n[[route]]\nname = \"passthrough\"\nmode = \"passthrough\"\nserver_names = [\"{PASSTHROUGH}\"]\n\
             backends = [\"{tls}\"]"
        )?;
        Ok(text)
    }

    /// `strict-sni` rejects a name without a certificate at the ClientHello. The session cache has 20,000 entries by
    /// default, splicing is enabled.
    fn haproxy(&self, setup: Setup) -> Result<String> {
        let Self { pki, machine, folder, terminated, passthrough, plain, tls } = self;
        let list = folder.join("certificates");
        std::fs::write(&list, format!("{} {TERMINATED}\n", pki.path("both.pem").display()))?;
        // It resumes sessions with servers by default.
        let inside = if setup.backend_tls {
            let trust = pki.path("servers.pem");
            format!(
                " ssl verify required ca-file {} verifyhost {TERMINATED} sni str({TERMINATED}) ssl-min-ver TLSv1.2",
                trust.display()
            )
        } else {
            String::new()
        };
        Ok(format!(
            "global\n  nbthread {}\n  maxconn 9700\n  maxpipes 100\n  tune.bufsize 65536\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
             defaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n\
             frontend terminated\n  bind {terminated} backlog 4096 ssl crt-list {} strict-sni ca-file {} verify required\n  \
             default_backend plain\n\
             frontend passthrough\n  bind {passthrough} backlog 4096\n  tcp-request inspect-delay 5s\n  \
             tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
             use_backend tls if {{ req.ssl_sni -i {PASSTHROUGH} }}\n\
             backend plain\n  server plain {plain}{inside}\n\
             backend tls\n  server tls {tls}\n",
            machine.cores,
            list.display(),
            pki.path("clients.pem").display(),
        ))
    }

    fn nginx(&self, setup: Setup) -> String {
        let Self { pki, machine, folder, terminated, passthrough, plain, tls } = self;
        let inside = if setup.backend_tls {
            format!(
                "    proxy_ssl on;\n    proxy_ssl_protocols TLSv1.2 TLSv1.3;\n    proxy_ssl_verify on;\n    \
                 proxy_ssl_trusted_certificate {};\n    proxy_ssl_name {TERMINATED};\n    proxy_ssl_server_name on;\n",
                pki.path("servers.pem").display()
            )
        } else {
            String::new()
        };
        // Its documentation advises a socket for each worker, where there are several.
        let reuse = if machine.cores > 1 { " reuseport" } else { "" };
        format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\ndaemon off;\npid {}/nginx.pid;\n\
             error_log /dev/null crit;\nworker_processes {};\nworker_rlimit_nofile 20000;\n\
             events {{ use epoll; worker_connections 20000; multi_accept on; accept_mutex off; }}\n\
             stream {{\n  access_log off;\n  tcp_nodelay on;\n  proxy_buffer_size 64k;\n  proxy_timeout 10m;\n  \
             ssl_protocols TLSv1.2 TLSv1.3;\n  ssl_session_cache shared:bench:32m;\n  ssl_session_tickets on;\n  \
             map $ssl_preread_server_name $to {{ {PASSTHROUGH} {tls}; }}\n  \
             server {{\n    listen {terminated} ssl backlog=4096{reuse};\n    ssl_certificate {};\n    \
             ssl_certificate_key {};\n    ssl_client_certificate {};\n    ssl_verify_client on;\n    \
             proxy_pass {plain};\n{inside}  }}\n  \
             server {{\n    listen {passthrough} backlog=4096{reuse};\n    ssl_preread on;\n    proxy_pass $to;\n  }}\n}}\n",
            folder.display(),
            machine.cores,
            pki.path("server.pem").display(),
            pki.path("server-key.pem").display(),
            pki.path("clients.pem").display(),
        )
    }

    fn stunnel(&self) -> String {
        let Self { pki, terminated, plain, .. } = self;
        format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = 0\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
             [terminated]\naccept = {terminated}\nconnect = {plain}\ncert = {}\nkey = {}\nCAfile = {}\n\
             verifyChain = yes\nrequireCert = yes\nsslVersionMin = TLSv1.2\nsessionCacheSize = 10000\nTIMEOUTclose = 0\n\
             TIMEOUTidle = 600\n",
            pki.path("server.pem").display(),
            pki.path("server-key.pem").display(),
            pki.path("clients.pem").display(),
        )
    }
}
