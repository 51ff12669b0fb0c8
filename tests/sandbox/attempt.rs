//! A process that enters the sandbox, or does not, and then tries something.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use doorward::config;
use doorward::sandbox::Sandbox;
use rustix::io::Errno;

use crate::common::pki::TestPki;
use crate::common::process::run;
use crate::home::House;

/// The folder of the scene, for a test that is to be the process.
const FOLDER: &str = "DOORWARD_TEST_SCENE";

/// The version of Landlock's interface that this kernel has; 0 for none. tests/vm/run.sh says which one its kernels must have.
pub(crate) fn landlock() -> u32 {
    // LANDLOCK_CREATE_RULESET_VERSION.
    let version = crate::system::number(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0]).unwrap_or(0);
    let version = u32::try_from(version).unwrap();
    let required = env::var("DOORWARD_REQUIRE_LANDLOCK").map_or(0, |text| text.parse().unwrap());
    assert!(version >= required, "this kernel has version {version} of Landlock, and should have {required}");
    version
}

/// What a process finds that tries something.
pub(crate) struct Scene {
    folder: PathBuf,
}

impl Scene {
    /// A file of the configuration's folder, which the gate may read.
    pub(crate) fn inside(&self) -> PathBuf {
        self.folder.join("inside/doorward.toml")
    }

    /// A file that every user may read, and that no configuration names.
    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.join("outside/file")
    }

    /// What the test has left for the process.
    pub(crate) fn note(&self) -> String {
        fs::read_to_string(self.folder.join("inside/note")).unwrap()
    }
}

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed(Errno),
    Killed(i32),
}

/// How the test and the process that it starts agree on a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Of the test: the process runs it as well.
    test: &'static str,
    backend: String,
    listener: SocketAddr,
    note: String,
    in_namespace: bool,
    log: &'static str,
    control: &'static str,
    keys: &'static str,
}

impl Rule {
    pub(crate) fn of(test: &'static str) -> Self {
        let listener = SocketAddr::from(([127, 0, 0, 1], 8443));
        let backend = "127.0.0.1:5666".to_owned();
        Self {
            test,
            backend,
            listener,
            note: String::new(),
            in_namespace: false,
            log: "stdout",
            control: "off",
            keys: "",
        }
    }

    /// The backend of the configuration.
    pub(crate) fn backend(self, backend: &str) -> Self {
        Self { backend: backend.to_owned(), ..self }
    }

    /// Further keys of its route.
    pub(crate) fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    /// The listener of the configuration.
    pub(crate) fn listener(self, listener: SocketAddr) -> Self {
        Self { listener, ..self }
    }

    /// The output of the log, relative to the configuration; a file is there already.
    pub(crate) fn log(self, log: &'static str) -> Self {
        Self { log, ..self }
    }

    /// The control socket, relative to the configuration.
    pub(crate) fn control(self, control: &'static str) -> Self {
        Self { control, ..self }
    }

    /// A text for the process.
    pub(crate) fn note(self, note: impl ToString) -> Self {
        Self { note: note.to_string(), ..self }
    }

    /// In mount, process and network namespaces of its own, which end with the process.
    pub(crate) fn in_namespace(self) -> Self {
        Self { in_namespace: true, ..self }
    }

    /// Asserts, in the test, that `attempt` has this outcome in the sandbox, and succeeds outside of it.
    #[track_caller]
    pub(crate) fn forbids(&self, attempt: fn(&Scene) -> io::Result<()>, expected: Outcome) {
        self.differs(attempt, Outcome::Done, expected);
    }

    /// As [`Rule::forbids`], where Landlock has this version; an older one does not forbid it.
    #[track_caller]
    pub(crate) fn forbids_since(&self, version: u32, attempt: fn(&Scene) -> io::Result<()>, expected: Outcome) {
        // The process is restricted.
        let is_process = env::var_os(FOLDER).is_some();
        let expected = if is_process || landlock() >= version { expected } else { Outcome::Done };
        self.differs(attempt, Outcome::Done, expected);
    }

    /// Asserts, in the test, that `attempt` has these outcomes without the sandbox and in it.
    #[track_caller]
    pub(crate) fn differs(&self, attempt: fn(&Scene) -> io::Result<()>, without: Outcome, within: Outcome) {
        in_process(attempt);
        assert_eq!(self.outcome("off"), without, "without the sandbox");
        assert_eq!(self.outcome("auto"), within, "in the sandbox");
    }

    /// Asserts that `attempt` succeeds in the sandbox.
    #[track_caller]
    pub(crate) fn allows(&self, attempt: fn(&Scene) -> io::Result<()>) {
        in_process(attempt);
        assert_eq!(self.outcome("auto"), Outcome::Done, "in the sandbox");
    }

    #[track_caller]
    fn outcome(&self, mode: &str) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["inside", "outside", "inside/logs", "inside/run"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("outside/file"), "secret").unwrap();
        fs::write(at("inside/note"), &self.note).unwrap();
        let pki = TestPki::new();
        let config =
            House::new(&pki).route_with("nas", &[&self.backend], &format!("allow = [\"any\"]\n{}", self.keys)).config();
        let config = config.replace("127.0.0.1:0\"\n\n\n[metrics]", &format!("{}\"\n\n[metrics]", self.listener));
        assert!(config.contains(&self.listener.to_string()), "{config}");
        let config = config.replace("format = \"json\"", &format!("format = \"json\"\noutput = {:?}", self.log));
        if self.log != "stdout" {
            fs::write(at("inside").join(self.log), "").unwrap();
        }
        fs::write(at("inside/run/control.sock"), "").unwrap();
        // A history has a folder to write to.
        let control = format!("[history]\nfolder = \"off\"\n[control]\nsocket = {:?}\n", self.control);
        let config = format!("{config}\n{control}[sandbox]\nmode = {mode:?}\n");
        fs::write(at("inside/doorward.toml"), config).unwrap();
        let this = env::current_exe().unwrap();
        let mut command = if self.in_namespace {
            let mut command = crate::common::process::tool("unshare", "util-linux");
            command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).arg(this);
            command
        } else {
            Command::new(this)
        };
        let ended = run(command.args(["--exact", self.test, "--nocapture"]).env(FOLDER, folder.path()));
        match (ended.status.code(), ended.status.signal()) {
            (Some(0), _) => Outcome::Done,
            // The code of a test that panics, and of unshare for a signal.
            (Some(101), _) | (None, None) => panic!("{ended}"),
            (Some(code @ 128..), _) => Outcome::Killed(code - 128),
            (Some(code), _) => Outcome::Failed(Errno::from_raw_os_error(code)),
            (None, Some(signal)) => Outcome::Killed(signal),
        }
    }
}

/// Where this is the process: tries, and ends with the result.
fn in_process(attempt: fn(&Scene) -> io::Result<()>) {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let scene = Scene { folder: folder.into() };
    let config = config::load(&scene.inside()).unwrap();
    Sandbox::enter(&config, None).unwrap();
    let code = match attempt(&scene) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    };
    exit(code);
}

/// Writes a byte to `path`.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    fs::write(path, "x")
}
