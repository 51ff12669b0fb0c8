//! `doorward join --ssh`: the user's configuration is changed by one line, and comes back as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use doorward::bundle::Bundle;
use doorward::model::service::ServiceKind;

use crate::common::process::{run, tool};
use crate::people::{Issuer, User, mode, route};

const LINE: &str = "Include ~/.ssh/doorward_config\n";

fn own(user: &User) -> PathBuf {
    user.path(".ssh/doorward_config")
}

fn config(user: &User) -> PathBuf {
    user.path(".ssh/config")
}

fn joined(user: &User) -> Issuer {
    let issuer = Issuer::new();
    user.joins(&user.given("x.doorward", &issuer.bundle("laptop", -40, 100)), "", &[]).success();
    issuer
}

#[test]
fn ssh_takes_the_hosts_and_nothing_remains_of_them() {
    let user = User::new();
    joined(&user);
    let told = run(&mut user.join(&["--ssh"])).success();
    assert!(told.stderr.contains("ssh, scp, sftp, rsync and git reach these names"), "{told}");
    assert_eq!(fs::read_to_string(config(&user)).unwrap(), LINE);
    assert_eq!((mode(&config(&user)), mode(&own(&user)), mode(&user.path(".ssh"))), (0o600, 0o600, 0o700));
    let asked =
        |host: &str| run(tool("ssh", "openssh-client").arg("-G").arg("-F").arg(own(&user)).arg(host)).success().text();
    let line = format!("proxycommand {} connect %h\n", env!("CARGO_BIN_EXE_doorward"));
    assert!(asked("ssh.home.example").contains(&line), "{}", asked("ssh.home.example"));
    assert!(!asked("example.org").contains("proxycommand"));
    // Twice is once.
    run(&mut user.join(&["--ssh"])).success();
    assert_eq!(fs::read_to_string(config(&user)).unwrap(), LINE);
    run(&mut user.join(&["--undo", "home.example"])).success();
    assert_eq!(fs::read_dir(user.path(".ssh")).unwrap().count(), 0);
}

#[test]
fn another_home_is_added_and_taken_away_with_its_lines() {
    let user = User::new();
    let issuer = joined(&user);
    run(&mut user.join(&["--ssh"])).success();
    let before = fs::read(own(&user)).unwrap();
    let parents = Bundle {
        home: doorward::model::names::ServerName::parse("parents.example").unwrap(),
        routes: vec![
            route("ssh", ServiceKind::Ssh, "ssh.parents.example"),
            route("lab", ServiceKind::Ssh, "*.lab.parents.example"),
            route("nas", ServiceKind::Http, "nas.parents.example"),
        ],
        ..issuer.bundle("laptop", -40, 100)
    };
    user.joins(&user.given("p.doorward", &parents), "", &[]).success();
    let text = fs::read_to_string(own(&user)).unwrap();
    assert!(
        text.contains("\n# parents.example\nHost ssh.parents.example *.lab.parents.example\n  ProxyCommand "),
        "{text}"
    );
    run(&mut user.join(&["--undo", "parents.example"])).success();
    assert_eq!(fs::read(own(&user)).unwrap(), before);
    run(&mut user.join(&["--no-ssh"])).success();
    assert!(!own(&user).exists() && !config(&user).exists() && user.home_file("home.example").exists());
    run(&mut user.join(&["--no-ssh"])).success();
}

#[test]
fn users_own_configuration_is_what_it_was_afterwards() {
    for before in
        ["Host *\n  User x\n", "# no end", "\r\nHost a\r\n\tUser b\r\n", "Match host x\n Include other\n", "\n"]
    {
        let user = User::new();
        joined(&user);
        fs::create_dir(user.path(".ssh")).unwrap();
        fs::write(config(&user), before).unwrap();
        fs::set_permissions(config(&user), fs::Permissions::from_mode(0o644)).unwrap();
        run(&mut user.join(&["--ssh"])).success();
        assert_eq!(fs::read_to_string(config(&user)).unwrap(), format!("{LINE}{before}"));
        assert_eq!(mode(&config(&user)), 0o644);
        // What the user changes in between stays.
        let between = format!("# mine\n{LINE}{before}");
        fs::write(config(&user), &between).unwrap();
        run(&mut user.join(&["--ssh"])).success();
        assert_eq!(fs::read_to_string(config(&user)).unwrap(), between);
        run(&mut user.join(&["--no-ssh"])).success();
        assert_eq!(fs::read_to_string(config(&user)).unwrap(), format!("# mine\n{before}"));
    }
}

#[test]
fn links_stay_links_and_what_they_lead_to_is_changed() {
    let user = User::new();
    joined(&user);
    fs::create_dir_all(user.path("dotfiles")).unwrap();
    fs::create_dir(user.path(".ssh")).unwrap();
    fs::write(user.path("dotfiles/ssh"), "Host *\n").unwrap();
    symlink("../dotfiles/ssh", config(&user)).unwrap();
    run(&mut user.join(&["--ssh"])).success();
    assert!(fs::symlink_metadata(config(&user)).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(user.path("dotfiles/ssh")).unwrap(), format!("{LINE}Host *\n"));
    run(&mut user.join(&["--no-ssh"])).success();
    assert!(fs::symlink_metadata(config(&user)).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(user.path("dotfiles/ssh")).unwrap(), "Host *\n");

    // A link to nowhere is left as it is, with the line to add.
    fs::remove_file(user.path("dotfiles/ssh")).unwrap();
    let failed = run(&mut user.join(&["--ssh"])).failure();
    assert!(failed.stderr.contains("write this as its first line: Include ~/.ssh/doorward_config"), "{failed}");
    assert!(fs::symlink_metadata(config(&user)).unwrap().is_symlink() && !user.path("dotfiles/ssh").exists());
}

#[test]
fn files_of_others_are_not_overwritten_and_nothing_is_written_for_no_route() {
    let user = User::new();
    let told = run(&mut user.join(&["--ssh"])).success();
    assert!(told.stderr.contains("No route that was joined leads to an SSH server"), "{told}");
    assert!(!user.path(".ssh").exists());
    joined(&user);
    fs::create_dir(user.path(".ssh")).unwrap();
    fs::write(own(&user), "Host mine\n").unwrap();
    for option in ["--ssh", "--no-ssh"] {
        let refused = run(&mut user.join(&[option])).failure();
        assert_eq!(refused.status.code(), Some(7));
        assert!(refused.stderr.contains("was written by something else"), "{refused}");
    }
    assert_eq!(fs::read_to_string(own(&user)).unwrap(), "Host mine\n");
    assert!(!config(&user).exists());
    // Joining works all the same, and does not touch it.
    run(&mut user.join(&["--list"])).success();
    run(&mut user.join(&["--undo", "home.example"])).success();
    assert_eq!(fs::read_to_string(own(&user)).unwrap(), "Host mine\n");
}
