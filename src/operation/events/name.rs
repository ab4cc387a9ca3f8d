//! Names of relations as SQL writes them: `schema.name`, quoted where SQL needs it.

use std::fmt;
use std::str::FromStr;

use crate::repository::backup_set::catalogue::Name;
use crate::types::ParseError;

/// A relation as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    schema: Option<Word>,
    name: Word,
}

/// A word as it was typed: without quotes, SQL reads it in lower case; an operator may have meant it literally.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    fn fits(&self, name: &Name) -> bool {
        match name {
            Name::Text(name) => *name == self.text || (!self.quoted && *name == self.text.to_lowercase()),
            Name::Bytes { .. } => name.to_string() == self.text,
        }
    }
}

impl TableName {
    /// Whether it names this relation; without a schema, in any.
    pub fn fits(&self, schema: &Name, name: &Name) -> bool {
        self.name.fits(name) && self.schema.as_ref().is_none_or(|word| word.fits(schema))
    }
}

impl FromStr for TableName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err =
            || ParseError::new(text, "a table, as orders, public.orders or \"Some schema\".\"Some table\"");
        let (first, rest) = word(text).ok_or_else(err)?;
        match rest.strip_prefix('.').map(word) {
            Some(Some((name, ""))) => Ok(Self { schema: Some(first), name }),
            None if rest.is_empty() => Ok(Self { schema: None, name: first }),
            _ => Err(err()),
        }
    }
}

/// One word, and what is behind it.
fn word(text: &str) -> Option<(Word, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (!word.is_empty()).then(|| (Word { text: word.to_owned(), quoted: false }, rest));
    };
    let mut content = String::new();
    let mut rest = quoted;
    loop {
        let (before, behind) = rest.split_once('"')?;
        content.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                content.push('"');
                rest = more;
            }
            None if content.is_empty() => return None,
            None => return Some((Word { text: content, quoted: true }, behind)),
        }
    }
}

/// A name as SQL would have to write it. Keywords are not known here: they stay as they are.
#[derive(Debug)]
pub(super) struct Quoted<'a>(pub(super) &'a Name);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name::Text(text) = self.0 else { return write!(f, "{}", self.0) };
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'$');
        if first && text.bytes().all(plain) {
            return f.write_str(text);
        }
        f.write_str("\"")?;
        for c in text.chars() {
            match c {
                '"' => f.write_str("\"\"")?,
                // A line is an event, and a terminal must not be told what to do.
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> Name {
        Name::Text(name.to_owned())
    }

    #[test]
    fn a_table_is_named_as_in_sql() {
        let fits = |typed: &str, schema: &str, name: &str| {
            typed.parse::<TableName>().unwrap().fits(&text(schema), &text(name))
        };
        assert!(fits("orders", "public", "orders") && fits("orders", "shop", "orders"));
        assert!(fits("shop.orders", "shop", "orders") && !fits("shop.orders", "public", "orders"));
        assert!(fits("Orders", "public", "orders") && fits("Orders", "public", "Orders"));
        assert!(!fits("\"Orders\"", "public", "orders") && fits("\"Orders\"", "public", "Orders"));
        assert!(fits("\"a.b\".\"c\"\"d\"", "a.b", "c\"d"));
        for wrong in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"\"", "a\"b\"", "\"a\"b"] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shown_name_can_be_typed_again() {
        for name in ["orders", "Orders", "über", "a b", "c\"d", "1a", "a$1"] {
            let shown = Quoted(&text(name)).to_string();
            let typed: TableName = shown.parse().unwrap();
            assert!(typed.fits(&text("x"), &text(name)), "{shown}");
        }
        assert_eq!(Quoted(&text("a\u{1b}[2J\nb")).to_string(), "\"a\\u{1b}[2J\\nb\"");
        assert_eq!(Quoted(&Name::from(&b"caf\xe9"[..])).to_string(), "\\x636166e9");
    }
}
