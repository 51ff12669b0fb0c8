//! Orders without a gate: its ACME agent as a process of its own, with the test in the place of the gate. Pebble does not look at challenges here,
//! unless a test says so.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::DEADLINE;
use crate::common::pki::Authority;
use crate::common::process::own_loopback;
use crate::pebble::{Pebble, Settings};
use crate::relay::Relay;

pub(crate) const NAMES: [&str; 2] = ["nas.home.example", "photos.home.example"];

/// How long an attempt may take: a server that hangs costs half a minute for each request.
const PATIENCE: Duration = Duration::from_secs(75);

/// A server, the folder of a gate, and the agent as long as it runs.
pub(crate) struct Home {
    agent: Mutex<Option<Agent>>,
    pub(crate) relay: Relay,
    pub(crate) pebble: Pebble,
    folder: TempDir,
    /// Further keys of `[certificate.acme]`.
    keys: String,
    pid: Arc<AtomicU32>,
    offered: Arc<Mutex<Vec<String>>>,
    /// The command before the agent's own, such as strace.
    before: Vec<String>,
}

/// An order that has failed, as the agent tells it.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: String,
    /// How long it waits until the next one, in seconds.
    pub(crate) wait: i64,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

/// How an attempt has ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Issued,
    Failed(Failed),
    /// The process has ended.
    Ended,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with(&Settings { validates: false, ..Settings::default() })
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        let pebble = Pebble::start(own_loopback(), 5443, settings);
        let relay = Relay::start(pebble.address(), &pebble.https_authority());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("clients.pem"), Authority::new("Clients").pem()).unwrap();
        let (agent, keys, pid, before) = (Mutex::default(), String::new(), Arc::default(), Vec::new());
        let home = Self { agent, relay, pebble, folder, keys, pid, offered: Arc::default(), before };
        home.write_config();
        home
    }

    /// Starts the agent again with these further keys of `[certificate.acme]`.
    pub(crate) fn configure(&mut self, keys: &str) {
        self.stop();
        self.keys = keys.to_owned();
        self.write_config();
    }

    /// Has the agent started by another program from now on.
    pub(crate) fn start_by(&mut self, before: Vec<String>) {
        self.stop();
        self.before = before;
    }

    /// Forgets everything, as another gate.
    pub(crate) fn begin_anew(&self) {
        self.stop();
        if let Err(error) = std::fs::remove_dir_all(self.beside("state")) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }

    fn write_config(&self) {
        let config = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\
             [client_auth]\ntrust = [\"clients.pem\"]\n\
             [certificate.acme]\ndirectory = {:?}\ntrust = {:?}\nstate = \"state\"\n{}\n\
             [[route]]\nname = \"home\"\nserver_names = {NAMES:?}\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n",
            self.relay.directory(),
            self.relay.authority(),
            self.keys,
        );
        std::fs::write(self.folder.path().join("doorward.toml"), config).unwrap();
    }

    /// A path in the folder of the configuration.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the state folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.beside("state").join(name)
    }

    /// The agent's process, for a rule of the relay that kills it.
    pub(crate) fn killer(&self) -> impl Fn() + Send + 'static {
        let pid = Arc::clone(&self.pid);
        move || {
            let pid = Pid::from_raw(pid.load(Ordering::SeqCst).try_into().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Ends the agent, as a gate that ends does.
    pub(crate) fn stop(&self) {
        if let Some(agent) = self.agent().take() {
            agent.stop();
        }
    }

    fn agent(&self) -> MutexGuard<'_, Option<Agent>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process for the same folder, which is told to order now.
    pub(crate) fn another(&self) -> Agent {
        let agent = self.left_alone();
        agent.send(&json!("renew"));
        agent
    }

    /// A process that orders when it finds it right.
    pub(crate) fn left_alone(&self) -> Agent {
        Agent::start(self.folder.path(), &self.before, &self.offered)
    }

    /// What the agent waits for, in seconds since 1970.
    pub(crate) fn next_at(&self) -> i64 {
        self.agent().as_ref().unwrap().next_at.get().unwrap()
    }

    /// One attempt. Starts the agent if it does not run; if it has a reason to wait, it is told not to.
    #[track_caller]
    pub(crate) fn attempt(&self) -> Outcome {
        let mut agent = self.agent();
        if agent.is_none() {
            let new = Agent::start(self.folder.path(), &self.before, &self.offered);
            self.pid.store(new.child.id(), Ordering::SeqCst);
            *agent = Some(new);
        } else {
            agent.as_ref().unwrap().send(&json!("renew"));
        }
        let running = agent.as_mut().unwrap();
        loop {
            let Some(message) = running.next() else {
                agent.take().unwrap().end();
                return Outcome::Ended;
            };
            let state = &message["state"];
            let [renewed, failed] = ["renewed", "failed"].map(|key| state[key].as_u64().unwrap_or_default());
            if failed > running.failed {
                running.failed = failed;
                let failure = &state["failure"];
                let wait = state["next_at"].as_i64().unwrap() - failure["at"].as_i64().unwrap();
                return Outcome::Failed(Failed { error: failure["error"].as_str().unwrap().to_owned(), wait });
            }
            if renewed > running.renewed {
                running.renewed = renewed;
                if !running.rest(2) {
                    agent.take().unwrap().end();
                }
                return Outcome::Issued;
            }
            if !running.is_new || state.is_null() || state["phase"] == "starting" {
                continue;
            }
            running.is_new = false;
            // It was started again, and has a reason to wait.
            if state["next_at"].is_i64() {
                running.rest(usize::from(self.path("live/certificate.pem").exists()));
                running.send(&json!("renew"));
            }
        }
    }

    /// An attempt that ends well. Returns the chain.
    #[track_caller]
    pub(crate) fn order(&self) -> Vec<CertificateDer<'static>> {
        match self.attempt() {
            Outcome::Issued => self.chain(),
            other => panic!("there is no certificate: {other:?}"),
        }
    }

    /// An attempt that fails.
    #[track_caller]
    pub(crate) fn fails(&self) -> Failed {
        match self.attempt() {
            Outcome::Failed(failed) => failed,
            other => panic!("it should have failed: {other:?}"),
        }
    }

    /// The certificate in place.
    #[track_caller]
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let pem = std::fs::read(self.path("live/certificate.pem")).unwrap();
        CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect()
    }

    /// Whether an order is kept to be gone on with.
    pub(crate) fn has_order(&self) -> bool {
        self.path("account/order.json").exists()
    }

    /// The account at the server.
    pub(crate) fn account(&self) -> String {
        let accounts: Value =
            serde_json::from_slice(&std::fs::read(self.path("account/accounts.json")).unwrap()).unwrap();
        accounts[self.relay.directory()]["url"].as_str().unwrap().to_owned()
    }

    /// The names that validators are shown a certificate for, in the order of the offers; `none` when they were withdrawn.
    pub(crate) fn offered(&self) -> Vec<String> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every file of the state folder that was not meant to stay.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let known = [
            "live/certificate.pem",
            "account/key.pem",
            "account/key.pem.refused",
            "account/accounts.json",
            "account/order.json",
            "account/issued.json",
            "account/failures.json",
            "account/lock",
        ];
        let known = known.map(|name| self.path(name));
        let mut all = Vec::new();
        for folder in ["", "live", "account"] {
            let Ok(entries) = std::fs::read_dir(self.path(folder)) else { continue };
            all.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| !path.is_dir()));
        }
        all.retain(|path| !known.contains(path));
        all
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let agent = self.agent().take();
        match agent {
            Some(mut agent) if thread::panicking() => {
                let _ = agent.child.kill();
                let _ = agent.child.wait();
                eprintln!("what the server was asked: {:#?}", self.relay.asked());
            }
            Some(agent) => agent.stop(),
            None => {}
        }
    }
}

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    end: Option<Arc<OwnedFd>>,
    messages: mpsc::Receiver<Value>,
    readers: Vec<thread::JoinHandle<()>>,
    renewed: u64,
    failed: u64,
    is_new: bool,
    next_at: Cell<Option<i64>>,
}

impl Agent {
    fn start(folder: &Path, before: &[String], offered: &Arc<Mutex<Vec<String>>>) -> Self {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let program = env!("CARGO_BIN_EXE_doorward").to_owned();
        let words: Vec<String> = before.iter().cloned().chain([program, "acme-agent".to_owned()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(folder.join("doorward.toml"));
        command.stdin(Stdio::from(far)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let near = Arc::new(near);
        let (sender, messages) = mpsc::channel();
        let (end, offered) = (Arc::clone(&near), Arc::clone(offered));
        let readers = vec![
            thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok((length @ 1.., _)) = recv(&*end, &mut buffer[..], RecvFlags::empty()) {
                    let message: Value = serde_json::from_slice(&buffer[..length]).unwrap();
                    let mut offered = offered.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(name) = message["offer"]["name"].as_str() {
                        offered.push(name.to_owned());
                        let _ = tell(&end, &json!({ "offered": { "name": name, "error": null } }));
                    } else if message == "withdraw" {
                        offered.push("none".to_owned());
                    }
                    drop(offered);
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }),
            thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| eprintln!("agent: {line}"))),
        ];
        Self {
            child,
            end: Some(near),
            messages,
            readers,
            renewed: 0,
            failed: 0,
            is_new: true,
            next_at: Cell::default(),
        }
    }

    fn send(&self, message: &Value) {
        // One that was killed reads nothing.
        let _ = tell(self.end.as_ref().unwrap(), message);
    }

    /// Waits until it has put a certificate in place.
    #[track_caller]
    pub(crate) fn wait_renewed(&self) {
        while self.next().expect("the agent has ended") != "renewed" {}
    }

    /// Waits until it has nothing to do but wait.
    #[track_caller]
    pub(crate) fn wait_for_rest(&self) {
        assert!(self.rest(1), "the agent has ended");
    }

    /// Waits until it says what is wrong.
    #[track_caller]
    pub(crate) fn wait_for_failure(&self) -> String {
        loop {
            let message = self.next().expect("the agent has ended");
            if let Some(error) = message["state"]["failure"]["error"].as_str() {
                return error.to_owned();
            }
        }
    }

    /// Waits until it runs.
    #[track_caller]
    pub(crate) fn wait_started(&self) {
        while self.next().expect("the agent has ended")["state"].is_null() {}
    }

    /// Its next message; `None` once it has ended.
    #[track_caller]
    fn next(&self) -> Option<Value> {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => Some(message),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the agent says nothing for {PATIENCE:?}"),
        }
    }

    /// Waits until it has said so often what it waits for: between two of them it asks the server when to renew. `false` if it has
    /// ended.
    #[track_caller]
    fn rest(&self, mut times: usize) -> bool {
        while times > 0 {
            let Some(message) = self.next() else { return false };
            let next_at = message["state"]["next_at"].as_i64();
            self.next_at.set(next_at.or_else(|| self.next_at.get()));
            times -= usize::from(next_at.is_some());
        }
        true
    }

    /// Waits for its end, which has come.
    fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.end = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    /// Has it end as the gate's end does.
    #[track_caller]
    pub(crate) fn stop(self) {
        let pid = Pid::from_child(&self.child);
        rustix::net::shutdown(&**self.end.as_ref().unwrap(), rustix::net::Shutdown::Both).unwrap();
        let (done, ended) = mpsc::channel();
        thread::spawn(move || done.send(self.end()));
        let status = ended.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = kill_process(pid, Signal::KILL);
            panic!("the agent does not end with its gate");
        });
        assert!(status.success() || status.signal() == Some(9), "the agent has ended with {status}");
    }
}

fn tell(end: &OwnedFd, message: &Value) -> rustix::io::Result<()> {
    // Not a signal where the agent has ended.
    send(end, message.to_string().as_bytes(), SendFlags::NOSIGNAL).map(drop)
}
