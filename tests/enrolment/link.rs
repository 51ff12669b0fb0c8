//! The link: free to look at, used up by one delivery, of no use to anybody else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Barrier;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::time::Instant;

use crate::browser::Browser;
use crate::common::process::{run, run_with_input, wait_until};
use crate::home::{Home, LOOPBACK, der};
use crate::shared::{Response, Shared, share};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.5 Mobile/15E148 Safari/604.1";
const ANDROID: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36";

/// What every answer must say, whatever it is.
#[track_caller]
fn assert_not_kept(response: &Response) {
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
    assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{response:?}");
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{response:?}");
    assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"), "{response:?}");
    let policy = response.header("content-security-policy").unwrap();
    for part in ["default-src 'none'; ", "; form-action 'self'; ", "; base-uri 'none'", "; frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{part} is missing in {response:?}");
    }
}

#[test]
fn a_phone_that_scans_the_code_gets_its_file_once() {
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
        // The first button is the right one, and it is not folded away.
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

        assert_eq!(shared.wait(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": file})));
        let events: Vec<_> = shared.lines().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(events, ["ready", "opened", "fetched"]);

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
fn looking_at_it_uses_nothing_up() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let path = shared.path().to_owned();
    for _ in 0..20 {
        for method in ["GET", "HEAD"] {
            let page = shared.ask(method, &path);
            assert_eq!((page.status, page.body.is_empty()), (200, method == "HEAD"), "{method}");
        }
        // What follows the links and the forms of the page without pressing anything.
        for file in ["alice-phone.mobileconfig", "alice-phone-compat.p12", "alice-phone.p12"] {
            for method in ["GET", "HEAD", "PUT"] {
                let looked = shared.ask(method, &format!("{path}/{file}"));
                assert_eq!((looked.status, looked.header("allow")), (405, Some("POST")), "{method} {file}");
            }
        }
    }
    // The authority is no secret, and no delivery.
    let root = shared.ask("GET", &format!("{path}/server-ca.crt"));
    assert_eq!((root.status, root.header("content-type")), (200, Some("application/x-x509-ca-cert")));
    assert_not_kept(&root);
    std::fs::write(home.path("root.pem"), &root.body).unwrap();
    assert_eq!(der(&home.path("root.pem")), der(&home.folder().join("pki/server-ca.pem")));

    let place = shared.press("alice-phone.p12");
    assert!(!place.contains(&path), "whoever knows the link would know the place of the file");
    assert_eq!(shared.ask("HEAD", &place).status, 405);
    assert_eq!(shared.ask("GET", &place).status, 200);
    assert_eq!(shared.wait().0, 0);
}

#[test]
fn of_many_downloads_at_once_one_is_made() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let places: Vec<String> =
        ["alice-phone.p12", "alice-phone.mobileconfig"].iter().map(|file| shared.press(file)).collect();
    const MANY: usize = 16;
    let start = Barrier::new(MANY);
    let statuses: Vec<Option<u16>> = std::thread::scope(|scope| {
        let downloads: Vec<_> = (0..MANY)
            .map(|index| {
                let (shared, place, start) = (&shared, &places[index % places.len()], &start);
                scope.spawn(move || {
                    start.wait();
                    // Who comes late finds nobody there any more.
                    shared.try_ask("GET", place, "").ok().map(|response| response.status)
                })
            })
            .collect();
        downloads.into_iter().map(|download| download.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|status| **status == Some(200)).count();
    assert_eq!(made, 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, None | Some(200 | 409 | 410))), "{statuses:?}");
    assert_eq!(shared.wait().1["event"], "fetched");
}

#[test]
fn a_delivery_that_did_not_arrive_can_be_made_again() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.p12");
    // It has begun to arrive when the phone loses its network.
    break_off(&shared, &place, LOOPBACK);
    let again = wait_until("it may be tried again", || Some(shared.ask("GET", &place)).filter(|got| got.status == 200));
    assert!(again.body.len() > 1000);
    assert_eq!(shared.wait(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"})));
}

#[test]
fn a_phone_that_is_out_of_reach_has_nothing() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.mobileconfig");
    // It asks, and then most of the answer has no way to it. What says nothing any more sends no reset.
    for has_said_all in [false, true] {
        let mut lost = shared.connect_narrowly();
        shared.send(&mut lost, "GET", &place, "").unwrap();
        lost.peek(&mut [0]).unwrap();
        if has_said_all {
            lost.shutdown(Shutdown::Write).unwrap();
        }
        // By then it is clear that nothing comes of it.
        assert_eq!(shared.ask("GET", &place).status, 409);
        let free = || shared.try_ask("POST", &format!("{}/alice-phone.p12", shared.path()), "").ok();
        wait_until("it may be tried again", || free().filter(|pressed| pressed.status == 303));
        // And that is settled: it does not get the rest when it is back.
        let mut rest = Vec::new();
        assert!(lost.read_to_end(&mut rest).is_err(), "it got {} bytes", rest.len());
    }
    assert_eq!(shared.ask("GET", &place).status, 200);
    assert_eq!(shared.wait(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.mobileconfig"})));
}

#[test]
fn who_has_all_of_it_and_stays_connected_has_it() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.p12");
    let mut stays = shared.connect();
    shared.send(&mut stays, "GET", &place, "").unwrap();
    assert_eq!(shared.wait().1["event"], "fetched");
    drop(stays);
}

#[test]
fn its_owner_is_told_of_everybody_who_looks_and_of_who_breaks_off() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let (path, place) = (shared.path().to_owned(), shared.press("alice-phone.p12"));
    for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST] {
        let mut stream = shared.connect_from(from);
        shared.send(&mut stream, "GET", &path, "").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    // Whoever has read all of it and then resets the connection would have it, and nobody would know.
    break_off(&shared, &place, Ipv4Addr::new(127, 0, 0, 3));
    wait_until("it may be tried again", || Some(shared.ask("GET", &place)).filter(|got| got.status == 200));
    assert_eq!(shared.wait().0, 0);
    let told = &shared.lines()[1..];
    assert_eq!(
        told,
        [
            json!({"event": "opened", "by": "127.0.0.1"}),
            json!({"event": "opened", "by": "127.0.0.2"}),
            json!({"event": "broken_off", "by": "127.0.0.3", "file": "alice-phone.p12"}),
            json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"}),
        ]
    );
}

/// Begins to fetch what is there, and resets the connection.
fn break_off(shared: &Shared, place: &str, from: Ipv4Addr) {
    let mut sly = shared.connect_from(from);
    shared.send(&mut sly, "GET", place, "").unwrap();
    sly.peek(&mut [0]).unwrap();
    SockRef::from(&sly).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_stranger_does_not_fill_the_terminal() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
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
    assert_eq!(shared.wait().1["event"], "fetched");
    let told = |event: &str| shared.lines().iter().filter(|line| line["event"] == event).count();
    assert_eq!((told("opened"), told("broken_off")), (16, 16));
}

#[test]
fn ctrl_c_does_not_say_that_nobody_has_it_while_somebody_fetches_it() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let place = shared.press("alice-phone.mobileconfig");
    let mut lost = shared.connect_narrowly();
    shared.send(&mut lost, "GET", &place, "").unwrap();
    lost.peek(&mut [0]).unwrap();
    shared.signal(Signal::INT);
    let code = shared.wait().0;
    // That the delivery ended with the command may be told behind it.
    let stopped = json!({"event": "stopped", "fetching": "127.0.0.1"});
    assert!(code == 9 && shared.lines().contains(&stopped), "{code}, {:?}", shared.lines());
}

#[test]
fn who_does_not_know_it_finds_nothing_and_is_told_of() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    // What browsers ask for by themselves is nobody's attempt.
    for _ in 0..110 {
        assert_eq!(shared.ask("GET", "/favicon.ico").status, 404);
    }
    let path = shared.path().to_owned();
    let mut almost = path.clone();
    let last = almost.pop().unwrap();
    almost.push(if last == '0' { '1' } else { '0' });
    let mut wrong = vec![
        ("GET", "/".to_owned()),
        ("GET", almost.clone()),
        ("POST", format!("{almost}/alice-phone.p12")),
        ("GET", format!("{path}/../{}", &path[1..])),
        ("GET", format!("{path}/alice-phone-key.pem")),
        ("POST", format!("{path}/alice-phone-key.pem")),
        ("GET", format!("{path}/")),
        ("GET", format!("/{}", "0".repeat(5000))),
        ("GET", path.to_uppercase() + "x"),
    ];
    wrong.resize_with(99, || ("GET", "/admin".to_owned()));
    for (method, path) in &wrong {
        let answer = shared.ask(method, path);
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_not_kept(&answer);
        assert!(!answer.text().contains("alice"), "a stranger learns whose link it is");
    }
    assert_eq!(shared.ask("GET", &path).status, 200, "99 tries");
    let _ = shared.try_ask("GET", "/one-more", "");
    assert_eq!(shared.wait(), (9, json!({"event": "guessed", "by": "127.0.0.1"})));
    assert!(TcpStream::connect(shared.url()[7..].split('/').next().unwrap()).is_err(), "still there");
}

#[test]
fn its_time_is_over_soon() {
    let home = Home::new();
    let begun = Instant::now();
    let mut shared = Shared::start(&home, &["--expires", "1s"]);
    assert_eq!(shared.lines()[0]["expires_in_seconds"], 1);
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
    // Who has an open connection and says nothing does not keep it open.
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
fn who_has_begun_in_time_may_end_and_nobody_else_begins() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &["--expires", "3s"]);
    let place = shared.press("alice-phone.mobileconfig");
    let mut late = shared.connect_narrowly();
    shared.send(&mut late, "GET", &place, "").unwrap();
    late.peek(&mut [0]).unwrap();
    let button = format!("{}/alice-phone.p12", shared.path());
    wait_until("its time is over", || (shared.ask("POST", &button).status == 410).then_some(()));
    let mut answer = Vec::new();
    late.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"</plist>"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(shared.wait().1["event"], "fetched");
}

#[test]
fn it_is_at_no_address_where_the_internet_could_come() {
    let home = Home::new();
    for public in ["203.0.113.9", "8.8.8.8", "100.64.0.1", "2001:db8::1"] {
        let refused = run(share(&home).args(["--address", public])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains("is no private address"), "{refused}");
        assert!(refused.stderr.contains("--address 192.168.1.5 (or say --allow-public)"), "{refused}");
    }
    for every in ["0.0.0.0", "::"] {
        let refused = run(share(&home).args(["--address", every, "--allow-public"])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains("every address of the machine"), "{refused}");
    }
    // Told to, it would: what stops it then is that this machine has no such address.
    let told = run(share(&home).args(["--address", "203.0.113.9", "--allow-public"])).failure();
    assert_eq!(told.status.code(), Some(4), "{told}");
    assert!(told.stderr.contains("cannot listen on 203.0.113.9:0"), "{told}");

    let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run(share(&home).args(["--address", "127.0.0.1", "--port", &port])).failure();
    assert_eq!(refused.status.code(), Some(4), "{refused}");

    // It listens where it says, and nowhere else.
    let shared = Shared::start(&home, &[]);
    let elsewhere = (Ipv4Addr::new(127, 0, 0, 2), shared.url().split([':', '/']).nth(4).unwrap().parse().unwrap());
    assert!(TcpStream::connect(elsewhere).is_err());
}

#[test]
fn slow_and_silent_clients_are_cut_and_keep_nobody_out() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    // More than there are places for.
    let mut silent: Vec<TcpStream> = (0..150).map(|_| shared.connect()).collect();
    let begun = Instant::now();
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "waited {:?} behind silent clients", begun.elapsed());

    // One that sends a byte now and then never gets to the end of its head.
    let mut slow = shared.connect();
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    loop {
        let mut byte = [0];
        match slow.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if slow.write_all(b"x").is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it is still connected");
    }
    // And so are the silent ones, all of them.
    for stream in &mut silent {
        let ended = stream.read(&mut [0]);
        assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
}

#[test]
fn nothing_is_to_be_sent_there() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    let button = format!("{}/alice-phone.p12", shared.path());
    let answer = shared.try_ask("POST", &button, "Content-Length: 100000000\r\n").unwrap();
    assert_eq!(answer.status, 413);
    let answer = shared.try_ask("POST", &button, "Transfer-Encoding: chunked\r\n").unwrap();
    assert_eq!(answer.status, 413);
    for headers in [format!("X: {}\r\n", "x".repeat(100_000)), "X: y\r\n".repeat(100)] {
        let answer = shared.try_ask("GET", shared.path(), &headers);
        assert!(!answer.is_ok_and(|answer| answer.status == 200), "a head without end");
    }
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
}

#[test]
fn ctrl_c_closes_it_and_says_that_nobody_had_it() {
    let home = Home::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut shared = Shared::start(&home, &[]);
        shared.signal(signal);
        assert_eq!(shared.wait(), (9, json!({"event": "stopped"})));
    }
}

#[test]
fn people_are_told_the_password_and_what_became_of_it_and_the_token_once() {
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
    assert!(shown.stderr.contains("error: nobody has fetched it in time"), "{shown}");

    // What is told while it is open does not say it again.
    let mut shared = Shared::start(&home, &[]);
    shared.ask("GET", shared.path());
    let place = shared.press("alice-phone.p12");
    shared.ask("GET", &place);
    shared.wait();
    let told: Vec<String> = shared.lines()[1..].iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2);
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
    assert_eq!(shared.wait().0, 0);
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-in", "alice-phone.p12", "-passin", &format!("pass:{}", shared.password())]);
    run(&mut openssl).success();
}

#[test]
fn what_cannot_be_shared_is_told_before_there_is_a_link() {
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
    refused(&mut share(&home), "does not fit");
    run(home
        .tool("openssl", "openssl")
        .args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"])
        .arg(&key))
    .success();
    refused(&mut share(&home), "openssl pkcs8 -topk8");
    std::fs::write(&key, right).unwrap();

    // A configuration with mistakes costs the page its addresses, not the device its certificate.
    std::fs::write(home.folder().join("doorward.toml"), "nonsense").unwrap();
    let shared = Shared::start(&home, &[]);
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("what is behind the gate") && !page.contains("https://"), "{page}");
}

/// A home's network of its own: this machine's private address, by which its packets leave, and a router that lets the
/// internet in ("DMZ host").
const NETWORK: &str = r#"
ip link set lo up
ip address add 10.9.9.1/32 dev lo
ip address add 203.0.113.9/32 dev lo
ip route add default dev lo src 10.9.9.1
coproc SHARE { exec "$1" share alice-phone --format json $2; }
share=$SHARE_PID
read -r ready <&"${SHARE[0]}"
url=$(sed 's/.*"url":"\([^"]*\)".*/\1/' <<<"$ready")
echo "$url"
for who in 203.0.113.9 10.9.9.1; do
    curl --silent --max-time 5 --interface "$who" --output /dev/null --write-out "$who %{http_code}\n" "$url" || true
done
kill -INT "$share"
wait "$share" || echo "exit $?"
"#;

#[test]
fn it_is_where_this_machine_is_at_home_and_answers_the_home_only() {
    let home = Home::new();
    let network = |more: &str| {
        let mut unshare = home.tool("unshare", "util-linux");
        unshare.args(["--net", "bash", "-euc", NETWORK, "bash", env!("CARGO_BIN_EXE_doorward"), more]);
        let shown = run(&mut unshare).success();
        let (url, rest) = shown.text().split_once('\n').map(|(url, rest)| (url.to_owned(), rest.to_owned())).unwrap();
        assert!(url.starts_with("http://10.9.9.1:"), "{shown}");
        rest
    };
    assert_eq!(network(""), "203.0.113.9 000\n10.9.9.1 200\nexit 9\n");
    assert_eq!(network("--allow-public"), "203.0.113.9 200\n10.9.9.1 200\nexit 9\n");
}

#[test]
fn a_browser_in_which_the_button_is_pressed_saves_the_file() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let mut browser = Browser::open(&home, &shared.url());
    // It shows the steps for Linux, laid out as they are meant to be: the policy of the page lets its style through.
    assert_eq!(browser.evaluate("document.querySelector('details[open] summary').textContent"), "Linux, Firefox");
    assert_eq!(browser.evaluate("getComputedStyle(document.querySelector('details')).borderRadius != '0px'"), true);
    browser.evaluate("document.querySelector('details[open] button').click()");
    assert_eq!(shared.wait(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "alice-phone.p12"})));
    let saved = browser.saved("alice-phone.p12");
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-passin", &format!("pass:{}", shared.password()), "-in"]);
    run(openssl.arg(saved)).success();
}

#[test]
fn a_new_device_can_be_let_in_and_fetch_its_files_in_one_go() {
    let home = Home::new();
    let device = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["ca", "device", "bob-laptop", "--qr", "--folder"]).arg(home.folder().join("pki"));
        command
    };
    let mut shared = Shared::start_command(&mut device());
    // The folder is free while the device is awaited.
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    let list = run(list.args(["ca", "list", "--folder"]).arg(home.folder().join("pki"))).success();
    assert!(list.text().contains("bob-laptop"), "{list}");
    let page = shared.ask("GET", shared.path()).text();
    assert!(page.contains("Set up bob-laptop") && page.contains("https://ssh.home.example/"), "{page}");
    let got = shared.ask("GET", &shared.press("bob-laptop.p12"));
    assert_eq!(shared.wait(), (0, json!({"event": "fetched", "by": "127.0.0.1", "file": "bob-laptop.p12"})));
    // It is the archive that lies in the folder, too, under the one password there is.
    let kept = std::fs::read(home.folder().join("devices/bob-laptop.p12")).unwrap();
    assert!(got.body == kept, "another archive");
    let mut openssl = home.tool("openssl", "openssl");
    openssl.args(["pkcs12", "-noout", "-passin", &format!("pass:{}", shared.password())]);
    run_with_input(&mut openssl, &kept).success();
    assert!(home.folder().join("devices/bob-laptop.html").exists());
}

/// The machine's way to the internet is a VPN's; the phone is in 192.168.1.0/24.
const VPN: &str = r#"
ip link set lo up
ip address add 192.168.1.5/24 dev lo
ip address add "$2" dev lo
ip route add default dev lo src "${2%/*}"
coproc SHARE { exec "$1" share alice-phone $3; }
share=$SHARE_PID
read -r ready <&"${SHARE[0]}"
echo "$ready"
kill -INT "$share"
wait "$share" || true
"#;

#[test]
fn address_of_a_vpn_is_listed_and_not_chosen() {
    let home = Home::new();
    let share = |vpn: &str, options: &str| {
        let mut unshare = home.tool("unshare", "util-linux");
        unshare.args(["--net", "bash", "-euc", VPN, "bash", env!("CARGO_BIN_EXE_doorward"), vpn, options]);
        run(&mut unshare).success()
    };
    let json = |vpn: &str, options: &str| -> Value { serde_json::from_str(share(vpn, options).text().trim()).unwrap() };
    let at = |ready: &Value, address: &str| {
        let url = ready["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("http://{address}:")), "{ready}");
    };
    let ready = json("10.8.0.2/24", "--format json");
    at(&ready, "192.168.1.5");
    assert_eq!(ready["other_addresses"], json!([{"address": "10.8.0.2", "interface": "lo", "kind": "loopback"}]));
    // Tailscale's addresses are shared by many households.
    let ready = json("100.101.102.103/32", "--format json");
    at(&ready, "192.168.1.5");
    assert_eq!(ready["other_addresses"], Value::Null);
    // The user chooses.
    let ready = json("10.8.0.2/24", "--format json --address 10.8.0.2");
    at(&ready, "10.8.0.2");
    assert_eq!(ready["other_addresses"], Value::Null);
}
