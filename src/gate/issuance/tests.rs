use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::admission::Admission;
use crate::config::checked::LogFormat;
use crate::model::issuance::Phase;
use crate::model::notice::NoticePriority;
use crate::model::public_certificate::{IssuedCertificate, PublicCertificate};
use crate::notify::Notice;
use crate::relay::Support;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

const DAY: i64 = 86_400;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the lines").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A gate whose public certificate is valid for so many days more, of 90.
fn gate(left: i64) -> (Gate, Lines) {
    let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"nas\"\n\
                mode = \"passthrough\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"192.0.2.1:22\"]\n";
    let config = crate::config::parse(text, Path::new("/doorward.toml")).expect("a configuration");
    let lines = Lines::default();
    let gate = Gate::new(
        Snapshot::build(&config).expect("a snapshot"),
        Admission::new(config.limits.clone()),
        Support::none(),
        Arc::new(Metrics::new(&config).expect("metrics")),
        Arc::new(Log::new(LogFormat::Json, lines.clone()).expect("a log")),
    );
    gate.notices.want(&NoticeEvent::ALL.into());
    lasts(&gate, left);
    (gate, lines)
}

fn lasts(gate: &Gate, left: i64) {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let issued = IssuedCertificate {
        not_before: now + (left - 90) * DAY,
        not_after: now + left * DAY,
        issuer: "CN=E7".to_owned(),
        is_own: false,
        lacks: Vec::new(),
    };
    gate.metrics.set_public_certificate(Some(PublicCertificate {
        names: vec!["nas.home.example".to_owned()],
        file: "acme/live/certificate.pem".to_owned(),
        issued: Some(issued),
    }));
}

fn issuance(renewed: u64, failed: u64, in_a_row: u32) -> Issuance {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    Issuance {
        directory: "letsencrypt".to_owned(),
        names: BTreeSet::from(["nas.home.example".to_owned()]),
        phase: if in_a_row > 0 { Phase::Failing } else { Phase::Valid },
        next_at: Some(now + 300),
        renewed,
        failed,
        failure: (in_a_row > 0).then(|| FailedOrder {
            at: now,
            in_a_row,
            directory: "letsencrypt".to_owned(),
            error: "Connection\u{1b}[31m refused\n".to_owned(),
            remedies: vec!["Forward port 443.".to_owned()],
        }),
    }
}

fn told(gate: &Gate) -> Vec<Notice> {
    gate.notices.take().0
}

fn subjects(gate: &Gate) -> Vec<String> {
    told(gate).into_iter().map(|notice| notice.subject).collect()
}

#[test]
fn outcomes_are_counted_once_each_and_from_the_start() {
    let (gate, _) = gate(29);
    let counted = || {
        let text = gate.metrics.render();
        let of = |outcome: &str| {
            let series = format!("doorward_acme_renewals_total{{outcome=\"{outcome}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.expect("the series").parse::<u64>().expect("a number")
        };
        (of("renewed"), of("failed"))
    };
    assert_eq!(counted(), (0, 0));
    for (renewed, failed, expected) in [
        (0, 1, (0, 1)),
        (0, 1, (0, 1)),
        (0, 3, (0, 3)),
        (1, 3, (1, 3)),
        // The process that orders was started again, and an order has failed since.
        (0, 1, (1, 4)),
        (2, 1, (3, 4)),
    ] {
        gate.issuance_is(issuance(renewed, failed, u32::from(failed > 0)));
        assert_eq!(counted(), expected);
    }
}

#[test]
fn row_of_failures_is_told_once_then_when_time_runs_out_and_when_it_is_over() {
    let (gate, _) = gate(29);
    gate.issuance_is(issuance(0, 0, 0));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
    gate.issuance_is(issuance(0, 1, 1));
    let first = told(&gate);
    let [notice] = &first[..] else { panic!("{first:?}") };
    assert_eq!((notice.event, notice.priority()), (NoticeEvent::RenewalFailed, NoticePriority::High));
    assert_eq!(notice.title, "The public certificate could not be renewed");
    assert!(notice.message.ends_with("\nForward port 443."), "{}", notice.message);
    for failed in 2..5 {
        gate.issuance_is(issuance(0, u64::from(failed), failed));
    }
    gate.tell_of_issuance(&Clock::system());
    assert_eq!(subjects(&gate), [] as [&str; 0]);
    lasts(&gate, 6);
    // The clock alone makes it pressing.
    gate.tell_of_issuance(&Clock::system());
    let pressing = told(&gate);
    assert!(pressing.len() == 1 && pressing[0].title.ends_with("days and could not be renewed"), "{pressing:?}");
    gate.issuance_is(issuance(0, 5, 5));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
    gate.issuance_is(issuance(1, 5, 0));
    let over = told(&gate);
    let [notice] = &over[..] else { panic!("{over:?}") };
    assert_eq!((notice.priority(), notice.resolved), (NoticePriority::Low, true));
    assert!(notice.message.starts_with("After 5 orders that failed, a certificate for nas.home.example was issued."));
    gate.issuance_is(issuance(1, 5, 0));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
    // Another row.
    lasts(&gate, 89);
    gate.issuance_is(issuance(1, 6, 1));
    assert_eq!(subjects(&gate), [FAILED]);
    gate.issuance_is_over();
    gate.issuance_is(issuance(0, 0, 0));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
}

#[test]
fn first_message_of_a_row_that_is_pressing_is_the_only_one() {
    let (gate, _) = gate(3);
    gate.issuance_is(issuance(0, 1, 1));
    gate.issuance_is(issuance(0, 2, 2));
    assert_eq!(subjects(&gate), [FAILED]);
}

#[test]
fn row_goes_on_after_an_upgrade() {
    let (former, _) = gate(29);
    former.issuance_is(issuance(0, 1, 1));
    assert_eq!(subjects(&former), [FAILED]);
    let (gate, _) = gate(29);
    for told in former.notices.told() {
        gate.notices.add_told(told);
    }
    gate.issuance_is(Issuance { phase: Phase::Starting, ..issuance(0, 0, 0) });
    gate.issuance_is(issuance(0, 0, 1));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
    gate.issuance_is(issuance(1, 0, 0));
    assert_eq!(subjects(&gate), [RENEWED]);
}

#[test]
fn process_that_was_started_again_continues_the_row() {
    let (gate, _) = gate(29);
    gate.issuance_is(issuance(0, 1, 1));
    assert_eq!(subjects(&gate), [FAILED]);
    for phase in [Phase::Starting, Phase::Trial, Phase::Ordering] {
        gate.issuance_is(Issuance { phase, ..issuance(0, 0, 0) });
    }
    gate.issuance_is(issuance(0, 0, 1));
    gate.issuance_is(issuance(0, 1, 2));
    assert_eq!(subjects(&gate), [] as [&str; 0]);
}

#[test]
fn outcomes_are_logged_with_what_can_be_done() {
    let (gate, lines) = gate(29);
    gate.issuance_is(issuance(0, 1, 1));
    gate.issuance_is(issuance(0, 1, 1));
    gate.issuance_is(issuance(1, 1, 0));
    gate.log.finish();
    let text = String::from_utf8(lines.0.lock().expect("the lines").clone()).expect("text");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let [failed, renewed] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(failed["event"], "certificate_renewal_failed");
    assert_eq!((&failed["directory"], &failed["in_a_row"]), (&"letsencrypt".into(), &1.into()));
    assert_eq!(failed["remedies"][0], "Forward port 443.");
    assert_eq!(failed["error"], "Connection\\u{1b}[31m refused\\n");
    assert!(failed["next"].as_str().is_some_and(|next| next.contains('T')), "{failed}");
    assert_eq!(renewed["event"], "certificate_renewed");
    assert_eq!(renewed["names"][0], "nas.home.example");
}

#[test]
fn what_is_kept_is_bounded() {
    let (gate, _) = gate(29);
    let mut huge = issuance(0, 1, 1);
    huge.names = (0..10_000).map(|n| format!("{n}{}", "x".repeat(2000))).collect();
    if let Some(failure) = &mut huge.failure {
        failure.error = "e".repeat(1_000_000);
        failure.remedies = vec!["r".repeat(100_000); 10_000];
    }
    gate.issuance_is(huge);
    let kept = gate.issuance.borrow().clone().expect("it is kept");
    assert!(serde_json::to_vec(&kept).expect("JSON").len() < 200_000);
}
