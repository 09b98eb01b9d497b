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

/// The moment so far before now.
pub(crate) fn before(span: Duration) -> String {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    print(Timestamp::now().checked_sub(span).unwrap_or(Timestamp::MIN))
}

/// Any RFC 3339 text in the form used here, or `None` where it is none.
pub(crate) fn normalise(text: &str) -> Option<String> {
    text.parse::<Timestamp>().ok().map(print)
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
        assert_eq!(normalise("yesterday"), None);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        assert!(after(Duration::MAX).starts_with("9999-"));
    }
}
