//! The listener for those who watch: `/metrics`, `/healthz`, `/readyz`. Read only, and small: whatever it is met with,
//! it takes nothing from the gate.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// Connections at once. Prometheus needs one.
const CONNECTIONS: usize = 16;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For everything: nobody stays longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most a request may have before its head ends; hyper takes no less.
const BUFFER: usize = 8 * 1024;

/// The bound listener.
#[derive(Debug)]
pub(crate) struct Admin {
    socket: TcpListener,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Binds `address`.
    pub(crate) fn bind(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket)?, metrics })
    }

    /// The bound address.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers until the gate is gone; `stop` only makes it say that the gate is not ready.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Who finds no place waits in the kernel's queue: nothing is spent on it.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = self.socket.accept().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let metrics = Arc::clone(&self.metrics);
            let stop = stop.clone();
            connections.spawn(async move {
                let _place = place;
                // Whoever breaks off a request has nobody to hear about it.
                let _ = timeout(TIMEOUT, answer(stream, metrics, stop)).await;
            });
        }
    }
}

async fn answer(stream: TcpStream, metrics: Arc<Metrics>, stop: CancellationToken) -> Result<(), hyper::Error> {
    let respond = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &metrics, stop.is_cancelled());
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), respond)
        .await
}

fn respond(request: &Request<Incoming>, metrics: &Metrics, stopping: bool) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    // The format's own version (Prometheus, "Exposition formats").
    const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    let reply = |status, kind: &'static str, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read only\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => reply(StatusCode::OK, METRICS, metrics.render()),
        "/healthz" => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" if stopping => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".to_owned()),
        "/readyz" => reply(StatusCode::OK, TEXT, "ready\n".to_owned()),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_owned()),
    }
}
