//! `doorward demo`: a gate, a device and clients without a certificate, on one machine.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName as TlsServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::init::{self, InitArgs, RouteArg};
use super::{Format, exit, failed, run};
use crate::ca::DeviceAuthority;
use crate::config;
use crate::config::checked::ControlSocket;
use crate::enrolment::PUBLIC_PORT;
use crate::handshake::suites::PROVIDER;
use crate::model::device_name::DeviceName;
use crate::model::names::{Name, ServerName};
use crate::model::text::counted;
use crate::server::{Inherited, Opened, Server};
use crate::telemetry::log::Log;

const DOMAIN: &str = "home.example";
const NAME: &str = "nas.home.example";
const DEVICE: &str = "alice-phone";
const PAGE: &str = "Hello from the NAS.\n";
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// `doorward demo` has no options.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {}

pub(super) fn run(_: &DemoArgs) -> ExitCode {
    let shown = run::runtime().map_err(Into::into).and_then(|runtime| runtime.block_on(show()));
    match shown {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(exit::UNEXPECTED, &error),
    }
}

type Result<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

async fn show() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("doorward-demo-").tempdir()?;

    say("1. The NAS: a small web server on this machine, without any access control.");
    let nas = TcpListener::bind(LOOPBACK).await?;
    let nas_address = nas.local_addr()?;
    let serving = tokio::task::spawn(serve_page(nas));
    say(&format!("   It listens on {nas_address}.\n"));

    say("2. The gate in front of it, with certificates made for this demo: one for the gate, one for a phone.");
    let files = init::create(&InitArgs {
        domain: ServerName::parse(DOMAIN)?,
        routes: vec![RouteArg { name: Name::parse("nas")?, backend: nas_address.to_string(), kind: None }],
        devices: vec![DeviceName::parse(DEVICE)?],
        folder: folder.path().to_owned(),
        listen: LOOPBACK,
        public_port: PUBLIC_PORT,
        no_wildcard: false,
        acme: Default::default(),
        constraints: Default::default(),
        force: false,
        format: Format::Text,
    })?;
    let mut config = config::load(&files.config)?;
    config.metrics.address = Some(LOOPBACK);
    config.control.socket = ControlSocket::Off;
    let log_lines = LogLines::default();
    let log = Arc::new(Log::new(config.log.format, Prefixed(log_lines.clone()))?);
    let opened = Opened::new(&config, Inherited::default())?;
    // It makes devices and files while it runs.
    let server = Server::new(config, Arc::clone(&log), opened, Arc::default())?;
    let gate = *server.addresses().first().ok_or("no listener")?;
    let metrics_address = server.metrics_address().ok_or("no metrics listener")?;
    let metrics = server.metrics();
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::task::spawn(run::signals(stop.clone(), now.clone())?);
    tokio::task::spawn(run::tell_of_drain(server.requests(), stop.clone()));
    let running = tokio::task::spawn(server.run(stop.clone(), now));
    log_lines.wait(3).await;
    say("   Lines that start with \"gate |\" are its log.\n");

    let trust = TrustStore::read(files.server_authority.as_deref().ok_or("no authority")?)?;
    let device = files.devices.first().ok_or("no device")?;
    let own = ClientCertificate::read(&device.certificate, &device.key)?;
    let impostor = ClientCertificate::of_another_authority()?;

    say(&format!("3. {DEVICE} connects and shows its certificate."));
    let page = request_page(gate, trust.client(Some(own))?).await;
    log_lines.wait(4).await;
    match page {
        Ok(page) if page.ends_with(PAGE) => say(&format!("   It got the page: {PAGE}")),
        Ok(other) => return Err(format!("{DEVICE} got an unexpected answer: {other}").into()),
        Err(error) => return Err(format!("{DEVICE} was refused: {error}").into()),
    }

    say("4. A client without a certificate connects.");
    refused(request_page(gate, trust.client(None)?).await, &log_lines, 5).await?;

    say("5. A client connects with a certificate it issued itself, for the same device name.");
    refused(request_page(gate, trust.client(Some(impostor))?).await, &log_lines, 6).await?;

    say("6. A scanner sends plain HTTP.");
    let answer = spawn_blocking(move || {
        let mut stream = TcpStream::connect(gate)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /../../etc/passwd HTTP/1.1\r\nHost: nas\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    refused(answer.await?.map_err(Into::into), &log_lines, 7).await?;

    say("7. The metrics of the gate:");
    for line in metrics.render().lines().filter(|line| is_shown(line)) {
        say(&format!("   {line}"));
    }
    say(&format!("   All of them: http://{metrics_address}/metrics\n"));
    say(
        "8. The page of the gate: who is connected, and who was refused and why. Open it in a browser on this machine:",
    );
    say(&format!("   http://{metrics_address}/\n"));

    let shown = folder.path().display();
    say("The gate runs until you press Ctrl-C. Try it with and without the certificate:\n");
    let curl = format!("curl --resolve {NAME}:{port}:127.0.0.1 --cacert {shown}/pki/server-ca.pem", port = gate.port());
    let cert = format!("--cert {shown}/devices/{DEVICE}.pem --key {shown}/devices/{DEVICE}-key.pem");
    say(&format!("  {curl} {cert} https://{NAME}:{}/", gate.port()));
    say(&format!("  {curl} https://{NAME}:{}/\n", gate.port()));
    say("To set up your own:\n");
    say("  doorward init --domain home.example --route nas=192.168.1.10:5666 --device alice-phone\n");

    let stopped = running.await?;
    signals.abort();
    serving.abort();
    log.finish();
    folder.close()?;
    say(&match stopped.cut {
        0 => "Stopped. The files of the demo were removed.".to_owned(),
        cut => {
            format!("Stopped; {} had to be cut. The files of the demo were removed.", counted(cut as u64, "connection"))
        }
    });
    Ok(())
}

/// Prints a line. Everything goes to stdout, in order with the log of the gate.
fn say(line: &str) {
    // A closed pipe is no error.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// How many lines of the gate's log have been printed.
#[derive(Clone, Default)]
struct LogLines(Arc<AtomicUsize>);

impl LogLines {
    /// Waits for that many lines, so that the log appears below the step that caused it. Gives up after a while.
    async fn wait(&self, lines: usize) {
        for _ in 0..400 {
            if self.0.load(Ordering::Relaxed) >= lines {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Prints the gate's log with a prefix.
struct Prefixed(LogLines);

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = io::stdout().lock();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            out.write_all(b"   gate | ")?;
            out.write_all(line)?;
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

fn is_shown(line: &str) -> bool {
    (line.starts_with("doorward_connections_") || line.starts_with("doorward_relay_bytes")) && !line.ends_with(" 0")
}

async fn serve_page(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let page = service_fn(|_: Request<hyper::body::Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(PAGE))))
        });
        // A client that disconnects is no error.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), page).await;
    }
}

async fn refused(answer: Result<String>, log_lines: &LogLines, lines: usize) -> Result<()> {
    log_lines.wait(lines).await;
    match answer {
        Ok(answer) if !answer.is_empty() => {
            Err(format!("a client that should be refused got an answer: {answer}").into())
        }
        Ok(_) => {
            say("   Refused: the connection was closed without an answer.\n");
            Ok(())
        }
        Err(error) => {
            say(&format!("   Refused: {error}\n"));
            Ok(())
        }
    }
}

/// The trust store of a client: the gate's authority only.
struct TrustStore(RootCertStore);

/// The certificate of a client.
struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TrustStore {
    fn read(file: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file)?)?;
        Ok(Self(roots))
    }

    fn client(&self, certificate: Option<ClientCertificate>) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.0.clone());
        Ok(match certificate {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        })
    }
}

impl ClientCertificate {
    fn read(certificate: &Path, key: &Path) -> Result<Self> {
        Ok(Self { chain: vec![CertificateDer::from_pem_file(certificate)?], key: PrivateKeyDer::from_pem_file(key)? })
    }

    fn of_another_authority() -> Result<Self> {
        let issued = DeviceAuthority::new()?.issue(&DeviceName::parse(DEVICE)?)?;
        Ok(Self { chain: vec![issued.certificate().clone()], key: issued.key() })
    }
}

/// Requests the page as a browser would.
async fn request_page(gate: SocketAddr, client: ClientConfig) -> Result<String> {
    spawn_blocking(move || {
        let mut connection = ClientConnection::new(Arc::new(client), TlsServerName::try_from(NAME)?)?;
        let mut socket = TcpStream::connect(gate)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: nas.home.example\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .await?
}
