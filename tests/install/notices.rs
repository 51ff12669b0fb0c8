//! `[notify]` with secrets in files of their own: the installed gate reads them, and no other user.

use crate::common::backend::Backend;
use crate::machine::{Machine, UNPACKED};
use crate::receiver::Receiver;

#[test]
fn files_of_notify_are_installed_for_the_gate_alone() {
    let (machine, backend, receiver) = (Machine::new(), Backend::http("the page"), Receiver::start());
    machine.init_with(&[("nas", &backend)]);
    let script = format!(
        "umask 077; echo http://{}/secret-path > webhook.url; echo secret-token > webhook.token\n\
         printf '\\n[notify]\\nwebhook_file = \"webhook.url\"\\ntoken_file = \"webhook.token\"\\nevents = [\"new_device\"]\\n' >> doorward.toml",
        receiver.address()
    );
    machine.run("alice", "/home/alice/doorward", &["sh", "-euc", &script]).success();
    let said = machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    assert!(!format!("{said}").contains("secret-"), "{said}");
    let stat = |file: &str| {
        let file = format!("/etc/doorward/{file}");
        machine.run("root", "/", &["stat", "--format", "%U %G %a", &file]).success().text().trim().to_owned()
    };
    // As the keys of the gate.
    let key = stat("pki/server-key.pem");
    assert_eq!([stat("webhook.url"), stat("webhook.token")], [key.as_str(), &key]);
    assert_eq!(key, "doorward doorward 400");
    for file in ["/etc/doorward/webhook.url", "/etc/doorward/webhook.token"] {
        machine.run("doorward", "/", &["cat", file]).success();
        machine.run("nobody", "/", &["cat", file]).failure();
    }

    let gate = machine.gate();
    assert!(machine.is_admitted("alice-phone"));
    let posted = receiver.wait(1);
    assert_eq!((posted.path.as_str(), posted.header("authorization")), ("/secret-path", Some("Bearer secret-token")));
    assert_eq!((&posted.body["event"], &posted.body["subject"]), (&"new_device".into(), &"alice-phone".into()));
    let status = machine.run("root", "/", &["/usr/local/bin/doorward", "status"]).success().text();
    assert!(status.contains("messages to") && !status.contains("has taken no message"), "{status}");
    assert!(!format!("{}{status}", gate.output()).contains("secret-"), "{status}");

    // Another token goes the same way.
    machine.run("alice", "/home/alice/doorward", &["sh", "-euc", "echo other-token > webhook.token"]).success();
    machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    assert_eq!(machine.run("root", "/", &["cat", "/etc/doorward/webhook.token"]).text(), "other-token\n");
    assert_eq!(stat("webhook.token"), key);
}
