//! What `deploy/` holds is right in the eyes of the programs that will read it.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::{run, tool};

const UNIT: &str = include_str!("../deploy/doorward.service");
const INSTALLED: &str = "/usr/local/bin/doorward";

/// `.cargo/config.toml` asks the build of AWS-LC to leave that out, and a build that is told nothing has it.
#[test]
fn program_gathers_no_entropy_of_its_own_at_its_start() {
    let names = run(tool("nm", "binutils").arg(env!("CARGO_BIN_EXE_doorward"))).success().text();
    assert!(names.contains("CRYPTO_sysrand"), "nm shows no names of AWS-LC");
    assert!(!names.contains("jent_"), "AWS-LC was built with its jitter entropy");
}

/// The unit in a folder of its own, as if the program were installed where this build put it.
fn unit(folder: &Path) -> PathBuf {
    let file = folder.join("doorward.service");
    assert!(UNIT.contains(&format!("ExecStart={INSTALLED} run")));
    std::fs::write(&file, UNIT.replace(INSTALLED, env!("CARGO_BIN_EXE_doorward"))).unwrap();
    file
}

#[test]
fn systemd_finds_no_mistake_in_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let verified = run(tool("systemd-analyze", "systemd").arg("verify").arg(unit(folder.path()))).success();
    // It exits with 0 in spite of keys that it does not know, and only mentions them.
    // Before 253 it does not know notify-reload, and keeps the Type= of the line before.
    let unknown = "Failed to parse service type, ignoring: notify-reload";
    let rest: Vec<&str> = verified.stderr.lines().filter(|line| !line.ends_with(unknown)).collect();
    assert_eq!(rest, [""; 0], "{verified}");
    assert_eq!(verified.text(), "", "{verified}");
}

#[test]
fn systemd_calls_the_unit_hardened() {
    let folder = tempfile::tempdir().unwrap();
    let file = unit(folder.path());
    // From 0.0 (nothing can happen) to 10.0; what is left above 0 is mostly that a gate needs the network. In tenths.
    let mut security = tool("systemd-analyze", "systemd");
    run(security.args(["security", "--offline=yes", "--no-pager", "--threshold=12"]).arg(file)).success();
}

#[test]
fn split_program_runs_and_finds_its_lines_in_the_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_doorward"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/split-symbols");
    run(Command::new(script).args([program, folder.path()])).success();
    let installed = folder.path().join("doorward");
    assert_eq!(
        run(Command::new(&installed).arg("--version")).success().stdout,
        run(Command::new(program).arg("--version")).success().stdout
    );
    let sections = |name: &str| {
        let file = folder.path().join(name);
        run(tool("objdump", "binutils").arg("-h").arg(file)).success().text()
    };
    assert!(!sections("doorward").contains(".debug_line"));
    assert!(sections("doorward").contains(".gnu_debuglink"));
    assert!(sections("doorward.debug").contains(".debug_line"));
    // The names stay, or a backtrace would be a list of addresses.
    let names = run(tool("nm", "binutils").arg("--demangle").arg(&installed)).success();
    assert!(names.text().contains("doorward::cli::main"));
}
