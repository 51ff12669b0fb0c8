//! A program of the owner changes the zone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::network::{FIRST, alone};
use crate::server::{Kind, Server};
use crate::{NAME, ONE, TWO, WILDCARD, block_on, publisher};

/// A server whose resolver part is asked for aliases, and a program of these lines.
struct Program {
    server: Server,
    folder: TempDir,
    path: PathBuf,
}

impl Program {
    fn new(lines: &str) -> Self {
        let server = Server::primary(Kind::Knot, FIRST);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns");
        let lines = lines.replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(&path, format!("#!/bin/bash\n{lines}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        Self { server, folder, path }
    }

    fn keys(&self) -> String {
        format!(
            "command = [\"{}\", \"first\", \"s e c\"], servers = [\"{}\"]",
            self.path.display(),
            self.server.address
        )
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn error(&self) -> String {
        block_on(publisher(&self.keys()).publish(NAME, ONE)).expect_err("it fails")
    }
}

#[test]
fn program_gets_verb_name_and_value_after_its_own_arguments() {
    alone(|| {
        let program = Program::new("printf '[%s]' \"$@\" >> FOLDER/out; env > FOLDER/env; cat > FOLDER/in");
        let publisher = publisher(&program.keys());
        block_on(async {
            publisher.publish(NAME, ONE).await.unwrap();
            publisher.publish(WILDCARD, TWO).await.unwrap();
            publisher.remove(WILDCARD, TWO).await.unwrap();
        });
        let record = "_acme-challenge.nas.home.example";
        let own = "[first][s e c]";
        assert_eq!(
            program.file("out"),
            format!("{own}[add][{record}][{ONE}]{own}[add][{record}][{TWO}]{own}[remove][{record}][{TWO}]")
        );
        // What bash adds of its own is PWD, SHLVL and _.
        let environment = program.file("env");
        let names: Vec<&str> =
            environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert!(names.contains(&"PATH"), "{environment}");
        assert!(names.iter().all(|name| ["PATH", "PWD", "SHLVL", "_"].contains(name)), "{environment}");
        assert_eq!(program.file("in"), "");
    });
}

#[test]
fn failure_is_told_with_the_last_line_of_stderr() {
    alone(|| {
        let program = Program::new("echo one >&2; echo 'no such zone' >&2; exit 3");
        let error = program.error();
        assert!(error.contains("the record _acme-challenge.nas.home.example was not published: "), "{error}");
        assert!(error.ends_with("/dns add: exit status: 3: no such zone"), "{error}");
    });
}

#[test]
fn flood_of_output_neither_stops_the_program_nor_fills_the_error() {
    alone(|| {
        let program = Program::new(
            "head -c 50000000 /dev/zero | tr '\\0' x; head -c 50000000 /dev/zero | tr '\\0' x >&2; exit 1",
        );
        let error = program.error();
        assert!(error.contains("exit status: 1: xxxx") && error.len() < 500, "{} bytes: {error:.300}", error.len());
    });
}

#[test]
fn background_child_does_not_hold_up_a_failure() {
    alone(|| {
        let program = Program::new("sleep 1000 & echo $! > FOLDER/pid; echo late >&2; exit 1");
        let error = program.error();
        assert!(error.ends_with("exit status: 1: late"), "{error}");
        let pid = program.file("pid");
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
}

#[test]
fn program_that_is_missing_is_named() {
    alone(|| {
        let program = Program::new("");
        std::fs::remove_file(&program.path).unwrap();
        let error = program.error();
        assert!(error.contains(&format!("{} cannot be started", program.path.display())), "{error}");
        assert!(!Path::new(&program.path).exists());
    });
}
