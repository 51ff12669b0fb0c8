//! kill -9 of the process that orders: at every request that the server sees, and before every system call that changes the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent::{Home, Outcome};
use crate::common::process::tool;
use crate::relay::Fate;

/// System calls that change the disk.
const CALLS: [&str; 5] = ["renameat2", "renameat", "fsync", "unlinkat", "mkdirat"];

/// More than an order has.
const MANY: usize = 60;

/// What must hold in the end.
#[track_caller]
fn check(home: &Home, orders: usize, when: &str) {
    assert_eq!(home.pebble.accounts(), 1, "{when}");
    assert!(home.pebble.orders() <= orders, "{when}: {} orders", home.pebble.orders());
    assert_eq!(home.chain().len(), 2, "{when}");
    assert!(!home.has_order(), "{when}");
    home.stop();
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new(), "{when}");
}

#[test]
fn killed_at_every_request_the_order_is_gone_on_with() {
    let check = |before_the_server: bool| {
        let home = Home::new();
        let mut number = 0;
        loop {
            assert!(number < MANY, "there is no end of requests");
            let (kill, seen) = (home.killer(), Arc::new(AtomicUsize::new(0)));
            let mut kill = Some(kill);
            home.relay.rule(move |_, _| {
                if seen.fetch_add(1, Ordering::SeqCst) < number {
                    return Fate::Pass;
                }
                let Some(kill) = kill.take() else { return Fate::Close };
                if before_the_server {
                    kill();
                    return Fate::Close;
                }
                Fate::Change(Box::new(move |answer| {
                    kill();
                    answer
                }))
            });
            match home.attempt() {
                Outcome::Ended(_) => number += 1,
                Outcome::Issued => break,
                Outcome::Failed(failed) => panic!("request {number}: {failed}"),
            }
        }
        assert!(number > 10, "it was killed {number} times only");
        // Between the server's order and the note of it one is lost.
        check(&home, if before_the_server { 1 } else { 2 }, "killed at requests");
    };
    std::thread::scope(|scope| {
        for before_the_server in [true, false] {
            scope.spawn(move || check(before_the_server));
        }
    });
}

#[test]
fn killed_before_every_change_of_the_disk_nothing_is_lost_or_half_written() {
    // Debian's strace.
    let strace = tool("strace", "strace").get_program().to_str().unwrap().to_owned();
    let kill_at_each = |call: &'static str| {
        let mut home = Home::new();
        let mut kills = 0;
        for number in 1.. {
            assert!(number < MANY, "there is no end of calls");
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}"));
            let words = [strace.as_str(), "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            home.start_by(words.map(str::to_owned).to_vec());
            match home.attempt() {
                Outcome::Ended(_) => kills += 1,
                Outcome::Issued => break,
                Outcome::Failed(failed) => panic!("{call} {number}: {failed}"),
            }
        }
        home.start_by(Vec::new());
        home.order();
        // An order that was placed and not noted is lost.
        check(&home, kills + 2, call);
        kills
    };
    let kills: usize = std::thread::scope(|scope| {
        let all = CALLS.map(|call| scope.spawn(move || kill_at_each(call)));
        all.map(|one| one.join().unwrap()).iter().sum()
    });
    assert!(kills > 10, "it was killed {kills} times only");
}
