//! `.pgpass`: `host:port:database:user:password`, the first line that fits wins.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a password is looked up for.
pub(super) struct Wanted<'a> {
    /// Host name as given; `localhost` for the default socket directory.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// `replication` for a replication connection.
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// The password, where the file is there, may be trusted, and has one. A file that others can read is
/// ignored with a warning, as libpq does: what it holds is no secret any more.
pub(super) fn lookup(path: &Path, wanted: &Wanted<'_>) -> io::Result<Option<String>> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    if !meta.is_file() {
        tracing::warn!("password file {} is not a plain file and is ignored", path.display());
        return Ok(None);
    }
    if meta.mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {} is ignored: others can read it; its permissions should be 0600",
            path.display()
        );
        return Ok(None);
    }
    Ok(find(&std::fs::read_to_string(path)?, wanted))
}

fn find(text: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).find_map(|line| {
        let mut rest = line.strip_suffix('\r').unwrap_or(line);
        for value in [wanted.host, &port, wanted.dbname, wanted.user] {
            let (field, tail) = field(rest)?;
            if field.raw != "*" && field.value != value {
                return None;
            }
            rest = tail?;
        }
        // The password ends at a colon as well, unless it is escaped.
        field(rest).map(|(field, _)| field.value)
    })
}

struct Field<'a> {
    raw: &'a str,
    value: String,
}

fn field(text: &str) -> Option<(Field<'_>, Option<&str>)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return Some((Field { raw: text.get(..at)?, value }, text.get(at + 1..))),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    Some((Field { raw: text, value }, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(host: &'a str, dbname: &'a str, user: &'a str) -> Wanted<'a> {
        Wanted { host, port: 5432, dbname, user }
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let text = "# comment\nh:5433:*:u:other port\nh:*:replication:u:first\n*:*:*:*:last\n";
        assert_eq!(find(text, &wanted("h", "replication", "u")).unwrap(), "first");
        assert_eq!(find(text, &wanted("h", "app", "u")).unwrap(), "last");
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let text = "fe80\\:\\:1:*:*:a\\\\b:pass\\:w\\\\ord\n";
        assert_eq!(find(text, &wanted("fe80::1", "d", "a\\b")).unwrap(), "pass:w\\ord");
    }

    #[test]
    fn an_escaped_star_is_no_wildcard_and_a_short_line_does_not_fit() {
        assert_eq!(find("\\*:*:*:*:x\n", &wanted("h", "d", "u")), None);
        assert_eq!(find("h:5432:d\n", &wanted("h", "d", "u")), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(lookup(file.path(), &wanted("h", "d", "u")).unwrap(), None);
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(lookup(file.path(), &wanted("h", "d", "u")).unwrap().unwrap(), "secret");
    }
}
