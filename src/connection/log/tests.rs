//! Connections without a verdict, and verdicts without a series.

use std::io;
use std::path::Path as FilePath;
use std::sync::Mutex;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::admission::Admission;
use crate::config;
use crate::config::checked::LogFormat;
use crate::model::names::ServerName;
use crate::model::rejection::HelloFault;
use crate::relay::Support;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

const CONFIG: &str = r#"
    [[listener]]
    name = "public"
    address = "127.0.0.1:0"

    [[route]]
    name = "mail"
    mode = "passthrough"
    server_names = ["mail.home.example"]
    backends = ["127.0.0.1:993"]
"#;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the lines").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No client can cause this (tests/observe/everywhere.rs provokes every other reason), so the fault is made here: the task
/// that serves the connection panics.
#[tokio::test]
async fn connection_without_a_verdict_is_rejected_as_internal() {
    let config = config::parse(CONFIG, FilePath::new("doorward.toml")).expect("a configuration");
    let lines = Lines::default();
    let log = Arc::new(Log::new(LogFormat::Json, lines.clone()).expect("a log"));
    let gate = Arc::new(Gate::new(
        Snapshot::build(&config).expect("a snapshot"),
        Admission::new(config.limits.clone()),
        Support::none(),
        Arc::new(Metrics::new(&config).expect("metrics")),
        Arc::clone(&log),
    ));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");

    for routed in [false, true] {
        let _client = TcpStream::connect(address).await.expect("a client");
        let (stream, peer) = socket.accept().await.expect("a connection");
        let listener = Arc::new(config.listeners[0].clone());
        let mut record =
            ConnectionLog::open(&gate, &Accepted { stream: stream.into(), peer, listener, at: Instant::now() });
        if routed {
            let name = ServerName::from_client_hello("mail.home.example");
            record.routed(gate.snapshot.load().routes.find(Some(&name)).expect("the route"));
        }
        let serving = tokio::spawn(async move {
            let _record = record;
            panic!("a fault of the gate");
        });
        assert!(serving.await.is_err_and(|error| error.is_panic()));
    }

    log.finish();
    let lines = String::from_utf8(lines.0.lock().expect("the lines").clone()).expect("text");
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let metrics = gate.metrics.render();
    for (line, route) in lines.iter().zip(["none", "mail"]) {
        assert_eq!(line["event"], "rejected", "{line}");
        assert_eq!((&line["stage"], &line["reason"]), (&"internal".into(), &"internal".into()), "{line}");
        assert_eq!((&line["side"], line["alert"].is_null()), (&"gate".into(), true), "{line}");
        let labels = format!("listener=\"public\",route=\"{route}\",stage=\"internal\",reason=\"internal\"");
        for series in [
            format!("doorward_connections_rejected_total{{{labels}}} 1\n"),
            format!("doorward_connections_active{{route=\"{route}\"}} 0\n"),
        ] {
            assert!(metrics.contains(&series), "{series} in {metrics}");
        }
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
    // What `doorward why` and the status page are answered from.
    let remembered: Vec<_> = gate.refusals.latest(3).iter().map(|refusal| (refusal.id, refusal.reason())).collect();
    assert_eq!(remembered, [(2, Reason::Internal), (1, Reason::Internal)]);
    assert!(metrics.contains("doorward_connections_accepted_total{listener=\"public\"} 2\n"), "{metrics}");
    assert!(metrics.contains("doorward_handshakes_in_progress{listener=\"public\"} 0\n"), "{metrics}");
}

/// A handshake that fails before its route counts may still have found one.
#[tokio::test]
async fn reason_that_a_route_lacks_is_counted_without_route() {
    let config = config::parse(CONFIG, FilePath::new("doorward.toml")).expect("a configuration");
    let gate = Arc::new(Gate::new(
        Snapshot::build(&config).expect("a snapshot"),
        Admission::new(config.limits.clone()),
        Support::none(),
        Arc::new(Metrics::new(&config).expect("metrics")),
        Arc::new(Log::new(LogFormat::Json, io::sink()).expect("a log")),
    ));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let _client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client");
    let (stream, peer) = socket.accept().await.expect("a connection");
    let listener = Arc::new(config.listeners[0].clone());
    let mut record =
        ConnectionLog::open(&gate, &Accepted { stream: stream.into(), peer, listener, at: Instant::now() });
    let name = ServerName::from_client_hello("mail.home.example");
    record.routed(gate.snapshot.load().routes.find(Some(&name)).expect("the route"));
    record.rejected(&Rejection::silent(Cause::Malformed(HelloFault::Truncated)));
    let (metrics, reason) = (gate.metrics.render(), Reason::Malformed);
    let labels = format!(
        "listener=\"public\",route=\"none\",stage=\"{}\",reason=\"{}\"",
        reason.stage().label(),
        reason.label()
    );
    for series in [
        format!("doorward_connections_rejected_total{{{labels}}} 1\n"),
        "doorward_connections_active{route=\"mail\"} 0\n".to_owned(),
        "doorward_connections_active{route=\"none\"} 0\n".to_owned(),
    ] {
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}
