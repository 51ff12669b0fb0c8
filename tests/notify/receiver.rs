//! An HTTP server that takes messages, and is strict about their shape.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::common::DEADLINE;
use crate::common::pki::Certified;
use crate::common::process::wait_until;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A server on a port of its own.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    requests: Mutex<Vec<Request>>,
    /// Answers wait while this is set.
    held: Mutex<bool>,
    released: Condvar,
    status: Mutex<String>,
}

impl Receiver {
    /// Answers 200.
    pub(crate) fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// The same over TLS.
    pub(crate) fn start_tls(certified: &Certified) -> Self {
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(certified.chain(), certified.key()).unwrap();
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), Some(Arc::new(config)))
    }

    /// At an address of the caller's choice.
    pub(crate) fn at(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        *state.status.lock().unwrap() = "200 OK".to_owned();
        let served = Arc::clone(&state);
        let acceptor = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if served.stopping.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let (state, tls) = (Arc::clone(&served), tls.clone());
                thread::spawn(move || match tls {
                    Some(tls) => {
                        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                        state.serve(&mut stream);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                    None => state.serve(&stream),
                });
            }
        });
        Self { address, state, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on requests are answered with this status.
    pub(crate) fn answer(&self, status: &str) {
        *self.state.status.lock().unwrap() = status.to_owned();
    }

    /// From now on requests are not answered, or again.
    pub(crate) fn hold(&self, held: bool) {
        *self.state.held.lock().unwrap() = held;
        self.state.released.notify_all();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for this many requests, and returns the last one.
    #[track_caller]
    pub(crate) fn wait(&self, count: usize) -> Request {
        wait_until("the message arrives", || {
            let requests = self.requests();
            (requests.len() >= count).then_some(())
        });
        let requests = self.requests();
        assert_eq!(requests.len(), count, "{requests:?}");
        requests.into_iter().next_back().unwrap()
    }
}

impl State {
    fn serve(&self, mut stream: impl Read + Write) {
        let Some(request) = read(&mut stream) else { return };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let mut held = self.held.lock().unwrap();
        while *held && !self.stopping.load(Ordering::SeqCst) {
            held = self.released.wait(held).unwrap();
        }
        drop(held);
        let status = self.status.lock().unwrap().clone();
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}

/// Reads a POST of JSON; `None` if the connection ends before.
fn read(stream: &mut impl Read) -> Option<Request> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = std::str::from_utf8(&bytes).expect("requests are text");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.split("\r\n");
        let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let [method, path, version] = first[..] else { panic!("{head}") };
        assert_eq!((method, version), ("POST", "HTTP/1.1"), "{head}");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let request = Request { path: path.to_owned(), headers, body: Value::Null };
        let length: usize = request.header("content-length").expect("a length").parse().expect("a number");
        if body.len() < length {
            continue;
        }
        assert_eq!(body.len(), length, "more than one request");
        assert_eq!(request.header("content-type"), Some("application/json"), "{request:?}");
        assert!(request.header("host").is_some() && request.header("user-agent").is_some(), "{request:?}");
        return Some(Request { body: serde_json::from_str(body).expect("JSON"), ..request });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.hold(false);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        let _ = self.acceptor.take().unwrap().join();
    }
}
