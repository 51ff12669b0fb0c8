//! `doorward certificate use`: from an own certificate to a public one and back.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::{Finished, run_with_input, tool};
use crate::public::{NAME, PublicHome};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.text()).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// `openssl s_client` as the device, which trusts the root in this file.
fn client(home: &PublicHome, gate: &Gate, root: &Path) -> Command {
    let mut openssl = tool("openssl", "openssl");
    openssl.args([
        "s_client",
        "-quiet",
        "-no_ign_eof",
        "-verify_quiet",
        "-verify_return_error",
        "-verify_hostname",
        NAME,
    ]);
    openssl.args(["-servername", NAME, "-connect", &gate.address().to_string(), "-CAfile"]).arg(root);
    openssl.arg("-cert").arg(home.path("doorward/devices/alice-phone.pem"));
    openssl.arg("-key").arg(home.path("doorward/devices/alice-phone-key.pem"));
    openssl
}

/// A connection that lasts.
struct Session {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Session {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut session = Self { child, to, from };
        session.echo("begin");
        session
    }

    #[track_caller]
    fn echo(&mut self, word: &str) {
        writeln!(self.to.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{word}\n"), "the session has ended");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which of the two roots the gate's certificate of this moment leads to.
#[track_caller]
fn shown(home: &PublicHome, gate: &Gate) -> &'static str {
    let trusted = |root: &Path| run_with_input(&mut client(home, gate, root), b"hello\n").status.success();
    let [public, own] = [home.path("root.pem"), home.path("doorward/pki/server-ca.pem")].map(|root| trusted(&root));
    assert_ne!(public, own);
    if public { "public" } else { "own" }
}

#[test]
fn session_lives_through_public_own_and_public() {
    let home = PublicHome::new(&[]);
    let (nas, ssh) = (Backend::echo(), Backend::echo());
    let gate = Gate::start_with_control(&home.config(LOCAL, &nas, &ssh));
    let config = gate.folder().join("doorward.toml");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = std::fs::read_to_string(&config).unwrap();
    let folder = home.path("doorward").display().to_string();
    let use_ = |certificate: &str| {
        let switched =
            gate.ask(&["certificate", "use", certificate, "--folder", &folder, "--format", "json"]).success();
        let switched = json(&switched);
        assert_eq!(switched["in_force"], true, "{switched}");
        switched["changed"].as_bool().unwrap()
    };
    let kind = || json(&gate.ask(&["certificate", "--format", "json"]).success())["certificates"][0]["kind"].clone();
    let mut session = Session::start(client(&home, &gate, &home.path("root.pem")));
    assert_eq!((shown(&home, &gate), kind()), ("public", "files".into()));

    assert!(use_("own"));
    session.echo("one");
    assert_eq!((shown(&home, &gate), kind()), ("own", "own".into()));
    let own = std::fs::read_to_string(&config).unwrap();
    assert!(own.contains("#| # What the gate shows.\n#| [certificate]\n#| chain = "), "{own}");

    assert!(use_("public"));
    session.echo("two");
    assert_eq!((shown(&home, &gate), kind()), ("public", "files".into()));
    // What was there is there again, and what is in comments aside nothing else.
    let public = std::fs::read_to_string(&config).unwrap();
    let kept = |line: &&str| !line.starts_with("#|") && !line.starts_with("# Not in use.");
    assert_eq!(public.split_inclusive('\n').filter(kept).collect::<String>(), before);
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o7777, 0o640);

    assert!(use_("own"));
    session.echo("three");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), own, "the same however often");
    let already = gate.ask(&["certificate", "use", "own", "--folder", &folder]).success();
    assert!(already.stderr.contains("uses this already"), "{already}");
    drop(session);
    gate.settled();
}

#[test]
fn own_certificate_is_shown_until_the_public_one_is_issued() {
    let home = PublicHome::new(&[]);
    let (nas, ssh) = (Backend::echo(), Backend::echo());
    let files = [("public.pem", "doorward/pki/server.pem"), ("public-key.pem", "doorward/pki/server-key.pem")];
    let config = files.iter().fold(home.config(LOCAL, &nas, &ssh), |config, (public, own)| {
        config.replace(&home.path(public).display().to_string(), &home.path(own).display().to_string())
    });
    let gate = Gate::start_with_control(&config);
    let mut session = Session::start(client(&home, &gate, &home.path("doorward/pki/server-ca.pem")));
    // Nothing listens there.
    let folder = home.path("doorward").display().to_string();
    let root = home.path("root.pem").display().to_string();
    let directory = "https://127.0.0.1:1/directory";
    let arguments = ["certificate", "use", "public", "--folder", &folder, "--directory", directory, "--trust", &root];
    let switched = gate.ask(&arguments).success();
    assert!(switched.stderr.contains("the gate shows the one that it has now"), "{switched}");
    assert!(switched.stderr.contains("Devices need no change"), "{switched}");
    session.echo("one");
    let own = home.path("doorward/pki/server-ca.pem");
    let hello = |root: &Path| run_with_input(&mut client(&home, &gate, root), b"hello\n").status.success();
    assert!(hello(&own), "devices would be refused");

    let failed = gate.ask(&["certificate", "renew"]).failure();
    assert_eq!(failed.status.code(), Some(12), "{failed}");
    assert!(failed.stderr.contains("no certificate was issued; the one in use stays in use"), "{failed}");
    assert!(failed.stderr.contains(&format!("failed at {directory}")), "{failed}");
    let status = json(&gate.ask(&["certificate", "--format", "json"]).success());
    assert_eq!(status["orders"]["directory"], directory, "{status}");
    assert!(!status["orders"]["failure"]["error"].as_str().unwrap().is_empty(), "{status}");
    assert!(hello(&own) && status["running"] == true);

    gate.ask(&["certificate", "use", "own", "--folder", &folder]).success();
    session.echo("two");
    assert!(hello(&own));
    let refused = gate.ask(&["certificate", "renew"]).failure();
    assert_eq!(refused.status.code(), Some(8), "{refused}");
    assert!(refused.stderr.contains("no [certificate.acme]"), "{refused}");
    drop(session);
    gate.settled();
}

#[test]
fn authority_is_made_for_a_gate_that_has_none() {
    let home = PublicHome::new(&["--acme"]);
    let config = home.path("doorward/doorward.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    let status = json(&home.doorward(&["certificate", "--format", "json"]).success());
    assert_eq!((&status["running"], &status["certificates"][0]["kind"]), (&false.into(), &"temporary".into()));

    let prepared = json(&home.doorward(&["certificate", "use", "own", "--prepare", "--format", "json"]).success());
    assert_eq!((&prepared["changed"], std::fs::read_to_string(&config).unwrap()), (&false.into(), before.clone()));
    let root = home.path("doorward/pki/server-ca.pem");
    assert_eq!(home.path(prepared["authority"].as_str().unwrap()), root);
    let made = std::fs::read(&root).unwrap();
    let mut openssl = tool("openssl", "openssl");
    let shown = openssl.args(["x509", "-noout", "-text", "-in"]).arg(&root);
    let shown = crate::common::process::run(shown).success();
    assert!(shown.text().contains("DNS:alice.duckdns.org"), "it can vouch for other domains: {shown}");

    let switched = home.doorward(&["certificate", "use", "own"]).success();
    assert!(switched.stderr.contains("Each device must trust your authority"), "{switched}");
    assert_eq!(std::fs::read(&root).unwrap(), made, "it is there already");
    home.doorward(&["check"]).success();
    let status = json(&home.doorward(&["certificate", "--format", "json"]).success());
    assert_eq!(status["certificates"][0]["kind"], "own");
    assert_eq!(status["certificates"][0]["names"], serde_json::json!([NAME, "ssh.alice.duckdns.org"]));
    // Files for devices have it from now on.
    home.doorward(&["ca", "device", "bob-laptop"]).success();
    assert!(home.path("doorward/devices/server-ca.crt").exists());
    assert_eq!(home.doorward(&["certificate", "use", "public", "--format", "json"]).success().status.code(), Some(0));
    let kept = |line: &&str| !line.starts_with("#|") && !line.starts_with("# Not in use.");
    let after = std::fs::read_to_string(&config).unwrap();
    assert_eq!(after.split_inclusive('\n').filter(kept).collect::<String>(), before);
}

#[test]
fn new_authority_has_the_passphrase_of_the_others() {
    let home = PublicHome::new(&["--acme"]);
    std::fs::write(home.path("passphrase"), "correct horse\n").unwrap();
    home.doorward(&["ca", "passphrase", "--folder", "doorward", "--new-passphrase-file", "passphrase"]).success();
    std::fs::write(home.path("wrong"), "wrong\n").unwrap();
    let wrong = home.doorward(&["certificate", "use", "own", "--passphrase-file", "wrong"]).failure();
    assert_eq!(wrong.status.code(), Some(2), "{wrong}");
    assert!(!home.path("doorward/pki/server-ca.pem").exists());
    home.doorward(&["certificate", "use", "own", "--passphrase-file", "passphrase"]).success();
    let key = std::fs::read_to_string(home.path("doorward/pki/server-ca-key.pem")).unwrap();
    assert!(key.contains("ENCRYPTED PRIVATE KEY"), "{key}");
}

#[test]
fn what_cannot_work_changes_nothing() {
    let home = PublicHome::new(&[]);
    let config = home.path("doorward/doorward.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let refused = |text: &str, arguments: &[&str], code: i32, why: &str| {
        std::fs::write(&config, text).unwrap();
        let refused = home.doorward(&[&["certificate", "use"], arguments].concat()).failure();
        assert_eq!(refused.status.code(), Some(code), "{refused}");
        assert!(refused.stderr.contains(why), "{why} is missing in {refused}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text, "{why}");
    };
    refused(&text, &["public", "--domain", "alice.duckdns.org"], 2, "about an authority of your own");
    refused(&text, &["own", "--contact", "alice@home.example"], 2, "about a public certificate");
    refused(&text, &["pubic"], 2, "public");
    let private = text.replace("nas.alice.duckdns.org", "nas.home.lan");
    refused(&private, &["public"], 2, "names that end in .lan exist in home networks only");
    let section = "[certificate]\nchain = \"pki/server.pem\"\nkey = \"pki/server-key.pem\"\n";
    let inline = "certificate = { chain = \"pki/server.pem\", key = \"pki/server-key.pem\" }\n";
    let inline = format!("{inline}{}", text.replace(section, ""));
    refused(&inline, &["public"], 3, "write into it, in place of that:\n# The gate's certificate");
    refused(&text.replace("backends", "backend"), &["public"], 3, "backend");
}
