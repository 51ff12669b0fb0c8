//! The packet that wakes a machine: six bytes 0xff and sixteen times the address of its network card (AMD, "Magic Packet
//! Technology", publication 20213), in a UDP datagram to all machines on its network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::checked::Mac;

const LENGTH: usize = 6 + 16 * 6;

/// The bytes.
fn packet(Mac(mac): Mac) -> [u8; LENGTH] {
    let mut packet = [0xff; LENGTH];
    for (byte, of_mac) in packet.iter_mut().skip(6).zip(mac.iter().cycle()) {
        *byte = *of_mac;
    }
    packet
}

/// Sends the packet for `mac` to `broadcast`. To 255.255.255.255 it leaves by the network interface that leads to `backend`.
pub(super) fn send(mac: Mac, broadcast: SocketAddr, backend: Option<IpAddr>) -> io::Result<()> {
    let any = match broadcast.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The kernel sends a limited broadcast by the interface that has the source address (net/ipv4/route.c,
    // `ip_route_output_key_hash_rcu`); without one, by the default route, which may be the internet's.
    let source = match backend {
        Some(backend @ IpAddr::V4(_)) if broadcast.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) => source_towards(backend)?,
        _ => any,
    };
    let socket = UdpSocket::bind((source, 0))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    let packet = packet(mac);
    if socket.send_to(&packet, broadcast)? < packet.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// The address of this machine that packets to `there` come from. Nothing is sent.
fn source_towards(there: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((there, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MAC: Mac = Mac([0x3c, 0xec, 0xef, 0x12, 0x34, 0x56]);

    #[test]
    fn packet_has_the_address_sixteen_times() {
        let packet = packet(MAC);
        assert_eq!(packet[..6], [0xff; 6]);
        assert!(packet[6..].chunks(6).all(|chunk| chunk == MAC.0), "{packet:x?}");
        assert_eq!(packet.len(), 102);
    }

    #[test]
    fn packet_is_sent_to_the_address_of_the_configuration() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(listen) else { continue };
            receiver.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
            send(MAC, receiver.local_addr().expect("an address"), None).expect("sent");
            let mut received = [0; 200];
            let length = receiver.recv(&mut received).expect("a packet");
            assert_eq!(received[..length], packet(MAC));
        }
    }

    #[test]
    fn source_is_the_address_that_leads_to_the_backend() {
        assert_eq!(source_towards(Ipv4Addr::new(127, 0, 0, 9).into()).expect("a way"), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
