//! A gate that is replaced, and relays that live on meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustls::ClientConfig;
use serde_json::Value;

use crate::client::{Client, End};
use crate::common::gate::Gate;
use crate::common::process::{run, tool};
use crate::home::House;

pub(crate) const NAS: &str = "nas.home.example";

/// The configuration of a house with a control socket, whose sessions have minutes to end.
pub(crate) fn config(house: &House<'_>) -> String {
    let config = house.config().replacen("[timeouts]\n", "[timeouts]\ndrain = \"5m\"\n", 1);
    format!("watch = \"off\"\n{config}\n[control]\nsocket = \"control.sock\"\n")
}

/// Has the gate replaced. Returns what the command says, as JSON.
#[track_caller]
pub(crate) fn upgrade(gate: &Gate) -> Value {
    let finished = gate.ask(&["upgrade", "--format", "json"]).success();
    serde_json::from_slice(&finished.stdout).unwrap()
}

/// What `doorward COMMAND` says, as JSON.
#[track_caller]
pub(crate) fn ask(gate: &Gate, arguments: &[&str]) -> Value {
    let finished = gate.ask(&[arguments, &["--format", "json"]].concat()).success();
    serde_json::from_slice(&finished.stdout).unwrap()
}

/// Waits until all processes that upgrades have left have ended.
#[track_caller]
pub(crate) fn wait_for_earlier(gate: &Gate, count: usize) {
    crate::common::process::wait_until("the earlier processes have ended", || {
        let earlier = &ask(gate, &["status"])["earlier"];
        (earlier.as_array().map_or(0, Vec::len) == count).then_some(())
    });
}

/// A gate whose program can be replaced: its own copy. The second value is its path.
pub(crate) fn with_own_program(config: &str) -> (Gate, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("doorward");
    // By another process: a child of a test beside this one could hold the open file, and the program would be "busy" (ETXTBSY).
    run(tool("cp", "coreutils").arg(env!("CARGO_BIN_EXE_doorward")).arg(&program)).success();
    let gate = Gate::start_with(config, |command| {
        let mut own = Command::new(&program);
        own.args(command.get_args());
        *command = own;
    });
    (gate, folder, program)
}

/// Puts a script in the place of the program, as a package does: by a rename.
pub(crate) fn replace(program: &Path, script: &str) {
    let new = program.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, program).unwrap();
}

/// A session that sends numbers without an end and compares what comes back with what was sent.
pub(crate) struct Stream {
    client: Arc<Client>,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

/// What is sent: the bytes of a linear congruential generator, so that a lost, doubled or swapped byte is seen.
struct Numbers(u64);

impl Numbers {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

impl Stream {
    /// Begins at a gate whose backend sends back what it receives.
    pub(crate) fn begin(gate: &Gate, device: &Arc<ClientConfig>) -> Self {
        let client = Arc::new(Client::admitted(gate.address(), device, NAS).unwrap());
        let (stop, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let sending = {
            let (client, stop, received) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&received));
            thread::spawn(move || {
                let (mut numbers, mut buffer, mut sent) = (Numbers(1), vec![0; 8 * 1024], 0);
                while !stop.load(Ordering::SeqCst) {
                    numbers.fill(&mut buffer);
                    client.send(&buffer).unwrap();
                    sent += buffer.len() as u64;
                    // Not further ahead than what fits into buffers, and not as fast as the processor allows.
                    while sent - received.load(Ordering::SeqCst) > 64 * 1024 {
                        thread::sleep(std::time::Duration::from_millis(1));
                    }
                    thread::sleep(std::time::Duration::from_millis(1));
                }
                client.close_notify();
                sent
            })
        };
        let receiving = {
            let (client, received) = (Arc::clone(&client), Arc::clone(&received));
            thread::spawn(move || {
                let (mut numbers, mut buffer, mut expected) = (Numbers(1), vec![0; 16 * 1024], vec![0; 16 * 1024]);
                loop {
                    match client.read(&mut buffer) {
                        Ok(count) => {
                            numbers.fill(&mut expected[..count]);
                            assert!(buffer[..count] == expected[..count], "other bytes than those that were sent");
                            received.fetch_add(count as u64, Ordering::SeqCst);
                        }
                        Err(End::Orderly) => return received.load(Ordering::SeqCst),
                        Err(end) => panic!("the stream was cut: {end:?}"),
                    }
                }
            })
        };
        Self { client, stop, received, threads: vec![sending, receiving] }
    }

    /// How many bytes have come back.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Ends it, and checks that everything has come back.
    #[track_caller]
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let counts: Vec<u64> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(counts[0], counts[1], "sent and received");
        drop(self.client);
        counts[0]
    }
}
