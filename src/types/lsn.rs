use std::fmt;
use std::str::FromStr;

use super::ParseError;

/// A log sequence number: a byte position in the WAL.
///
/// Printed as every server accepts it (`0/3000028`), read with any number of digits: from major 19 on
/// the low half is padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`, which no record can have.
    pub const INVALID: Self = Self(0);

    /// 16 hex digits, so that names sort by position.
    pub fn to_hex16(self) -> String {
        format!("{:016X}", self.0)
    }

    /// Reads what [`Lsn::to_hex16`] wrote.
    pub fn from_hex16(text: &str) -> Result<Self, ParseError> {
        let ok = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        if !ok {
            return Err(ParseError::new(text, "an LSN of 16 hex digits"));
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseError::new(text, "an LSN of 16 hex digits"))
    }

    /// The position `bytes` further on; saturates at the end of the number range.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || ParseError::new(text, "an LSN such as 0/3000028");
        let (high, low) = text.split_once('/').ok_or_else(err)?;
        let part = |s: &str| {
            if s.is_empty() || s.len() > 8 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(err());
            }
            u64::from_str_radix(s, 16).map_err(|_| err())
        };
        Ok(Self((part(high)? << 32) | part(low)?))
    }
}

impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
