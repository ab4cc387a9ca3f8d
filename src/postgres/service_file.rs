//! `pg_service.conf`: named sets of connection parameters.

use std::path::PathBuf;

use super::ConnInfoError;

/// The settings of a service, in the order of the file. Looks where libpq looks: the file that was named,
/// or `~/.pg_service.conf`; then `pg_service.conf` in `PGSYSCONFDIR`.
pub(super) fn read(
    service: &str,
    file: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, ConnInfoError> {
    let own = file
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf")));
    let system = env("PGSYSCONFDIR").map(|dir| PathBuf::from(dir).join("pg_service.conf"));
    for (path, must_exist) in own.map(|p| (p, file.is_some())).into_iter().chain(system.map(|p| (p, false))) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => continue,
            Err(source) => return Err(ConnInfoError::File { path: path.display().to_string(), source }),
        };
        if let Some(found) = section(&text, service, &path.display().to_string())? {
            return Ok(found);
        }
    }
    Err(ConnInfoError::NoService(service.to_owned()))
}

fn section(text: &str, service: &str, path: &str) -> Result<Option<Vec<(String, String)>>, ConnInfoError> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            if found.is_some() {
                return Ok(found);
            }
            if name == service {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(settings) = &mut found else { continue };
        let bad = || ConnInfoError::ServiceSyntax { path: path.to_owned(), line: number + 1 };
        let (key, value) = line.split_once('=').ok_or_else(bad)?;
        // A service that names another one is refused by libpq too.
        if key == "service" || key.starts_with("ldap") {
            return Err(bad());
        }
        settings.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_section_is_read() {
        let text = "# c\n[a]\nhost=one\n\n[b]\nhost=two\nport = 5\n[c]\nhost=three\n";
        let found = section(text, "b", "x").unwrap().unwrap();
        assert_eq!(found, [("host".into(), "two".into()), ("port".into(), "5".into())]);
        assert_eq!(section(text, "d", "x").unwrap(), None);
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused_with_its_number() {
        let error = section("[a]\nhost one\n", "a", "/etc/f").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the service file /etc/f cannot be read");
    }
}
