//! `doorward share` as a process, and clients of its link.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common::DEADLINE;
use crate::common::process::wait_until;
use crate::home::{Home, LOOPBACK};

/// An open link.
pub(crate) struct Shared {
    child: Child,
    /// Its lines on stdout.
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
    address: SocketAddr,
    path: String,
}

impl Shared {
    /// Runs the command and waits until the link is open.
    #[track_caller]
    pub(crate) fn start(home: &Home, more: &[&str]) -> Self {
        let mut command = share(home);
        Self::start_command(command.args(more))
    }

    /// The same with another command that opens a link.
    #[track_caller]
    pub(crate) fn start_command(command: &mut Command) -> Self {
        command.args(["--address", &LOOPBACK.to_string(), "--format", "json"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let into = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let nowhere = SocketAddr::from((LOOPBACK, 0));
        let mut shared = Self { child, lines, reader: Some(reader), address: nowhere, path: String::new() };
        let ready = wait_until("there is a link", || {
            let ended = shared.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}");
            shared.lines().into_iter().find(|line| line["event"] == "ready")
        });
        let (address, path) = ready["url"].as_str().unwrap().strip_prefix("http://").unwrap().split_once('/').unwrap();
        shared.address = address.parse().unwrap();
        shared.path = format!("/{path}");
        shared
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The password, as the terminal shows it.
    pub(crate) fn password(&self) -> String {
        let ready = self.lines().into_iter().find(|line| line["event"] == "ready").unwrap();
        ready["password"].as_str().unwrap().to_owned()
    }

    /// The path of the link, with the token.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, self.path)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// With the smallest receive buffer: most of a reply is not received as long as the client does not read.
    pub(crate) fn connect_narrowly(&self) -> TcpStream {
        self.connect_by(|socket| socket.set_recv_buffer_size(1))
    }

    /// From another address.
    pub(crate) fn connect_from(&self, address: Ipv4Addr) -> TcpStream {
        self.connect_by(|socket| socket.bind(&SocketAddr::from((address, 0)).into()))
    }

    fn connect_by(&self, prepare: impl FnOnce(&Socket) -> io::Result<()>) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        prepare(&socket).unwrap();
        socket.connect_timeout(&self.address.into(), DEADLINE).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// One request.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str) -> Response {
        self.try_ask(method, path, "").unwrap()
    }

    /// One request with more header lines, each with its end. An error if the connection was closed without a reply.
    pub(crate) fn try_ask(&self, method: &str, path: &str, headers: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect_timeout(&self.address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        self.send(&mut stream, method, path, headers)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Response::parse(&bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// One request from another address.
    pub(crate) fn ask_from(&self, address: Ipv4Addr, method: &str, path: &str) -> Option<Response> {
        let mut stream = self.connect_from(address);
        self.send(&mut stream, method, path, "").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        Response::parse(&bytes)
    }

    /// Sends a request without reading the reply.
    pub(crate) fn send(&self, stream: &mut TcpStream, method: &str, path: &str, headers: &str) -> io::Result<()> {
        let Self { address, .. } = self;
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes())
    }

    /// Presses the button for a file and returns the path of the file.
    #[track_caller]
    pub(crate) fn press(&self, file: &str) -> String {
        let pressed = self.ask("POST", &format!("{}/{file}", self.path));
        assert_eq!(pressed.status, 303, "{pressed:?}");
        pressed.header("location").unwrap().to_owned()
    }

    /// Waits until `count` files were fetched.
    #[track_caller]
    pub(crate) fn wait_fetched(&self, count: usize) -> Vec<Value> {
        wait_until("the files are fetched", || {
            let fetched: Vec<Value> = self.lines().into_iter().filter(|line| line["event"] == "fetched").collect();
            (fetched.len() >= count).then_some(fetched)
        })
    }

    /// Waits until a file was fetched and closes the link: exit code and what was fetched.
    #[track_caller]
    pub(crate) fn wait_and_close(&mut self) -> (i32, Value) {
        let fetched = self.wait_fetched(1);
        self.signal(Signal::INT);
        let (code, last) = self.wait();
        assert_eq!(last, serde_json::json!({"event": "stopped"}), "{:?}", self.lines());
        assert_eq!(fetched.len(), 1, "{fetched:?}");
        (code, fetched.into_iter().next().unwrap())
    }

    /// Waits for its end: exit code and last line.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> (i32, Value) {
        let status = wait_until("the link is closed", || self.child.try_wait().unwrap());
        self.reader.take().map(JoinHandle::join);
        (status.code().unwrap(), self.lines().pop().unwrap())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.take().map(JoinHandle::join);
    }
}

/// The command without an address.
pub(crate) fn share(home: &Home) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["share", "alice-phone", "--folder"]).arg(home.folder());
    command
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// A field of the head.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}
