//! Times, counts, rates, and the lengths of prefixes and keys.

use std::time::Duration;

use crate::config::checked::{CipherStrength, Rate};
use crate::config::reader::Scalar;
use crate::config::report::{Problem, quoted};

/// No phase takes longer; timers further ahead than the clock can count would be a panic.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// More connections than any machine holds (a port has 65 535 for each source address), and safely within what a
/// semaphore counts.
const MOST: usize = 1_000_000;

/// `500ms`, `10s`, `5m`, `2h`, `1d`: more than nothing, at most a year.
pub(in crate::config) fn duration(scalar: &Scalar) -> Result<Duration, Problem> {
    let text = match scalar {
        Scalar::Number(number) => {
            return Err(Problem::new(
                format!("{number} of what? A time needs a unit, in quotes"),
                format!("write \"{number}s\" for seconds, or use ms, m (minutes), h or d"),
            ));
        }
        Scalar::Text(text) => text.trim(),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = |message: String| {
        Problem::new(
            message,
            "write a whole number and one unit, as in \"500ms\", \"10s\", \"5m\" (minutes), \"2h\" or \"1d\"",
        )
    };
    if text == "off" {
        return Err(Problem::new("this time cannot be off", "write a long one, as in \"7d\" or \"365d\""));
    }
    if number.is_empty() {
        return Err(wrong(format!("{} is not a time", quoted(text))));
    }
    let milliseconds: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        "" => return Err(wrong(format!("{} has no unit: {number} of what?", quoted(text)))),
        _ => return Err(wrong(format!("{} is not a time with one unit", quoted(text)))),
    };
    // Digits that do not fit into the type are too many in any unit.
    let time = number.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds)).map(Duration::from_millis);
    match time {
        Some(Duration::ZERO) => Err(Problem::new(
            format!("{} would end everything before it has begun", quoted(text)),
            "write a time longer than nothing, as in \"10s\"",
        )),
        Some(time) if time <= LONGEST => Ok(time),
        _ => Err(Problem::new(format!("{} is longer than a year", quoted(text)), "write at most \"365d\"")),
    }
}

/// A [`duration`], or `off` for none.
pub(in crate::config) fn duration_or_off(scalar: &Scalar) -> Result<Option<Duration>, Problem> {
    match scalar {
        Scalar::Text(text) if text == "off" => Ok(None),
        scalar => duration(scalar).map(Some).map_err(|problem| Problem {
            remedy: format!("{}; write \"off\" for no limit", problem.remedy),
            ..problem
        }),
    }
}

/// A whole number from 1 to a million, without quotes.
pub(in crate::config) fn count(scalar: &Scalar) -> Result<usize, Problem> {
    let number = match scalar {
        Scalar::Number(number) => number.replace('_', ""),
        Scalar::Text(text) if text.parse::<usize>().is_ok() => {
            return Err(Problem::new("the number is in quotes", format!("write it without them: {text}")));
        }
        Scalar::Text(text) if text == "off" => {
            return Err(Problem::new("this limit cannot be off", "write a number, as in 512 or 100000"));
        }
        Scalar::Text(text) => {
            return Err(Problem::new(format!("{} is not a number", quoted(text)), "write a number, as in 512"));
        }
    };
    match number.strip_prefix('+').unwrap_or(&number).parse() {
        Ok(0) => Err(Problem::new("0 would refuse every connection", "write a number from 1 on")),
        Ok(number) if number <= MOST => Ok(number),
        Err(_) if number.starts_with('-') => {
            Err(Problem::new("a limit cannot be less than nothing", "write a number from 1 on"))
        }
        _ => Err(Problem::new("the number is larger than any machine can hold", format!("write at most {MOST}"))),
    }
}

/// A TCP port, without quotes.
pub(in crate::config) fn port(scalar: &Scalar) -> Result<u16, Problem> {
    let (Scalar::Number(text) | Scalar::Text(text)) = scalar;
    let port = text.parse::<u16>().ok().filter(|port| *port != 0);
    match (scalar, port) {
        (Scalar::Number(_), Some(port)) => Ok(port),
        (Scalar::Text(_), Some(port)) => {
            Err(Problem::new("the number is in quotes", format!("write it without them: {port}")))
        }
        (_, None) => Err(Problem::new(
            format!("{} is no port: that is a number from 1 to 65535", quoted(text)),
            "write the port that your router forwards to this machine, as in 443",
        )),
    }
}

/// How many bits of an address of `bits` bits are looked at: 1 to all of them.
pub(in crate::config) fn prefix(scalar: &Scalar, bits: u8) -> Result<u8, Problem> {
    let remedy = format!("write how many bits of the address are looked at: 1 to {bits}");
    let number = match scalar {
        Scalar::Number(number) => number,
        Scalar::Text(text) => return Err(Problem::new(format!("{} is not a number", quoted(text)), remedy)),
    };
    match number.parse() {
        Ok(0) => Err(Problem::new("0 would make all addresses one source", remedy)),
        Ok(number) if number <= bits => Ok(number),
        _ => Err(Problem::new(format!("{number} is not a length that a prefix can have here"), remedy)),
    }
}

/// 128 or 256, in quotes or not.
pub(in crate::config) fn strength(scalar: &Scalar) -> Result<CipherStrength, Problem> {
    let (Scalar::Number(text) | Scalar::Text(text)) = scalar;
    match text.as_str() {
        "128" => Ok(CipherStrength::Bits128),
        "256" => Ok(CipherStrength::Bits256),
        _ => Err(Problem::new(
            format!("{} is not the key length of any cipher here", quoted(text)),
            "write 256 to allow ciphers with keys of 256 bits only, or 128 to allow AES-128 as well",
        )),
    }
}

/// A [`count`], or `off` for none.
pub(in crate::config) fn count_or_off(scalar: &Scalar) -> Result<Option<usize>, Problem> {
    match scalar {
        Scalar::Text(text) if text == "off" => Ok(None),
        scalar => count(scalar)
            .map(Some)
            .map_err(|problem| Problem { remedy: format!("{}, or \"off\" for no limit", problem.remedy), ..problem }),
    }
}

/// `50/s`, `600/min`, `1000/h`, or `off` for none.
pub(in crate::config) fn rate_or_off(scalar: &Scalar) -> Result<Option<Rate>, Problem> {
    let remedy = "write how many in how long, as in \"50/s\", \"600/min\" or \"1000/h\", or \"off\" for no limit";
    let text = match scalar {
        Scalar::Number(number) => {
            return Err(Problem::new(format!("{number} in what time?"), remedy));
        }
        Scalar::Text(text) if text == "off" => return Ok(None),
        Scalar::Text(text) => text,
    };
    let wrong = || Problem::new(format!("{} is not a rate", quoted(text)), remedy);
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(60 * 60),
        _ => return Err(wrong()),
    };
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match number.parse::<u32>() {
        Ok(0) => Err(Problem::new("0 would refuse every connection", remedy)),
        Ok(count) if usize::try_from(count).is_ok_and(|count| count <= MOST) => Ok(Some(Rate { count, per })),
        _ => Err(Problem::new("the number is larger than any machine can take", format!("write at most {MOST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn number(text: &str) -> Scalar {
        Scalar::Number(text.to_owned())
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        for (given, milliseconds) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), (" 1 s ", 1000)]
        {
            assert_eq!(duration(&text(given)), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        assert_eq!(duration(&text("365d")), Ok(LONGEST));
        for wrong in
            ["", "s", "10", "1.5s", "1h30m", "-1s", "10 seconds", "0s", "0ms", "366d", "99999999999999999999d", "٣s"]
        {
            assert!(duration(&text(wrong)).is_err(), "{wrong}");
        }
        let bare = duration(&number("10")).expect_err("a bare number");
        assert!(bare.remedy.contains("\"10s\""), "{bare:?}");
    }

    #[test]
    fn off_is_accepted_for_lifetime_only() {
        assert_eq!(duration_or_off(&text("off")), Ok(None));
        assert_eq!(duration_or_off(&text("1s")), Ok(Some(Duration::from_secs(1))));
        assert!(duration(&text("off")).is_err());
    }

    #[test]
    fn counts_are_from_one_to_a_million() {
        assert_eq!(count(&number("1")), Ok(1));
        assert_eq!(count(&number("1_000_000")), Ok(MOST));
        for wrong in ["0", "-1", "1000001", "99999999999999999999999999"] {
            assert!(count(&number(wrong)).is_err(), "{wrong}");
        }
        assert!(count(&text("10")).is_err_and(|p| p.message.contains("quotes")));
        assert!(count(&text("off")).is_err());
        assert_eq!(count_or_off(&text("off")), Ok(None));
        assert_eq!(count_or_off(&number("7")), Ok(Some(7)));
    }

    #[test]
    fn ports_are_numbers_without_quotes() {
        assert_eq!(port(&number("443")), Ok(443));
        assert!(port(&text("443")).expect_err("quotes").remedy.ends_with("443"));
        for wrong in ["0", "65536", "-1", "4_43"] {
            assert!(port(&number(wrong)).expect_err(wrong).message.contains("is no port"), "{wrong}");
        }
    }

    #[test]
    fn prefix_lengths_are_within_the_address() {
        assert_eq!(
            (prefix(&number("1"), 32), prefix(&number("32"), 32), prefix(&number("128"), 128)),
            (Ok(1), Ok(32), Ok(128))
        );
        for wrong in ["0", "-1", "33", "256", "99999999999999999999"] {
            assert!(prefix(&number(wrong), 32).is_err(), "{wrong}");
        }
        assert!(prefix(&text("/24"), 32).is_err_and(|problem| problem.message.contains("/24")));
    }

    #[test]
    fn rates_need_a_count_and_a_unit() {
        let per = |count, seconds| Ok(Some(Rate { count, per: Duration::from_secs(seconds) }));
        assert_eq!(rate_or_off(&text("50/s")), per(50, 1));
        assert_eq!(rate_or_off(&text("600/min")), per(600, 60));
        assert_eq!(rate_or_off(&text("1000 / h")), per(1000, 3600));
        assert_eq!(rate_or_off(&text("off")), Ok(None));
        for wrong in ["", "50", "/s", "50/", "0/s", "-1/s", "+1/s", "1.5/s", "50/day", "99999999999/s", "4294967295/s"]
        {
            assert!(rate_or_off(&text(wrong)).is_err(), "{wrong}");
        }
        assert!(rate_or_off(&number("50")).is_err());
    }
}
