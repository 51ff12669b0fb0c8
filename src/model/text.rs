//! Numbers, durations, amounts of data and tables for people: the same on the command line and on the status page.

use time::{Duration, OffsetDateTime};
use unicode_width::UnicodeWidthStr;

/// A duration in the largest unit that fits, rounded down, as in `59 seconds` and `3 days`. A negative one counts as none.
pub fn duration(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    counted(u64::try_from(count).unwrap_or(0), unit)
}

/// How long something still lasts: hours for a day, days for two years, as in `9 days`, `2 years`. A negative one counts as none.
pub fn in_words(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..DAY => duration(seconds),
        _ if seconds < 2 * YEAR => counted(u64::try_from(seconds / DAY).unwrap_or(0), "day"),
        _ => counted(u64::try_from(seconds / YEAR).unwrap_or(0), "year"),
    }
}

/// A number of things, as in `1 connection` and `2 connections`. The plural of `singular` must end with its `s`.
pub fn counted(count: u64, singular: &str) -> String {
    format!("{count} {singular}{}", if count == 1 { "" } else { "s" })
}

/// How often: `once`, or `3 times`.
pub fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", grouped(count)) }
}

/// A number with commas between groups of three digits, as in `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of data in binary units (IEC 80000-13), rounded down, below 100 to a tenth, as in `512 B`, `1.5 KiB` and `212 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // In units of 1 / 1024 of the one that is shown, so that nothing overflows.
    let (mut parts, mut units) = (count, UNITS.into_iter());
    let mut unit = units.next();
    while parts >= 1 << 20
        && let Some(larger) = units.next()
    {
        parts >>= 10;
        unit = Some(larger);
    }
    match unit {
        Some(unit) if parts >= 100 << 10 => format!("{} {unit}", parts >> 10),
        Some(unit) if count >= 1 << 10 => format!("{}.{} {unit}", parts >> 10, ((parts & 0x3ff) * 10) >> 10),
        _ => format!("{count} B"),
    }
}

/// The day of a moment in seconds since 1970, in UTC, as in `2026-11-24`.
pub fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "a date out of range".to_owned(), |moment| moment.date().to_string())
}

/// The day of a moment in UTC, and its time as well if `other`, which is told beside it, is less than a day away.
pub fn day_near(moment: OffsetDateTime, other: OffsetDateTime) -> String {
    let date = moment.date();
    if (moment - other).abs() >= Duration::DAY {
        return date.to_string();
    }
    format!("{date} {:02}:{:02} UTC", moment.hour(), moment.minute())
}

/// Rows as aligned columns, two spaces apart: each is as wide as its widest cell is on a terminal. No line ends with spaces.
pub fn table<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let row = row.as_ref();
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let begin = out.len();
        for (index, (cell, width)) in row.as_ref().iter().zip(&widths).enumerate() {
            out.push_str(if index > 0 { "  " } else { "" });
            out.push_str(cell);
            // `{:width$}` would count characters, of which some take two columns and some none.
            out.extend(std::iter::repeat_n(' ', width - cell.width()));
        }
        out.truncate(begin + out.get(begin..).map_or(0, |line| line.trim_end().len()));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_largest_unit_rounded_down() {
        for (seconds, text) in [
            (-5, "0 seconds"),
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3599, "59 minutes"),
            (3600, "1 hour"),
            (86_399, "23 hours"),
            (86_400, "1 day"),
            (200_000, "2 days"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn long_times_are_told_in_years() {
        let day = 86_400;
        assert_eq!(
            [9 * day + 5, 729 * day, 738 * day, 3600].map(in_words),
            ["9 days", "729 days", "2 years", "1 hour"]
        );
    }

    #[test]
    fn only_one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "route")), ["0 routes", "1 route", "2 routes"]);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_399, "99.9 KiB"),
            (102_400, "100 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (1 << 20, "1.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (3 << 39, "1.5 TiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn day_has_a_time_where_the_day_alone_says_nothing() {
        let now = time::macros::datetime!(2026-11-29 23:05 UTC);
        assert_eq!(day_near(now + Duration::hours(2), now), "2026-11-30 01:05 UTC");
        assert_eq!(day_near(now - Duration::hours(23), now), "2026-11-29 00:05 UTC");
        assert_eq!(day_near(now + Duration::days(1), now), "2026-11-30");
        assert_eq!(day_near(now - Duration::days(400), now), "2025-10-25");
    }

    #[test]
    fn dates_out_of_range_are_no_failure() {
        assert_eq!([0, 1_795_478_400].map(date), ["1970-01-01", "2026-11-24"]);
        assert_eq!(date(i64::MAX), "a date out of range");
    }

    #[test]
    fn columns_align_for_wide_and_combining_characters() {
        let rows = [["name", "for"], ["アリス", "client"], ["e\u{301}va", "client"], ["bob-laptop", ""]];
        let shown = table(&rows.map(|row| row.map(str::to_owned)));
        assert_eq!(shown, "name        for\nアリス      client\ne\u{301}va         client\nbob-laptop\n");
        let begin = |line: &str| line.find("client").map(|at| line.split_at(at).0.width());
        assert!(shown.lines().skip(1).take(2).all(|line| begin(line) == Some(12)), "{shown}");
    }

    #[test]
    fn rows_may_differ_in_length() {
        let rows = [vec!["a".to_owned()], vec!["bb".to_owned(), "c".to_owned()], Vec::new()];
        assert_eq!(table(&rows), "a\nbb  c\n\n");
    }
}
