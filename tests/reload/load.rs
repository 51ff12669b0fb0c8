//! Reloads affect no other connection, and one revoked device of many is cut.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use doorward::control::client::{self, ReloadError};
use rcgen::SerialNumber;
use tokio::time::Instant;

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{TestPki, days_from_now};
use crate::controlled;
use crate::crowd::{Crowd, tally};
use crate::home::House;
use crate::{NAS, SSH};

/// attacks.md row 24: 100 reloads under load, half of them broken.
#[test]
fn hundred_reloads_lose_and_refuse_no_connection() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address();
    let devices: Vec<_> = (0..6).map(|number| client(&pki, Some(&pki.client(&format!("device-{number}"))))).collect();
    let small = House::new(&pki).route("nas", address).route("ssh", address);
    let large = House::new(&pki).route("ssh", address).route("nas", address).route("photos", address);
    let good = [controlled(&small), controlled(&large)];
    let broken = [good[0].replace("[limits]", "[limits]\nconections = 3"), good[1].replace("clients.pem", "gone.pem")];
    let gate = Gate::start(&good[0]);
    let (stop, visits) = (AtomicBool::new(false), AtomicU64::new(0));

    thread::scope(|scope| {
        for (number, device) in devices.iter().enumerate() {
            let (gate, stop, visits) = (&gate, &stop, &visits);
            let name = if number % 2 == 0 { NAS } else { SSH };
            // Half of them stay, half of them come and go.
            scope.spawn(move || {
                let enter = || Client::admitted(gate.address(), device, name).unwrap();
                let mut client = enter();
                while !stop.load(Ordering::SeqCst) {
                    client.ping().unwrap();
                    if number % 3 == 0 {
                        client.close_notify();
                        assert_eq!(client.end(), End::Orderly);
                        client = enter();
                    }
                    visits.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                }
                client.close_notify();
                assert_eq!(client.end(), End::Orderly);
            });
        }
        let file = gate.folder().join("doorward.toml");
        let socket = gate.folder().join("control.sock");
        for round in 0..100 {
            let before = visits.load(Ordering::SeqCst);
            let half = round / 2 % 2;
            let config = if round % 2 == 0 { &good[half] } else { &broken[half] };
            std::fs::write(&file, config).unwrap();
            match client::reload(&socket) {
                Ok(reloaded) => {
                    assert_eq!((round % 2, reloaded.sessions_cut), (0, 0), "round {round}");
                }
                Err(ReloadError::Refused { .. }) => assert_eq!(round % 2, 1, "round {round}"),
                Err(error) => panic!("round {round}: {error}"),
            }
            // Another reload was done in between.
            while visits.load(Ordering::SeqCst) == before {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });

    let metrics = gate.settled();
    let reloads = |outcome| metrics.sum("doorward_config_reloads_total", &[("outcome", outcome)]);
    assert_eq!((reloads("ok"), reloads("failed")), (50.0, 50.0));
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[]), 0.0);
    let closed = metrics.sum("doorward_connections_closed_total", &[]);
    assert_eq!(metrics.sum("doorward_connections_closed_total", &[("reason", "client_closed")]), closed);
    assert_eq!(metrics.sum("doorward_connections_accepted_total", &[]), closed);
    assert!(closed >= devices.len() as f64);
}

/// `cargo bench --bench revoke` does it with 1,000 sessions of 50 devices.
#[tokio::test(flavor = "multi_thread")]
async fn revoking_one_of_many_devices_cuts_it_and_no_other() {
    const DEVICES: u64 = 12;
    const SESSIONS: usize = 10;
    const LOST: u64 = 7;
    let mut crowd = Crowd::gather(DEVICES, SESSIONS).await;
    let begun = crowd.revoke(&[LOST]).await;
    let gone = crowd.gone(SESSIONS).await;
    assert_eq!(tally(&gone).into_iter().collect::<Vec<_>>(), [(LOST, (SESSIONS, 0))]);
    let slowest = gone.iter().filter_map(|guest| guest.cut).max().unwrap() - begun;
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let (gate, rest) = crowd.part().await;
    let others: Vec<_> = (1..=DEVICES).filter(|device| *device != LOST).map(|device| (device, (0, SESSIONS))).collect();
    assert_eq!(tally(&rest).into_iter().collect::<Vec<_>>(), others);
    assert!(rest.iter().all(|guest| guest.echoed > 0), "{rest:?}");
    tokio::task::block_in_place(|| {
        gate.wait_metric("doorward_sessions_cut_total", &[("reason", "revoked")], SESSIONS as f64);
        gate.wait_metric("doorward_sessions_cut_total", &[], SESSIONS as f64);
        drop(gate);
    });
}

/// A long list is read while connections come and go without delay.
#[test]
fn long_list_delays_no_connection() {
    const REVOKED: u64 = 30_000;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let serials: Vec<SerialNumber> = (1..=REVOKED).map(SerialNumber::from).collect();
    let list = pki.write("clients.crl", pki.clients.revocation_list(&serials, days_from_now(-1), days_from_now(5)));
    let house = House::new(&pki).route("nas", backend.address());
    let listing =
        House::new(&pki).client_auth(&format!("revocation_lists = [{list:?}]")).route("nas", backend.address());
    let gate = Gate::start(&controlled(&house));
    let visit = || {
        let client = Client::admitted(gate.address(), &alice, NAS).unwrap();
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
    };
    visit();
    std::fs::write(gate.folder().join("doorward.toml"), controlled(&listing)).unwrap();
    let socket = gate.folder().join("control.sock");
    thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            let begun = Instant::now();
            let lost = client::reload(&socket).unwrap().lost;
            (begun.elapsed(), lost)
        });
        let (mut visits, mut longest) = (0, Duration::ZERO);
        while !reloading.is_finished() {
            let begun = Instant::now();
            visit();
            (visits, longest) = (visits + 1, longest.max(begun.elapsed()));
        }
        let (took, lost) = reloading.join().unwrap();
        // Each of these is a handshake, and all of them together took as long as the reload.
        assert!(
            visits > 5 && longest < took / 2,
            "{visits} visits, the longest of {longest:?}, in a reload of {took:?}"
        );
        assert_eq!(lost.len(), 101);
        assert!(lost.iter().any(|one| one.client == "29900 more revoked serial numbers"), "{lost:?}");
    });
    visit();
}
