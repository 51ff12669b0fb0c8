//! When a certificate is renewed, and when a failed order is tried again.

use std::time::Duration;

use time::OffsetDateTime;

/// The waits after failed orders. A server that follows Let's Encrypt's limits takes five failed validations of a name an hour.
const WAITS: [Duration; 6] = [
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(45 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(12 * 3600),
];

/// The least wait after an order that a rate limit has stopped.
const AFTER_RATE_LIMIT: Duration = Duration::from_secs(3600);

/// No wait is longer, whatever the server asks for: it would otherwise decide when the certificate is renewed.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The dates of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// Its first moment.
    pub(super) not_before: OffsetDateTime,
    /// Its last one.
    pub(super) not_after: OffsetDateTime,
}

/// Where an ACME server wants a certificate to be renewed (RFC 9773 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its first moment.
    pub(super) start: OffsetDateTime,
    /// Its last one.
    pub(super) end: OffsetDateTime,
}

/// When a certificate is renewed: at a moment of the window, else after two thirds of its life or a little before. `random` is of
/// `0.0..1.0`. A window that lies behind the certificate's end, or has no length, is not followed.
pub(super) fn renewal(validity: Validity, window: Option<Window>, random: f64) -> OffsetDateTime {
    let random = random.clamp(0.0, 1.0);
    if let Some(Window { start, end }) = window.filter(|window| window.start < window.end)
        && start < validity.not_after
    {
        return (start + (end - start) * random).min(validity.not_after);
    }
    let life = (validity.not_after - validity.not_before).max(time::Duration::ZERO);
    validity.not_before + life * 2 / 3 - (life / 24) * random
}

/// The first moment at which a certificate is replaced that was put in place at `placed_at`. Where this machine's clock is wrong, or a
/// server issues certificates that have begun long ago, each new one is due at once: that must not lead to one order after the other.
pub(super) fn soonest(placed_at: OffsetDateTime, validity: Validity, window: Option<Window>) -> OffsetDateTime {
    let third: time::Duration = (validity.not_after - placed_at).max(time::Duration::ZERO) / 3;
    // A server that wants it replaced has its reasons.
    let longest = if window.is_some() { time::Duration::HOUR } else { time::Duration::DAY };
    placed_at + third.min(longest)
}

/// How long to wait after so many failures in a row, at least one. `retry_after` is what the server has asked for, and
/// `rate_limited` whether it has said that there were too many requests.
pub(super) fn retry(failures: usize, retry_after: Option<Duration>, rate_limited: bool, random: f64) -> Duration {
    let wait = WAITS.get(failures.saturating_sub(1)).or(WAITS.last()).copied().unwrap_or(LONGEST_WAIT);
    let wait = if rate_limited { wait.max(AFTER_RATE_LIMIT) } else { wait };
    // Gates that were started together do not come back together.
    let wait = wait + wait.mul_f64(random.clamp(0.0, 1.0) / 4.0);
    wait.max(retry_after.unwrap_or_default()).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const QUARTER: Validity =
        Validity { not_before: datetime!(2026-01-01 00:00 UTC), not_after: datetime!(2026-04-01 00:00 UTC) };

    #[test]
    fn certificate_is_renewed_after_two_thirds_of_its_life() {
        assert_eq!(renewal(QUARTER, None, 0.0), datetime!(2026-03-02 00:00 UTC));
        assert_eq!(renewal(QUARTER, None, 1.0), datetime!(2026-02-26 06:00 UTC));
        let week = Validity { not_before: datetime!(2026-01-01 00:00 UTC), not_after: datetime!(2026-01-07 00:00 UTC) };
        assert_eq!(renewal(week, None, 0.0), datetime!(2026-01-05 00:00 UTC));
        let none = Validity { not_after: QUARTER.not_before, ..QUARTER };
        assert_eq!(renewal(none, None, 1.0), QUARTER.not_before);
    }

    #[test]
    fn window_of_the_server_comes_first_if_it_makes_sense() {
        let window = |start, end| Some(Window { start, end });
        let (start, end) = (datetime!(2026-01-10 00:00 UTC), datetime!(2026-01-12 00:00 UTC));
        assert_eq!(renewal(QUARTER, window(start, end), 0.0), start);
        assert_eq!(renewal(QUARTER, window(start, end), 0.5), datetime!(2026-01-11 00:00 UTC));
        // The server has revoked it and wants it renewed at once.
        let past = window(datetime!(2025-01-10 00:00 UTC), datetime!(2025-01-12 00:00 UTC));
        assert!(renewal(QUARTER, past, 0.5) < QUARTER.not_before);
        for odd in
            [window(end, start), window(start, start), window(QUARTER.not_after, QUARTER.not_after + (end - start))]
        {
            assert_eq!(renewal(QUARTER, odd, 0.0), renewal(QUARTER, None, 0.0), "{odd:?}");
        }
    }

    #[test]
    fn new_certificate_is_kept_for_a_while() {
        let placed_at = datetime!(2026-03-20 00:00 UTC);
        assert_eq!(soonest(placed_at, QUARTER, None), datetime!(2026-03-21 00:00 UTC));
        let window = Some(Window { start: QUARTER.not_before, end: QUARTER.not_after });
        assert_eq!(soonest(placed_at, QUARTER, window), datetime!(2026-03-20 01:00 UTC));
        let late = QUARTER.not_after - Duration::from_secs(30);
        assert_eq!(soonest(late, QUARTER, None), late + Duration::from_secs(10));
        assert_eq!(
            soonest(QUARTER.not_after + Duration::from_secs(9), QUARTER, None),
            QUARTER.not_after + Duration::from_secs(9)
        );
    }

    #[test]
    fn failures_are_tried_again_less_and_less() {
        let minutes: Vec<u64> = (0..9).map(|failures| retry(failures, None, false, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 5, 15, 45, 120, 360, 720, 720, 720]);
        assert_eq!(retry(1, None, false, 1.0), Duration::from_secs(375));
        assert_eq!(retry(1, None, true, 0.0), Duration::from_secs(3600));
        assert_eq!(retry(1, Some(Duration::from_secs(5000)), false, 0.0), Duration::from_secs(5000));
        assert_eq!(retry(1, Some(Duration::MAX), true, 0.0), Duration::from_secs(24 * 3600));
    }

    #[test]
    fn fewer_than_five_orders_fail_in_an_hour() {
        let mut at = Duration::ZERO;
        let mut in_hour = 1;
        for failures in 1.. {
            at += retry(failures, None, false, 0.0);
            if at >= Duration::from_secs(3600) {
                break;
            }
            in_hour += 1;
        }
        assert!(in_hour < 5, "{in_hour}");
    }
}
