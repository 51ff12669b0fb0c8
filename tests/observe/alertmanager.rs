//! Debian's Alertmanager with the sample configuration delivers to an HTTP server, as ntfy is, and by SMTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use crate::common::DEADLINE;
use crate::common::process::{Daemon, own_loopback, run, tool, wait_until};
use crate::deploy;

/// A server whose connections are handled by a function, which returns what was delivered. It ends with the test's process.
struct Sink {
    address: SocketAddr,
    delivered: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn start(serve: impl Fn(TcpStream) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, delivered) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let kept = Arc::clone(&delivered);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                if let Some(text) = serve(stream) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
        });
        Self { address, delivered }
    }

    fn delivered(&self) -> Vec<String> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    fn first(&self, what: &str) -> String {
        wait_until(what, || self.delivered().first().cloned())
    }
}

/// Reads a POST: its first line, and its body.
fn http(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
    Some(format!("{}\n{}", first.trim_end(), String::from_utf8(body).unwrap()))
}

/// Takes a mail (RFC 5321): its text.
fn smtp(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut mail = None;
    stream.write_all(b"220 mail.home.example\r\n").ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok().is_none_or(|count| count == 0) {
            return mail;
        }
        let answer: &[u8] = match line.trim_end().to_ascii_uppercase().as_str() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n").ok()?;
                let mut text = String::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
                    if line == ".\r\n" {
                        break;
                    }
                    text.push_str(&line);
                }
                mail = Some(text);
                b"250 taken\r\n"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n");
                return mail;
            }
            _ => b"250 yes\r\n",
        };
        stream.write_all(answer).ok()?;
    }
}

/// Starts it on the sample, but for where the servers are, and how long it waits.
#[track_caller]
fn start(folder: &Path, web: SocketAddr, mail: SocketAddr) -> (Daemon, SocketAddrV4) {
    let mut config = std::fs::read_to_string(deploy("alertmanager/ntfy-and-mail.yml")).unwrap();
    for (what, test) in [
        ("https://ntfy.home.example/", format!("http://{web}/")),
        ("mail.home.example:587", format!("{mail}\n        require_tls: false")),
        // Go sends a password without TLS to localhost only by name; the sink asks for none.
        ("        auth_username: doorward@home.example\n", String::new()),
        ("        auth_password_file: /etc/prometheus/mail-password\n", String::new()),
        ("group_wait: 1m", "group_wait: 3s".to_owned()),
    ] {
        assert!(config.contains(what), "{what} is not in the sample");
        config = config.replacen(what, &test, 1);
    }
    let file = folder.join("alertmanager.yml");
    std::fs::write(&file, config).unwrap();
    let address = SocketAddrV4::new(own_loopback(), 9093);
    let mut command = tool("prometheus-alertmanager", "prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--cluster.listen-address=", "--log.level=warn"]);
    (Daemon::start(&mut command, address), address)
}

#[track_caller]
fn post(address: SocketAddrV4, alerts: &Value) {
    let body = alerts.to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "POST /api/v2/alerts HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

fn alert(name: &str, labels: &Value) -> Value {
    let mut all = json!({"alertname": name, "job": "doorward", "instance": "127.0.0.1:9180"});
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    json!({"labels": all, "annotations": {"summary": format!("about {name}"), "description": format!("do this about {name}")}})
}

#[test]
fn alerts_of_one_minute_are_one_message_to_ntfy_and_one_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (web, mail) = (Sink::start(http), Sink::start(smtp));
    let (_daemon, address) = start(folder.path(), web.address, mail.address);
    let names = ["DoorwardImpostor", "DoorwardBackendDown", "DoorwardReloadFailed", "DoorwardLogNotWritten"];
    let mut alerts: Vec<Value> = names.iter().map(|name| alert(name, &json!({"route": "nas"}))).collect();
    alerts.push(alert("DoorwardCertificateExpired", &json!({"kind": "revocation_list"})));
    // Because of the list.
    alerts.push(alert("DoorwardDeviceRefused", &json!({"reason": "revocation_list_expired"})));
    alerts.push(alert("DoorwardDeviceRefused", &json!({"reason": "expired"})));
    post(address, &Value::Array(alerts));

    let posted = web.first("the message to ntfy");
    let (first, body) = posted.split_once('\n').unwrap();
    assert!(
        first.starts_with("POST /YOUR-TOPIC?tpl=1&priority=high&t=Doorward%3A%20%7B%7Blen%20.alerts%7D%7D"),
        "{first}"
    );
    let body: Value = serde_json::from_str(body).unwrap();
    // What the templates in the URL name.
    assert_eq!(body["status"], "firing", "{body}");
    let told: Vec<&Value> = body["alerts"].as_array().unwrap().iter().collect();
    let count =
        |name: &str| told.iter().filter(|alert| alert["annotations"]["summary"] == format!("about {name}")).count();
    for name in names {
        assert_eq!(count(name), 1, "{name}: {body}");
    }
    assert_eq!((count("DoorwardCertificateExpired"), count("DoorwardDeviceRefused"), told.len()), (1, 1, 6), "{body}");

    let text = mail.first("the mail");
    for part in ["To: you@home.example", "From: doorward@home.example", "do this about DoorwardImpostor"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!((web.delivered().len(), mail.delivered().len()), (1, 1));
}

#[test]
fn gate_that_is_down_is_the_only_alert() {
    let folder = tempfile::tempdir().unwrap();
    let (web, mail) = (Sink::start(http), Sink::start(smtp));
    let (_daemon, address) = start(folder.path(), web.address, mail.address);
    post(
        address,
        &json!([
            alert("DoorwardDown", &json!({})),
            alert("DoorwardBackendDown", &json!({"route": "nas", "backend": "b"}))
        ]),
    );
    let posted = web.first("the message to ntfy");
    let body: Value = serde_json::from_str(posted.split_once('\n').unwrap().1).unwrap();
    assert_eq!(body["alerts"].as_array().unwrap().len(), 1, "{body}");
    assert_eq!(body["alerts"][0]["labels"]["alertname"], "DoorwardDown");
}

#[test]
fn amtool_accepts_both_configurations() {
    for name in ["alertmanager.yml", "ntfy-and-mail.yml"] {
        let file = deploy("alertmanager").join(name);
        run(tool("amtool", "prometheus-alertmanager").arg("check-config").arg(file)).success();
    }
}
