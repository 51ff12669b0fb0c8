//! Lines as they are written, and those that are not.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::fields::{DETAIL_MAX, STRANGER_MAX};
use super::queue::WAITING_MAX;
use super::*;
use crate::model::identity::Identity;
use crate::model::rejection::Reason;
use crate::model::source::Prefixes;

/// What was written, for the test to read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().expect("a lock").clone()).expect("text").lines().map(str::to_owned).collect()
    }
}

#[test]
fn every_line_is_written_and_in_order() {
    let written = Written::default();
    let log = Log::new(LogFormat::Json, written.clone()).expect("a log");
    for id in 0..1000 {
        log.verdict(&Verdict { id, ..Verdict::default() });
    }
    log.finish();
    let lines = written.lines();
    let ids = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_u64().expect("a number"));
    assert!(ids.eq(0..1000));
}

/// Each write is a wake-up of the writer.
#[test]
fn lines_that_keep_coming_are_written_together() {
    #[derive(Clone, Default)]
    struct Counted(Written, Arc<Mutex<u32>>);
    impl io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.1.lock().expect("a lock") += 1;
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let counted = Counted::default();
    let log = Log::new(LogFormat::Text, counted.clone()).expect("a log");
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(400) {
        log.verdict(&Verdict::default());
        sent += 1;
        std::thread::sleep(Duration::from_micros(300));
    }
    let took = begun.elapsed();
    log.finish();
    assert_eq!(counted.0.lines().len(), sent);
    let writes = *counted.1.lock().expect("a lock");
    assert!(u128::from(writes) < took.as_millis() / 6, "{writes} writes in {took:?}");
}

/// 5,000 a second for 30 s, as a scanner sends them that the limits of connections do not stop.
#[test]
fn flood_of_rejections_takes_little_room_and_is_counted() {
    const REJECTED: u32 = 150_000;
    for format in [LogFormat::Text, LogFormat::Json] {
        for sources in [1, 100, REJECTED] {
            let written = Written::default();
            let log = Log::new(format, written.clone()).expect("a log").sampled();
            let begin = Instant::now();
            for number in 0..REJECTED {
                let client = IpAddr::from((0xc000_0200 + number % sources).to_be_bytes());
                let now = begin + Duration::from_micros(200) * number;
                if log.takes_at(Source::of(client, Prefixes::default()), Reason::ServerNameUnknown, now) {
                    log.verdict(&Verdict {
                        event: "rejected",
                        source: SocketAddr::new(client, 65_535).to_string(),
                        server_name: Some(&"x".repeat(STRANGER_MAX)),
                        detail: Some("x".repeat(DETAIL_MAX)),
                        ..Verdict::default()
                    });
                }
                // As often as a running gate is tidied.
                if number % 25_000 == 0 {
                    log.tidy_at(now);
                }
            }
            log.finish();
            let lines = written.lines();
            let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
            assert!(bytes < 64 * 1024, "{format:?}, {sources} sources: {bytes} bytes");
            let told = lines.iter().filter(|line| line.contains("left_out"));
            let left_out: usize = told
                .clone()
                .map(|line| match format {
                    LogFormat::Text => line.split(' ').find_map(|word| word.parse().ok()).expect("a number"),
                    LogFormat::Json => {
                        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                        assert_eq!((&line["stage"], &line["cause"]), (&"route".into(), &"sampling".into()));
                        usize::try_from(line["lines"].as_u64().expect("a number")).expect("a count")
                    }
                })
                .sum();
            let told = told.count();
            assert!(told <= 33, "{told} lines about what was left out");
            assert_eq!(lines.len() - told + left_out, usize::try_from(REJECTED).expect("a count"));
        }
    }
}

/// The fields of the next entry that journald would see.
fn entry(journald: &UnixDatagram) -> BTreeMap<String, String> {
    let mut buffer = [0; 8192];
    let length = journald.recv(&mut buffer).expect("an entry");
    let text = std::str::from_utf8(&buffer[..length]).expect("text");
    let fields = text.strip_suffix('\n').expect("an end").split('\n');
    let fields = fields.map(|field| field.split_once('=').expect("a field"));
    let entry: BTreeMap<String, String> =
        fields.clone().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(entry.len(), fields.count(), "a field stands twice: {text}");
    let known =
        |name: &str| name.starts_with("DOORWARD_") || ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"].contains(&name);
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
    assert!(entry.keys().all(|name| known(name) && plain(name) && name.len() <= 64), "{text}");
    entry
}

#[test]
fn journald_is_sent_native_fields() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let refused = Log::to_journal(&socket).expect_err("no journald").to_string();
    assert!(refused.contains("cannot reach journald at") && refused.contains("\"stdout\""), "{refused}");

    let journald = UnixDatagram::bind(&socket).expect("a socket");
    journald.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let log = Log::to_journal(&socket).expect("a log");
    log.event(&Event::Ready);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["alice-phone".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let identity = Identity::from_certificate(certificate.der(), false).expect("an identity");
    log.verdict(&Verdict {
        event: "rejected",
        id: 7,
        source: "192.0.2.1:5".to_owned(),
        stage: Some("certificate"),
        reason: "expired",
        side: Some("client"),
        detail: Some("one\nPRIORITY=0\n\nMESSAGE=two".to_owned()),
        certificate: Some(Arc::new(identity)),
        durations: Durations { hello: Some(0.5), ..Durations::default() },
        ..Verdict::default()
    });
    let ready = entry(&journald);
    let text = |entry: &BTreeMap<String, String>, name: &str| entry.get(name).cloned().unwrap_or_default();
    assert_eq!(text(&ready, "MESSAGE"), "ready");
    assert_eq!((text(&ready, "PRIORITY"), text(&ready, "SYSLOG_IDENTIFIER")), ("6".into(), "doorward".into()));
    assert_eq!(text(&ready, "DOORWARD_EVENT"), "ready");
    let rejected = entry(&journald);
    assert!(text(&rejected, "MESSAGE").starts_with("rejected 192.0.2.1:5 certificate/expired "), "{rejected:?}");
    for (name, value) in [
        ("PRIORITY", "5"),
        ("DOORWARD_ID", "7"),
        ("DOORWARD_SOURCE", "192.0.2.1:5"),
        ("DOORWARD_REASON", "expired"),
        ("DOORWARD_DETAIL", "one PRIORITY=0  MESSAGE=two"),
        ("DOORWARD_CERTIFICATE_NAME", "alice-phone"),
        ("DOORWARD_CERTIFICATE_VERIFIED", "false"),
        ("DOORWARD_DURATIONS_HELLO", "0.5"),
    ] {
        assert_eq!(text(&rejected, name), value, "{name}");
    }

    // journald goes and comes back.
    drop(journald);
    fs::remove_file(&socket).expect("a socket");
    log.verdict(&Verdict { event: "closed", ..Verdict::default() });
    while log.queue.lock().left_out == 0 {
        std::thread::yield_now();
    }
    let journald = UnixDatagram::bind(&socket).expect("a socket");
    journald.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    log.verdict(&Verdict { event: "closed", ..Verdict::default() });
    log.finish();
    let missing = entry(&journald);
    assert_eq!((text(&missing, "DOORWARD_LINES"), text(&missing, "PRIORITY")), ("1".into(), "4".into()));
    let closed = entry(&journald);
    assert_eq!((text(&closed, "DOORWARD_EVENT"), text(&closed, "PRIORITY")), ("closed".into(), "6".into()));
}

#[test]
fn lost_lines_are_counted_until_they_can_be_reported() {
    /// Fails while the test says so.
    struct Broken(Arc<AtomicBool>, Written);
    impl io::Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.1.write(bytes) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (written, broken) = (Written::default(), Arc::new(AtomicBool::new(true)));
    let log = Log::new(LogFormat::Json, Broken(Arc::clone(&broken), written.clone())).expect("a log");
    for id in 1..=20 {
        log.verdict(&Verdict { id, ..Verdict::default() });
        // Some of them together, and with those that tell of the ones before.
        while id % 3 == 0 && log.queue.lock().left_out != id {
            std::thread::yield_now();
        }
    }
    while log.queue.lock().left_out != 20 {
        std::thread::yield_now();
    }
    broken.store(false, Ordering::SeqCst);
    log.verdict(&Verdict { id: 21, ..Verdict::default() });
    log.finish();
    let lines: Vec<serde_json::Value> =
        written.lines().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["lines"], &lines[0]["cause"], &lines[1]["id"]), (&20.into(), &"output".into(), &21.into()));
    assert_eq!(lines.len(), 2);
}

#[test]
fn lines_that_nobody_reads_fast_enough_are_counted() {
    /// Nothing is read before the test says so.
    struct Stalled(Arc<Mutex<()>>, Written);
    impl io::Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _held = self.0.lock().expect("a lock");
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (written, gate) = (Written::default(), Arc::new(Mutex::new(())));
    let log = Log::new(LogFormat::Text, Stalled(Arc::clone(&gate), written.clone())).expect("a log");
    let held = gate.lock().expect("a lock");
    let long = Verdict { detail: Some("x".repeat(1000)), ..Verdict::default() };
    let sent = 3 * WAITING_MAX / 1000;
    for _ in 0..sent {
        log.verdict(&long);
    }
    assert!(log.queue.lock().lines.len() <= WAITING_MAX);
    drop(held);
    log.finish();
    let lines = written.lines();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("left_out")).collect();
    let [told] = told.as_slice() else { panic!("{told:?}") };
    let left_out: usize = told.split(' ').find_map(|word| word.parse().ok()).expect("a number");
    assert_eq!(left_out + lines.len() - 1, sent);
}

#[test]
fn row_49_failing_output_is_told_and_recovers_by_itself() {
    /// Fails with this error of the system while there is one.
    struct Failing(Arc<Mutex<Option<i32>>>, Written);
    impl io::Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let error = *self.0.lock().expect("a lock");
            error.map_or_else(|| self.1.write(bytes), |error| Err(io::Error::from_raw_os_error(error)))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for (error, words) in [
        (rustix::io::Errno::NOSPC, "No space left on device"),
        (rustix::io::Errno::ROFS, "Read-only file system"),
        (rustix::io::Errno::IO, "Input/output error"),
    ] {
        let (written, failing) = (Written::default(), Arc::new(Mutex::new(Some(error.raw_os_error()))));
        let log = Log::new(LogFormat::Json, Failing(Arc::clone(&failing), written.clone())).expect("a log");
        assert_eq!(log.error(), None);
        log.verdict(&Verdict::default());
        let wait = |what: &str, fits: &dyn Fn() -> bool| {
            let begin = Instant::now();
            while !fits() {
                assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait("it is known", &|| log.error().is_some());
        let known = log.error().expect("an error").what;
        assert!(known.contains(words), "{known}");
        *failing.lock().expect("a lock") = None;
        wait("it recovers", &|| log.error().is_none());
        let [told] = written.lines().try_into().expect("one line");
        assert!(told.contains("\"lines\":1,\"cause\":\"output\""), "{told}");
    }
}

/// A disk that fills up takes the beginning of a line; what came after it stood in the same line, and the first of that was
/// how many lines are missing. Those that had been written before it was full counted as missing, too.
#[test]
fn full_disk_leaves_whole_lines_and_the_right_count() {
    /// Takes no more bytes than there is room for, and nothing while the test holds it.
    struct Disk(Arc<Mutex<usize>>, Written);
    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.0.lock().expect("a lock");
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(*room);
            *room -= taken;
            self.1.write(&bytes[..taken])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [LogFormat::Json, LogFormat::Text] {
        let (written, room) = (Written::default(), Arc::new(Mutex::new(usize::MAX)));
        let log = Log::new(format, Disk(Arc::clone(&room), written.clone())).expect("a log");
        let line = |id| Verdict {
            id,
            event: "closed",
            reason: "x",
            source: format!("id{id}{}", "x".repeat(200)),
            ..Verdict::default()
        };
        let wait = |lines, left_out| {
            let begun = Instant::now();
            while (written.lines().len(), log.queue.lock().left_out) != (lines, left_out) {
                let now = (written.lines().len(), log.queue.lock().left_out);
                assert!(begun.elapsed() < Duration::from_secs(10), "{now:?} instead of {:?}", (lines, left_out));
                std::thread::yield_now();
            }
        };
        log.verdict(&line(0));
        wait(1, 0);
        let length = written.0.lock().expect("a lock").len();
        let mut held = room.lock().expect("a lock");
        // Taken out of the queue, and held up.
        log.verdict(&line(1));
        while !log.queue.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        // All of these are written together: two of them, and about half of a third.
        for id in 2..10 {
            log.verdict(&line(id));
        }
        *held = 3 * length + length / 2;
        drop(held);
        wait(5, 6);
        assert!(!written.0.lock().expect("a lock").ends_with(b"\n"), "{:?}", written.lines());
        *room.lock().expect("a lock") = usize::MAX;
        log.verdict(&line(10));
        log.finish();
        let lines = written.lines();
        let of = |id: u64| lines.iter().filter(|line| line.contains(&format!("id{id}xx"))).count();
        assert_eq!((lines.len(), (0..=10).map(of).collect::<Vec<_>>()), (7, vec![1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1]));
        let told = &lines[5];
        assert!(told.contains("left_out") && told.contains('6') && !told.contains("closed"), "{lines:?}");
        let whole = |line: &&String| line.contains("closed") && line.ends_with(['s', '}']);
        assert_eq!(lines.iter().filter(whole).count(), 5, "{lines:?}");
    }
}

#[test]
fn what_a_stranger_chose_is_escaped_and_bounded() {
    let nasty = "a\n\u{1b}[31m\u{2028}\u{202e}\"b\\ ";
    assert_eq!(stranger(nasty), r#"a\n\u{1b}[31m\u{2028}\u{202e}\"b\\ "#);
    // Words of a library's, at the end of a line.
    assert_eq!(detail(nasty), r#"a\n\u{1b}[31m\u{2028}\u{202e}"b\ "#);
    let long = "\u{e0001}".repeat(1000);
    assert_eq!(stranger(&long).matches("\\u{e0001}").count(), STRANGER_MAX);
    assert_eq!(detail(&long).matches("\\u{e0001}").count(), DETAIL_MAX);
}
