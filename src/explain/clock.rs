//! Times for people: the local time of the process, and what was today.
//!
//! The zone is read once, from TZ or /etc/localtime, before the gate gives up its rights. The `time` crate's own local offset
//! is refused to a process with threads, as localtime_r(3) reads the environment; jiff reads the file of the zone itself, and
//! knows the offset of each moment, so that a time of last summer is shown as it was. Where there is no zone, as in a container
//! without tzdata, times are in UTC and say so.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, UtcOffset};

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// That of the process, read at the first call; UTC if there is none.
    pub fn system() -> Self {
        static SYSTEM: OnceLock<Zone> = OnceLock::new();
        SYSTEM.get_or_init(|| Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))).clone()
    }

    /// UTC.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Always so far from UTC.
    #[cfg(test)]
    pub(crate) fn fixed(hours: i8) -> Self {
        Self(jiff::tz::offset(hours).to_time_zone())
    }

    fn offset(&self, at: OffsetDateTime) -> UtcOffset {
        let seconds = Timestamp::from_second(at.unix_timestamp()).map(|at| self.0.to_offset(at).seconds());
        seconds.ok().and_then(|seconds| UtcOffset::from_whole_seconds(seconds).ok()).unwrap_or(UtcOffset::UTC)
    }
}

/// A moment, and the zone in which it and others are told.
#[derive(Clone, Debug)]
pub struct Clock {
    now: OffsetDateTime,
    zone: Zone,
}

impl Clock {
    /// This moment, in the zone of the process.
    pub fn system() -> Self {
        Self::new(OffsetDateTime::now_utc(), Zone::system())
    }

    /// The moment `now` in a zone.
    pub const fn new(now: OffsetDateTime, zone: Zone) -> Self {
        Self { now, zone }
    }

    /// The moment.
    pub const fn now(&self) -> OffsetDateTime {
        self.now
    }

    /// `at` in the zone.
    pub fn local(&self, at: OffsetDateTime) -> OffsetDateTime {
        at.checked_to_offset(self.zone.offset(at)).unwrap_or(at)
    }

    /// Seconds since 1970 as a moment in the zone; `None` if no calendar goes so far.
    pub fn of_seconds(&self, seconds: i64) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().map(|at| self.local(at))
    }

    /// How a moment is told: `today 19:42:07`, `yesterday 22:47`, `2026-11-23 21:40`.
    pub fn moment(&self, at: OffsetDateTime) -> String {
        let (local, today) = (self.local(at), self.today());
        match local.date() {
            day if day == today => format!("today {}", self.seconds(at)),
            day if Some(day) == today.previous_day() => format!("yesterday {}", self.minutes(at)),
            day => format!("{day} {}", self.minutes(at)),
        }
    }

    /// Since when something lasts: `today 19:42:07`, `yesterday 22:47`, `2026-11-23`.
    pub fn since(&self, at: OffsetDateTime) -> String {
        let (day, today) = (self.local(at).date(), self.today());
        if day == today || Some(day) == today.previous_day() { self.moment(at) } else { day.to_string() }
    }

    /// The time of the day: `19:42:07`.
    pub fn seconds(&self, at: OffsetDateTime) -> String {
        let (hour, minute, second) = self.local(at).to_hms();
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    /// The time of the day: `19:42`.
    pub fn minutes(&self, at: OffsetDateTime) -> String {
        let (hour, minute, _) = self.local(at).to_hms();
        format!("{hour:02}:{minute:02}")
    }

    /// Date and time with the zone: `2026-11-27 19:42:07 +01:00`, or `… UTC`.
    pub fn full(&self, at: OffsetDateTime) -> String {
        format!("{} {} {}", self.local(at).date(), self.seconds(at), offset(self.local(at).offset()))
    }

    /// The same of a time as in RFC 3339; another text stays as it is.
    pub fn full_of(&self, time: &str) -> String {
        OffsetDateTime::parse(time, &Rfc3339).map_or_else(|_| time.to_owned(), |at| self.full(at))
    }

    /// The day of a moment: `2026-11-27`.
    pub fn day(&self, at: OffsetDateTime) -> Date {
        self.local(at).date()
    }

    /// The day of a moment in seconds since 1970.
    pub fn day_of_seconds(&self, seconds: i64) -> String {
        self.of_seconds(seconds).map_or_else(|| "a date out of range".to_owned(), |at| at.date().to_string())
    }

    /// This day.
    pub fn today(&self) -> Date {
        self.day(self.now)
    }

    /// The zone now: `UTC+01:00`, or `UTC`.
    pub fn zone(&self) -> String {
        match offset(self.local(self.now).offset()).as_str() {
            "UTC" => "UTC".to_owned(),
            offset => format!("UTC{offset}"),
        }
    }

    /// For programs: RFC 3339 with the offset, to the second.
    pub fn datetime(&self, at: OffsetDateTime) -> String {
        let local = self.local(at);
        local.replace_nanosecond(0).unwrap_or(local).format(&Rfc3339).unwrap_or_default()
    }
}

fn offset(offset: UtcOffset) -> String {
    let (hours, minutes, _) = offset.as_hms();
    match (hours, minutes) {
        (0, 0) => "UTC".to_owned(),
        _ => format!("{}{:02}:{:02}", if offset.is_negative() { '-' } else { '+' }, hours.abs(), minutes.abs()),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn at(now: OffsetDateTime, zone: &str) -> Clock {
        Clock::new(now, Zone(TimeZone::posix(zone).expect("a zone")))
    }

    /// Central European time, with its summer.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[test]
    fn moments_are_told_in_the_zone_of_their_day() {
        let clock = at(datetime!(2026-11-27 20:14:05 UTC), BERLIN);
        for (at, moment, since) in [
            (datetime!(2026-11-27 18:42:07 UTC), "today 19:42:07", "today 19:42:07"),
            // It is today there before it is in Greenwich.
            (datetime!(2026-11-26 23:30:00 UTC), "today 00:30:00", "today 00:30:00"),
            (datetime!(2026-11-26 21:47:59 UTC), "yesterday 22:47", "yesterday 22:47"),
            (datetime!(2026-11-23 20:40:00 UTC), "2026-11-23 21:40", "2026-11-23"),
            // Summer time.
            (datetime!(2026-10-14 01:12:55 UTC), "2026-10-14 03:12", "2026-10-14"),
        ] {
            assert_eq!((clock.moment(at).as_str(), clock.since(at).as_str()), (moment, since), "{at}");
        }
        assert_eq!(clock.datetime(datetime!(2026-10-14 01:12:55.5 UTC)), "2026-10-14T03:12:55+02:00");
        assert_eq!(clock.full(datetime!(2026-11-27 18:42:07 UTC)), "2026-11-27 19:42:07 +01:00");
        assert_eq!(clock.zone(), "UTC+01:00");
        assert_eq!(clock.full_of("2026-11-27T18:42:07.123456789Z"), "2026-11-27 19:42:07 +01:00");
        assert_eq!(clock.full_of("soon"), "soon");
    }

    #[test]
    fn without_a_zone_times_are_in_utc_and_say_so() {
        let clock = Clock::new(datetime!(2026-11-27 20:14:05 UTC), Zone::utc());
        assert_eq!(clock.full(clock.now()), "2026-11-27 20:14:05 UTC");
        assert_eq!((clock.zone().as_str(), clock.datetime(clock.now()).as_str()), ("UTC", "2026-11-27T20:14:05Z"));
        let west = at(datetime!(2026-11-27 20:14:05 UTC), "<-0330>3:30");
        assert_eq!((west.zone().as_str(), west.seconds(west.now()).as_str()), ("UTC-03:30", "16:44:05"));
    }

    #[test]
    fn moments_out_of_range_are_no_failure() {
        let clock = at(OffsetDateTime::UNIX_EPOCH, BERLIN);
        assert_eq!(clock.day_of_seconds(i64::MAX), "a date out of range");
        let last = datetime!(9999-12-31 23:30:00 UTC);
        assert_eq!(clock.moment(last), "9999-12-31 23:30");
    }
}
