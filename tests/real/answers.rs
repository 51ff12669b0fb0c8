//! `doorward check --connect` before a real sshd, smbd and nginx: what answers is told, and what does not fit the route.

use std::net::SocketAddrV4;

use serde_json::Value;

use crate::common::backend::FullBacklog;
use crate::common::process::{Daemon, own_loopback};
use crate::samba::smbd;
use crate::ssh::sshd;
use crate::walkthrough::{Walkthrough, route};

/// nginx with HTTP at one address, and HTTPS at another.
fn nginx(files: &Walkthrough, http: SocketAddrV4, https: SocketAddrV4) -> Daemon {
    let home = |file: &str| files.home(file).display().to_string();
    let (certificate, key) = (home("example.local+1.pem"), home("example.local+1-key.pem"));
    let folder = home("nginx");
    std::fs::create_dir_all(&folder).unwrap();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {folder};\n  proxy_temp_path {folder};\n  fastcgi_temp_path {folder};\n  uwsgi_temp_path \
         {folder};\n  scgi_temp_path {folder};\n  server {{ listen {http}; return 204; }}\n  server {{ listen {https} ssl; \
         ssl_certificate {certificate}; ssl_certificate_key {key}; return 204; }}\n}}\n"
    );
    std::fs::write(files.home("nginx.conf"), config).unwrap();
    Daemon::start(files.tool("nginx", "nginx").arg("-c").arg(files.home("nginx.conf")), https)
}

#[test]
fn real_services_are_recognised_and_misfits_have_a_remedy() {
    let files = Walkthrough::new();
    let at = |port| SocketAddrV4::new(own_loopback(), port);
    let (ssh, smb, http, https, nothing) = (at(2222), at(4450), at(8080), at(8443), at(9));
    let _services = [sshd(&files, ssh), smbd(&files, smb), nginx(&files, http, https)];
    let full = FullBacklog::new();
    // The route, its backend and its keys; what is said of it; and the remedy, where it needs one.
    let rows = [
        ("ssh", ssh.to_string(), "kind = \"ssh\"", "answers: SSH-2.0-OpenSSH_", None),
        ("smb", smb.to_string(), "kind = \"smb\"", "takes the connection and waits for the client to speak", None),
        ("web", http.to_string(), "kind = \"http\"", "answers: HTTP (nginx/", None),
        ("own-tls", https.to_string(), "mode = \"passthrough\"", "answers: TLS", None),
        (
            "https",
            https.to_string(),
            "kind = \"http\"",
            "answers: TLS",
            Some("name the port of the service that takes plain connections, or write mode = \"passthrough\""),
        ),
        (
            "plain",
            http.to_string(),
            "mode = \"passthrough\"",
            "answers: HTTP (nginx/",
            Some("leaves TLS to the backend, which does not speak it; write mode = \"terminate\""),
        ),
        (
            "no-ssh",
            http.to_string(),
            "kind = \"ssh\"",
            "answers: HTTP (nginx/",
            Some("kind is \"ssh\", and the backend answers: HTTP"),
        ),
        (
            "no-smb",
            ssh.to_string(),
            "kind = \"smb\"",
            "answers: SSH-2.0-",
            Some("kind is \"smb\", and the backend answers: SSH"),
        ),
        (
            "no-web",
            ssh.to_string(),
            "kind = \"http\"",
            "answers: SSH-2.0-",
            Some("check its port, or write the right kind"),
        ),
        (
            "nothing",
            nothing.to_string(),
            "kind = \"http\"",
            "nothing listens there (connection refused)",
            Some("no connection to"),
        ),
        (
            "full",
            full.address.to_string(),
            "kind = \"http\"",
            "no answer within timeouts.dial (1 s)",
            Some("no connection to"),
        ),
    ];
    let routes: Vec<String> = rows
        .iter()
        .map(|(name, backend, keys, ..)| {
            let names = [&*format!("{name}.example.local")];
            let allow: &[&str] = if keys.contains("passthrough") { &[] } else { &["any"] };
            let text = route(name, &names, backend, allow);
            let text = if allow.is_empty() { text.replace("allow = []\n", "") } else { text };
            format!("{text}{keys}\n")
        })
        .collect();
    let config = format!("{}\n[timeouts]\ndial = \"1s\"\n", files.config(&routes.concat()));
    std::fs::write(files.home("doorward.toml"), config).unwrap();
    let check = |more: &[&str]| files.doorward(&[&["check", "--connect", "--config", "doorward.toml"], more].concat());
    let said = check(&["--format", "json"]).success();
    let told: Value = serde_json::from_slice(&said.stdout).unwrap();
    let told = told["backends"].as_array().unwrap();
    assert_eq!(told.len(), rows.len(), "{said}");
    for ((name, backend, _, answer, remedy), one) in rows.iter().zip(told) {
        assert_eq!((&one["route"], &one["address"]), (&(*name).into(), &backend.as_str().into()), "{one}");
        assert!(one["answer"].as_str().unwrap().starts_with(answer), "{one}");
        assert_eq!(one["connected"], !["nothing", "full"].contains(name), "{one}");
        match remedy {
            Some(remedy) => assert!(one["warning"].as_str().is_some_and(|text| text.contains(remedy)), "{one}"),
            None => assert!(one["warning"].is_null(), "{one}"),
        }
    }
    // The same for people.
    let said = check(&[]).success();
    for (name, _, _, answer, remedy) in &rows {
        let row = said.text().lines().rev().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        assert!(row.is_some_and(|row| row.contains(answer)), "{name}: {said}");
        assert!(remedy.is_none_or(|remedy| said.stderr.contains(remedy)), "{name}: {said}");
    }
}
