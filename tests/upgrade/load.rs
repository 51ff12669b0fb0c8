//! Upgrades under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::scene::{NAS, Stream, config, upgrade, wait_for_earlier};

const UPGRADES: usize = 10;

#[test]
fn ten_upgrades_under_load_refuse_and_lose_nothing() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let (stop, visits) = (AtomicBool::new(false), AtomicU64::new(0));

    // They outlive every upgrade in the first process.
    let lasting: Vec<Stream> = (0..3).map(|_| Stream::begin(&gate, &device)).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    // Panics unless it is connected, admitted and served.
                    let visitor = Client::admitted(gate.address(), &device, NAS).unwrap();
                    visitor.close_notify();
                    assert_eq!(visitor.end(), End::Orderly);
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut pids = vec![gate.pid()];
        let mut passing = Stream::begin(&gate, &device);
        for round in 0..UPGRADES {
            let upgraded = upgrade(&gate);
            let number = |key: &str| u32::try_from(upgraded[key].as_u64().unwrap()).unwrap();
            assert_eq!(number("earlier_pid"), *pids.last().unwrap(), "round {round}");
            assert!(number("earlier_sessions") > 0, "round {round}: {upgraded}");
            pids.push(number("pid"));
            // Payload moves in the process before, and connections come to the new one.
            let (before, arrived) = (visits.load(Ordering::SeqCst), passing.received());
            wait_until("both go on", || {
                let moved = visits.load(Ordering::SeqCst) > before + 3 && passing.received() > arrived;
                moved.then_some(())
            });
            passing.end();
            passing = Stream::begin(&gate, &device);
            // The first process, which serves those that last.
            wait_for_earlier(&gate, 1);
        }
        passing.end();
        stop.store(true, Ordering::SeqCst);
    });
    for stream in lasting {
        assert!(stream.end() > 0);
    }
    wait_for_earlier(&gate, 0);

    // Counters of all processes.
    let metrics = gate.settled();
    let sum = |name: &str| metrics.sum(&format!("doorward_connections_{name}_total"), &[]);
    let expected = visits.load(Ordering::SeqCst) + 3 + UPGRADES as u64 + 1;
    assert_eq!((sum("accepted"), sum("rejected"), sum("closed")), (expected as f64, 0.0, expected as f64));
    eprintln!("{UPGRADES} upgrades, {} connections, none refused", visits.load(Ordering::SeqCst));
    gate.end_after_upgrades();
}
