use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;

use super::*;
use crate::config::checked::{Backend, SendProxyProtocol, Strategy};
use crate::model::rejection::{Answer, Cause};

use super::super::pool::Backends;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn settings(rise: u32, fall: u32) -> Settings {
    Settings {
        every: Duration::from_secs(10),
        rise,
        fall,
        timeout: Duration::from_secs(2),
        send: Vec::new(),
        expect: Vec::new(),
        tls: false,
    }
}

fn checked(port: u16, rise: u32, fall: u32) -> Arc<Checked> {
    let backend = Backend::Address(([192, 0, 2, 1], port).into());
    Arc::new(Checked::new(Check { backend, settings: settings(rise, fall), header: b"", server_name: None, tls: None }))
}

fn failed() -> Failed {
    Failed::Backend(CheckFailure::Answered { received: Answer::new(b"220"), expected: Answer::new(b"SSH-") })
}

/// What a number of results bring about: `+` a check that passes, `-` one that fails, `!` one that this machine failed.
fn changes(checked: &Checked, results: &str) -> Vec<Change> {
    let result = |sign| match sign {
        '+' => Ok(()),
        '-' => Err(failed()),
        _ => Err(Failed::Gate),
    };
    results.chars().map(|sign| checked.ended(result(sign), NOW)).collect()
}

#[test]
fn backend_goes_down_after_fall_and_up_after_rise() {
    use Change::{Down, None, Passed, Up};

    let it = checked(1, 2, 3);
    assert_eq!(it.health(), Health::Unchecked);
    assert_eq!(changes(&it, "--"), [None, None]);
    assert!(it.is_healthy() && it.health() == Health::Unchecked);
    assert_eq!(changes(&it, "-"), [Down]);
    assert!(!it.is_healthy());
    assert_eq!(changes(&it, "-+-+"), [None; 4], "two in a row must pass");
    assert!(!it.is_healthy());
    assert_eq!(changes(&it, "+"), [Up]);
    assert!(it.is_healthy());
    assert_eq!(changes(&it, "--+--+"), [None, None, Passed, None, None, Passed], "three in a row must fail");
    assert_eq!(changes(&it, "---++"), [None, None, Down, None, Up]);

    let sensitive = checked(1, 1, 1);
    assert_eq!(changes(&sensitive, "+-+-"), [Passed, Down, Up, Down]);
}

#[test]
fn shortage_of_the_gate_counts_neither_way() {
    let it = checked(1, 2, 2);
    assert_eq!(
        changes(&it, "!!!-!-"),
        [Change::None, Change::None, Change::None, Change::None, Change::None, Change::Down]
    );
    assert_eq!(changes(&it, "+!+"), [Change::None, Change::None, Change::Up]);
}

#[test]
fn last_failure_and_the_begin_are_kept() {
    let it = checked(1, 1, 2);
    let at = |seconds| NOW + Duration::from_secs(seconds);
    it.ended(Err(failed()), at(1));
    it.ended(Err(failed()), at(2));
    let closed = || CheckFailure::NotAccepted;
    it.ended(Err(Failed::Backend(closed())), at(3));
    assert_eq!(it.health(), Health::Unhealthy { since: at(2), checked: at(3), failure: closed() });
    it.ended(Ok(()), at(4));
    it.ended(Ok(()), at(5));
    assert_eq!(it.health(), Health::Healthy { since: at(4) });
}

#[test]
fn unhealthy_backend_is_passed_over_and_none_left_is_told() {
    let (one, two) = (checked(1, 1, 1), checked(2, 1, 1));
    let list = [&one, &two].map(|checked| checked.check().backend.clone());
    let backends = Backends::new(list, Strategy::First).checked(vec![Arc::clone(&one), Arc::clone(&two)]);
    assert_eq!(backends.healthy(vec![0, 1]), Ok(vec![0, 1]));
    changes(&one, "-");
    assert_eq!(backends.healthy(vec![0, 1]), Ok(vec![1]));
    changes(&two, "-");
    let Err(Cause::Unhealthy(told)) = backends.healthy(vec![0, 1]) else { panic!("both are unhealthy") };
    assert_eq!(told.iter().map(|one| one.backend.to_string()).collect::<Vec<_>>(), ["192.0.2.1:1", "192.0.2.1:2"]);
    changes(&one, "+");
    assert_eq!(backends.healthy(vec![1, 0]), Ok(vec![0]));
}

#[test]
fn jitter_is_a_tenth_both_ways() {
    let every = Duration::from_secs(10);
    assert_eq!(jittered(every, 0), Duration::from_secs(9));
    assert_eq!(jittered(every, u32::MAX), Duration::from_secs(11));
    let drawn: Vec<Duration> = (0..200).map(|_| jittered(every, random())).collect();
    assert!(drawn.iter().all(|pause| (9..=11).contains(&pause.as_secs())), "{drawn:?}");
    let below = drawn.iter().filter(|pause| **pause < every).count();
    assert!((20..180).contains(&below), "{below} of 200 are below the middle");
    assert_eq!(portion(SPREAD, 0), Duration::ZERO);
    assert_eq!(portion(SPREAD, u32::MAX), SPREAD);
}

/// Checks that take what the test hands out, one by one.
struct Scripted {
    running: tokio::task::JoinHandle<()>,
    wanted: watch::Sender<Vec<Arc<Checked>>>,
    begun: mpsc::UnboundedReceiver<(u16, Instant)>,
    ended: mpsc::UnboundedReceiver<(u16, Change)>,
}

fn port(checked: &Checked) -> u16 {
    match checked.check().backend {
        Backend::Address(address) => address.port(),
        _ => 0,
    }
}

/// Checks that take `takes` each, and end as `results` says, by the number of the check; at once and well without an entry.
fn scripted(checks: Vec<Arc<Checked>>, takes: Duration, results: &str) -> Scripted {
    let (begin, begun) = mpsc::unbounded_channel();
    let (end, ended) = mpsc::unbounded_channel();
    let results = Arc::new(Mutex::new(results.chars().collect::<VecDeque<_>>()));
    let under_way = Arc::new(AtomicUsize::new(0));
    let (wanted, receiver) = watch::channel(checks);
    let probe = move |checked: Arc<Checked>| {
        let (begin, results, under_way) = (begin.clone(), Arc::clone(&results), Arc::clone(&under_way));
        async move {
            let _ = begin.send((port(&checked), Instant::now()));
            assert!(under_way.fetch_add(1, Ordering::SeqCst) < 2, "checks of one backend overlap");
            sleep(takes).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            let next = results.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some('-') => Err(failed()),
                Some('p') => panic!("a check stumbles"),
                _ => Ok(()),
            }
        }
    };
    let told = move |checked: &Arc<Checked>, change| {
        let _ = end.send((port(checked), change));
    };
    Scripted { running: tokio::spawn(run(receiver, probe, told)), wanted, begun, ended }
}

#[tokio::test(start_paused = true)]
async fn checks_begin_every_so_often_however_long_they_take() {
    let mut script = scripted(vec![checked(1, 2, 3)], Duration::from_secs(2), "");
    let (_, first) = script.begun.recv().await.expect("a check");
    assert!(first.elapsed() <= SPREAD);
    let mut before = first;
    for _ in 0..20 {
        let (_, begun) = script.begun.recv().await.expect("a check");
        let pause = begun - before;
        assert!((Duration::from_secs(9)..=Duration::from_millis(11_001)).contains(&pause), "{pause:?}");
        before = begun;
    }
    script.running.abort();
}

#[tokio::test(start_paused = true)]
async fn backends_are_checked_once_each_until_they_are_not_wanted() {
    let (one, two) = (checked(1, 2, 3), checked(2, 2, 3));
    let mut script = scripted(vec![Arc::clone(&one), Arc::clone(&two)], Duration::ZERO, "");
    let mut ports: Vec<u16> = Vec::new();
    while ports.len() < 20 {
        ports.push(script.begun.recv().await.expect("a check").0);
    }
    let count = |ports: &[u16], port| ports.iter().filter(|one| **one == port).count();
    assert!(count(&ports, 1).abs_diff(count(&ports, 2)) <= 4, "{ports:?}");
    // The same one again is not begun anew; the other one ends.
    script.wanted.send_replace(vec![Arc::clone(&two)]);
    sleep(Duration::from_secs(1)).await;
    while script.begun.try_recv().is_ok() {}
    for _ in 0..5 {
        assert_eq!(script.begun.recv().await.expect("a check").0, 2);
    }
    // Without anything to check, nothing happens, and the end of the gate ends it.
    script.wanted.send_replace(Vec::new());
    sleep(Duration::from_secs(60)).await;
    while script.begun.try_recv().is_ok() {}
    sleep(Duration::from_secs(3600)).await;
    assert!(script.begun.try_recv().is_err());
    drop(script.wanted);
    script.running.await.expect("no panic");
    assert!(script.begun.recv().await.is_none(), "every task has ended");
}

#[tokio::test(start_paused = true)]
async fn row_44_panic_of_a_check_is_no_end_of_the_checks() {
    let mut script = scripted(vec![checked(1, 1, 1)], Duration::ZERO, "p-p+");
    let before = Instant::now();
    assert_eq!(script.ended.recv().await, Some((1, Change::Down)));
    assert!(before.elapsed() >= Duration::from_secs(9), "not again at once");
    assert_eq!(script.ended.recv().await, Some((1, Change::Up)));
    script.running.abort();
}

#[test]
fn routes_are_checked_with_the_header_that_their_backends_expect() {
    for (form, header) in [
        (SendProxyProtocol::Off, &b""[..]),
        (SendProxyProtocol::V1, b"PROXY UNKNOWN\r\n"),
        (SendProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
        (SendProxyProtocol::V2Tls { certificate: true }, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        assert_eq!(proxy_protocol::local(form), header);
        if !header.is_empty() {
            assert_eq!(
                proxy_protocol::parse(header),
                proxy_protocol::Parsed::Complete(header.len(), proxy_protocol::Header::Local)
            );
        }
    }
}

#[test]
fn name_of_the_handshake_is_one_that_the_route_answers_to() {
    let pattern = |text: &&str| ServerNamePattern::parse(text).expect("a name");
    let name = |patterns: &[&str]| server_name(&patterns.iter().map(pattern).collect::<Vec<_>>());
    assert_eq!(name(&["mail.home.example", "*"]).as_deref(), Some("mail.home.example"));
    assert_eq!(name(&["*.home.example"]).as_deref(), Some("health-check.home.example"));
    assert_eq!(name(&["*"]), None);
}
