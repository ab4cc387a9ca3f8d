//! The configuration file: TOML, each key looked up in the table of keys, each complaint with its line.
//!
//! The TOML library's own complaints quote the line they are about, and the line may hold a password: only
//! their words are taken, and a wrong value is never repeated.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind, SECTIONS, Value};

/// The values of one section by name.
pub(super) type Section = BTreeMap<&'static str, Value>;

/// What a file says.
#[derive(Default)]
pub(super) struct File {
    /// One for each `[[repository]]`, in order.
    pub(super) repositories: Vec<Section>,
    /// Everything else, by section; `""` is the top level.
    pub(super) sections: BTreeMap<&'static str, Section>,
}

/// Reads a file; `Ok(None)` when it is proved not to be there.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<File>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read the configuration {}", path.display())),
    };
    understand(&text).with_context(|| format!("cannot use the configuration {}", path.display())).map(Some)
}

pub(super) fn understand(text: &str) -> anyhow::Result<File> {
    let line = |span: Range<usize>| text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(e) => match e.span() {
            Some(span) => bail!("line {}: {}", line(span), e.message()),
            None => bail!("{}", e.message()),
        },
    };
    let mut file = File::default();
    for (name, value) in table.get_ref() {
        let at = line(name.span());
        let name: &str = name.get_ref();
        match (SECTIONS.iter().find(|s| **s == name), value.get_ref()) {
            (Some(&"repository"), DeValue::Array(tables)) => {
                for table in tables {
                    let DeValue::Table(inner) = table.get_ref() else {
                        bail!("line {at}: \"repository\" is written as [[repository]]");
                    };
                    let section = section("repository", inner, &line)?;
                    if !section.contains_key("url") {
                        bail!("line {}: this [[repository]] has no url", line(table.span()));
                    }
                    file.repositories.push(section);
                }
            }
            (Some(&"repository"), _) => {
                bail!("line {at}: \"repository\" is written as [[repository]], with two brackets")
            }
            (Some(known), DeValue::Table(inner)) => {
                file.sections.insert(known, section(known, inner, &line)?);
            }
            (Some(known), _) => bail!("line {at}: \"{known}\" is a section: [{known}]"),
            (None, DeValue::Table(_)) => bail!("line {at}: {}", keys::unknown_section(name)),
            (None, _) => {
                let (known, value) = entry("", name, value, at)?;
                file.sections.entry("").or_default().insert(known, value);
            }
        }
    }
    Ok(file)
}

fn section(
    section: &str,
    table: &DeTable<'_>,
    line: &impl Fn(Range<usize>) -> usize,
) -> anyhow::Result<Section> {
    table.iter().map(|(name, value)| entry(section, name.get_ref(), value, line(name.span()))).collect()
}

fn entry(
    section: &str,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    line: usize,
) -> anyhow::Result<(&'static str, Value)> {
    let Some(key) = Key::find(section, name) else { bail!("line {line}: {}", keys::unknown(section, name)) };
    let read = match (key.kind, value.get_ref()) {
        (Kind::Text | Kind::Secret, DeValue::String(text)) => Some(Value::Text(text.to_string())),
        (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
        (Kind::Number(from, to), DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|n| (from..=to).contains(n))
                .map(Value::Number)
        }
        _ => None,
    };
    match read {
        Some(value) => Ok((key.name, value)),
        None => bail!(
            "line {line}: \"{}\" must be {}, and here is {}",
            key.shown(),
            key.kind.expected(),
            found(value.get_ref())
        ),
    }
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::String(_) => "a text".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
        DeValue::Float(_) => "a number with a fraction".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        understand(text).err().map(|e| format!("{e:#}")).unwrap_or_else(|| panic!("accepted: {text}"))
    }

    #[test]
    fn several_repositories_keep_their_order_and_their_own_keys() {
        let text = "cluster = 'a'\n[[repository]]\nurl = 'file:///one'\n[[repository]]\nurl = 's3://two/pre/fix'\n\
                    endpoint = 'https://h'\nregion = 'eu'\npath-style = false\nprofile = 'p'\nca-file = '/c'\n\
                    [archive]\ncompression-level = -3\n";
        let file = understand(text).unwrap();
        assert_eq!(file.repositories.len(), 2);
        assert_eq!(file.repositories[0].len(), 1);
        assert_eq!(file.repositories[1].len(), 6);
        assert!(file.repositories[1]["path-style"] == Value::Flag(false));
        assert!(file.sections["archive"]["compression-level"] == Value::Number(-3));
        assert!(file.sections[""]["cluster"] == Value::Text("a".to_owned()));
    }

    #[test]
    fn a_complaint_names_the_line_and_what_was_expected() {
        for (text, words) in [
            (
                "[archive]\n\nspol = '/x'\n",
                "line 3: there is no key \"spol\" in [archive]; did you mean \"spool\"?",
            ),
            (
                "[archive]\nstrict = 'yes'\n",
                "line 2: \"archive.strict\" must be true or false, and here is a text",
            ),
            (
                "[archive]\npush-retry = 1.5\n",
                "must be a whole number from 0 to 86400, and here is a number with a fraction",
            ),
            ("[archive]\ncompression-level = 20\n", "must be a whole number from -7 to 19, and here is 20"),
            ("cluster = 4\n", "line 1: \"cluster\" must be a text in quotes, and here is 4"),
            ("[repository]\nurl = 'x'\n", "written as [[repository]], with two brackets"),
            ("\n[[repository]]\nregion = 'x'\n", "line 2: this [[repository]] has no url"),
            ("[postgress]\n", "did you mean [postgres]?"),
            ("archive = 3\n", "\"archive\" is a section: [archive]"),
            ("[archive]\nspool = '/a'\nspool = '/b'\n", "line 3: "),
            ("[archive\n", "line 1: "),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn no_complaint_repeats_what_may_be_a_password() {
        for text in [
            "[postgres]\nconinfo = 'password=hunter2'\n",
            "[postgres]\nconninfo = ['password=hunter2']\n",
            "[postgres]\nconninfo = 'password=hunter2\n",
            "[postgres]\nconninfo = password=hunter2\n",
            "[archive]\nstrict = 'hunter2'\n",
        ] {
            assert!(!refused(text).contains("hunter2"), "{}", refused(text));
        }
    }
}
