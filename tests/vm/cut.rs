//! A session that is no longer authorized is cut within a second, whatever the kernel is doing for it.

use std::io::Write;
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use tokio::time::Instant;

use crate::client::{Client, End, VERSIONS};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::handover::path;
use crate::home::House;

/// The time limit from the command to the last byte. The machines of tests/vm/run.sh are emulated: a handshake takes a
/// second.
fn time_limit() -> Duration {
    Duration::from_secs(if std::env::var_os("GATE_REQUIRE_KTLS").is_some() { 15 } else { 1 })
}

#[test]
fn denied_sessions_are_cut_within_a_second() {
    for version in VERSIONS {
        let pki = TestPki::new();
        let (echo, chatter) = (
            Backend::echo(),
            Backend::serve("127.0.0.1:0", |mut stream, _| while stream.write_all(&[7; 64 * 1024]).is_ok() {}),
        );
        let house = |keys: &str| {
            let house = House::new(&pki).client_auth(keys).route("nas", echo.address()).route("tv", chatter.address());
            // The default is "off".
            format!("kernel_tls = \"auto\"\n{}", house.config())
        };
        let gate = Gate::start(&house(""));
        let (lost, mine) = (pki.client("lost-phone"), pki.client("alice-phone"));
        let fingerprint = Sha256::of(&lost.chain()[0]);
        let [lost, mine] = [lost, mine].map(|certified| pki.client_config(Some(&certified), &[version]).into());
        let idle = Client::admitted(gate.address(), &lost, "nas.home.example").unwrap();
        let stays = Client::admitted(gate.address(), &mine, "nas.home.example").unwrap();
        // One reads as fast as it can, the other never reads, so the gate's pipe and buffers for it are full.
        let [busy, stalled] = [(); 2].map(|()| {
            let client = Client::handshaken(gate.address(), &lost, "tv.home.example").unwrap();
            client.read(&mut [0; 1]).unwrap();
            client
        });
        thread::scope(|scope| {
            let reading = scope.spawn(|| while busy.read(&mut [0; 65_536]).is_ok() {});
            let asked = Instant::now();
            let reply = gate.reload(&house(&format!("deny = [\"sha256:{fingerprint}\"]")));
            assert_eq!((&reply["sessions_cut"], &reply["sessions_kept"]), (&3.into(), &1.into()), "{reply}");
            let lines = gate.wait_for_lines("all three", 3, |line| line["reason"] == "denied");
            assert_eq!(idle.end(), End::of(CloseReason::Denied));
            reading.join().unwrap();
            let took = asked.elapsed();
            assert!(took < time_limit(), "{took:?}");
            assert!(lines.iter().all(|line| line["path"] == path()), "{lines:?}");
        });
        stays.ping().unwrap();
        drop(stalled);
    }
}
