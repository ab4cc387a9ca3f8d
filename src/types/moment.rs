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
}

impl Moment {
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
