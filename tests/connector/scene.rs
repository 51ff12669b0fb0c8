//! A gate with a device, and the file of that device.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use doorward::bundle::Bundle;
use rcgen::{CertificateParams, SerialNumber};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::bundle::bundle;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Certified, TestPki};
use crate::common::process::wait_until;

/// The device.
pub(crate) const DEVICE: &str = "alice-laptop";

/// The serial number of its certificate.
pub(crate) const SERIAL: [u8; 3] = [0x4a, 0x6f, 1];

/// What every test starts with.
pub(crate) struct Scene {
    pub(crate) gate: Gate,
    pub(crate) pki: TestPki,
    pub(crate) folder: TempDir,
    routes: String,
}

/// The part of a configuration for a route that only [`DEVICE`] may use.
pub(crate) fn route(name: &str, backend: SocketAddr) -> String {
    format!(
        "\n[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"{backend}\"]\n\
         allow = [\"cn:{DEVICE}\"]\n"
    )
}

impl Scene {
    /// A gate with these routes.
    pub(crate) fn new(routes: &str) -> Self {
        let pki = TestPki::new();
        let gate = Gate::start(&config(&pki, routes));
        Self { gate, pki, folder: tempfile::tempdir().unwrap(), routes: routes.to_owned() }
    }

    /// A gate with one route.
    pub(crate) fn with(name: &str, backend: SocketAddr) -> Self {
        Self::new(&route(name, backend))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The parameters of the device's certificate.
    pub(crate) fn device() -> CertificateParams {
        let mut params = Certified::for_clients(DEVICE);
        params.serial_number = Some(SerialNumber::from(SERIAL.to_vec()));
        params
    }

    /// The device's certificate.
    pub(crate) fn certified(&self) -> Certified {
        self.pki.clients.issue(Self::device())
    }

    /// What the device is given.
    pub(crate) fn bundle(&self, certified: &Certified) -> Bundle {
        let names: Vec<&str> = self.routes.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
        let names: Vec<&str> = names.iter().map(|name| name.trim_matches('"')).collect();
        bundle(&self.pki, certified, self.gate.address(), &names)
    }

    /// The device's file.
    pub(crate) fn file(&self) -> PathBuf {
        self.file_of(&self.bundle(&self.certified()))
    }

    /// A file with this in it.
    pub(crate) fn file_of(&self, bundle: &Bundle) -> PathBuf {
        let path = self.path("alice-laptop.doorward");
        write(&path, bundle);
        path
    }

    /// Lets the gate take over the same configuration with these keys after `[client_auth]`.
    pub(crate) fn reload_with(&self, client_auth: &str, routes: &str) {
        let text = format!("{LOCAL}\n[limits]\npenalties = \"off\"\n{}{client_auth}\n{routes}", self.pki.config());
        assert_eq!(self.gate.reload(&text)["event"], "reloaded");
    }

    /// Puts a list in force on which the device's certificate is.
    pub(crate) fn revoke(&self) {
        use crate::common::pki::days_from_now;
        let serial = SerialNumber::from(SERIAL.to_vec());
        let list = self.pki.clients.revocation_list(&[serial], days_from_now(-1), days_from_now(1));
        let list = self.pki.write("clients.crl", list);
        self.reload_with(&format!("revocation_lists = [{list:?}]\n"), &self.routes);
    }
}

fn config(pki: &TestPki, routes: &str) -> String {
    format!("{LOCAL}\n[limits]\npenalties = \"off\"\n{}{routes}", pki.config())
}

/// Replaces a file in one step, as `doorward renew` does.
pub(crate) fn write(path: &Path, bundle: &Bundle) {
    replace(path, &bundle.to_text());
}

pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

/// `doorward` with these arguments, as a device.
pub(crate) fn doorward(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).arg("--file").arg(file).env_remove("XDG_RUNTIME_DIR");
    command
}

/// A `doorward` that runs on, with pipes.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    errors: Arc<Mutex<String>>,
}

impl Running {
    /// Starts a command; its stdout is left to the test.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = Arc::<Mutex<String>>::default();
        let (mut stderr, shared) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                shared.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, errors }
    }

    /// What it has written to stderr so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written this to stderr.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        wait_until(&format!("stderr says {text:?}"), || {
            if self.errors().contains(text) {
                return Some(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                // Its last words are read by a thread.
                thread::sleep(std::time::Duration::from_millis(100));
                assert!(self.errors().contains(text), "ended with {status}: {}", self.errors());
            }
            None
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait_until("doorward ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("stderr of doorward:\n{}", self.errors());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many bytes, of which no two blocks are the same.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed;
    let mut next = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(count).collect()
}
