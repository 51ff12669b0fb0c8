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
use crate::common::pki::{Certified, TestPki, days_from_now};
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
            // A slow machine may notice the changed file by itself before the signal comes.
            let reloads = gate.lines().into_iter().filter(|line| line["event"] == "reloaded");
            let cut: u64 = reloads.filter_map(|line| line["sessions_cut"].as_u64()).sum();
            assert_eq!((cut, &reply["sessions_kept"]), (3, &1.into()), "{reply}");
            let lines = gate.wait_for_lines("all three", 3, |line| line["reason"] == "denied");
            assert_eq!(idle.end(), End::of(CloseReason::Denied));
            reading.join().unwrap();
            // Its alert may be behind bytes that are discarded.
            let (_, end) = busy.read_to_end();
            let told = End::of(CloseReason::Denied);
            assert!(end == told || matches!(end, End::Truncated | End::Reset), "{end:?}");
            let took = asked.elapsed();
            assert!(took < time_limit(), "{took:?}");
            assert!(lines.iter().all(|line| line["path"] == path()), "{lines:?}");
        });
        stays.ping().unwrap();
        drop(stalled);
    }
}

/// Who cuts and why is told by the alert, also where the kernel seals it; a time limit has none.
#[test]
fn client_of_a_cut_session_is_told_the_reason() {
    for version in VERSIONS {
        let pki = TestPki::new();
        let echo = Backend::echo();
        let house = |keys: &str, allow: &str, timeouts: &str| {
            let house = House::new(&pki).client_auth(keys).timeouts(timeouts);
            let allow = format!("allow = [{allow:?}]");
            let house = house.route_with("nas", &[&echo.address().to_string()], &allow);
            format!("kernel_tls = \"auto\"\n{}", house.config())
        };
        let gate = Gate::start(&house("", "any", ""));
        let mut params = Certified::for_clients("lost-phone");
        params.serial_number = Some(7_u64.into());
        let lost = pki.client_config(Some(&pki.clients.issue(params)), &[version]).into();
        let open = || Client::admitted(gate.address(), &lost, "nas.home.example").unwrap();
        let closed = |client: Client, reason: CloseReason| {
            assert_eq!(client.end(), End::of(reason), "{version:?}");
            let line = gate.wait_for_line(reason.label(), |line| line["reason"] == reason.label());
            assert_eq!(line["path"], path(), "{line}");
        };
        let session = open();
        gate.reload(&house("", "alice-phone", ""));
        closed(session, CloseReason::NotAllowed);
        gate.reload(&house("", "any", "idle = \"5s\""));
        closed(open(), CloseReason::IdleTimeout);
        gate.reload(&house("", "any", ""));
        let session = open();
        let list = pki.clients.revocation_list(&[7_u64.into()], days_from_now(-1), days_from_now(1));
        let list = pki.write("revoking.crl", list);
        gate.reload(&house(&format!("revocation_lists = [{list:?}]"), "any", ""));
        closed(session, CloseReason::Revoked);
    }
}
