//! `health` of a route: how its backends are checked. And how many connections each may have.

use std::time::Duration;

use super::{Mode, scalar};
use crate::config::checked::Health;
use crate::config::raw::{RawHealth, RawRoute};
use crate::config::reader::Scalar;
use crate::config::report::{At, Given, Place, Problem, Report, Text, quoted};
use crate::config::values;

const EVERY: Duration = Duration::from_secs(10);
/// A check may not become a load: ten a second are for tests.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_secs(60 * 60);
const TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const RISE: u32 = 2;
const FALL: u32 = 3;
/// The most checks in a row.
const IN_A_ROW_MAX: u32 = 100;
/// The longest `send`, in bytes.
const SEND_MAX: usize = 1024;
/// The longest `expect`, in bytes.
const EXPECT_MAX: usize = 256;

/// The checks of a route; `Some(None)` if it has none.
pub(super) fn check(route: &RawRoute, mode: Option<Mode>, report: &mut Report) -> Option<Option<Health>> {
    let At { value: raw, place } = match &route.health {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(health) => health,
    };
    if !route.wake.is_absent() {
        report.error(
            place,
            "a machine that sleeps fails its checks, and its devices would be refused instead of waking it",
            "remove \"health\", or remove \"wake\" if the machine is always on",
        );
        return None;
    }
    let every = scalar(&raw.every, every, EVERY, report);
    let timeout = scalar(&raw.timeout, timeout, TIMEOUT, report);
    let rise = scalar(&raw.rise, in_a_row, RISE, report);
    let fall = scalar(&raw.fall, in_a_row, FALL, report);
    let send = bytes(&raw.send, SEND_MAX, report);
    let expect = bytes(&raw.expect, EXPECT_MAX, report);
    let tls = tls(raw, route, mode, report);
    if let (Some(Some(_)), Some(None)) = (&send, &expect) {
        report.error(
            &place.child("send"),
            "the check sends something and waits for no answer, so it would pass whatever the service does",
            "add expect with the beginning of the answer, as in expect = \"HTTP/1.\"",
        );
        return None;
    }
    let text = |text: Option<String>| text.map(String::into_bytes).unwrap_or_default();
    Some(Some(Health {
        every: every?,
        rise: rise?,
        fall: fall?,
        timeout: timeout?,
        send: text(send?),
        expect: text(expect?),
        tls: tls?,
    }))
}

fn every(scalar: &Scalar) -> Result<Duration, Problem> {
    let every = values::duration(scalar)?;
    if every < EVERY_MIN {
        return Err(Problem::new(
            "checks that often would be a load of their own",
            "write \"100ms\" or more; \"10s\" is usual",
        ));
    }
    if every > EVERY_MAX {
        return Err(Problem::new(
            "a backend that fails would be noticed after hours only",
            "write \"1h\" or less; \"10s\" is usual",
        ));
    }
    Ok(every)
}

/// The time of one check. If it is longer than `every`, a slow check holds up the next one.
fn timeout(scalar: &Scalar) -> Result<Duration, Problem> {
    let timeout = values::duration(scalar)?;
    if timeout > TIMEOUT_MAX {
        return Err(Problem::new(
            "a backend that hangs would be noticed after minutes only",
            "write \"1m\" or less; \"2s\" is usual",
        ));
    }
    Ok(timeout)
}

fn in_a_row(scalar: &Scalar) -> Result<u32, Problem> {
    let (Scalar::Number(text) | Scalar::Text(text)) = scalar;
    let number = text.parse::<u32>().ok().filter(|number| (1..=IN_A_ROW_MAX).contains(number));
    match (scalar, number) {
        (Scalar::Number(_), Some(number)) => Ok(number),
        (Scalar::Text(_), Some(number)) => {
            Err(Problem::new("the number is in quotes", format!("write it without them: {number}")))
        }
        (_, None) => Err(Problem::new(
            format!("{} is not a number of checks in a row", quoted(text)),
            format!("write a number from 1 to {IN_A_ROW_MAX}; rise = {RISE} and fall = {FALL} are usual"),
        )),
    }
}

fn bytes(given: &Given<String>, most: usize, report: &mut Report) -> Option<Option<String>> {
    let text: &Text = match given {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(text) => text,
    };
    let wrong = match text.value.len() {
        0 => "the text is empty".to_owned(),
        length if length > most => format!("the text has {length} bytes, and {most} are the most"),
        _ => return Some(Some(text.value.clone())),
    };
    report.error(&text.place, wrong, "remove it, or write a line, as in \"SSH-\"; \\r\\n is the end of a line");
    None
}

fn tls(raw: &RawHealth, route: &RawRoute, mode: Option<Mode>, report: &mut Report) -> Option<bool> {
    let (tls, place): (bool, &Place) = match &raw.tls {
        Given::Absent => return Some(false),
        Given::Refused => return None,
        Given::Value(tls) => (tls.value, &tls.place),
    };
    if tls && mode == Some(Mode::Terminate) && !route.backend_tls.is_absent() {
        report.error(place, "backend_tls makes the handshake a part of each check", "remove \"tls\"");
        return None;
    }
    if tls && mode == Some(Mode::Terminate) {
        report.error(
            place,
            "the gate sends the backend of this route no TLS, so a check that does would say nothing about it",
            "remove \"tls\"; it is for routes with mode = \"passthrough\", where the backend speaks TLS",
        );
        return None;
    }
    Some(tls)
}

/// `connections_per_backend`; `Some(None)` is without limit.
pub(super) fn connections_per_backend(raw: &RawRoute, report: &mut Report) -> Option<Option<usize>> {
    scalar(&raw.connections_per_backend, values::count_or_off, None, report)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What a passthrough route with these keys has.
    fn parsed(keys: &str) -> (Option<Health>, Option<usize>) {
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"mail\"\nmode = \"passthrough\"\n\
             server_names = [\"mail.home.example\"]\nbackends = [\"192.0.2.1:993\"]\n{keys}\n"
        );
        let config = crate::config::parse(&text, Path::new("doorward.toml")).expect("a configuration");
        let route = config.routes.into_iter().next().expect("a route");
        (route.health, route.connections_per_backend)
    }

    #[test]
    fn values_are_read_as_written_and_have_defaults() {
        assert_eq!(parsed(""), (None, None));
        assert_eq!(parsed("connections_per_backend = \"off\""), (None, None));
        assert_eq!(parsed("connections_per_backend = 100").1, Some(100));
        let seconds = Duration::from_secs;
        let default = Health {
            every: seconds(10),
            rise: 2,
            fall: 3,
            timeout: seconds(2),
            send: Vec::new(),
            expect: Vec::new(),
            tls: false,
        };
        assert_eq!(parsed("health = {}").0, Some(default));
        let given = Health {
            every: seconds(30),
            rise: 1,
            fall: 5,
            timeout: seconds(3),
            send: b"a001 NOOP\r\n".to_vec(),
            expect: b"* OK".to_vec(),
            tls: true,
        };
        let keys = "every = \"30s\", rise = 1, fall = 5, timeout = \"3s\", send = \"a001 NOOP\\r\\n\", expect = \"* OK\", tls = true";
        assert_eq!(parsed(&format!("health = {{ {keys} }}")).0, Some(given.clone()));
        assert_eq!(parsed(&format!("[route.health]\n{}", keys.replace(", ", "\n"))).0, Some(given));
    }
}
