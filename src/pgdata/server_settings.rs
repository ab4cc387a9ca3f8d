//! What `postgresql.conf` and `postgresql.auto.conf` set, as far as a file alone can tell: what it includes
//! is not looked at.

use std::collections::BTreeMap;

/// The last value of each name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSettings {
    values: BTreeMap<String, String>,
}

impl ServerSettings {
    /// Reads one file; a later one wins.
    pub fn read(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim_start();
            let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')));
            let (name, rest) = line.split_at(end.unwrap_or(line.len()));
            if name.is_empty() {
                continue;
            }
            let rest = rest.trim_start();
            let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
            self.values.insert(name.to_ascii_lowercase(), value(rest));
        }
    }

    /// A setting's text, unquoted.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A whole number; `None` where it is not set or not one.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)?.trim().parse().ok()
    }
}

/// Up to the end of a quoted text, or up to a blank or a comment.
fn value(rest: &str) -> String {
    let Some(quoted) = rest.strip_prefix('\'') else {
        return rest.split(|c: char| c.is_whitespace() || c == '#').next().unwrap_or_default().to_owned();
    };
    let (mut text, mut chars) = (String::new(), quoted.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => text.extend(chars.next()),
            '\'' => break,
            '\\' => text.extend(chars.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_whatever_its_form() {
        let mut settings = ServerSettings::default();
        settings.read("max_connections = 100 # more\n#max_connections = 1\nMAX_Connections 200\nx='it''s'\n");
        assert_eq!(settings.integer("max_connections"), Some(200));
        assert_eq!(settings.get("x"), Some("it's"));
        settings.read("max_connections='300'\n");
        assert_eq!(settings.integer("max_connections"), Some(300));
    }
}
