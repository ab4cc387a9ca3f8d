//! Rates, times and sizes as people write them.

use std::time::Duration;

/// kB/s, as the server takes it.
pub(crate) fn rate(text: &str) -> Result<u32, String> {
    let expected = "expected a rate from 32k to 1G, as 20M, 512k or 20MB/s";
    let text = text.strip_suffix("/s").unwrap_or(text);
    let text = text.strip_suffix('B').unwrap_or(text);
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1),
        Some((at, 'M')) => (text.get(..at), 1 << 10),
        Some((at, 'G')) => (text.get(..at), 1 << 20),
        _ => (Some(text), 1),
    };
    number
        .and_then(|n| n.parse::<u32>().ok())
        .and_then(|n| n.checked_mul(factor))
        .filter(|n| (32..=1 << 20).contains(n))
        .ok_or_else(|| expected.to_owned())
}

/// `90s`, `10min`, `2h`; a number alone is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text.get(digits..) {
        Some("" | "s") => 1,
        Some("m" | "min") => 60,
        Some("h") => 3600,
        _ => 0,
    };
    text.get(..digits)
        .and_then(|n| n.parse::<u64>().ok())
        .and_then(|n| n.checked_mul(factor))
        .filter(|_| factor > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a time such as 90s, 10min or 2h".to_owned())
}

/// `1.4 GiB`
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// `40 s`, `12 min`, `3.5 h`: as much as an estimate is worth.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "1 s".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_read_as_people_write_them() {
        assert_eq!(rate("20M"), Ok(20 << 10));
        assert_eq!(rate("20MB/s"), Ok(20 << 10));
        assert_eq!(rate("512k"), Ok(512));
        assert_eq!(rate("1G"), Ok(1 << 20));
        assert_eq!(rate("100"), Ok(100));
        for wrong in ["31", "2G", "x", "", "-1", "1.5M"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for (seconds, shown) in [(0.2, "1 s"), (40.4, "40 s"), (700.0, "12 min"), (12_600.0, "3.5 h")] {
            assert_eq!(time(seconds), shown);
        }
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10min"), Ok(Duration::from_secs(600)));
        assert!(duration("soon").is_err() && duration("").is_err() && duration("5 days").is_err());
    }
}
