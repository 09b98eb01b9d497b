//! How is a moment written? UTC RFC 3339 with six decimals and `Z`, so that text order is time order.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, fmt::temporal::DateTimePrinter};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

fn print(at: Timestamp) -> String {
    PRINTER.timestamp_to_string(&at)
}

/// This moment.
pub fn now() -> String {
    print(Timestamp::now())
}

/// The moment so far from now, at the end of time if that is later.
pub(crate) fn after(span: Duration) -> String {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    print(Timestamp::now().checked_add(span).unwrap_or(Timestamp::MAX))
}

/// The moment so far before now, 1970 at the earliest.
pub(crate) fn before(span: Duration) -> String {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    print(Timestamp::now().checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH))
}

/// Any RFC 3339 text in the form used here, or `None` where it is invalid or before 1970: text order is time order only
/// for years of four digits, and no request or decision is older than the system's clock can be.
pub(crate) fn normalise(text: &str) -> Option<String> {
    text.parse::<Timestamp>().ok().filter(|at| *at >= Timestamp::UNIX_EPOCH).map(print)
}

/// Seconds from `from` to `to`, negative if `to` is earlier; 0 where either cannot be read.
pub(crate) fn seconds_between(from: &str, to: &str) -> f64 {
    match (from.parse::<Timestamp>(), to.parse::<Timestamp>()) {
        (Ok(from), Ok(to)) => to.duration_since(from).as_secs_f64(),
        _ => 0.0,
    }
}

/// How long until `at`; zero once it has passed.
pub(crate) fn until(at: &str) -> Duration {
    Duration::try_from_secs_f64(seconds_between(&now(), at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_order_is_time_order() {
        let later = after(Duration::from_secs(1));
        assert!(now() < later);
        assert_eq!(later.len(), "2026-01-31T12:00:00.000000Z".len());
    }

    #[test]
    fn offsets_become_utc_and_nonsense_is_refused() {
        assert_eq!(normalise("2026-01-31T13:00:00+01:00").as_deref(), Some("2026-01-31T12:00:00.000000Z"));
        for bad in ["yesterday", "", "1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "-009999-01-02T00:00:00Z"] {
            assert_eq!(normalise(bad), None, "{bad}");
        }
        assert!(before(Duration::MAX).starts_with("1970-"));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        assert!(after(Duration::MAX).starts_with("9999-"));
    }
}
