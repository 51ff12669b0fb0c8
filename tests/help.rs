//! `doorward help`: the manual on a terminal, as man pages, and the completions.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use doorward::manual::TOPICS;
use doorward::manual::terminal::{self, Look};

use common::process::{Finished, run, tool};

fn doorward(arguments: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments))
}

/// The names of the files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The commands, and those of `ca`, `certificate` and `generate` as `ca-device`, as clap's help lists them.
fn commands() -> BTreeSet<String> {
    let listed = |arguments: &[&str]| -> Vec<String> {
        let help = doorward(arguments).success().text();
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let nested = |command: &str| -> Vec<String> {
        let names = listed(&[command, "--help"]).into_iter().filter(|name| name != "help");
        names.map(|name| format!("{command}-{name}")).collect()
    };
    [listed(&["--help"]), nested("ca"), nested("certificate"), nested("generate")].concat().into_iter().collect()
}

#[test]
fn every_topic_is_printed_by_help() {
    for topic in TOPICS {
        let shown = doorward(&["help", topic.name]).success().text();
        let title = topic.text.lines().next().unwrap().trim_start_matches("# ");
        assert!(shown.starts_with(&format!("{title}\n====")), "{}: {shown}", topic.name);
        assert!(!shown.contains("]["), "{} shows a link's target", topic.name);
        assert!(!shown.contains('\x1b'), "{} is styled without a terminal", topic.name);
    }
}

#[test]
fn pages_are_wrapped_to_the_width() {
    for width in [80, 100] {
        for topic in TOPICS {
            let shown = terminal::page(topic, Look { width, styled: false });
            // Samples and figures stay as they are; they are indented by four.
            let long = shown.lines().filter(|line| line.chars().count() > width && !line.starts_with("    "));
            // A word cannot be broken: an address, say.
            let long: Vec<&str> = long.filter(|line| line.trim().contains(' ') && !line.contains("://")).collect();
            assert!(long.is_empty(), "{}, {width} columns: {long:#?}", topic.name);
        }
    }
}

#[test]
fn nothing_of_a_page_is_lost_on_a_terminal() {
    let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    for topic in TOPICS {
        let shown = letters(&terminal::page(topic, Look { width: 4000, styled: false }));
        // Paragraphs, cells and samples, without links, pictures and comments.
        for line in
            topic.text.lines().filter(|line| !line.contains(['[', '<', '!']) && !line.trim_start().starts_with("```"))
        {
            for cell in line.split(" | ") {
                let cell = letters(cell.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'));
                assert!(shown.contains(&cell), "{}: {line}", topic.name);
            }
        }
    }
}

#[test]
fn help_without_a_topic_lists_commands_and_topics() {
    let shown = doorward(&["help"]).success().text();
    assert_eq!(shown, doorward(&["--help"]).success().text());
    let listed = |name: &str| shown.lines().any(|line| line.starts_with(&format!("  {name} ")));
    for name in TOPICS.iter().map(|topic| topic.name).chain(["demo", "ca", "help"]) {
        assert!(listed(name), "{name} is not in {shown}");
    }
    assert!(listed("generate") && !listed("launcher"), "{shown}");
}

#[test]
fn help_of_a_command_is_its_own() {
    for command in commands() {
        let words: Vec<&str> = command.splitn(2, '-').collect();
        let by_option = doorward(&[&words[..], &["--help"]].concat()).success().text();
        assert_eq!(doorward(&[&["help"], &words[..]].concat()).success().text(), by_option, "{command}");
    }
    let nested = doorward(&["ca", "help", "device"]).success().text();
    assert_eq!(nested, doorward(&["ca", "device", "--help"]).success().text());
}

#[test]
fn topics_are_not_named_like_commands() {
    let commands = commands();
    assert!(TOPICS.iter().all(|topic| !commands.contains(topic.name)));
}

#[test]
fn unknown_topic_is_answered_with_a_suggestion() {
    for (arguments, suggestion) in [
        (&["help", "confguration"][..], "'configuration'"),
        (&["help", "statsu"], "'status'"),
        (&["help", "ca", "devise"], "'device'"),
        (&["help", "check", "device"], "unrecognized subcommand 'device'"),
        (&["help", "log", "fields"], "\"log\" is a page of the manual"),
    ] {
        let answer = doorward(arguments);
        assert_eq!(answer.status.code(), Some(2), "{answer}");
        assert!(answer.stderr.contains(suggestion), "{answer}");
        assert!(answer.text().is_empty(), "{answer}");
    }
}

#[test]
fn pager_gets_the_page_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shown");
    let program = env!("CARGO_BIN_EXE_doorward");
    let in_terminal = |pager: &str| {
        // script(1) runs it on a terminal of its own.
        let mut script = tool("script", "bsdutils");
        script.args(["-qec", &format!("stty cols 60; {program} help page"), "/dev/null"]);
        script.env("PAGER", pager).env("TERM", "xterm").env_remove("NO_COLOR").env_remove("LESS");
        run(&mut script).success().text()
    };
    in_terminal(&format!("cat >{}", file.display()));
    let shown = std::fs::read_to_string(&file).unwrap();
    assert_eq!(shown, terminal::page(topic("page"), Look { width: 60, styled: true }));
    assert!(shown.contains('\x1b'), "{shown}");
    // A pager that is not there is no reason to show nothing.
    assert!(in_terminal("no-such-pager 2>/dev/null").contains("127.0.0.1:9180"));
    assert!(in_terminal("").contains("127.0.0.1:9180"));
}

fn topic(name: &str) -> &'static doorward::manual::Topic {
    TOPICS.iter().find(|topic| topic.name == name).unwrap()
}

#[test]
fn man_pages_render_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("man");
    doorward(&["generate", "man", folder.to_str().unwrap()]).success();
    let mut expected: BTreeSet<String> = commands().iter().map(|command| format!("doorward-{command}.1")).collect();
    expected.insert("doorward.1".to_owned());
    expected.extend(TOPICS.iter().map(|topic| format!("doorward-{}.7", topic.name)));
    assert_eq!(names(&folder), expected);
    for name in expected {
        let mut man = tool("man", "man-db");
        man.args(["--warnings", "--local-file"]).arg(folder.join(&name));
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANPAGER", "cat");
        let shown = run(&mut man).success();
        assert_eq!(shown.stderr, "", "{name}");
        assert!(shown.text().contains("NAME"), "{name}: {shown}");
    }
}

#[test]
fn man_page_of_a_topic_has_its_samples_and_rows() {
    let folder = tempfile::tempdir().unwrap();
    doorward(&["generate", "man", folder.path().to_str().unwrap()]).success();
    let man = |name: &str| {
        let mut man = tool("man", "man-db");
        man.arg("--local-file").arg(folder.path().join(name));
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "4000").env("MANPAGER", "cat").env("MAN_KEEP_FORMATTING", "");
        run(&mut man).success().text()
    };
    let ssh = man("doorward-ssh-and-smb.7");
    assert!(ssh.contains(r"net use Z: \\127.0.0.1\share /TCPPORT:4450"), "{ssh}");
    assert!(ssh.contains("-verify_hostname %h -servername %h"), "{ssh}");
    let configuration = man("doorward-configuration.7");
    assert!(configuration.contains("\n           [[route]]\n           name = \"photos\"\n"), "{configuration}");
    assert!(configuration.contains("limits.connections_per_source | 256\n"), "{configuration}");
    let main = man("doorward.1");
    assert!(main.contains("EXIT STATUS") && main.contains("doorward-configuration(7)"), "{main}");
}

#[test]
fn completions_are_right_for_their_shells() {
    let folder = tempfile::tempdir().unwrap();
    doorward(&["generate", "completions", folder.path().to_str().unwrap()]).success();
    let files = ["_doorward", "doorward.bash", "doorward.fish"];
    assert_eq!(names(folder.path()), files.map(str::to_owned).into());
    for ((shell, check), file) in [("zsh", "-n"), ("bash", "-n"), ("fish", "--no-execute")].into_iter().zip(files) {
        let checked = run(tool(shell, shell).arg(check).arg(folder.path().join(file))).success();
        assert_eq!(checked.stderr, "", "{file}");
    }
    // bash asked for what may follow.
    let mut bash = tool("bash", "bash");
    let completion = folder.path().join("doorward.bash");
    let ask = |words: &str, count: usize| {
        format!(
            "source {completion:?}; COMP_WORDS=({words}); COMP_CWORD={count}; _doorward doorward conf help; echo ${{COMPREPLY[*]}}"
        )
    };
    let offered = run(bash.args(["-c", &ask("doorward help conf", 2)])).success().text();
    assert_eq!(offered.trim(), "configuration");
}
