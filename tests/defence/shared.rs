//! An address that the owner shares with strangers: whatever they do there, the owner's devices get in.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use doorward::model::rejection::Reason;
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::client::{Client, Hello, client, connect_from, plain_end, refused_plainly};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::wait_until;
use crate::home::House;
use crate::{NAS, admitted_from, loopback};

const SHARED: IpAddr = loopback(0, 1);
const MAIL: &str = "mail.home.example";

fn rejected(gate: &Gate, reason: Reason) -> f64 {
    let labels = [("stage", reason.stage().label()), ("reason", reason.label())];
    gate.metrics().sum("doorward_connections_rejected_total", &labels)
}

/// Plain requests, until the address is banned.
#[track_caller]
fn ban(gate: &Gate) {
    for _ in 0..100 {
        if rejected(gate, Reason::SourceBanned) > 0.0 {
            return;
        }
        refused_plainly(&connect_from(SHARED, gate.address()), b"GET / HTTP/1.1\r\n\r\n");
    }
    panic!("it is not banned");
}

fn scene(limits: &str) -> (TestPki, Backend, Gate) {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = House::new(&pki)
        .limits(&format!("{limits}\npenalties = \"on\""))
        .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"")
        .route("nas", backend.address())
        .passthrough("mail", backend.address())
        .open();
    (pki, backend, gate)
}

fn phone(pki: &TestPki, name: &str) -> Arc<ClientConfig> {
    client(pki, Some(&pki.client(name)))
}

const NO_RATE: &str = "connection_rate_per_source = \"off\"";

#[test]
fn row_43_a_valid_certificate_lifts_the_ban_of_its_address() {
    let (pki, backend, gate) = scene(NO_RATE);
    let alice = phone(&pki, "alice-phone");
    ban(&gate);
    let not_tls = rejected(&gate, Reason::NotTls);
    // All but a certificate is refused, for the ban alone.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], b""] {
        let before = rejected(&gate, Reason::SourceBanned);
        refused_plainly(&connect_from(SHARED, gate.address()), bytes);
        gate.wait_metric("doorward_connections_rejected_total", &[("reason", "source_banned")], before + 1.0);
    }
    let before = rejected(&gate, Reason::SourceBanned);
    let hello = |server_name| Hello { version: 0x0303, suites: &[0x1301], server_name }.record();
    for name in [MAIL, "other.home.example"] {
        refused_plainly(&connect_from(SHARED, gate.address()), &hello(name));
    }
    gate.wait_metric("doorward_connections_rejected_total", &[("reason", "source_banned")], before + 2.0);
    assert_eq!(backend.accepted(), 0, "a passthrough route gives nothing to a banned address");

    let mallory = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
    for config in [client(&pki, None), client(&pki, Some(&mallory))] {
        assert!(admitted_from(SHARED, &gate, &config).is_err());
    }
    // The reason is the one of the handshake.
    gate.wait_rejected("certificate", Reason::CertificateRequired.label(), 1);
    gate.wait_rejected("certificate", Reason::UnknownCa.label(), 1);
    assert_eq!(rejected(&gate, Reason::NotTls), not_tls);

    admitted_from(SHARED, &gate, &alice).unwrap();
    refused_plainly(&connect_from(SHARED, gate.address()), b"GET / HTTP/1.1\r\n\r\n");
    gate.wait_metric("doorward_connections_rejected_total", &[("reason", "not_tls")], not_tls + 1.0);
}

/// Strangers that come again as soon as they are refused.
struct Strangers {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Strangers {
    fn begin(count: usize, visit: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let (stop, visit) = (Arc::<AtomicBool>::default(), Arc::new(visit));
        let threads = (0..count).map(|number| {
            let (stop, visit) = (Arc::clone(&stop), Arc::clone(&visit));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    visit(number);
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads until the gate hangs up, for as long as the strangers have nothing better to do.
fn wait_for_end(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

/// The device tries again, as people do. However often the strangers come, each try waits in line with them.
#[track_caller]
fn gets_in(gate: &Gate, device: &Arc<ClientConfig>, what: &str) {
    let begun = Instant::now();
    let mut tries = 0;
    while begun.elapsed() < 2 * DEADLINE {
        tries += 1;
        let admitted = Client::on(connect_from(SHARED, gate.address()), device, NAS);
        if admitted.handshake().and_then(|()| admitted.ping()).is_ok() {
            println!("{what}: in after {tries} tries, {:?}", begun.elapsed());
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: locked out after {tries} tries");
}

#[test]
fn row_43_hammering_strangers_do_not_block_the_owner() {
    let browser = |pki: &TestPki| client(pki, None);
    for what in ["requests", "browsers", "silence", "handshakes that stop", "all of it"] {
        let (pki, _backend, gate) = scene(NO_RATE);
        let (alice, browser, address) = (phone(&pki, "alice-phone"), browser(&pki), gate.address());
        ban(&gate);
        let before = gate.settled().sum("doorward_connections_accepted_total", &[]);
        let strangers = Strangers::begin(12, move |number| {
            let kind = match what {
                "requests" => 0,
                "browsers" => 1,
                "silence" => 2,
                "handshakes that stop" => 3,
                _ => number % 4,
            };
            let mut stream = connect_from(SHARED, address);
            match kind {
                0 => {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                    wait_for_end(&stream);
                }
                1 => {
                    let client = Client::on(stream, &browser, NAS);
                    let _ = client.handshake().and_then(|()| client.ping());
                }
                2 => wait_for_end(&stream),
                _ => {
                    let client = Client::on(stream, &browser, NAS);
                    let _ = client.flush();
                    wait_for_end(client.tcp());
                }
            }
        });
        // All of them are there, and have come again.
        let total = |name: &str| gate.metrics().sum(name, &[]);
        wait_until("the strangers are at work", || {
            let (accepted, refused) =
                (total("doorward_connections_accepted_total"), total("doorward_connections_rejected_total"));
            (accepted >= before + 12.0 && refused >= before + 2.0).then_some(())
        });
        gets_in(&gate, &alice, what);
        drop(strangers);
        gate.settled();
    }
}

#[test]
fn row_43_strangers_at_the_rate_limit_do_not_block_the_owner() {
    let (pki, _backend, gate) = scene("connection_rate_per_source = \"2/h\"");
    for _ in 0..5 {
        plain_end_of(&connect_from(SHARED, gate.address()));
    }
    gate.wait_metric("doorward_connections_rejected_total", &[("reason", "source_rate")], 3.0);
    admitted_from(SHARED, &gate, &phone(&pki, "alice-phone")).unwrap();
}

/// Sends what is no TLS, and waits for the end.
fn plain_end_of(stream: &TcpStream) {
    refused_plainly(stream, b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn row_43_strangers_with_all_connections_give_way() {
    let (pki, _backend, gate) = scene(&format!("{NO_RATE}\nconnections_per_source = 4"));
    let held: Vec<TcpStream> = (0..4).map(|_| connect_from(SHARED, gate.address())).collect();
    gate.wait_metric("doorward_handshakes_in_progress", &[], 4.0);
    plain_end(&connect_from(SHARED, gate.address()));
    gate.wait_rejected("admission", Reason::SourceLimit.label(), 1);
    let alice = admitted_from(SHARED, &gate, &phone(&pki, "alice-phone")).unwrap();
    gate.wait_rejected("admission", Reason::HandshakeLimit.label(), 1);
    alice.ping().unwrap();
    drop(held);
}

/// The trust that a device has brought its address goes with its right.
#[test]
fn voucher_ends_when_its_device_is_no_longer_admitted() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = |allow: &str| {
        House::new(&pki)
            .limits(&format!("{NO_RATE}\npenalties = \"on\""))
            .route_with("nas", &[&backend.address().to_string()], allow)
            .config()
    };
    let gate = Gate::start(&house("allow = [\"any\"]"));
    let (lost, alice) = (phone(&pki, "lost-phone"), phone(&pki, "alice-phone"));
    let neighbour = loopback(0, 2);
    let held = admitted_from(SHARED, &gate, &lost).unwrap();
    admitted_from(neighbour, &gate, &lost).unwrap();
    admitted_from(neighbour, &gate, &alice).unwrap();
    gate.wait_closed("nas", 2);
    gate.reload(&house("allow = [\"alice-phone\"]"));
    held.end();
    gate.wait_closed("nas", 3);
    for source in [neighbour, SHARED] {
        for _ in 0..40 {
            refused_plainly(&connect_from(source, gate.address()), b"GET / HTTP/1.1\r\n\r\n");
        }
        gate.settled();
        let banned = rejected(&gate, Reason::SourceBanned) > 0.0;
        assert_eq!(banned, source == SHARED, "{source}: the other device has a voucher for the neighbour only");
    }
}
