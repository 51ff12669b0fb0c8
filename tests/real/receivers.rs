//! The PROXY protocol with programs that others have written: HAProxy, nginx and Varnish read the gate's headers, and the gate
//! reads those of HAProxy and nginx.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, own_loopback, tool};
use crate::common::proxy_header::V2_SIGNATURE;

const VERSIONS: [(&SupportedProtocolVersion, &str); 2] =
    [(&rustls::version::TLS12, "TLSv1.2"), (&rustls::version::TLS13, "TLSv1.3")];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: nas.home.example\r\nConnection: close\r\n\r\n";
const FROM_HERE: &str = "proxy_protocol_from = [\"127.0.0.1\"]";

/// What the routes of a gate send: their names and the values of `send_proxy_protocol`.
const FORMS: [(&str, &str); 5] = [
    ("off", "\"off\""),
    ("v1", "\"v1\""),
    ("v2", "\"v2\""),
    ("tls", "\"v2-tls\""),
    ("cert", "{ version = \"v2-tls\", certificate = true }"),
];

/// Who the clients say they are: the first one says nothing, and is known by its address.
const CLIENTS: [Option<(&str, &str)>; 2] = [None, Some(("2001:db8::9", "2001:db8::1"))];

/// A gate with a route for each form, `FORM.home.example`.
fn gate(pki: &TestPki, listener: &str, backend: impl std::fmt::Display, keys: &str) -> Gate {
    let mut config = LOCAL.replace(
        "address = \"127.0.0.1:0\"\n\n[metrics]",
        &format!("address = \"127.0.0.1:0\"\n{listener}\n\n[metrics]"),
    );
    config += &pki.config();
    for (name, form) in FORMS {
        write!(
            config,
            "\n[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"{backend}\"]\n\
             send_proxy_protocol = {form}\napplication_protocols = [\"http/1.1\"]\n{keys}\n"
        )
        .unwrap();
    }
    Gate::start(&config)
}

/// A device that asks for HTTP.
fn device(pki: &TestPki, name: &str, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = pki.client_config(Some(&pki.client(name)), &[version]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    tcp
}

/// Connects to `address`, sends the bytes of `first`, and goes on as [`ask_on`].
fn ask(
    address: SocketAddr,
    first: &[u8],
    config: &Arc<ClientConfig>,
    name: &str,
    request: &[u8],
) -> io::Result<String> {
    let mut tcp = connect(address);
    tcp.write_all(first)?;
    ask_on(tcp, config, name, request)
}

/// Sends `request` over TLS and reads to the end.
fn ask_on(tcp: TcpStream, config: &Arc<ClientConfig>, name: &str, request: &[u8]) -> io::Result<String> {
    let name = format!("{name}.home.example").try_into().unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp);
    tls.write_all(request)?;
    tls.flush()?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    tls.conn.send_close_notify();
    let _ = tls.flush();
    Ok(String::from_utf8(answer).unwrap())
}

/// A header that says a client is another one: version 2, TCP over IPv6.
fn v2_header((source, destination): (&str, &str)) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let ports = [5555_u16, 443].map(u16::to_be_bytes).concat();
    [V2_SIGNATURE, &[0x21, 0x21, 0, 36], &source, &destination, &ports].concat()
}

/// The client's address, and the one that it connected to, as a backend is to see them: those of the latest connection.
fn expected(gate: &Gate, who: Option<(&str, &str)>, count: usize) -> String {
    let source: SocketAddr = closed(gate, count)["source"].as_str().unwrap().parse().unwrap();
    let to = match who {
        None => format!("{} {}", gate.address().ip(), gate.address().port()),
        Some((named, to)) => {
            assert_eq!(source, format!("[{named}]:5555").parse().unwrap());
            format!("{to} 443")
        }
    };
    format!("{} {} {to}", source.ip(), source.port())
}

/// The latest of so many connections that were closed.
fn closed(gate: &Gate, count: usize) -> Value {
    gate.wait_for_lines("closed connections", count, |line| line["event"] == "closed").swap_remove(count - 1)
}

/// Sends a request in every form, as every client, and compares what the receiver saw.
#[track_caller]
fn assert_seen(pki: &TestPki, backend: SocketAddrV4, forms: &[&str], request: &[u8], more: impl Fn(&str) -> String) {
    let config = device(pki, "alice-phone", &rustls::version::TLS13);
    for who in CLIENTS {
        let gate = gate(pki, if who.is_some() { FROM_HERE } else { "" }, backend, "allow = [\"any\"]");
        let first = who.map(v2_header).unwrap_or_default();
        for (count, form) in forms.iter().enumerate() {
            let answer = ask(gate.address(), &first, &config, form, request).unwrap();
            let seen = answer.rsplit("\r\n").next().unwrap().trim_end();
            assert_eq!(seen, format!("{}{}", expected(&gate, who, count + 1), more(form)), "{form}: {answer}");
        }
    }
}

/// HAProxy on this configuration.
fn haproxy(folder: &Path, address: SocketAddrV4, sections: &str) -> Daemon {
    let file = folder.join("haproxy.cfg");
    let defaults = "defaults\n  timeout connect 20s\n  timeout client 20s\n  timeout server 20s\n";
    std::fs::write(&file, format!("{defaults}{sections}")).unwrap();
    Daemon::start(tool("haproxy", "haproxy").arg("-db").arg("-f").arg(file), address)
}

/// nginx with these sections.
fn nginx(folder: &Path, address: SocketAddrV4, sections: &str) -> Daemon {
    let file = folder.join("nginx.conf");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path temporary;\n"))
        .concat();
    let sections = sections.replace("http {", &format!("http {{\naccess_log off;\n{temporary}"));
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid nginx.pid;\n\
         error_log stderr;\nevents {{}}\n{sections}"
    );
    std::fs::write(&file, text).unwrap();
    Daemon::start(tool("nginx", "nginx").arg("-p").arg(folder).arg("-c").arg(file), address)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn haproxy_reads_headers_of_every_form() {
    let (pki, folder) = (TestPki::new(), folder());
    let address = SocketAddrV4::new(own_loopback(), 8080);
    let seen = "%[src] %[src_port] %[dst] %[dst_port] authority=%[fc_pp_authority]";
    let _haproxy = haproxy(
        folder.path(),
        address,
        &format!(
            "frontend in\n  mode http\n  bind {address} accept-proxy\n  http-request return status 200 content-type \
             text/plain lf-string \"{seen}\"\n"
        ),
    );
    assert_seen(&pki, address, &["v1", "v2", "tls", "cert"], REQUEST, |form| match form {
        "v1" | "v2" => " authority=".to_owned(),
        _ => format!(" authority={form}.home.example"),
    });
}

#[test]
fn nginx_reads_headers_of_every_form() {
    const SEEN: &str =
        "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    let (pki, folder) = (TestPki::new(), folder());
    let (http, stream) = (SocketAddrV4::new(own_loopback(), 8080), SocketAddrV4::new(own_loopback(), 8080));
    // A header must fit the first buffer, which has 1 KiB by default.
    let _nginx = nginx(
        folder.path(),
        stream,
        &format!(
            "http {{ client_header_buffer_size 8k; server {{ listen {http} proxy_protocol; location / {{ return 200 \"{SEEN}\"; \
             }} }} }}\nstream {{ server {{ listen {stream} proxy_protocol; return \"{SEEN}\"; }} }}\n"
        ),
    );
    assert_seen(&pki, http, &["v1", "v2", "tls", "cert"], REQUEST, |_| String::new());
    // Before version 1.23.2, a server of `stream` takes no header of more than 107 bytes.
    assert_seen(&pki, stream, &["v1", "v2"], b"", |_| String::new());
}

/// Varnish reads the TLVs of TLS, and tells each of them.
#[test]
fn varnish_reads_what_is_said_about_tls() {
    const VCL: &str = r#"vcl 4.1;
import proxy;
import std;
backend default none;
sub vcl_recv { return (synth(200)); }
sub vcl_synth {
  synthetic(client.ip + " " + std.port(client.ip) + " " + server.ip + " " + std.port(server.ip)
    + " " + proxy.authority() + " " + proxy.alpn() + " ssl=" + proxy.is_ssl() + " conn=" + proxy.client_has_cert_conn()
    + " sess=" + proxy.client_has_cert_sess() + " verify=" + proxy.ssl_verify_result() + " " + proxy.ssl_version()
    + " " + proxy.client_cert_cn() + " " + proxy.ssl_cipher());
  return (deliver);
}
"#;
    let (pki, folder) = (TestPki::new(), folder());
    let address = SocketAddrV4::new(own_loopback(), 8080);
    let file = folder.path().join("seen.vcl");
    std::fs::write(&file, VCL).unwrap();
    let mut varnish = tool("varnishd", "varnish");
    varnish.args(["-F", "-j", "none", "-t", "0", "-s", "malloc,16m", "-a", &format!("{address},PROXY")]);
    // A header is kept there, which has 768 bytes by default.
    varnish.args(["-p", "workspace_session=16k"]);
    let _varnish = Daemon::start(varnish.arg("-n").arg(folder.path().join("varnish")).arg("-f").arg(file), address);

    for (mode, allow, verify) in [("require_and_verify", "any", 0), ("require", "unverified", 1)] {
        let keys = format!("allow = [{allow:?}]\n[route.client_auth]\nmode = {mode:?}");
        let gate = gate(&pki, "", address, &keys);
        let mut count = 0;
        for (version, called) in VERSIONS {
            for form in ["tls", "cert"] {
                let config = device(&pki, "alice-phone", version);
                for resumed in [false, true] {
                    let answer = ask(gate.address(), b"", &config, form, REQUEST).unwrap();
                    count += 1;
                    let line = closed(&gate, count);
                    assert_eq!(line["tls"]["resumed"], resumed, "{line}");
                    let told = format!(
                        "{} {form}.home.example http/1.1 ssl=true conn={} sess=true verify={verify} {called} alice-phone {}",
                        expected(&gate, None, count),
                        !resumed,
                        line["tls"]["cipher_suite"].as_str().unwrap(),
                    );
                    assert_eq!(answer.rsplit("\r\n").next(), Some(&*told), "{line}");
                }
            }
        }
    }
}

/// Programs in front of the gate: what they say about the client is what the gate logs.
#[test]
fn gate_reads_headers_of_haproxy_and_nginx() {
    let (pki, folder) = (TestPki::new(), folder());
    let backend = Backend::http("hello");
    let gate = gate(&pki, FROM_HERE, backend.address(), "allow = [\"any\"]");
    let config = device(&pki, "alice-phone", &rustls::version::TLS13);
    let nowhere = SocketAddrV4::new(own_loopback(), 8080);
    let senders = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,authority"];
    let fronts = senders.map(|options| (SocketAddrV4::new(own_loopback(), 8080), options));
    let mut sections = format!("listen ready\n  bind {nowhere}\n  mode tcp\n");
    for (index, (front, options)) in fronts.iter().enumerate() {
        write!(
            sections,
            "listen front{index}\n  mode tcp\n  bind {front}\n  server gate {} source 127.0.0.1 {options}\n",
            gate.address()
        )
        .unwrap();
    }
    let _haproxy = haproxy(folder.path(), nowhere, &sections);
    let front = SocketAddrV4::new(own_loopback(), 8080);
    let stream = format!(
        "stream {{ server {{ listen {front}; proxy_pass {}; proxy_bind 127.0.0.1; proxy_protocol on; }} }}\n",
        gate.address()
    );
    let _nginx = nginx(folder.path(), front, &stream);
    let fronts = fronts.map(|(front, _)| front).into_iter().chain([front]);
    for (count, front) in fronts.enumerate() {
        let tcp = connect(front.into());
        let own = tcp.local_addr().unwrap().to_string();
        // The form that the backend ignores.
        let answer = ask_on(tcp, &config, "off", REQUEST).unwrap();
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert_eq!(closed(&gate, count + 1)["source"], own);
    }
    // Nothing else may speak for a client: without a header, that address is refused.
    ask(gate.address(), b"", &config, "off", REQUEST).unwrap_err();
    gate.wait_rejected("admission", "proxy_header_missing", 1);
}
