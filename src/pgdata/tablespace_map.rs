//! `tablespace_map`: from which a starting server makes the links in `pg_tblspc` anew.
//!
//! A line is an OID, a space and a path; a line feed, a carriage return or a backslash in the path has a
//! backslash before it (`do_pg_backup_start` and `read_tablespace_map` in PostgreSQL's xlog.c).

/// One line: the tablespace's OID and its directory, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapLine {
    /// The OID in decimal digits, as it names the link.
    pub oid: String,
    /// The directory.
    pub path: Vec<u8>,
}

/// A line that a server would refuse, too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tablespace_map has a line that is no \"OID path\": {0:?}")]
pub struct MapError(String);

/// Reads a map.
pub fn parse(bytes: &[u8]) -> Result<Vec<MapLine>, MapError> {
    let (mut lines, mut text, mut escaped) = (Vec::new(), Vec::new(), false);
    // The server ends its last line, too; one that it did not end is still one.
    for byte in bytes.iter().copied().chain([b'\n']) {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !text.is_empty() {
                    lines.push(line(&text)?);
                    text.clear();
                }
            }
            b'\\' if !escaped => escaped = true,
            other => {
                text.push(other);
                escaped = false;
            }
        }
    }
    Ok(lines)
}

fn line(text: &[u8]) -> Result<MapLine, MapError> {
    let bad = || MapError(String::from_utf8_lossy(text).into_owned());
    let space = text.iter().position(|b| *b == b' ').ok_or_else(bad)?;
    let (oid, path) = text.split_at_checked(space).ok_or_else(bad)?;
    let oid = std::str::from_utf8(oid).ok().filter(|o| o.parse::<u32>().is_ok()).ok_or_else(bad)?;
    let path = path.get(1..).filter(|p| !p.is_empty()).ok_or_else(bad)?;
    Ok(MapLine { oid: oid.to_owned(), path: path.to_owned() })
}

/// Writes a map.
pub fn render(lines: &[MapLine]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.oid.as_bytes());
        bytes.push(b' ');
        for byte in &line.path {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                bytes.push(b'\\');
            }
            bytes.push(*byte);
        }
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_backslashes_in_a_path_survive() {
        let lines = vec![
            MapLine { oid: "16384".to_owned(), path: b"/a b/c\\d\ne\rf".to_vec() },
            MapLine { oid: "5".to_owned(), path: b"/plain".to_vec() },
        ];
        let text = render(&lines);
        assert_eq!(text, b"16384 /a b/c\\\\d\\\ne\\\rf\n5 /plain\n");
        assert_eq!(parse(&text).unwrap(), lines);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for bad in [&b"nothing"[..], b"12 \n", b" /a\n", b"x /a\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse(b"").unwrap(), []);
    }
}
