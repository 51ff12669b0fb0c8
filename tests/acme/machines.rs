//! Machines whose clock is wrong, and folders that cannot be written.

use std::path::Path;
use std::time::SystemTime;

use crate::agent::Home;
use crate::common::process::tool;

const NEW_ORDER: &str = "/order-plz";

/// Debian's package `faketime`: a library that shifts the time of a program.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

const DAY: i64 = 24 * 3600;

/// The command before another one that has it live at another time.
fn at(time: &str) -> Vec<String> {
    assert!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing: apt-get install faketime");
    let time = format!("FAKETIME={time}");
    // Timers use the monotonic clock.
    let words = ["/usr/bin/env", &format!("LD_PRELOAD={LIBRARY}"), &time, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    words.map(str::to_owned).to_vec()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

#[test]
fn clock_that_is_behind_orders_nothing_until_it_is_right() {
    let mut home = Home::new();
    home.start_by(at("-1y"));
    let failed = home.fails();
    assert!(failed.error.contains("certificate") && failed.error.contains("not valid yet"), "{failed}");
    home.start_by(Vec::new());
    // The failure is of a year ago: it is not waited for.
    let agent = home.left_alone();
    agent.wait_renewed();
    agent.stop();
    assert_eq!((home.pebble.accounts(), home.pebble.orders()), (1, 1));
    // Back again: the certificate is there, and is not replaced.
    home.start_by(at("-1y"));
    home.relay.pass();
    let agent = home.left_alone();
    agent.wait_for_rest();
    agent.stop();
    assert_eq!(home.relay.count(NEW_ORDER), 0);
}

#[test]
fn clock_that_is_ahead_does_not_order_again_and_again() {
    let mut home = Home::new();
    // Two thirds of each new certificate's life are over when it is issued.
    home.start_by(at("+70d"));
    home.order();
    assert_eq!(home.relay.count(NEW_ORDER), 1);
    let wait = home.next_at() - (now() + 70 * DAY);
    assert!((DAY - 120..=DAY + 120).contains(&wait), "{wait}");
    // So far ahead that what is issued has expired: it is told, and the server is asked less and less.
    home.start_by(at("+100d"));
    home.relay.pass();
    let failed = home.fails();
    assert!(failed.error.contains("certificate") && failed.error.contains("expired"), "{failed}");
    home.start_by(Vec::new());
    home.relay.pass();
    home.order();
}

#[test]
fn full_disk_places_no_order() {
    let mut home = Home::new();
    // The folders themselves are there. Two of its files fit in.
    let state = home.path("account");
    std::fs::create_dir_all(&state).unwrap();
    let script = format!("mount -t tmpfs -o size=12k,mode=700 tmpfs {}\nexec \"$@\"", state.display());
    let unshare = tool("unshare", "util-linux").get_program().to_str().unwrap().to_owned();
    home.start_by([&unshare, "--mount", "bash", "-euc", &script, "bash"].map(str::to_owned).to_vec());
    let failed = home.fails();
    assert!(failed.error.contains("No space left") || failed.error.contains("failed to"), "{failed}");
    home.fails();
    assert_eq!(home.pebble.orders(), 0);
    home.start_by(Vec::new());
    home.order();
}

#[test]
fn folder_that_is_read_only_places_no_order() {
    let mut home = Home::new();
    std::fs::create_dir_all(home.path("account")).unwrap();
    std::fs::create_dir_all(home.path("live")).unwrap();
    std::fs::write(home.path("account/lock"), "").unwrap();
    let state = home.path("");
    let script = format!("mount --bind {0} {0} && mount -o remount,ro,bind {0}\nexec \"$@\"", state.display());
    let unshare = tool("unshare", "util-linux").get_program().to_str().unwrap().to_owned();
    home.start_by([&unshare, "--mount", "bash", "-euc", &script, "bash"].map(str::to_owned).to_vec());
    let agent = home.left_alone();
    let error = agent.wait_for_failure();
    assert!(error.contains("Read-only file system"), "{error}");
    agent.stop();
    assert_eq!(home.relay.asked().len(), 0);
    home.start_by(Vec::new());
    home.order();
}

#[test]
fn folder_that_is_removed_is_told_and_made_by_the_next_process() {
    let home = Home::new();
    home.order();
    std::fs::remove_dir_all(home.path("")).unwrap();
    home.relay.pass();
    let failed = home.fails();
    assert!(!failed.error.is_empty(), "{failed}");
    assert_eq!(home.relay.count(NEW_ORDER), 0);
    home.stop();
    home.order();
    assert_eq!(home.chain().len(), 2);
}
