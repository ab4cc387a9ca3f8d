//! Every key there is: its place in the file, its variable, and what may stand there.
//!
//! One table, so that the file, the environment and the answer to a mistyped key cannot drift apart. No
//! message repeats a value of [`Kind::Secret`].

/// What a key's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// Text that may hold a password.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Number(i64, i64),
}

impl Kind {
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text in quotes".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(from, to) => format!("a whole number from {from} to {to}"),
        }
    }

    /// As [`Kind::expected`], for a variable: quotes are the shell's business there.
    pub(super) fn expected_bare(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".to_owned(),
            other => other.expected(),
        }
    }

    /// Reads the text of a variable.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        match self {
            Self::Text | Self::Secret => Some(Value::Text(text.to_owned())),
            Self::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" | "1" => Some(Value::Flag(true)),
                "false" | "off" | "no" | "0" => Some(Value::Flag(false)),
                _ => None,
            },
            Self::Number(from, to) => {
                text.parse().ok().filter(|n| (from..=to).contains(n)).map(Value::Number)
            }
        }
    }
}

/// A value that has the kind its key asks for.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// `""` for the top level.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

const fn key(section: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { section, name, kind }
}

/// A day: a budget above it is a mistake.
const SECONDS: Kind = Kind::Number(0, 86_400);

/// What waits in a spool or in `pg_wal` at once: 16 GiB of ordinary segments are more than any link needs.
const SEGMENTS: Kind = Kind::Number(0, 1024);

pub(super) const KEYS: &[Key] = &[
    key("", "cluster", Kind::Text),
    key("", "timezone", Kind::Text),
    key("repository", "url", Kind::Text),
    key("repository", "endpoint", Kind::Text),
    key("repository", "region", Kind::Text),
    key("repository", "path-style", Kind::Flag),
    key("repository", "profile", Kind::Text),
    key("repository", "ca-file", Kind::Text),
    key("postgres", "conninfo", Kind::Secret),
    key("postgres", "primary-conninfo", Kind::Secret),
    key("archive", "compression-level", Kind::Number(-7, 19)),
    key("archive", "strict", Kind::Flag),
    key("archive", "spool", Kind::Text),
    key("archive", "push-retry", SECONDS),
    key("archive", "get-retry", SECONDS),
    key("archive", "read-ahead", SEGMENTS),
    key("archive", "prefetch", SEGMENTS),
];

/// The sections, as `[section]` (`[[repository]]` for the first).
pub(super) const SECTIONS: &[&str] = &["repository", "postgres", "archive"];

impl Key {
    pub(super) fn find(section: &str, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    /// `archive.spool`
    pub(super) fn shown(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// `PITR_ARCHIVE_SPOOL`; the one repository's URL has the short name `PITR_REPOSITORY`.
    pub(super) fn variable(&self) -> String {
        let section = match (self.section, self.name) {
            ("", _) => String::new(),
            ("repository", "url") => return "PITR_REPOSITORY".to_owned(),
            (section, _) => format!("{section}_"),
        };
        format!("PITR_{section}{}", self.name).replace('-', "_").to_ascii_uppercase()
    }
}

/// What is wrong with a key that is not there, and which one may be meant.
pub(super) fn unknown(section: &str, name: &str) -> String {
    let place = match section {
        "" => "at the top level".to_owned(),
        "repository" => "in [[repository]]".to_owned(),
        section => format!("in [{section}]"),
    };
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    let names = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let names: Vec<&str> =
        if section.is_empty() { names.chain(SECTIONS.iter().copied()).collect() } else { names.collect() };
    let advice = match (elsewhere, nearest(name, &names)) {
        (Some(key), _) if key.section.is_empty() => format!("\"{name}\" belongs above the first section"),
        (Some(key), _) => format!("\"{name}\" belongs into [{}]", key.section),
        (None, Some(near)) => format!("did you mean \"{near}\"?"),
        (None, None) => format!("there are: {}", names.join(", ")),
    };
    format!("there is no key \"{name}\" {place}; {advice}")
}

/// What is wrong with a section that is not there.
pub(super) fn unknown_section(name: &str) -> String {
    match nearest(name, SECTIONS) {
        Some(near) => format!("there is no section [{name}]; did you mean [{near}]?"),
        None => format!("there is no section [{name}]; there are: {}", SECTIONS.join(", ")),
    }
}

/// The name that is a slip of the finger away, if one is.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let loose = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = loose(name);
    names
        .iter()
        .map(|known| (distance(&wanted, &loose(known)), *known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let mut variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        assert!(variables.contains(&"PITR_ARCHIVE_SPOOL".to_owned()));
        assert!(variables.contains(&"PITR_REPOSITORY".to_owned()));
        assert!(variables.contains(&"PITR_REPOSITORY_CA_FILE".to_owned()));
        assert!(variables.contains(&"PITR_CLUSTER".to_owned()));
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), KEYS.len());
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        for (section, wrong, right) in [
            ("archive", "spol", "did you mean \"spool\"?"),
            ("archive", "compresion_level", "did you mean \"compression-level\"?"),
            ("archive", "psuh-retry", "did you mean \"push-retry\"?"),
            ("repository", "endpiont", "did you mean \"endpoint\"?"),
            ("repository", "spool", "\"spool\" belongs into [archive]"),
            ("postgres", "timezone", "\"timezone\" belongs above the first section"),
            ("", "clustre", "did you mean \"cluster\"?"),
            ("", "repositroy", "did you mean \"repository\"?"),
            ("postgres", "zzz", "there are: conninfo, primary-conninfo"),
        ] {
            let text = unknown(section, wrong);
            assert!(text.contains(right), "{text}");
        }
        assert!(unknown_section("postgress").contains("did you mean [postgres]?"));
        assert!(unknown_section("expiry").contains("there are: repository, postgres, archive"));
    }
}
