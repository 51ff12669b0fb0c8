//! kill -9 of the process that orders: at every request that the server sees, and before every system call that changes the disk.

use std::path::PathBuf;

use crate::agent::{Home, Outcome};
use crate::common::process::tool;
use crate::relay::Fate;

/// System calls that change the disk.
const CALLS: [&str; 5] = ["renameat2", "renameat", "fsync", "unlinkat", "mkdirat"];

/// More than an order has.
const MANY: usize = 60;

/// What must hold in the end.
#[track_caller]
fn check(home: &Home, accounts: usize, orders: usize, when: &str) {
    assert_eq!(home.pebble.accounts(), accounts, "{when}");
    assert!(home.pebble.orders() <= orders, "{when}: {} orders", home.pebble.orders());
    assert_eq!(home.chain().len(), 2, "{when}");
    assert!(!home.has_order(), "{when}");
    home.stop();
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new(), "{when}");
}

#[test]
fn killed_at_every_request_the_order_is_gone_on_with() {
    let check = |before_the_server: bool, first: usize| {
        let home = Home::new();
        for number in (first..).step_by(2) {
            assert!(number < MANY, "there is no end of requests");
            home.begin_anew();
            let (accounts, orders) = (home.pebble.accounts(), home.pebble.orders());
            let (mut kill, mut seen) = (Some(home.killer()), 0);
            home.relay.rule(move |_, _| {
                seen += 1;
                if seen <= number {
                    return Fate::Pass;
                }
                let Some(kill) = kill.take() else { return Fate::Pass };
                if before_the_server {
                    kill();
                    return Fate::Close;
                }
                Fate::Change(Box::new(move |answer| {
                    kill();
                    answer
                }))
            });
            let is_killed = match home.attempt() {
                Outcome::Ended => true,
                Outcome::Issued => false,
                Outcome::Failed(failed) => panic!("request {number}: {failed}"),
            };
            home.relay.pass();
            if is_killed {
                home.order();
            }
            // Between the server's order and the note of it one is lost.
            check(&home, accounts + 1, orders + if before_the_server { 1 } else { 2 }, &format!("request {number}"));
            if !is_killed {
                assert!(number > 12, "an order has more requests than {number}");
                break;
            }
        }
    };
    std::thread::scope(|scope| {
        for (before_the_server, first) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
            scope.spawn(move || check(before_the_server, first));
        }
    });
}

#[test]
fn killed_before_every_change_of_the_disk_nothing_is_lost_or_half_written() {
    // Debian's strace.
    let strace = tool("strace", "strace").get_program().to_str().unwrap().to_owned();
    let kill_at_each = |call: &'static str| {
        let mut home = Home::new();
        for number in 1.. {
            assert!(number < MANY, "there is no end of calls");
            home.begin_anew();
            let (accounts, orders) = (home.pebble.accounts(), home.pebble.orders());
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}"));
            let words = [strace.as_str(), "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            home.start_by(words.map(str::to_owned).to_vec());
            let is_killed = match home.attempt() {
                Outcome::Ended => true,
                Outcome::Issued => false,
                Outcome::Failed(failed) => panic!("{call} {number}: {failed}"),
            };
            home.start_by(Vec::new());
            home.order();
            // An order that was placed and not noted is lost; the last one is a renewal, unless the first was not over.
            check(&home, accounts + 1, orders + 2, &format!("{call} {number}"));
            if !is_killed {
                return number - 1;
            }
        }
        0
    };
    let kills: usize = std::thread::scope(|scope| {
        let all = CALLS.map(|call| scope.spawn(move || kill_at_each(call)));
        all.map(|one| one.join().unwrap()).iter().sum()
    });
    assert!(kills > 12, "it was killed {kills} times only");
}
