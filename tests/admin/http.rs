//! HTTP by hand: requests that no proper client sends, and replies as they are.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::client::connect;
use crate::common::gate::Gate;

/// A reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends `request` and reads to the end. `None`: the connection ended without a whole reply.
pub(crate) fn exchange(gate: &Gate, request: impl AsRef<[u8]>) -> Option<Answer> {
    let mut stream = connect(gate.metrics_address());
    // The gate may close the connection before all is sent.
    let _ = stream.write_all(request.as_ref());
    read_answer(stream)
}

/// Reads a reply to the end of the connection.
fn read_answer(stream: TcpStream) -> Option<Answer> {
    let answer = String::from_utf8(read_to_end(&stream)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Reads until the connection is closed or reset.
#[track_caller]
pub(crate) fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "no end: {error}");
    }
    all
}

/// `GET path`, as a browser or Prometheus on this machine sends it.
#[track_caller]
pub(crate) fn get(gate: &Gate, path: &str) -> Answer {
    let host = gate.metrics_address();
    exchange(gate, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap()
}
