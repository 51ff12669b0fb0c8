//! A network of the test's own: the machine of the gate, where the test runs as well, and a NAS. They are network namespaces, which
//! end with the threads that made them.
//!
//! The gate's machine has another interface, and its default route goes there, as a router's does.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::backend::Backend;
use crate::common::machine::{Machine, ip, leave_the_network};
use crate::common::process::wait_until;

/// The address of the network card of the NAS.
pub(crate) const MAC: &str = "3e:ec:ef:12:34:56";

const BYTES: [u8; 6] = [0x3e, 0xec, 0xef, 0x12, 0x34, 0x56];

/// The service of the NAS.
pub(crate) const NAS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 10), 5666));

/// The network, with a NAS that is off.
pub(crate) struct Network {
    nas: Machine,
    watcher: Option<thread::JoinHandle<()>>,
    packets: Arc<Packets>,
}

/// The packets that were seen on the wire of the NAS, each with the frame and the datagram around it.
#[derive(Default)]
struct Packets {
    stop: AtomicBool,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Network {
    /// From now on, this thread and all that it starts are on the machine of the gate.
    pub(crate) fn new() -> Self {
        leave_the_network();
        let nas = Machine::beside("home", "nas");
        ip("addr add 10.77.0.1/24 brd + dev home");
        // At once, and not when it is known that no other machine has it.
        ip("addr add fe80::77/64 dev home nodad");
        ip("link add wan type veth peer name internet");
        ip("link set internet up");
        ip("addr add 198.51.100.2/24 dev wan");
        ip("link set wan up");
        ip("route add default via 198.51.100.1");
        let mut network = Self { nas, watcher: None, packets: Arc::default() };
        // Its card listens while it is off.
        let wire = network.on_the_nas(|| {
            ip("link set nas up");
            // ETH_P_ALL, in the byte order of the network (packet(7)).
            let all = Protocol::from(i32::from(0x0003_u16.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap()
        });
        wire.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let packets = Arc::clone(&network.packets);
        network.watcher = Some(thread::spawn(move || packets.watch(&wire)));
        network
    }

    /// What `work` gives on the NAS.
    pub(crate) fn on_the_nas<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.nas.run(work)
    }

    /// The NAS starts, with a service that sends back what it receives.
    pub(crate) fn boots(&self) -> Nas<'_> {
        self.on_the_nas(|| ip("addr add 10.77.0.10/24 dev nas"));
        self.serves(NAS)
    }

    /// A service of the NAS, which is on.
    pub(crate) fn serves(&self, address: SocketAddr) -> Nas<'_> {
        Nas { network: self, service: Some(self.on_the_nas(move || Backend::echo_at(address))) }
    }

    /// How many packets that wake the NAS were seen.
    pub(crate) fn packets(&self) -> usize {
        self.packets.seen().len()
    }

    /// Waits for so many, and gives the first one with the frame around it.
    #[track_caller]
    pub(crate) fn wait_packets(&self, count: usize) -> Vec<u8> {
        wait_until("the packet is on the wire", || {
            let seen = self.packets.seen();
            (seen.len() >= count).then(|| seen[0].clone())
        })
    }
}

impl Packets {
    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, wire: &Socket) {
        let magic = [vec![0xff; 6], BYTES.repeat(16)].concat();
        let mut buffer = [0; 2048];
        while !self.stop.load(Ordering::SeqCst) {
            let mut wire: &Socket = wire;
            let Ok(length) = std::io::Read::read(&mut wire, &mut buffer) else { continue };
            if buffer[..length].ends_with(&magic) {
                self.seen().push(buffer[..length].to_vec());
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.packets.stop.store(true, Ordering::SeqCst);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// A service of the NAS.
pub(crate) struct Nas<'a> {
    network: &'a Network,
    service: Option<Backend>,
}

impl Nas<'_> {
    /// The service.
    pub(crate) fn service(&self) -> &Backend {
        self.service.as_ref().unwrap()
    }
}

impl Drop for Nas<'_> {
    fn drop(&mut self) {
        let service = self.service.take();
        // It is stopped by a connection, which has to come from there.
        self.network.on_the_nas(move || drop(service));
    }
}
