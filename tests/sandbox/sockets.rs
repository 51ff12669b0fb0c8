//! Ports and sockets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

use rustix::io::Errno;

use crate::attempt::{Outcome, Rule, Scene};

const DENIED: Outcome = Outcome::Failed(Errno::ACCESS);

fn connect(scene: &Scene) -> std::io::Result<()> {
    TcpStream::connect(scene.note().parse::<SocketAddr>().unwrap()).map(drop)
}

fn bind(scene: &Scene) -> std::io::Result<()> {
    TcpListener::bind(scene.note().parse::<SocketAddr>().unwrap()).map(drop)
}

/// A port that is free, as far as can be told.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn tcp_reaches_ports_of_backends_only() {
    let (backend, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |listener: &TcpListener| listener.local_addr().unwrap();
    let rule = Rule::of("sockets::tcp_reaches_ports_of_backends_only").backend(&address(&backend).to_string());
    rule.clone().note(address(&backend)).allows(connect);
    rule.note(address(&other)).forbids_since(4, connect, DENIED);
}

#[test]
fn tcp_binds_ports_of_listeners_only() {
    let (listener, other) = (free(), free());
    let rule = Rule::of("sockets::tcp_binds_ports_of_listeners_only").listener(listener);
    rule.clone().note(listener).allows(bind);
    rule.clone().note("127.0.0.1:0").forbids_since(4, bind, DENIED);
    rule.note(other).forbids_since(4, bind, DENIED);
}

#[test]
fn abstract_socket_of_another_process_is_out_of_reach() {
    let name = format!("doorward-test-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    // In the process that tries, this is another one.
    let listener = UnixListener::bind_addr(&address).unwrap();
    let connect = |scene: &Scene| {
        let address = UnixAddress::from_abstract_name(scene.note())?;
        UnixStream::connect_addr(&address).map(drop)
    };
    let rule = Rule::of("sockets::abstract_socket_of_another_process_is_out_of_reach");
    rule.note(name).forbids_since(6, connect, Outcome::Failed(Errno::PERM));
    drop(listener);
}
