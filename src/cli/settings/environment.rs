//! The variables: `PITR_REPOSITORY` and `PITR_<SECTION>_<KEY>`, each looked up in the table of keys.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{anyhow, bail};

use super::file::Section;
use super::keys::{self, KEYS, Key, SECTIONS};

/// Variables that are no keys: they say where the keys are.
const OTHERS: &[&str] = &["PITR_CONFIG"];

/// What the environment says, by section.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) sections: BTreeMap<&'static str, Section>,
}

/// Reads the variables. An empty one counts as not set, as shells and unit files leave them behind.
pub(super) fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> anyhow::Result<Environment> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("PITR_")) else { continue };
        if value.is_empty() || OTHERS.contains(&name) {
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            if let Some(problem) = unknown(name) {
                bail!("{problem}");
            }
            continue;
        };
        let value = value.to_str().and_then(|text| key.kind.read(text));
        // Never with the value: it may be a password.
        let value = value.ok_or_else(|| anyhow!("{name} must be {}", key.kind.expected_bare()))?;
        environment.sections.entry(key.section).or_default().insert(key.name, value);
    }
    Ok(environment)
}

/// A variable of ours that sets nothing. Others may have theirs under the same prefix (Kubernetes writes
/// `PITR_SERVICE_HOST` where a service is called pitr), so that only what lies in one of our sections, or
/// next to one of our names, is taken for a slip of the finger.
fn unknown(name: &str) -> Option<String> {
    let variables: Vec<String> =
        KEYS.iter().map(Key::variable).chain(OTHERS.iter().map(|name| (*name).to_owned())).collect();
    let rest: Vec<&str> = variables.iter().filter_map(|known| known.strip_prefix("PITR_")).collect();
    let said = name.strip_prefix("PITR_")?;
    if let Some(near) = keys::nearest(said, &rest) {
        return Some(format!("there is no variable {name}; did you mean PITR_{near}?"));
    }
    let section =
        SECTIONS.iter().find(|section| said.starts_with(&format!("{}_", section.to_ascii_uppercase())))?;
    let known: Vec<String> = KEYS.iter().filter(|key| key.section == *section).map(Key::variable).collect();
    Some(format!("there is no variable {name}; there are: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::keys::Value;
    use super::*;

    fn of(variables: &[(&str, &str)]) -> anyhow::Result<Environment> {
        read(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn every_key_can_be_set_by_its_variable() {
        for key in KEYS {
            let text = match key.kind {
                keys::Kind::Flag => "on".to_owned(),
                keys::Kind::Number(from, _) => from.to_string(),
                keys::Kind::Text | keys::Kind::Secret => "x".to_owned(),
            };
            let variable = key.variable();
            let found = of(&[(&variable, &text)]).unwrap();
            assert!(found.sections[key.section].contains_key(key.name), "{variable}");
        }
        let found = of(&[("PITR_ARCHIVE_STRICT", "off"), ("PITR_ARCHIVE_SPOOL", ""), ("HOME", "/")]).unwrap();
        assert!(found.sections["archive"]["strict"] == Value::Flag(false));
        assert_eq!(found.sections["archive"].len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_what_is_somebody_elses_is_left_alone() {
        for (name, words) in [
            ("PITR_REPOSITROY", "did you mean PITR_REPOSITORY?"),
            ("PITR_CLUSTRE", "did you mean PITR_CLUSTER?"),
            ("PITR_CONFG", "did you mean PITR_CONFIG?"),
            ("PITR_ARCHIVE_SPOL", "did you mean PITR_ARCHIVE_SPOOL?"),
            ("PITR_ARCHIVE_TIMEOUT", "PITR_ARCHIVE_PUSH_RETRY"),
        ] {
            let said = of(&[(name, "hunter2")]).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(words) && !said.contains("hunter2"), "{name}: {said}");
        }
        for name in ["PITR_SERVICE_HOST", "PITR_PORT_5432_TCP", "PITR_TEST_MAJORS", "PITR"] {
            assert!(of(&[(name, "x")]).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_and_not_repeated() {
        for (name, words) in [
            ("PITR_ARCHIVE_STRICT", "must be true or false"),
            ("PITR_ARCHIVE_GET_RETRY", "must be a whole number from 0 to 86400"),
            ("PITR_ARCHIVE_COMPRESSION_LEVEL", "must be a whole number from -7 to 19"),
        ] {
            let said = of(&[(name, "hunter2")]).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.starts_with(name) && said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }
}
