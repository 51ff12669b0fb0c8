//! The page of steps and the section for ssh: their commands work as they are printed.

use std::io::Write;
use std::net::Shutdown;

use crate::common::backend::Backend;
use crate::common::process::{run, run_with_input};
use crate::home::{Home, LOOPBACK, PAGE};

/// The text between `<pre>` and `</pre>`, as a browser shows it.
fn shown(page: &str) -> Vec<String> {
    let blocks = page.split("<pre>").skip(1).map(|rest| rest.split_once("</pre>").unwrap().0);
    blocks
        .map(|block| {
            let unescaped = block.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            unescaped.replace("&amp;", "&")
        })
        .collect()
}

#[test]
fn commands_on_the_page_work_as_printed() {
    let home = Home::new();
    let (nas, ssh) = (Backend::http(PAGE), Backend::echo());
    let gate = home.gate(&nas, &ssh);
    let page = std::fs::read_to_string(home.file("steps")).unwrap();
    // The page has every language, and the same commands in each.
    let blocks = shown(&page);
    let (first, others) = blocks.split_at(4);
    assert!(!others.is_empty() && others.chunks(4).all(|commands| commands == first), "{blocks:#?}");
    let [nss, curl, curl_archive, ssh_config] = <[String; 4]>::try_from(first.to_vec()).unwrap();

    // "Put … into a folder doorward in your home folder."
    let folder = home.folder().join("devices");
    let in_folder = |script: &str| home.bash(&gate, &format!("cd {}\n{script}", folder.display()));
    let got = run(&mut in_folder(&format!("{curl} --silent --show-error"))).success();
    assert_eq!(got.text(), PAGE);
    let with_password = curl_archive.replace("PASSWORD", home.password());
    assert_ne!(with_password, curl_archive);
    let got = run(&mut in_folder(&format!("{with_password} --silent --show-error"))).success();
    assert_eq!(got.text(), PAGE);

    home.nss_store();
    // It would ask for the password.
    let answered = nss.replace(" -i alice-phone.p12", &format!(" -i alice-phone.p12 -K '' -W {}", home.password()));
    assert_ne!(answered, nss);
    run(&mut in_folder(&answered)).success();
    let chromium = run(&mut in_folder(&format!("{} --dump-dom https://nas.home.example/", home.chromium()))).success();
    assert!(chromium.text().contains("<h1 id=\"marker\">The NAS says hello.</h1>"), "{chromium}");

    let file = std::fs::read_to_string(home.file("ssh_config")).unwrap();
    assert!(file.ends_with(&ssh_config), "{file}\n{ssh_config}");
    gate.wait_for_lines("three visitors", 3, |line| line["event"] == "closed" && line["route"] == "nas");
}

#[test]
fn ssh_connects_through_the_gate_with_its_section() {
    let home = Home::new();
    // It sends its version and closes the connection: proof enough that ssh has reached it.
    let nas = Backend::http(PAGE);
    let ssh = Backend::serve((LOOPBACK, 0), |mut stream, _| {
        let _ = stream.write_all(b"SSH-2.0-Doorward_test\r\n");
        let _ = stream.shutdown(Shutdown::Write);
    });
    let gate = home.gate(&nas, &ssh);
    // The files are where the first lines say.
    let place = home.path("doorward");
    for file in ["server-ca.crt", "alice-phone.pem", "alice-phone-key.pem"] {
        std::fs::copy(home.folder().join("devices").join(file), place.join(file)).unwrap();
    }
    let visit = format!(
        "ssh -v -F {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=none ssh.home.example true",
        home.file("ssh_config").display()
    );
    let spoke = run_with_input(&mut home.bash(&gate, &visit), b"").failure();
    assert!(spoke.stderr.contains("Remote protocol version 2.0, remote software version Doorward_test"), "{spoke}");
    let closed = gate.wait_closed("ssh", 1).remove(0);
    assert_eq!(closed["certificate"]["name"], "alice-phone", "{closed}");
    let elsewhere =
        run(home.tool("ssh", "openssh-client").arg("-G").arg("-F").arg(home.file("ssh_config")).arg("example.org"));
    assert!(!elsewhere.success().text().contains("proxycommand"), "all ssh connections would go through the gate");
}

#[test]
fn chromium_shows_both_pages() {
    let home = Home::new();
    let (nas, ssh) = (Backend::http(PAGE), Backend::echo());
    let gate = home.gate(&nas, &ssh);
    let shared = crate::shared::Shared::start(&home, &[]);
    let page = format!("file://{}", home.file("steps").display());
    for (url, buttons) in [(page, 0), (shared.url(), 6)] {
        let dom = run(&mut home.bash(&gate, &format!("{} --dump-dom {url}", home.chromium()))).success().text();
        assert!(dom.contains("<h1>Set up alice-phone</h1>"), "{dom}");
        assert_eq!(dom.matches("<button>").count(), buttons, "{dom}");
        // To be looked at: target/tmp/steps.png, target/tmp/link.png.
        let name = if buttons == 0 { "steps" } else { "link" };
        let picture = format!("{}/{name}.png", env!("CARGO_TARGET_TMPDIR"));
        let _ = std::fs::remove_file(&picture);
        run(&mut home.bash(&gate, &format!("{} --screenshot={picture} {url}", home.chromium()))).success();
        assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    }
}
