//! The history of a home that does not exist, for tests and benches.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use time::{Duration, OffsetDateTime};

use super::batch::{Batch, VisitNote};
use super::counts::Pair;
use super::disk::{Disk, text};
use crate::model::names::Name;
use crate::model::rejection::Reason;
use crate::model::source::{Prefixes, Source};

const ROUTES: [&str; 4] = ["nas", "photos", "smb", "ssh"];
const REASONS: [Reason; 4] =
    [Reason::NotTls, Reason::ServerNameMissing, Reason::CertificateRequired, Reason::SourceBanned];

/// Writes these days of a home to a folder, up to `now`, as a gate does that runs all the time.
///
/// # Errors
/// Why they cannot be written.
#[doc(hidden)]
pub fn write_sample(folder: &Path, days: i64, now: OffsetDateTime) -> io::Result<()> {
    super::make_folder(folder)?;
    let begin = now - Duration::days(days);
    let (mut disk, mut state, _) = Disk::open(folder, begin).map_err(io::Error::other)?;
    for hour in 0..days * 24 {
        let begin = begin + Duration::hours(hour);
        let (batch, now) = (hour_of_a_home(begin), begin + Duration::minutes(30));
        state.add(&batch);
        disk.write(&batch, now, |day, current| text(&state, day, current)).map_err(io::Error::other)?;
        state.forget(now, days);
        if hour % 24 == 0 {
            disk.trim(days).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// An hour of a home: five devices with four routes, most of the day, and scanners.
pub(super) fn hour_of_a_home(begin: OffsetDateTime) -> Batch {
    let mut batch = Batch::default();
    let hour = begin.unix_timestamp().div_euclid(3600);
    let small = |hour: i64| u32::try_from(hour).unwrap_or_default();
    if hour.rem_euclid(24) >= 7 {
        for device in (0..5).filter(|device| (hour + device) % 3 != 0) {
            for route in ROUTES.iter().skip(small(hour.rem_euclid(4)) as usize).take(1) {
                admit(&mut batch, &format!("device-{device}"), route, begin, begin + Duration::minutes(20));
            }
        }
    }
    for (n, reason) in (0_u32..24).zip(REASONS.into_iter().cycle()) {
        noise(&mut batch, reason, n + small(hour.rem_euclid(97)) * 31, begin);
    }
    batch
}

/// A connection that began and has ended.
pub(super) fn admit(batch: &mut Batch, device: &str, route: &str, since: OffsetDateTime, until: OffsetDateTime) {
    let Ok(route) = Name::parse(route) else { return };
    let (device, address) = (Box::<str>::from(device), address(140));
    let (to_backend, to_client) = (1000, 1_234_567);
    batch.hour(since).add_pair(Pair {
        device: Some(device.clone()),
        route: route.clone(),
        connections: 1,
        to_backend,
        to_client,
        first: address,
        last: None,
    });
    let (began, ended) = (1, 1);
    batch.visit(VisitNote { device, route, address, since, until, began, ended, to_backend, to_client });
}

/// A refusal of a stranger.
pub(super) fn noise(batch: &mut Batch, reason: Reason, n: u32, at: OffsetDateTime) {
    let counts = batch.hour(at);
    counts.noise.add(reason, 1);
    counts.sources.add(Source::of(address(n), Prefixes::default()));
}

/// One of many addresses.
pub(super) fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0xcb00_7100_u32.wrapping_add(n)))
}
