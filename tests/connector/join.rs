//! `doorward join`: what is written, shown and removed.

use std::fs;
use std::path::Path;
use std::process::Command;

use doorward::bundle::{Bundle, BundleKey, Trust};
use doorward::connector::homes::read_bundle;
use doorward::model::names::ServerName;
use doorward::model::service::ServiceKind;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::common::process::{run, run_with_input, tool};
use crate::common::terminal::on_a_terminal;
use crate::people::{Issuer, Owner, User, day, mode, route};

#[test]
fn file_may_come_from_a_pipe() {
    let (owner, user) = (Owner::new(), User::new());
    let (file, password) = owner.file();
    let text = fs::read(&file).unwrap();
    // The password is not looked for behind the file.
    let mut alone = tool("setsid", "util-linux");
    alone.args(["--wait", env!("CARGO_BIN_EXE_doorward"), "join", "-"]).env("HOME", user.path(""));
    let unasked = run_with_input(alone.env_remove("XDG_CONFIG_HOME"), &text).failure();
    assert!(
        unasked.stderr.contains("cannot ask for the password") && unasked.stderr.contains("--password-file"),
        "{unasked}"
    );
    assert!(!user.home_file("home.example").exists());

    let secret = owner.path("password");
    fs::write(&secret, &password).unwrap();
    let joined = run_with_input(&mut user.join(&["-", "--password-file", secret.to_str().unwrap()]), &text).success();
    assert!(joined.stderr.starts_with("home.example is joined: "), "{joined}");
    assert!(!joined.stderr.contains("no longer needed"), "{joined}");
    assert_eq!(read_bundle(&user.home_file("home.example")).unwrap().chain, read_bundle(&file).unwrap().chain);
}

#[test]
fn joining_keeps_the_file_and_undo_leaves_nothing() {
    let (owner, user) = (Owner::new(), User::new());
    let (file, password) = owner.file();
    let joined = user.joins(&file, &password, &[]).success();
    assert_eq!(joined.text(), "", "stdout is for data");
    let home = user.home_file("home.example");
    assert_eq!((mode(&home), mode(home.parent().unwrap())), (0o600, 0o700));
    let (kept, given) = (read_bundle(&home).unwrap(), read_bundle(&file).unwrap());
    assert_eq!(Bundle { key: given.key.clone(), ..kept.clone() }, given);
    let key = PrivateKeyDer::from_pem_file(owner.path("devices/alice-laptop-key.pem")).unwrap();
    assert!(matches!(kept.key, BundleKey::Plain(_)));
    assert_eq!(kept.unlock(""), Ok(key));
    let program = env!("CARGO_BIN_EXE_doorward");
    for line in [
        "home.example is joined: this device is alice-laptop there, with a certificate that is valid until 20"
            .to_owned(),
        "  nas  https://nas.home.example/ in a browser that has the .p12 file".to_owned(),
        format!("  ssh  ssh -o ProxyCommand='{program} connect %h' ssh.home.example"),
        format!("  smb  {program} forward smb"),
        format!("To let ssh do that always: {program} join --ssh"),
    ] {
        assert!(joined.stderr.contains(&line), "{line:?} is not in\n{joined}");
    }
    assert!(!joined.stderr.contains(&password), "{joined}");
    assert!(!user.path(".ssh").exists(), "ssh is changed only on request");

    let listed = run(&mut user.join(&["--list"])).success().text();
    assert!(
        listed.starts_with("home.example  alice-laptop  valid until 20") && listed.contains("\n  smb  "),
        "{listed}"
    );

    // Again, without a question: there is nothing new in it.
    let before = fs::metadata(&home).unwrap().modified().unwrap();
    let again = user.joins(&file, "wrong", &[]).success();
    assert!(again.stderr.starts_with("home.example is joined already: "), "{again}");
    assert_eq!(fs::metadata(&home).unwrap().modified().unwrap(), before);

    let undone = run(&mut user.join(&["--undo", "home.example"])).success();
    assert!(undone.stderr.starts_with("home.example is removed from this device, with its key."), "{undone}");
    assert_eq!(fs::read_dir(home.parent().unwrap()).unwrap().count(), 0);
    let twice = run(&mut user.join(&["--undo", "home.example"])).failure();
    assert_eq!(twice.status.code(), Some(2));
    assert!(twice.stderr.contains("no home called \"home.example\" was joined"), "{twice}");
    assert_eq!(run(&mut user.join(&["--list"])).success().stderr, "This user has joined no home.\n");
}

#[test]
fn password_is_asked_for_on_a_terminal_and_not_shown() {
    let (owner, user) = (Owner::new(), User::new());
    let (file, password) = owner.file();
    let mut command = Command::new("/usr/bin/env");
    command.args(["-u", "XDG_CONFIG_HOME"]).arg(format!("HOME={}", user.path("").display()));
    command.arg(env!("CARGO_BIN_EXE_doorward")).arg("join").arg(&file);
    let (shown, code) = on_a_terminal(&command, &["not the password"]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("wrong password; nothing was written"), "{shown}");
    assert!(!user.home_file("home.example").exists());
    let (shown, code) = on_a_terminal(&command, &[&format!(" {password} ")]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Password of ") && !shown.contains(&password), "{shown}");
    assert!(user.home_file("home.example").exists());
}

#[test]
fn wrong_or_missing_passwords_write_nothing() {
    let (owner, user) = (Owner::new(), User::new());
    let (file, password) = owner.file();
    for (wrong, said) in [
        ("aaaa-bbbb-cccc-dddd-eeee", "wrong password; nothing was written"),
        (&password[..password.len() - 1], "wrong password; nothing was written"),
        ("", "a password is needed, and there is no terminal to ask on"),
    ] {
        let refused = user.joins(&file, wrong, &[]).failure();
        assert_eq!(refused.status.code(), Some(2));
        assert!(refused.stderr.contains(said), "{refused}");
    }
    assert!(!user.path(".config").exists());
    let from = user.path("password");
    fs::write(&from, format!("{password}\r\nmore\n")).unwrap();
    run(&mut user.join(&[file.to_str().unwrap(), "--password-file", from.to_str().unwrap()])).success();
    assert!(user.home_file("home.example").exists());
}

#[test]
fn renewed_file_replaces_and_an_older_one_does_not() {
    let (issuer, user) = (Issuer::new(), User::new());
    let old = user.given("old.doorward", &issuer.bundle("laptop", -40, 100));
    let new = user.given("new.doorward", &issuer.bundle("laptop", -1, 500));
    user.joins(&old, "", &[]).success();
    let replaced = user.joins(&new, "", &[]).success();
    assert!(replaced.stderr.starts_with("home.example is replaced: "), "{replaced}");
    let kept =
        |chain: &Path| read_bundle(&user.home_file("home.example")).unwrap().chain == read_bundle(chain).unwrap().chain;
    assert!(kept(&new));
    let refused = user.joins(&old, "", &[]).failure();
    assert_eq!(refused.status.code(), Some(7));
    let said = format!("the certificate here is newer than the one in the file; it is valid until {}", day(500));
    assert!(refused.stderr.contains(&said), "{refused}");
    assert!(kept(&new));
    user.joins(&old, "", &["--replace"]).success();
    assert!(kept(&old));
}

#[test]
fn file_of_a_stranger_does_not_take_over_a_home() {
    let (issuer, stranger, user) = (Issuer::new(), Issuer::new(), User::new());
    let own = user.given("own.doorward", &issuer.bundle("laptop", -40, 100));
    user.joins(&own, "", &[]).success();
    let before = fs::read(user.home_file("home.example")).unwrap();
    let public = Bundle { trust: Trust::Public, ..issuer.bundle("laptop", -1, 500) };
    // Called otherwise, but with the same server names: `connect ssh.home.example` would mean it.
    let renamed = Bundle { home: ServerName::parse("other.example").unwrap(), ..stranger.bundle("laptop", -1, 500) };
    let other_named = |server_name: &str| Bundle {
        home: ServerName::parse("other.example").unwrap(),
        routes: vec![route("any", ServiceKind::Ssh, server_name)],
        ..stranger.bundle("laptop", -1, 500)
    };
    // The authority of a home is no secret: every device has it.
    let mut both = stranger.bundle("laptop", -1, 500);
    if let (Trust::Authorities(theirs), Trust::Authorities(ours)) = (&mut both.trust, issuer.bundle("x", -1, 1).trust) {
        theirs.extend(ours);
    }
    for (bundle, said) in [
        (both, "the file names another authority for the gate's certificate"),
        (stranger.bundle("laptop", -1, 500), "the file names another authority for the gate's certificate"),
        (public, "the file names another authority for the gate's certificate"),
        (other_named("*.home.example"), "the file names another authority for the gate's certificate"),
        (other_named("ssh.home.example"), "the file names another authority for the gate's certificate"),
        (renamed, "the file names another authority for the gate's certificate"),
        (issuer.bundle("phone", -1, 500), "this user has joined it as laptop"),
    ] {
        let file = user.given("other.doorward", &bundle);
        let refused = user.joins(&file, "", &[]).failure();
        assert_eq!(refused.status.code(), Some(7), "{refused}");
        assert!(refused.stderr.contains(said), "{refused}");
        assert_eq!(fs::read(user.home_file("home.example")).unwrap(), before);
    }
    // Several homes, if that is what the user wants.
    let file = user.given("other.doorward", &stranger.bundle("laptop", -1, 500));
    user.joins(&file, "", &["--as", "parents"]).success();
    let listed = run(&mut user.join(&["--list"])).success().text();
    assert!(listed.contains("\n  ssh.home.example  ") && listed.contains("\n  ssh.parents  "), "{listed}");
    run(&mut user.join(&["--undo", "parents"])).success();
    assert_eq!(fs::read(user.home_file("home.example")).unwrap(), before);
}

#[test]
fn home_that_its_owner_calls_otherwise_is_the_same_home() {
    let (issuer, user) = (Issuer::new(), User::new());
    user.joins(&user.given("a.doorward", &issuer.bundle("laptop", -40, 100)), "", &["--as", "ours"]).success();
    let newer = Bundle { home: ServerName::parse("ssh.home.example").unwrap(), ..issuer.bundle("laptop", -1, 500) };
    let replaced = user.joins(&user.given("b.doorward", &newer), "", &[]).success();
    assert!(replaced.stderr.starts_with("ours is replaced: "), "{replaced}");
    assert_eq!(read_bundle(&user.home_file("ours")).unwrap(), newer);
    assert!(!user.home_file("ssh.home.example").exists());
}

/// With a certificate of a public authority for a name of its own, any gate is trusted. So the names are what tells homes apart.
#[test]
fn names_of_a_stranger_do_not_take_over_a_home_with_a_public_certificate() {
    let (issuer, stranger, user) = (Issuer::new(), Issuer::new(), User::new());
    let public = |bundle: Bundle| Bundle { trust: Trust::Public, ..bundle };
    user.joins(&user.given("own.doorward", &public(issuer.bundle("laptop", -40, 100))), "", &[]).success();
    let before = fs::read(user.home_file("home.example")).unwrap();
    let with = |server_name: &str| {
        let routes = vec![route("ssh", ServiceKind::Ssh, server_name)];
        public(Bundle { routes, ..stranger.bundle("laptop", -1, 500) })
    };
    let name = |text: &str| ServerName::parse(text).unwrap();
    let renewal = Bundle { renewal: Some(name("renew.evil.example")), ..with("ssh.home.example") };
    // Its own name for the home, and one of the names here.
    let mut renamed = Bundle { home: name("evil.example"), ..with("ssh.home.example") };
    renamed.routes.push(route("nas", ServiceKind::Http, "nas.evil.example"));
    for bundle in
        [with("ssh.evil.example"), with("*.evil.example"), with("xhome.example"), with("example"), renewal, renamed]
    {
        let refused = user.joins(&user.given("other.doorward", &bundle), "", &[]).failure();
        assert_eq!(refused.status.code(), Some(7), "{refused}");
        assert!(refused.stderr.contains("which is no name of the home here"), "{refused}");
        assert_eq!(fs::read(user.home_file("home.example")).unwrap(), before);
    }
    // A new service of the home is none.
    let mut more = public(issuer.bundle("laptop", -1, 500));
    more.routes.push(route("nas", ServiceKind::Http, "nas.home.example"));
    more.routes.push(route("lab", ServiceKind::Other, "*.lab.home.example"));
    more.renewal = Some(name("renew.home.example"));
    user.joins(&user.given("own.doorward", &more), "", &[]).success();
    assert_eq!(read_bundle(&user.home_file("home.example")).unwrap(), more);
}
