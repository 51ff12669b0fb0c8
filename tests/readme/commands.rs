//! Commands, their options and exit codes, and what is to be typed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::common::process::{run, tool};
use crate::{TEXT, blocks, table, word};

/// What a `doorward` command writes to stdout.
fn doorward(arguments: &[&str]) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments)).success().text()
}

/// The commands that `--help` names.
fn commands() -> BTreeSet<String> {
    let help = doorward(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn commands_are_those_that_there_are() {
    let commands = commands();
    let documented: BTreeSet<String> =
        table("command").iter().map(|row| word(&row[0]).strip_prefix("doorward ").unwrap().to_owned()).collect();
    assert_eq!(documented, commands);
    // Whatever is to be typed exists, options included.
    for block in blocks().iter().filter(|block| ["sh", "text"].contains(&block.language)) {
        for line in block.text.lines() {
            let line = line.trim_start().trim_start_matches("$ ");
            let Some(arguments) =
                line.strip_prefix("doorward ").or_else(|| Some(line.split_once(" run --release -- ")?.1))
            else {
                continue;
            };
            let mut words = arguments.split_whitespace();
            let command = words.next().unwrap();
            assert!(commands.contains(command), "{line}");
            // These have commands of their own.
            let help = match command {
                "ca" | "generate" => doorward(&[command, words.next().unwrap(), "--help"]),
                _ => doorward(&[command, "--help"]),
            };
            // Also at the end of a line.
            let help = help.replace('\n', " \n");
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(&format!("{option} ")), "{option} in {line}");
            }
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let help = doorward(&["--help"]);
    let codes: Vec<String> =
        help.lines().skip_while(|line| *line != "Exit codes:").skip(1).map(|line| line.trim().to_owned()).collect();
    let documented: Vec<String> = table("exit code").iter().map(|row| format!("{}  {}", row[0], row[1])).collect();
    assert_eq!(documented, codes);
    use doorward::cli::exit;
    let constants = [
        exit::OK,
        exit::UNEXPECTED,
        exit::USAGE,
        exit::CONFIG,
        exit::START,
        exit::CUT,
        exit::REFUSED,
        exit::EXISTS,
        exit::NO_GATE,
        exit::NOT_FETCHED,
        exit::NOT_IN_FORCE,
        exit::NOT_DELIVERED,
        exit::NOT_ISSUED,
        exit::LOST,
        exit::WAITING,
    ];
    let numbers: Vec<u8> = codes.iter().map(|line| line.split_once("  ").unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, constants);
}

#[test]
fn line_for_ssh_is_the_one_that_is_tested() {
    const TESTED: &str = include_str!("../real/ssh.rs");
    let line = TEXT
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("ProxyCommand ").filter(|line| line.starts_with("openssl")));
    let line = line.unwrap();
    // As a format string: with places for the address and for the files.
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let file = words.last().is_some_and(|option| ["-connect", "-CAfile", "-cert", "-key"].contains(option));
        words.push(if file { "{}" } else { word });
    }
    let line = words.join(" ");
    let (server, client) = line.split_once(" -cert ").unwrap();
    // Long strings are broken in the source, by a backslash and the indentation of the next line.
    let source: String = TESTED.split("\\\n").map(str::trim_start).collect();
    assert!(source.contains(&format!("\"{server}\"")), "{server}");
    assert!(source.contains(&format!(" -cert {client}\"")), "-cert {client}");
}

#[test]
fn device_gets_in_is_renewed_and_shut_out_as_described() {
    let block = blocks().into_iter().find(|block| block.before == "<!-- run in the folder of init -->").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut init = Command::new(env!("CARGO_BIN_EXE_doorward"));
    init.current_dir(&home).args(["init", "--domain", "home.example", "--device", "alice-phone"]);
    run(init.args(["--route", "nas=192.168.1.10:5666"])).success();
    let folder = Path::new(env!("CARGO_BIN_EXE_doorward")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let in_folder = |script: &str| {
        let mut bash = tool("bash", "bash");
        bash.current_dir(home.path().join("doorward")).env("PATH", &path).args(["-euc", script]);
        run(&mut bash)
    };
    let made = in_folder(&block.text).success();
    assert!(
        made.text().starts_with("yes: nas.home.example leads to route \"nas\", which admits carol-laptop"),
        "{made}"
    );
    assert!(made.text().contains("carol-laptop  device  renewed"), "{made}");
    // Both of its certificates are out, and no others.
    for (certificate, answer) in [
        ("devices/carol-laptop.pem", "no: certificate/revoked"),
        ("$(ls -t pki/issued/*.pem | sed -n 2p)", "no: certificate/revoked"),
        ("devices/alice-phone.pem", "yes: "),
    ] {
        let asked = in_folder(&format!("doorward explain --server-name nas.home.example --cert {certificate} || true"));
        assert!(asked.text().starts_with(answer), "{certificate}: {asked}");
    }
}
