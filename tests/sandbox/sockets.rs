//! Ports and sockets.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::attempt::{Outcome, Rule, Scene};
use crate::common::backend::kept_address;

const DENIED: Outcome = Outcome::Failed(Errno::ACCESS);

fn connect(scene: &Scene) -> std::io::Result<()> {
    TcpStream::connect(scene.note().parse::<SocketAddr>().unwrap()).map(drop)
}

fn bind(scene: &Scene) -> std::io::Result<()> {
    TcpListener::bind(scene.note().parse::<SocketAddr>().unwrap()).map(drop)
}

/// A port that is free for the attempts.
fn free() -> SocketAddr {
    kept_address(([127, 0, 0, 1], 0))
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
fn tcp_does_not_reach_ports_of_listeners() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rule = Rule::of("sockets::tcp_does_not_reach_ports_of_listeners").listener(address);
    rule.note(address).forbids_since(4, connect, DENIED);
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
    let rule = Rule::of("sockets::abstract_socket_of_another_process_is_out_of_reach").backend("unix:/run/nas.sock");
    rule.note(name).forbids_since(6, connect, Outcome::Failed(Errno::PERM));
    drop(listener);
}

/// No part of the gate makes such a call.
const UNKNOWN: Outcome = Outcome::Failed(Errno::NOSYS);

/// A kernel without the protocol, or with it turned off, has nothing to forbid.
fn unless_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    let missing = [Errno::PROTONOSUPPORT, Errno::NOPROTOOPT, Errno::SOCKTNOSUPPORT, Errno::OPNOTSUPP];
    match result {
        Err(error) if missing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) => Ok(()),
        other => other,
    }
}

/// A socket of IPv4 that is no TCP socket for Landlock, connected to the port of another server.
fn connect_by(scene: &Scene, kind: Type, protocol: libc::c_int) -> std::io::Result<()> {
    let to = SockAddr::from(scene.note().parse::<SocketAddr>().unwrap());
    unless_missing(Socket::new(Domain::IPV4, kind, Some(protocol.into())).and_then(|socket| socket.connect(&to)))
}

#[test]
fn mptcp_does_not_reach_other_ports() {
    // Landlock restricts TCP only, and a TCP server answers this.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = Rule::of("sockets::mptcp_does_not_reach_other_ports").note(other.local_addr().unwrap());
    rule.forbids(|scene| connect_by(scene, Type::STREAM, libc::IPPROTO_MPTCP), UNKNOWN);
}

#[test]
fn other_protocols_have_no_sockets() {
    let make: fn(&Scene) -> std::io::Result<()> = |_| {
        for (kind, protocol) in [
            (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            (libc::SOCK_SEQPACKET, 0),
            (libc::SOCK_RAW, libc::IPPROTO_ICMP),
            (libc::SOCK_RAW, libc::IPPROTO_TCP),
            (libc::SOCK_RAW, libc::IPPROTO_UDP),
            (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
            (libc::SOCK_DCCP, 0),
        ] {
            let made = Socket::new(Domain::IPV4, kind.into(), Some(protocol.into()));
            if made.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS)) {
                continue;
            }
            return Ok(());
        }
        Err(Errno::NOSYS.into())
    };
    let rule = Rule::of("sockets::other_protocols_have_no_sockets").note("127.0.0.1:9");
    rule.forbids(make, UNKNOWN);
    rule.backend("192.168.1.10:22").keys(WAKE).forbids(make, UNKNOWN);
}

/// What lets the gate send packets that wake a machine.
const WAKE: &str = "wake = { mac = \"3e:ec:ef:12:34:56\" }";

/// `struct msghdr`, and the length that `struct mmsghdr` has behind it.
fn message(address: &SockAddr, parts: &[usize; 2]) -> [usize; 8] {
    [address.as_ptr() as usize, address.len() as usize, parts.as_ptr() as usize, 1, 0, 0, 0, 0]
}

/// Connects with the first bytes (TCP Fast Open), by this call.
fn fast_open(scene: &Scene, call: libc::c_long) -> std::io::Result<()> {
    let to = SockAddr::from(scene.note().parse::<SocketAddr>().unwrap());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let descriptor = usize::try_from(socket.as_raw_fd()).unwrap();
    let flags = usize::try_from(libc::MSG_FASTOPEN).unwrap();
    let parts = [b"x".as_ptr() as usize, 1];
    let message = message(&to, &parts);
    unless_missing(match call {
        libc::SYS_sendto => socket.send_to_with_flags(b"x", &to, libc::MSG_FASTOPEN).map(drop),
        libc::SYS_sendmsg => crate::system::call(call, [descriptor, message.as_ptr() as usize, flags, 0, 0]),
        _ => crate::system::call(call, [descriptor, message.as_ptr() as usize, 1, flags, 0]),
    })
}

#[test]
fn sendto_does_not_connect_to_other_ports() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = Rule::of("sockets::sendto_does_not_connect_to_other_ports").note(other.local_addr().unwrap());
    rule.forbids(|scene| fast_open(scene, libc::SYS_sendto), UNKNOWN);
}

#[test]
fn sendmsg_does_not_connect_to_other_ports() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = Rule::of("sockets::sendmsg_does_not_connect_to_other_ports").note(other.local_addr().unwrap());
    rule.forbids(|scene| fast_open(scene, libc::SYS_sendmsg), UNKNOWN);
}

#[test]
fn sendmmsg_does_not_connect_to_other_ports() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = Rule::of("sockets::sendmmsg_does_not_connect_to_other_ports").note(other.local_addr().unwrap());
    rule.forbids(|scene| fast_open(scene, libc::SYS_sendmmsg), UNKNOWN);
}

#[test]
fn datagrams_are_for_look_ups_and_wake_ups_only() {
    let send = |scene: &Scene| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_broadcast(true)?;
        socket.send_to(b"x", scene.note()).map(drop)
    };
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let rule = Rule::of("sockets::datagrams_are_for_look_ups_and_wake_ups_only").note(other.local_addr().unwrap());
    rule.clone().backend("nas.home.example:22").allows(send);
    rule.clone().backend("192.168.1.10:22").keys(WAKE).allows(send);
    rule.forbids(send, UNKNOWN);
}

#[test]
fn unix_stream_is_for_backends_and_look_ups_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    // As a command to the manager of the user's services, which would run it outside of the sandbox.
    let connect = |scene: &Scene| UnixStream::connect(scene.note()).map(drop);
    let rule = Rule::of("sockets::unix_stream_is_for_backends_and_look_ups_only").note(path.display());
    rule.clone().backend(&format!("unix:{}", path.display())).allows(connect);
    rule.clone().backend("nas.home.example:22").allows(connect);
    rule.forbids(connect, UNKNOWN);
    drop(listener);
}

#[test]
fn journal_and_service_manager_stay_within_reach() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let rule = Rule::of("sockets::journal_and_service_manager_stay_within_reach").note(path.display());
    rule.allows(|scene| UnixDatagram::unbound()?.send_to(b"READY=1", scene.note()).map(drop));
    assert_eq!(manager.recv(&mut [0; 64]).unwrap(), 7);
}
