use std::fs;
use std::path::Path;

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::batch::{BackendNote, Batch, FailedNote, RefusedNote};
use super::disk::{Disk, append, text};
use super::folder::Folder;
use super::lines::{self, Line};
use super::load::load;
use super::overview::{DeviceRefused, Impostor};
use super::sample::{address, admit, hour_of_a_home, noise, write_sample};
use super::state::State;
use super::{Overview, visits_of_folder};
use crate::model::names::Name;
use crate::model::rejection::Reason;

/// 2026-11-27, 00:00 UTC.
const MIDNIGHT: i64 = 1_795_737_600;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(MIDNIGHT + seconds).expect("a time")
}

/// In memory where there is such a file system: each file of a day waits for its disk.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn refuse(batch: &mut Batch, device: &str, reason: Reason, at: OffsetDateTime) {
    batch.hour(at).devices.add(reason, 1);
    let (route, address) = (Some(name("nas")), address(87));
    let refused = DeviceRefused { reason, route, address, first: at, last: at, times: 1 };
    batch.refusal(RefusedNote { device: device.into(), refused });
}

fn pretend(batch: &mut Batch, device: &str, n: u32, at: OffsetDateTime) {
    batch.hour(at).impostors.add(Reason::UnknownCa, 1);
    batch.impostor(Impostor {
        device: device.into(),
        claim: "name".into(),
        address: address(n),
        route: Some(name("nas")),
        reason: Reason::UnknownCa,
        first: at,
        last: at,
        times: 1,
        issuer: "x".repeat(128).into(),
        not_before: MIDNIGHT,
        fingerprint: "0".repeat(64).into(),
    });
}

/// A folder with its state, as in a gate.
struct Kept {
    disk: Disk,
    state: State,
    news: Vec<String>,
}

impl Kept {
    fn open(folder: &Path, now: OffsetDateTime) -> Self {
        let (disk, state, news) = Disk::open(folder, now).expect("a folder");
        Self { disk, state, news }
    }

    fn write(&mut self, batch: &Batch, now: OffsetDateTime) {
        self.state.add(batch);
        self.disk.write(batch, now, |day, current| text(&self.state, day, current)).expect("written");
        self.state.forget(now, 90);
        self.disk.trim(90).expect("trimmed");
    }
}

fn read(folder: &Path, now: OffsetDateTime) -> Overview {
    load(&Folder::new(folder), now).expect("a history").state.overview(now)
}

fn bytes(folder: &Path) -> u64 {
    Folder::new(folder).bytes().expect("a folder")
}

#[test]
fn year_stays_within_its_bound_and_is_read_at_once() {
    let folder = folder();
    write_sample(folder.path(), 365, at(0)).expect("written");
    let used = bytes(folder.path());
    assert!(used < 10_000_000, "{used} bytes");
    let begun = Instant::now();
    let overview = read(folder.path(), at(0));
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    eprintln!("a year: {used} bytes, read in {took:?}, {} hours", overview.hours.len());
    assert_eq!(overview.hours.iter().map(|hour| hour.noise).sum::<u64>(), 24 * overview.hours.len() as u64);
    assert_eq!(overview.since, overview.hours.first().map(|hour| hour.start));
    assert_eq!(overview.hours.len(), 365 * 24);
    // The hour that has just begun is the last one.
    assert_eq!(overview.week.total(), (7 * 24 - 1) * 24);
    let long_ago = visits_of_folder(folder.path(), at(-100 * 86_400), at(0)).expect("visits");
    assert!(long_ago.len() > 95 * 10, "{}", long_ago.len());
}

#[test]
fn visits_of_the_last_day_are_kept_however_long_the_gate_was_off() {
    let folder = folder();
    let now = OffsetDateTime::now_utc();
    let then = now - Duration::days(4);
    let mut kept = Kept::open(folder.path(), then);
    let mut batch = Batch::default();
    admit(&mut batch, "bob-tablet", "nas", then, then);
    kept.write(&batch, then);
    drop(kept);
    let history = std::sync::Arc::new(super::History::default());
    history.kept().folder = Some(folder.path().to_owned());
    history.start(false).expect("a thread");
    history.finish();
    let visits = visits_of_folder(folder.path(), then - Duration::days(1), now).expect("visits");
    assert_eq!(visits.iter().map(|visit| &*visit.device).collect::<Vec<_>>(), ["bob-tablet"]);
}

#[test]
fn written_history_is_read_as_it_was() {
    let folder = folder();
    let mut kept = Kept::open(folder.path(), at(-7 * 86_400));
    for hour in -7 * 24..0 {
        let begin = at(hour * 3600);
        let mut batch = hour_of_a_home(begin);
        if hour % 12 == 0 {
            refuse(&mut batch, "bob-tablet", Reason::Expired, begin);
        }
        if hour % 20 == 0 {
            refuse(&mut batch, "carol-phone", Reason::Revoked, begin);
        }
        if hour % 30 == 0 {
            pretend(&mut batch, "alice-phone", u32::try_from(hour + 200).expect("positive"), begin);
        }
        let backend = "192.168.1.10:5666".into();
        batch.backend(BackendNote { route: name("nas"), backend, up: hour < -3, at: begin });
        kept.write(&batch, begin + Duration::minutes(59));
    }
    let mut batch = Batch::default();
    batch.failed(FailedNote { route: name("nas"), count: 4 });
    kept.write(&batch, at(-30));
    let before = kept.state.overview(at(0));
    drop(kept);
    assert_eq!(read(folder.path(), at(0)), before);
    // Again from the shortest form.
    let mut kept = Kept::open(folder.path(), at(60));
    kept.write(&Batch::default(), at(60));
    drop(kept);
    let after = read(folder.path(), at(60));
    assert_eq!((&after.devices, &after.visits, &after.impostors, &after.backends, &after.hours), {
        let Overview { devices, visits, impostors, backends, hours, .. } = &before;
        (devices, visits, impostors, backends, hours)
    });
    let [backend] = &after.backends[..] else { panic!("{:?}", after.backends) };
    assert_eq!((backend.up, backend.since, backend.failed), (false, at(-3 * 3600), 4));
    let tablet = after.devices.iter().find(|device| &*device.name == "bob-tablet").expect("a device");
    let refused = tablet.is_refused().expect("no admission since");
    assert_eq!((refused.reason, refused.times, refused.first), (Reason::Expired, 14, at(-7 * 86_400)));
    let phone = after.devices.iter().find(|device| &*device.name == "carol-phone").expect("a device");
    assert_eq!(phone.is_refused().map(|refused| (refused.reason, refused.times)), Some((Reason::Revoked, 8)));
    assert_eq!(after.impostors.first().map(|one| one.last), Some(at(-30 * 3600)));
    assert_eq!(
        after
            .hours
            .iter()
            .map(|hour| (hour.devices_refused, hour.impostors))
            .fold((0, 0), |sum, one| { (sum.0 + one.0, sum.1 + one.1) }),
        (22, 5)
    );
}

#[test]
fn file_cut_at_any_byte_is_read_and_written_again() {
    let folder = folder();
    let mut kept = Kept::open(folder.path(), at(0));
    for minute in 0..4 {
        let mut batch = Batch::default();
        admit(&mut batch, "alice-phone", "nas", at(minute * 60), at(minute * 60 + 1));
        kept.write(&batch, at(minute * 60 + 2));
    }
    drop(kept);
    let file = folder.path().join("2026-11-27.history");
    let whole = fs::read(&file).expect("a file");
    let admitted = |text: &[u8]| -> u64 {
        let batch = |line| if let Line::Add(batch) = line { Some(batch) } else { None };
        let batches = lines::read(text).lines.into_iter().filter_map(batch);
        batches.flat_map(|batch| batch.hours).map(|hour| hour.connections()).sum()
    };
    assert_eq!(admitted(&whole), 4);
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).expect("a file");
        let expected = admitted(&whole[..cut]);
        let mut kept = Kept::open(folder.path(), at(300));
        let mut batch = Batch::default();
        admit(&mut batch, "bob-laptop", "nas", at(300), at(301));
        kept.write(&batch, at(302));
        let sum = |overview: &Overview| overview.hours.iter().map(|hour| hour.admitted).sum::<u64>();
        assert_eq!(sum(&kept.state.overview(at(302))), expected + 1, "cut at {cut}");
        drop(kept);
        assert_eq!(sum(&read(folder.path(), at(302))), expected + 1, "cut at {cut}");
        assert!(lines::read(&fs::read(&file).expect("a file")).damaged == 0, "cut at {cut}");
    }
}

#[test]
fn damaged_file_is_set_aside_and_its_good_lines_stay() {
    let folder = folder();
    let mut kept = Kept::open(folder.path(), at(0));
    for minute in 0..3 {
        let mut batch = Batch::default();
        admit(&mut batch, "alice-phone", "nas", at(minute * 60), at(minute * 60));
        kept.write(&batch, at(minute * 60 + 2));
    }
    drop(kept);
    let file = folder.path().join("2026-11-27.history");
    let mut text = fs::read(&file).expect("a file");
    let middle = text.len() - text.len() / 3;
    text[middle] ^= 0x20;
    fs::write(&file, &text).expect("a file");
    let mut kept = Kept::open(folder.path(), at(300));
    assert!(matches!(&kept.news[..], [told] if told.contains("is damaged, and was renamed to")), "{:?}", kept.news);
    kept.write(&Batch::default(), at(300));
    drop(kept);
    assert_eq!(fs::read(folder.path().join("damaged-1-2026-11-27")).expect("the file"), text);
    assert_eq!(read(folder.path(), at(300)).hours[0].admitted, 2);

    // A file that never was one.
    fs::write(&file, "[history]\nfolder = \"auto\"\n").expect("a file");
    let mut kept = Kept::open(folder.path(), at(300));
    assert_eq!(kept.news.len(), 1, "{:?}", kept.news);
    kept.write(&Batch::default(), at(300));
    drop(kept);
    assert!(Kept::open(folder.path(), at(301)).news.is_empty());

    // Of a later release: nothing is touched.
    let mut text = Vec::new();
    lines::write(&Line::Header(lines::Header { format: 2, hours: None }), &mut text);
    fs::write(&file, &text).expect("a file");
    let error = Disk::open(folder.path(), at(300)).expect_err("it cannot be understood").to_string();
    assert!(error.contains("was written by a later release of doorward"), "{error}");
    assert_eq!(fs::read(&file).expect("a file"), text);
}

#[test]
fn flood_of_strangers_has_bounds_on_disk_and_in_memory() {
    let folder = folder();
    let mut kept = Kept::open(folder.path(), at(0));
    let mut batch = Batch::default();
    admit(&mut batch, "alice-phone", "nas", at(0), at(1));
    refuse(&mut batch, "bob-tablet", Reason::Expired, at(1));
    pretend(&mut batch, "bob-laptop", 7, at(1));
    kept.write(&batch, at(2));
    let mut most = 0;
    for minute in 1..24 * 60 {
        let (now, mut batch) = (at(minute * 60), Batch::default());
        for n in 0..70 {
            let seed = u32::try_from(minute * 70 + n).expect("few");
            let reason = Reason::ALL[usize::try_from(seed).expect("few") % Reason::ALL.len()];
            noise(&mut batch, reason, seed.wrapping_mul(2_654_435_761), now);
            pretend(&mut batch, "alice-phone", seed, now);
        }
        kept.write(&batch, now);
        most = most.max(bytes(folder.path()));
    }
    assert!(most < 1_000_000, "{most} bytes");
    let overview = kept.state.overview(at(86_399));
    assert_eq!(overview.day.total(), 70 * (24 * 60 - 1));
    assert_eq!(overview.hours.iter().map(|hour| hour.impostors).sum::<u64>(), 1 + 70 * (24 * 60 - 1));
    // Attempts with one name displace none with another.
    assert!(overview.impostors.iter().any(|one| &*one.device == "bob-laptop"));
    assert!(overview.impostors.len() <= 9, "{}", overview.impostors.len());
    let [alice, tablet] = &overview.devices[..] else { panic!("{:?}", overview.devices) };
    assert!(alice.last_seen.is_some() && tablet.is_refused().is_some());
}

#[test]
fn earlier_process_appends_and_the_other_one_reads_that() {
    let folder = folder();
    let mut old = Kept::open(folder.path(), at(0));
    let mut batch = Batch::default();
    admit(&mut batch, "alice-phone", "nas", at(0), at(1));
    old.write(&batch, at(2));
    assert!(Disk::open(folder.path(), at(3)).is_err_and(|error| error.to_string().contains("another gate")));
    drop(old);
    let mut new = Kept::open(folder.path(), at(3));
    new.write(&Batch::default(), at(3));
    for second in 4..8 {
        let mut batch = Batch::default();
        admit(&mut batch, if second % 2 == 0 { "alice-phone" } else { "bob-laptop" }, "nas", at(second), at(second));
        if second % 2 == 0 {
            append(folder.path(), &batch).expect("appended");
            for other in new.disk.others() {
                new.state.add(&other);
            }
        } else {
            new.write(&batch, at(second));
        }
    }
    let admitted = |overview: &Overview| overview.hours.iter().map(|hour| hour.admitted).sum::<u64>();
    assert_eq!(admitted(&new.state.overview(at(9))), 5);
    // The day ends while both are there.
    new.write(&Batch::default(), at(86_400));
    let mut late = Batch::default();
    admit(&mut late, "alice-phone", "nas", at(86_390), at(86_401));
    append(folder.path(), &late).expect("appended");
    for other in new.disk.others() {
        new.state.add(&other);
    }
    new.write(&Batch::default(), at(86_402));
    let before = new.state.overview(at(86_403));
    assert_eq!(admitted(&before), 6);
    drop(new);
    assert_eq!(read(folder.path(), at(86_403)), before);
}

#[test]
fn clock_that_jumps_loses_no_other_day() {
    let folder = folder();
    let mut kept = Kept::open(folder.path(), at(0));
    let mut batch = Batch::default();
    admit(&mut batch, "alice-phone", "nas", at(0), at(1));
    kept.write(&batch, at(2));
    let is_whole = |state: &State, now| {
        let hours: Vec<u64> = state.overview(now).hours.iter().map(|hour| hour.admitted).collect();
        assert_eq!(hours, [1]);
        assert_eq!(state.overview(now).devices.len(), 1);
    };
    // Sixty years ahead, and back.
    let ahead = at(0) + Duration::days(60 * 365);
    kept.write(&Batch::default(), ahead);
    assert_eq!(Folder::new(folder.path()).days().expect("days").len(), 2);
    assert!(kept.disk.is_of_another_time(at(3)).expect("days"));
    let (state, news) = kept.disk.reload(at(3)).expect("read again");
    assert_eq!(news, Vec::<String>::new());
    is_whole(&state, at(3));
    drop(kept);
    // A start with the clock of 1970, as of a machine without a battery, until the time is known.
    let boot = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
    let mut kept = Kept::open(folder.path(), boot);
    kept.write(&Batch::default(), boot);
    assert!(kept.disk.is_of_another_time(at(9)).expect("days"));
    let (state, _) = kept.disk.reload(at(9)).expect("read again");
    is_whole(&state, at(9));
    kept.state = state;
    kept.write(&Batch::default(), at(86_400));
    drop(kept);
    is_whole(&load(&Folder::new(folder.path()), at(86_400)).expect("a history").state, at(86_400));
}

#[test]
fn visits_with_a_pause_are_two() {
    let mut state = State::default();
    for (since, until) in [(0, 60), (120, 180), (3600, 3660)] {
        let mut batch = Batch::default();
        admit(&mut batch, "alice-phone", "nas", at(since), at(until));
        state.add(&batch);
    }
    let overview = state.overview(at(4000));
    let visits: Vec<_> = overview.visits.iter().map(|one| (one.since, one.until, one.connections)).collect();
    assert_eq!(visits, [(at(3600), at(3660), 1), (at(0), at(180), 2)]);
    assert_eq!(overview.devices[0].last_seen.as_ref().map(|seen| seen.at), Some(at(3660)));
    assert_eq!(overview.devices[0].first_seen, Some(at(0)));
    assert!(state.overview(at(100_000)).visits.is_empty());
}

#[test]
fn certificates_of_many_names_do_not_displace_devices_of_today() {
    let mut state = State::default();
    let mut batch = Batch::default();
    admit(&mut batch, "alice-phone", "nas", at(0), at(1));
    state.add(&batch);
    for n in 0..2000 {
        let mut batch = Batch::default();
        refuse(&mut batch, &format!("device-{n}"), Reason::Revoked, at(2));
        state.add(&batch);
    }
    assert_eq!(state.now.devices.len(), super::state::DEVICES_MAX);
    assert!(state.now.devices.iter().any(|device| &*device.name == "alice-phone"));
}
