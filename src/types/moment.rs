use std::fmt;

/// A moment in UTC with microseconds, PostgreSQL's own resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub jiff::Timestamp);

/// Why a text names no single moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// Not a time at all, or a day that no calendar has.
    #[error("\"{text}\" is not a moment: {why}")]
    Invalid {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing says which zone is meant.
    #[error("\"{text}\" has no time zone")]
    NoZone {
        /// What was given.
        text: String,
    },
    /// A zone that is not known, or a letter word that several zones use.
    #[error("\"{zone}\" is not a time zone that is known here")]
    UnknownZone {
        /// What was given.
        zone: String,
    },
    /// The clock was set back then: this time was there twice.
    #[error(
        "\"{text}\" was there twice in {zone}, because the clock was set back: as {first} and as {second}"
    )]
    Twice {
        /// What was given.
        text: String,
        /// The zone.
        zone: String,
        /// The earlier of the two, with its offset.
        first: String,
        /// The later of the two, with its offset.
        second: String,
    },
    /// The clock was set forth then: this time was never there.
    #[error("\"{text}\" was never there in {zone}, because the clock was set forth over it")]
    Never {
        /// What was given.
        text: String,
        /// The zone.
        zone: String,
        /// What it is by the offset before, and by the one after.
        choices: [String; 2],
    },
}

impl MomentError {
    /// The question to ask whoever typed it.
    pub fn hint(&self) -> String {
        match self {
            Self::Invalid { .. } => {
                "a moment is written as 2026-04-07 15:22:59+00, as 2026-04-07T15:22:59Z, with a zone as in 2026-04-07 17:22:59 Europe/Berlin, or as \"5 minutes ago\"".to_owned()
            }
            Self::NoZone { text } => {
                format!("is \"{text}+00\" meant (UTC)? give an offset, a zone such as Europe/Berlin behind it, or --timezone")
            }
            Self::UnknownZone { .. } => {
                "give an offset such as +01, or a name such as Europe/Berlin (short names such as EST are used by several zones)".to_owned()
            }
            Self::Twice { first, second, .. } => format!("which is meant, \"{first}\" or \"{second}\"?"),
            Self::Never { choices: [one, other], .. } => format!("is \"{one}\" meant, or \"{other}\"?"),
        }
    }
}

impl Moment {
    /// Reads a moment as PostgreSQL writes it, as RFC 3339, with an IANA zone behind a blank, or as
    /// `5 minutes ago` counted from `now`. `zone` is for texts that name none.
    pub fn parse(text: &str, zone: Option<&str>, now: Self) -> Result<Self, MomentError> {
        let text = text.trim();
        if let Some(moment) = ago(text, now)? {
            return Ok(moment);
        }
        if at_second_60(text) {
            // The server takes it for the next minute's beginning, others for the second before it.
            let why = "no minute has a second 60: is :59 meant, or :00 of the next minute?".to_owned();
            return Err(MomentError::Invalid { text: text.to_owned(), why });
        }
        if let Some((head, name)) = text.strip_suffix(']').and_then(|t| t.split_once('[')) {
            return Self::annotated(text, head.trim_end(), name, now);
        }
        let (clock, zone) = match text.rsplit_once(' ') {
            Some((head, tail)) if tail.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (head.trim_end().to_owned(), Some(tail))
            }
            // An offset behind a blank, as some programs print it.
            Some((head, tail)) if tail.starts_with(['+', '-']) => {
                (format!("{}{tail}", head.trim_end()), zone)
            }
            _ => (text.to_owned(), zone),
        };
        let invalid = |e: jiff::Error| MomentError::Invalid { text: text.to_owned(), why: e.to_string() };
        let named_zone = text.len() > clock.len() && zone.is_some();
        let pieces = match clock.parse::<jiff::Timestamp>() {
            Ok(moment) if !named_zone => return Ok(Self::to_micros(moment)),
            Ok(_) => {
                let why = "it has both an offset and a zone".to_owned();
                return Err(MomentError::Invalid { text: text.to_owned(), why });
            }
            Err(_) => clock,
        };
        if has_offset(&pieces) {
            // It would have been read above: this asks for the reason.
            return pieces.parse::<jiff::Timestamp>().map(Self::to_micros).map_err(invalid);
        }
        let civil: jiff::civil::DateTime = pieces.parse().map_err(invalid)?;
        let zone = zone.ok_or_else(|| MomentError::NoZone { text: text.to_owned() })?;
        let known = zone_named(zone).ok_or_else(|| MomentError::UnknownZone { zone: zone.to_owned() })?;
        let ambiguous = known.to_ambiguous_zoned(civil);
        let with = |offset: jiff::tz::Offset| offset.to_timestamp(civil).map(|t| (t, offset));
        match ambiguous.offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset } => {
                with(offset).map(|(t, _)| Self::to_micros(t)).map_err(invalid)
            }
            jiff::tz::AmbiguousOffset::Fold { before, after } => Err(MomentError::Twice {
                text: text.to_owned(),
                zone: zone.to_owned(),
                first: format!("{}{}", spelled(civil), short(before)),
                second: format!("{}{}", spelled(civil), short(after)),
            }),
            jiff::tz::AmbiguousOffset::Gap { before, after } => {
                // By the old offset it is an hour later on the new clock, by the new one an hour earlier.
                let choice = |by: jiff::tz::Offset, shown: jiff::tz::Offset| {
                    with(by).map(|(t, _)| format!("{}{}", spelled(shown.to_datetime(t)), short(shown)))
                };
                Err(MomentError::Never {
                    text: text.to_owned(),
                    zone: zone.to_owned(),
                    choices: [
                        choice(after, before).map_err(invalid)?,
                        choice(before, after).map_err(invalid)?,
                    ],
                })
            }
        }
    }

    /// With its zone in brackets, as RFC 9557 has it: an offset beside it must be that zone's.
    fn annotated(text: &str, head: &str, name: &str, now: Self) -> Result<Self, MomentError> {
        if zone_named(name).is_none() {
            return Err(MomentError::UnknownZone { zone: name.to_owned() });
        }
        let invalid = |why: String| MomentError::Invalid { text: text.to_owned(), why };
        if has_offset(head) {
            let zoned = text.parse::<jiff::Zoned>().map_err(|e| invalid(e.to_string()))?;
            return Ok(Self::to_micros(zoned.timestamp()));
        }
        if head.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'T' | 't')) {
            return Err(invalid("it has a zone twice".to_owned()));
        }
        Self::parse(head, Some(name), now)
    }

    /// Cut to microseconds: what the server is told, and what its commits carry.
    fn to_micros(moment: jiff::Timestamp) -> Self {
        Self(jiff::Timestamp::from_microsecond(moment.as_microsecond()).unwrap_or(moment))
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

/// Whether a text that begins with a date names the second 60, as `15:22:60` or `152260`.
fn at_second_60(text: &str) -> bool {
    let Some((_, behind)) = text.split_once([' ', 'T', 't']) else { return false };
    let end = behind.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(behind.len());
    let digits = behind.get(..end).unwrap_or_default().replace(':', "");
    digits.len() == 6 && digits.ends_with("60")
}

/// Whether a text that begins with a date ends in `Z` or an offset.
fn has_offset(text: &str) -> bool {
    let behind_date = text.get(10..).unwrap_or_default();
    behind_date.ends_with(['Z', 'z']) || behind_date.contains(['+', '-'])
}

/// A zone by its IANA name. Short words in capitals stand for several zones (EST, CST, IST), and the data
/// base knows some of them as something else than what is meant.
fn zone_named(name: &str) -> Option<jiff::tz::TimeZone> {
    if matches!(name, "UTC" | "utc" | "Z" | "z" | "GMT") {
        return Some(jiff::tz::TimeZone::UTC);
    }
    let abbreviation = name.len() <= 5 && name.bytes().all(|b| b.is_ascii_uppercase());
    (!abbreviation).then(|| jiff::tz::TimeZone::get(name).ok()).flatten()
}

/// `5 minutes ago`; `None` where the text is something else.
fn ago(text: &str, now: Moment) -> Result<Option<Moment>, MomentError> {
    let lower = text.to_ascii_lowercase();
    if lower == "now" {
        return Ok(Some(Moment::to_micros(now.0)));
    }
    let Some(span) = lower.strip_suffix(" ago") else { return Ok(None) };
    let invalid = |why: &str| MomentError::Invalid { text: text.to_owned(), why: why.to_owned() };
    let mut seconds: i64 = 0;
    let words: Vec<&str> = span.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(invalid("expected a number and a unit before \"ago\""));
    }
    for pair in words.chunks(2) {
        let [count, unit] = pair else { continue };
        let count: i64 = match *count {
            "a" | "an" => 1,
            digits => digits.parse().ok().filter(|n| *n >= 0).ok_or_else(|| invalid("not a number"))?,
        };
        let unit = match unit.strip_suffix('s').unwrap_or(unit) {
            "" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            "d" | "day" => 86_400,
            "w" | "week" => 7 * 86_400,
            _ => return Err(invalid("the unit must be seconds, minutes, hours, days or weeks")),
        };
        let more = count.checked_mul(unit).ok_or_else(|| invalid("too long ago"))?;
        seconds = seconds.checked_add(more).ok_or_else(|| invalid("too long ago"))?;
    }
    let past = now.0.checked_sub(jiff::SignedDuration::from_secs(seconds));
    past.map(|moment| Some(Moment::to_micros(moment))).map_err(|_| invalid("too long ago"))
}

/// As PostgreSQL writes it.
fn spelled(civil: jiff::civil::DateTime) -> String {
    civil.to_string().replace('T', " ")
}

/// `+02`, `-03:30`.
fn short(offset: jiff::tz::Offset) -> String {
    let (sign, all) = (if offset.is_negative() { '-' } else { '+' }, offset.seconds().unsigned_abs());
    match (all / 3600, all % 3600 / 60) {
        (hours, 0) => format!("{sign}{hours:02}"),
        (hours, minutes) => format!("{sign}{hours:02}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Moment {
        Moment("2026-04-07T15:27:59Z".parse().unwrap())
    }

    fn parse(text: &str) -> Result<Moment, MomentError> {
        Moment::parse(text, None, now())
    }

    #[test]
    fn a_moment_is_read_as_postgresql_writes_it_and_with_a_zone() {
        let expected = Moment("2026-04-07T15:22:59Z".parse().unwrap());
        for text in [
            "2026-04-07T15:22:59Z",
            "2026-04-07t15:22:59z",
            "2026-04-07 15:22:59Z",
            "2026-04-07 15:22:59+00",
            "2026-04-07 15:22:59.000+00",
            "2026-04-07 20:52:59+05:30",
            "2026-04-07 12:22:59-03",
            "2026-04-07 17:22:59 Europe/Berlin",
            "2026-04-07T17:22:59 Europe/Berlin",
            "2026-04-07 17:22:59 +02",
            "2026-04-07 17:22:59 +0200",
            "2026-04-07 15:22:59 UTC",
            "5 minutes ago",
            "5 min ago",
            "300 seconds ago",
            "0 hours 5 minutes ago",
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        assert_eq!(Moment::parse("2026-04-07 15:22:59", Some("UTC"), now()), Ok(expected));
        assert_eq!(Moment::parse("2026-04-07T17:22:59", Some("Europe/Berlin"), now()), Ok(expected));
        // What the text says counts for more than what is configured.
        assert_eq!(Moment::parse("2026-04-07 15:22:59+00", Some("Europe/Berlin"), now()), Ok(expected));
        assert_eq!(expected.to_string(), "2026-04-07 15:22:59.000000+00");
        assert_eq!(
            parse("2026-04-07 15:22:59.1234567+00").unwrap().to_string(),
            "2026-04-07 15:22:59.123456+00"
        );
    }

    #[test]
    fn a_text_that_names_no_single_moment_is_refused() {
        let kind = |text: &str| parse(text).unwrap_err();
        for text in [
            "2026-02-30 15:22:59+00",
            "2026-02-30 15:22:59 Europe/Berlin",
            "2026-02-29 15:22:59Z",
            "2026-04-07 25:00:00+00",
            "yesterday",
            "",
            "minutes ago",
            "5 fortnights ago",
            "-5 minutes ago",
            "99999999999999 weeks ago",
            "2026-04-07 15:22:59+00 Europe/Berlin",
        ] {
            assert!(matches!(kind(text), MomentError::Invalid { .. }), "{text}: {:?}", kind(text));
        }
        let none = kind("2026-04-07 15:22:59");
        assert!(matches!(none, MomentError::NoZone { .. }));
        assert!(none.hint().contains("--timezone") && none.hint().contains("\"2026-04-07 15:22:59+00\""));
        assert!(matches!(kind("2026-04-07"), MomentError::NoZone { .. }));
        for zone in ["EST", "CEST", "Europe/Atlantis"] {
            let text = format!("2026-04-07 15:22:59 {zone}");
            assert!(matches!(kind(&text), MomentError::UnknownZone { .. }), "{text}");
        }
    }

    #[test]
    fn a_second_60_is_refused_because_it_is_read_in_two_ways() {
        for text in [
            "2026-04-07T15:22:60Z",
            "2026-04-07 15:22:60+00",
            "2026-04-07 15:22:60.5 UTC",
            "20260407T152260Z",
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains("second 60"), "{text}: {said}");
        }
        for text in ["2026-04-07T15:60:00Z", "2026-04-07 15:22:61+00"] {
            assert!(matches!(parse(text), Err(MomentError::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn a_zone_in_brackets_must_agree_with_the_offset_beside_it() {
        let expected = parse("2026-04-07 15:22:59+00").unwrap();
        for text in [
            "2026-04-07T17:22:59+02:00[Europe/Berlin]",
            "2026-04-07 17:22:59+02[Europe/Berlin]",
            "2026-04-07 17:22:59[Europe/Berlin]",
            "2026-04-07T17:22:59[Europe/Berlin]",
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        // The zone in the text counts for more than what is configured.
        assert_eq!(Moment::parse("2026-04-07 17:22:59[Europe/Berlin]", Some("UTC"), now()), Ok(expected));
        for text in [
            "2026-04-07 10:04:57+05[Europe/Berlin]",
            "2026-04-07T10:04:57+01:00[Europe/Berlin]",
            "2026-04-07 10:04:57 UTC[Europe/Berlin]",
        ] {
            assert!(matches!(parse(text), Err(MomentError::Invalid { .. })), "{text}: {:?}", parse(text));
        }
        let unknown = parse("2026-04-07 10:04:57+02[Europe/Atlantis]").unwrap_err();
        assert!(matches!(unknown, MomentError::UnknownZone { .. }));
        assert!(matches!(parse("2026-10-25 02:30:00[Europe/Berlin]"), Err(MomentError::Twice { .. })));
    }

    #[test]
    fn an_hour_that_was_never_there_or_twice_is_refused_with_the_choices() {
        let never = parse("2026-03-29 02:30:00 Europe/Berlin").unwrap_err();
        assert_eq!(never.hint(), "is \"2026-03-29 01:30:00+01\" meant, or \"2026-03-29 03:30:00+02\"?");
        let twice = parse("2026-10-25 02:30:00 Europe/Berlin").unwrap_err();
        let MomentError::Twice { first, second, .. } = &twice else { panic!("{twice:?}") };
        assert_eq!((first.as_str(), second.as_str()), ("2026-10-25 02:30:00+02", "2026-10-25 02:30:00+01"));
        // Each choice is a moment, and they are in order.
        assert!(parse(first).unwrap() < parse(second).unwrap());
        for choice in ["2026-03-29 01:30:00+01", "2026-03-29 03:30:00+02"] {
            parse(choice).unwrap();
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(micros in 0_i64..4_000_000_000_000_000) {
            let moment = Moment(jiff::Timestamp::from_microsecond(micros).unwrap());
            prop_assert_eq!(Moment::parse(&moment.to_string(), None, now()), Ok(moment));
            let json = serde_json::to_string(&moment).unwrap();
            prop_assert_eq!(Moment::parse(json.trim_matches('"'), None, now()), Ok(moment));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", zone in proptest::option::of("[A-Za-z/]{0,12}")) {
            drop(Moment::parse(&text, zone.as_deref(), now()));
            drop(Moment::parse(&format!("2026-04-07 {text}"), zone.as_deref(), now()));
        }
    }
}
