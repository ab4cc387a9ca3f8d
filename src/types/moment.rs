use std::fmt;

/// A moment in UTC with microseconds, PostgreSQL's own resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub jiff::Timestamp);

/// Why a text names no single moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// Not a time at all, or a day that no calendar has.
    #[error("\"{0}\" is not a moment")]
    Invalid(String),
    /// Nothing says which zone is meant.
    #[error("\"{0}\" has no time zone: add +00, another offset, or a name such as Europe/Berlin")]
    NoZone(String),
    /// The clock was set back or forth then: two moments have this name, or none.
    #[error(
        "\"{0}\" names two moments or none, because the clock is changed then: give an offset such as +01"
    )]
    Ambiguous(String),
}

impl Moment {
    /// Reads a moment as PostgreSQL writes it, as RFC 3339, or with an IANA zone behind a blank. `zone` is
    /// for texts that name none.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, MomentError> {
        let text = text.trim();
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(moment));
        }
        let invalid = || MomentError::Invalid(text.to_owned());
        let (civil, zone) = match text.rsplit_once(' ') {
            Some((head, tail)) if tail.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (head.trim(), Some(tail))
            }
            Some((head, tail)) if tail.starts_with(['+', '-']) => {
                return format!("{}{tail}", head.trim()).parse().map(Self).map_err(|_| invalid());
            }
            _ => (text, zone),
        };
        let civil: jiff::civil::DateTime = civil.parse().map_err(|_| invalid())?;
        let zone = zone.ok_or_else(|| MomentError::NoZone(text.to_owned()))?;
        let zone = jiff::tz::TimeZone::get(zone).map_err(|_| invalid())?;
        let moment = zone.to_ambiguous_zoned(civil).unambiguous();
        moment.map(|z| Self(z.timestamp())).map_err(|_| MomentError::Ambiguous(text.to_owned()))
    }

    /// PostgreSQL's microseconds since 2000-01-01 UTC, as in commit records and on the wire.
    pub fn from_postgres_micros(micros: i64) -> Option<Self> {
        const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
        jiff::Timestamp::from_microsecond(micros.checked_add(POSTGRES_EPOCH)?).ok().map(Self)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%d %H:%M:%S.%6f+00"))
    }
}

impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_postgresql_writes_it_and_with_a_zone() {
        let expected = Moment::parse("2026-04-07T15:22:59Z", None).unwrap();
        for text in ["2026-04-07 15:22:59+00", "2026-04-07 17:22:59 Europe/Berlin", "2026-04-07 17:22:59 +02"]
        {
            assert_eq!(Moment::parse(text, None), Ok(expected), "{text}");
        }
        assert_eq!(Moment::parse("2026-04-07 15:22:59", Some("UTC")), Ok(expected));
        assert_eq!(expected.to_string(), "2026-04-07 15:22:59.000000+00");
    }

    #[test]
    fn a_text_that_names_no_single_moment_is_refused() {
        let kind = |text: &str| Moment::parse(text, None).unwrap_err();
        assert!(matches!(kind("2026-04-07 15:22:59"), MomentError::NoZone(_)));
        assert!(matches!(kind("2026-02-30 15:22:59+00"), MomentError::Invalid(_)));
        assert!(matches!(kind("2026-03-29 02:30:00 Europe/Berlin"), MomentError::Ambiguous(_)));
        assert!(matches!(kind("2026-10-25 02:30:00 Europe/Berlin"), MomentError::Ambiguous(_)));
        assert!(matches!(kind("yesterday"), MomentError::Invalid(_)));
    }
}
