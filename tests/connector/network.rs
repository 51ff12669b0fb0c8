//! A laptop that sleeps and changes its network, in a network of the test's own: the gate's machine, where the test runs, and the laptop.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::common::DEADLINE;
use crate::common::backend::{Backend, echoed};
use crate::common::gate::{Gate, LOCAL};
use crate::common::machine::{Machine, ip, leave_the_network};
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::matrix::Case;
use crate::scene::{DEVICE, Running, doorward, route};

const GATE: &str = "10.88.0.1:8443";

/// The laptop.
struct Laptop(Machine);

impl Laptop {
    /// From now on, this thread and all that it starts are on the machine of the gate, to which the laptop is connected.
    fn connected() -> Self {
        leave_the_network();
        let laptop = Self(Machine::beside("home", "wlan"));
        ip("addr add 10.88.0.1/24 dev home");
        laptop.ip("link set wlan up");
        laptop.ip("addr add 10.88.0.20/24 dev wlan");
        laptop
    }

    /// What `work` gives on the laptop.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.0.run(work)
    }

    fn ip(&self, arguments: &'static str) {
        self.run(move || ip(arguments));
    }

    /// A connection of a program there.
    fn dial(&self, local: SocketAddr) -> TcpStream {
        let stream = self.run(move || TcpStream::connect(local).unwrap());
        stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
        stream
    }
}

fn gate(pki: &TestPki, backend: &Backend) -> Gate {
    let local = LOCAL.replacen("127.0.0.1:0", GATE, 1);
    Gate::start(&format!(
        "{local}\n[limits]\npenalties = \"off\"\n{}{}",
        pki.config(),
        route("echo", backend.address())
    ))
}

/// `doorward forward` on the laptop, and its port there.
fn forward(laptop: &Laptop, case: &Case<'_>) -> (Running, SocketAddr) {
    let file = case.folder().join("alice-laptop.doorward");
    std::fs::write(&file, case.bundle().to_text()).unwrap();
    let mut running = laptop.run(move || Running::start(&mut doorward(&["forward", "echo=0"], &file)));
    running.wait_for("echo on ");
    let errors = running.errors();
    let local = errors.lines().find_map(|line| line.strip_prefix("echo on ")?.parse().ok()).unwrap();
    (running, local)
}

#[test]
fn laptop_in_another_network_goes_on() {
    let laptop = Laptop::connected();
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = gate(&pki, &backend);
    let device = pki.client(DEVICE);
    let (mut running, local) = forward(&laptop, &Case::new("laptop", &pki, &device, GATE.parse().unwrap()));
    let before = laptop.dial(local);
    echoed(&before, b"at home");
    before.shutdown(Shutdown::Write).unwrap();
    gate.wait_closed("echo", 1);

    laptop.ip("link set wlan down");
    let waiting = laptop.dial(local);
    running.wait_for("cannot connect to 10.88.0.1:8443");
    laptop.ip("addr del 10.88.0.20/24 dev wlan");
    laptop.ip("addr add 10.88.0.30/24 dev wlan");
    laptop.ip("link set wlan up");
    let begun = Instant::now();
    echoed(&waiting, b"in a hotel");
    // The longest pause is 15 s, and it was not reached.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    waiting.shutdown(Shutdown::Write).unwrap();
    let after = laptop.dial(local);
    echoed(&after, b"and again");
    after.shutdown(Shutdown::Write).unwrap();
    let closed = gate.wait_closed("echo", 3);
    let sources: Vec<&str> =
        closed.iter().map(|line| line["source"].as_str().unwrap().split(':').next().unwrap()).collect();
    assert_eq!(sources, ["10.88.0.20", "10.88.0.30", "10.88.0.30"]);
}

#[test]
fn connections_into_nothing_end() {
    let laptop = Laptop::connected();
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = gate(&pki, &backend);
    let device = pki.client(DEVICE);
    let (mut running, local) = forward(&laptop, &Case::new("laptop", &pki, &device, GATE.parse().unwrap()));
    // One that is silent, and one that has something to send: after a sleep, neither is answered any more.
    let [mut idle, mut busy] = [laptop.dial(local), laptop.dial(local)];
    echoed(&idle, b"idle");
    echoed(&busy, b"busy");
    ip("link set home down");
    let begun = Instant::now();
    busy.write_all(b"into nothing").unwrap();
    for (what, stream) in [("idle", &mut idle), ("busy", &mut busy)] {
        stream.set_read_timeout(Some(Duration::from_secs(150))).unwrap();
        // Not an end: it would be taken for that of what was sent.
        let error = stream.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: {:?}", begun.elapsed());
    }
    wait_until("both are told", || {
        (running.errors().matches("the connection to echo was cut").count() == 2).then_some(())
    });
    ip("link set home up");
    let new = laptop.dial(local);
    echoed(&new, b"awake");
    new.shutdown(Shutdown::Write).unwrap();
    running.wait_for("does not answer any more");
    // The gate learns it as it sends the end of its service.
    drop(backend);
    gate.wait_closed("echo", 3);
}
