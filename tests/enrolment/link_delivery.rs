//! Deliveries: to one device, again if need be; interrupted ones, expiry, signals, and what the owner is told.

use std::io::Read;
use std::net::{Ipv4Addr, Shutdown};
use std::sync::Barrier;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use socket2::SockRef;
use tokio::time::Instant;

use crate::browser::Browser;
use crate::common::process::{run, run_with_input, wait_until};
use crate::home::{Home, LOOPBACK};
use crate::link::assert_not_kept;
use crate::shared::{Shared, share};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.5 Mobile/15E148 Safari/604.1";
const ANDROID: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36";

#[test]
fn phone_gets_its_file() {
    let home = Home::new();
    for (user_agent, file, kind, disposition) in [
        (IPHONE, "alice-phone.mobileconfig", "application/x-apple-aspen-config", None),
        (
            ANDROID,
            "alice-phone-compat.p12",
            "application/x-pkcs12",
            Some("attachment; filename=\"alice-phone-compat.p12\""),
        ),
    ] {
        let mut shared = Shared::start(&home, &[]);
        let user_agent = format!("User-Agent: {user_agent}\r\n");
        let page = shared.try_ask("GET", shared.path(), &user_agent).unwrap();
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert_not_kept(&page);
        // The first button is the right one, and its section is unfolded.
        let text = page.text();
        let (_, first) = text.split_once("<details open>").unwrap();
        let (_, action) = first.split_once("<form method=\"post\" action=\"").unwrap();
        let action = action.split_once('"').unwrap().0.to_owned();
        assert_eq!(action, format!("{}/{file}", shared.path()));
        assert!(text.contains("https://nas.home.example/"), "{text}");
        assert!(text.contains("Doorward home.example"), "{text}");
        assert!(!text.contains(&shared.password()), "the password is for the terminal");

        let pressed = shared.try_ask("POST", &action, "Content-Length: 0\r\n").unwrap();
        assert_eq!(pressed.status, 303);
        assert_not_kept(&pressed);
        let got = shared.ask("GET", pressed.header("location").unwrap());
        assert_eq!((got.status, got.header("content-type")), (200, Some(kind)));
        assert_eq!(got.header("content-disposition"), disposition);
        assert_not_kept(&got);
        assert!(!contains(&got.body, shared.password().as_bytes()), "the password travels with its file");

        assert_eq!(shared.wait_and_close(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": file})));
        let events: Vec<_> = shared.lines().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(events, ["ready", "opened", "fetched", "stopped"]);

        // The archive is the device's own, under the password of the terminal, and not under the one of init.
        if file.ends_with(".p12") {
            let open = |password: &str| {
                let mut openssl = home.tool("openssl", "openssl");
                openssl.args(["pkcs12", "-clcerts", "-nodes", "-passin", &format!("pass:{password}")]);
                run_with_input(&mut openssl, &got.body)
            };
            let opened = open(&shared.password()).success();
            let certificate = std::fs::read_to_string(home.file("certificate")).unwrap();
            assert!(opened.text().contains(certificate.trim()), "{opened}");
            open(home.password()).failure();
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn one_of_many_simultaneous_clients_gets_a_file() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let places: Vec<String> =
        ["alice-phone.p12", "alice-phone.mobileconfig"].iter().map(|file| shared.press(file)).collect();
    const MANY: u8 = 16;
    let start = Barrier::new(usize::from(MANY));
    let statuses: Vec<Option<u16>> = std::thread::scope(|scope| {
        let downloads: Vec<_> = (1..=MANY)
            .map(|index| {
                let (shared, place, start) = (&shared, &places[usize::from(index) % places.len()], &start);
                scope.spawn(move || {
                    start.wait();
                    shared.ask_from(Ipv4Addr::new(127, 0, 2, index), "GET", place).map(|response| response.status)
                })
            })
            .collect();
        downloads.into_iter().map(|download| download.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|status| **status == Some(200)).count();
    assert_eq!(made, 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, Some(200 | 403 | 409))), "{statuses:?}");
    assert_eq!(shared.wait_and_close().0, 0);
}

#[test]
fn downloads_can_be_repeated_by_the_same_address_only() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let (path, place) = (shared.path().to_owned(), shared.press("alice-phone.p12"));
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let first = shared.ask("GET", &place);
    shared.wait_fetched(1);
    // Everything of the link, for another address.
    for (method, path) in [("GET", path.clone()), ("POST", format!("{path}/alice-phone.p12")), ("GET", place)] {
        let refused = shared.ask_from(other, method, &path).unwrap();
        assert_eq!(refused.status, 403, "{method} {path}");
        assert!(refused.text().contains("Another device") && refused.header("location").is_none(), "{refused:?}");
    }
    // The browser discarded the file; then it is the wrong one for the system.
    assert_eq!(shared.ask("GET", &path).status, 200);
    let again = shared.ask("GET", &shared.press("alice-phone.p12"));
    assert!(again.status == 200 && again.body == first.body, "{}", again.status);
    shared.wait_fetched(2);
    assert_eq!(shared.ask("GET", &shared.press("alice-phone.mobileconfig")).status, 200);
    let files: Vec<_> = shared.wait_fetched(3).into_iter().map(|line| line["file"].clone()).collect();
    assert_eq!(files, ["alice-phone.p12", "alice-phone.p12", "alice-phone.mobileconfig"]);
    // A link that has served its purpose is closed without an error.
    shared.signal(Signal::INT);
    assert_eq!(shared.wait(), (0, json!({"event": "stopped"})));
}

#[test]
fn interrupted_delivery_can_be_repeated() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.p12");
    // The phone loses its network during the download.
    break_off(&shared, &place, LOOPBACK);
    let again = wait_until("it may be tried again", || Some(shared.ask("GET", &place)).filter(|got| got.status == 200));
    assert!(again.body.len() > 1000);
    assert_eq!(shared.wait_and_close(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"})));
}

#[test]
fn unreachable_phone_has_not_fetched_the_file() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.mobileconfig");
    // It requests the file, and most of the reply does not reach it. It sends no reset.
    for has_said_all in [false, true] {
        let mut lost = shared.connect_narrowly();
        shared.send(&mut lost, "GET", &place, "").unwrap();
        lost.peek(&mut [0]).unwrap();
        if has_said_all {
            lost.shutdown(Shutdown::Write).unwrap();
        }
        // Until the delivery has timed out.
        assert_eq!(shared.ask("GET", &place).status, 409);
        let free = || shared.try_ask("POST", &format!("{}/alice-phone.p12", shared.path()), "").ok();
        wait_until("it may be tried again", || free().filter(|pressed| pressed.status == 303));
        // The phone does not get the rest when it is back.
        let mut rest = Vec::new();
        assert!(lost.read_to_end(&mut rest).is_err(), "it got {} bytes", rest.len());
    }
    assert_eq!(shared.ask("GET", &place).status, 200);
    assert_eq!(
        shared.wait_and_close(),
        (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.mobileconfig"}))
    );
}

#[test]
fn file_is_fetched_even_if_the_client_stays_connected() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.p12");
    let mut stays = shared.connect();
    shared.send(&mut stays, "GET", &place, "").unwrap();
    shared.wait_fetched(1);
    drop(stays);
}

#[test]
fn owner_is_told_of_readers_and_interrupted_downloads() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let (path, place) = (shared.path().to_owned(), shared.press("alice-phone.p12"));
    for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST] {
        let mut stream = shared.connect_from(from);
        shared.send(&mut stream, "GET", &path, "").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    // A client that reads everything and then resets the connection has the file, too.
    break_off(&shared, &place, Ipv4Addr::new(127, 0, 0, 3));
    wait_until("it may be tried again", || Some(shared.ask("GET", &place)).filter(|got| got.status == 200));
    assert_eq!(shared.wait_and_close().0, 0);
    let told = &shared.lines()[1..];
    assert_eq!(
        told,
        [
            json!({"event": "opened", "by": "127.0.0.1"}),
            json!({"event": "opened", "by": "127.0.0.2"}),
            json!({"event": "broken_off", "by": "127.0.0.3", "file": "alice-phone.p12"}),
            json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"}),
            json!({"event": "stopped"}),
        ]
    );
}

/// Begins a download and resets the connection.
fn break_off(shared: &Shared, place: &str, from: Ipv4Addr) {
    let mut sly = shared.connect_from(from);
    shared.send(&mut sly, "GET", place, "").unwrap();
    sly.peek(&mut [0]).unwrap();
    SockRef::from(&sly).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn number_of_notices_is_bounded() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    let (path, place) = (shared.path().to_owned(), shared.press("alice-phone.p12"));
    for last in 1..=20 {
        let mut stream = shared.connect_from(Ipv4Addr::new(127, 0, 1, last));
        shared.send(&mut stream, "GET", &path, "").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        break_off(&shared, &place, Ipv4Addr::LOCALHOST);
        let button = format!("{path}/alice-phone.p12");
        wait_until("it may be tried again", || (shared.ask("POST", &button).status == 303).then_some(()));
    }
    assert_eq!(shared.ask("GET", &place).status, 200);
    shared.wait_fetched(1);
    let told = |event: &str| shared.lines().iter().filter(|line| line["event"] == event).count();
    assert_eq!((told("opened"), told("broken_off")), (16, 16));
}

#[test]
fn ctrl_c_during_a_download_names_the_client() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.mobileconfig");
    let mut lost = shared.connect_narrowly();
    shared.send(&mut lost, "GET", &place, "").unwrap();
    lost.peek(&mut [0]).unwrap();
    shared.signal(Signal::INT);
    let code = shared.wait().0;
    // The notice of the interrupted delivery may come later.
    let stopped = json!({"event": "stopped", "fetching": "127.0.0.1"});
    assert!(code == 9 && shared.lines().contains(&stopped), "{code}, {:?}", shared.lines());
}

#[test]
fn link_expires() {
    let home = Home::new();
    let begun = Instant::now();
    let mut shared = Shared::start(&home, &["--expires", "1s"]);
    assert_eq!(shared.lines()[0]["expires_in_seconds"], 1);
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
    // A silent connection does not keep the link open.
    let _silent = shared.connect();
    assert_eq!(shared.wait(), (9, json!({"event": "expired"})));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(shared.try_ask("GET", shared.path(), "").is_err(), "still there");
    for wrong in ["0s", "61m", "soon"] {
        let refused = run(share(&home).args(["--expires", wrong])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
    }
}

#[test]
fn download_begun_in_time_may_end_after_expiry() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &["--expires", "3s"]);
    let place = shared.press("alice-phone.mobileconfig");
    let mut late = shared.connect_narrowly();
    shared.send(&mut late, "GET", &place, "").unwrap();
    late.peek(&mut [0]).unwrap();
    let button = format!("{}/alice-phone.p12", shared.path());
    wait_until("the link has expired", || (shared.ask("POST", &button).status == 410).then_some(()));
    let mut answer = Vec::new();
    late.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"</plist>"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(shared.wait(), (0, json!({"event": "expired"})));
    assert_eq!(shared.wait_fetched(1).len(), 1);
}

#[test]
fn signals_close_the_link_without_a_download() {
    let home = Home::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut shared = Shared::start(&home, &[]);
        shared.signal(signal);
        assert_eq!(shared.wait(), (9, json!({"event": "stopped"})));
    }
}

#[test]
fn terminal_shows_password_token_once_and_fingerprint() {
    let home = Home::new();
    let shown = run(share(&home).args(["--address", "127.0.0.1", "--expires", "1s"])).failure();
    assert_eq!(shown.status.code(), Some(9), "{shown}");
    assert!(shown.stdout.is_empty(), "{shown}");
    let (_, url) = shown.stderr.split_once("or open   http://127.0.0.1:").unwrap();
    let token = url.lines().next().unwrap().split_once('/').unwrap().1;
    assert_eq!((token.len(), shown.stderr.matches(token).count()), (32, 1), "{shown}");
    let (_, password) = shown.stderr.split_once("password  ").unwrap();
    let password = password.lines().next().unwrap();
    assert!(password.len() == 24 && password.split('-').all(|group| group.len() == 4), "{password}");
    assert!(!["0", "1", "i", "l", "o"].iter().any(|ambiguous| password.contains(ambiguous)), "{password}");
    let fingerprint = run(home
        .tool("openssl", "openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(home.folder().join("pki/server-ca.pem")))
    .success()
    .text();
    let fingerprint = fingerprint.trim().split_once('=').unwrap().1.replace(':', " ");
    assert!(shown.stderr.contains(&fingerprint), "{fingerprint} is missing in {shown}");
    assert!(shown.stderr.contains("error: the link has expired; no file was downloaded"), "{shown}");

    // Notices do not repeat the secrets.
    let mut shared = Shared::start(&home, &[]);
    shared.ask("GET", shared.path());
    let place = shared.press("alice-phone.p12");
    shared.ask("GET", &place);
    shared.wait_and_close();
    let told: Vec<String> = shared.lines()[1..].iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3);
    let claim = place.split('/').nth(1).unwrap();
    assert!(told.iter().all(|line| !line.contains(&shared.path()[1..]) && !line.contains(claim)), "{told:?}");
}

#[test]
fn curl_follows_the_button_to_the_file() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let button = format!("{}/alice-phone.p12", shared.url());
    run(home.tool("curl", "curl").args([
        "--silent",
        "--show-error",
        "--fail",
        "--location",
        "--data",
        "",
        "-OJ",
        &button,
    ]))
    .success();
    assert_eq!(shared.wait_and_close().0, 0);
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-in", "alice-phone.p12", "-passin", &format!("pass:{}", shared.password())]);
    run(&mut openssl).success();
}

#[test]
fn unusable_files_are_refused_before_the_link_opens() {
    let home = Home::new();
    let refused = |command: &mut std::process::Command, why: &str| {
        let refused = run(command.args(["--address", "127.0.0.1"])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(why) && refused.stdout.is_empty(), "{refused}");
    };
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    refused(other.args(["share", "bob-laptop", "--folder"]).arg(home.folder()), "no device called bob-laptop");
    let mut evil = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    refused(evil.args(["share", "../pki/server", "--folder"]).arg(home.folder()), "may not contain '/'");

    let key = home.file("key");
    let right = std::fs::read(&key).unwrap();
    std::fs::copy(home.folder().join("pki/server-key.pem"), &key).unwrap();
    refused(&mut share(&home), "is not the key of");
    run(home
        .tool("openssl", "openssl")
        .args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"])
        .arg(&key))
    .success();
    refused(&mut share(&home), "openssl pkcs8 -topk8");
    std::fs::write(&key, right).unwrap();

    // With an invalid configuration, only the addresses are missing on the page.
    std::fs::write(home.folder().join("doorward.toml"), "nonsense").unwrap();
    let shared = Shared::start(&home, &[]);
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("the address of your service") && !page.contains("https://"), "{page}");
}

#[test]
fn chromium_saves_the_file_when_the_button_is_pressed() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let mut browser = Browser::open(&home, &shared.url());
    // The steps for Linux, with their style: the page's policy allows it.
    assert_eq!(browser.evaluate("document.querySelector('details[open] summary').textContent"), "Linux, Firefox");
    assert_eq!(browser.evaluate("getComputedStyle(document.querySelector('details')).borderRadius != '0px'"), true);
    browser.evaluate("document.querySelector('details[open] button').click()");
    assert_eq!(shared.wait_and_close(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"})));
    let saved = browser.saved("alice-phone.p12");
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-passin", &format!("pass:{}", shared.password()), "-in"]);
    run(openssl.arg(saved)).success();
}

#[test]
fn ca_device_qr_issues_and_shares_in_one_command() {
    let home = Home::new();
    let device = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["ca", "device", "bob-laptop", "--qr", "--folder"]).arg(home.folder().join("pki"));
        command
    };
    let mut shared = Shared::start_command(&mut device());
    // The folder is not locked meanwhile.
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    let list = run(list.args(["ca", "list", "--folder"]).arg(home.folder().join("pki"))).success();
    assert!(list.text().contains("bob-laptop"), "{list}");
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("Set up bob-laptop") && !page.contains("https://ssh.home.example/"), "{page}");
    let got = shared.ask("GET", &shared.press("bob-laptop.p12"));
    assert_eq!(shared.wait_and_close(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "bob-laptop.p12"})));
    // The same archive as in the folder, with the same password.
    let kept = std::fs::read(home.folder().join("devices/bob-laptop.p12")).unwrap();
    assert!(got.body == kept, "another archive");
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-passin", &format!("pass:{}", shared.password())]);
    run_with_input(&mut openssl, &kept).success();
    assert!(home.folder().join("devices/bob-laptop.html").exists());
}
