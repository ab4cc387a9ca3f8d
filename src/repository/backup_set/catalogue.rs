//! `catalogue.zst`: what the cluster's objects were called when a backup was taken. JSON lines, one
//! [`CatalogueLine`] each; `FORMAT.md` is the normative text.

use std::fmt;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::format::{Backup, Digest};
use super::reader::{Proved, ProvedReader};
use crate::repository::{Cluster, RepositoryError};
use crate::types::Lsn;

/// What `backup.json` says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Its raw bytes; absent where there is no such object.
    #[serde(flatten)]
    pub object: Option<Digest>,
    /// Where the WAL was when the last database was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    /// How many databases were read.
    #[serde(default)]
    pub databases: u64,
    /// How many relations are in it.
    #[serde(default)]
    pub relations: u64,
    /// What could not be read, and why, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogueLine {
    /// What follows, up to the next such line, is of this database.
    Database(Database),
    /// A relation of it. One that is told twice is meant as it is told last.
    Relation(Relation),
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: Name,
    /// Where the WAL was just before its relations were read; absent where they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
}

/// A table, index, view, sequence, … of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// The number of its file (`pg_relation_filenode`); absent where it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub file: u32,
    /// The tablespace of its file, never 0; 1664 for what all databases share.
    pub tablespace: u32,
    /// Its schema.
    pub schema: Name,
    /// Its name.
    pub name: Name,
    /// `pg_class.relkind`.
    pub kind: char,
    /// The table of an index or of a TOAST table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A name: text, or the bytes of one that is no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// Nearly all of them.
    Text(String),
    /// Of a database in another encoding than it says, or in none.
    Bytes {
        /// Two digits a byte.
        hex: String,
    },
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { hex: bytes.iter().map(|b| format!("{b:02x}")).collect() },
        }
    }
}

/// Bytes are shown as `\x` and their digits, which no name that is text would be mistaken for: such a one
/// would have to begin with a backslash.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bytes { hex } => write!(f, "\\x{hex}"),
        }
    }
}

impl Cluster<'_> {
    /// A backup's catalogue, fetched and proved; `None` where it was taken without one.
    pub fn catalogue(&self, backup: &Backup) -> Result<Option<CatalogueObject>, RepositoryError> {
        let digest = backup.catalogue.as_ref().and_then(|catalogue| catalogue.object.as_ref());
        digest
            .map(|digest| self.proved(self.layout().catalogue(&backup.id), digest).map(CatalogueObject))
            .transpose()
    }
}

/// A backup's catalogue. Its lines can be read several times.
#[derive(Debug)]
pub struct CatalogueObject(Proved);

impl CatalogueObject {
    /// The lines from the start.
    pub fn lines(&self) -> Result<CatalogueLines<'_>, RepositoryError> {
        Ok(CatalogueLines { reader: self.0.reader()?, object: self.0.object(), line: Vec::new() })
    }
}

/// See [`CatalogueObject::lines`].
pub struct CatalogueLines<'a> {
    reader: ProvedReader<'a>,
    object: &'a str,
    line: Vec<u8>,
}

impl fmt::Debug for CatalogueLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogueLines").field("object", &self.object).finish_non_exhaustive()
    }
}

impl Iterator for CatalogueLines<'_> {
    type Item = Result<CatalogueLine, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => None,
            Ok(_) => {
                Some(serde_json::from_slice(&self.line).map_err(|e| RepositoryError::damaged(self.object, e)))
            }
            Err(e) => Some(Err(RepositoryError::damaged(self.object, e))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_survive_the_way_through_a_line() {
        for bytes in [&b"t"[..], b"", "täble \"x\"\n\u{7f}\u{1}".as_bytes(), b"caf\xe9", b"\xff\x00\xfe"] {
            let name = Name::from(bytes);
            let line = CatalogueLine::Database(Database { oid: 5, name, lsn: Some(Lsn(0x0300_0028)) });
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<CatalogueLine>(&text).unwrap(), line, "{text}");
        }
        assert_eq!(Name::from(&b"caf\xe9"[..]).to_string(), "\\x636166e9");
    }

    #[test]
    fn what_backup_json_says_of_a_catalogue_that_is_not_there_has_no_digest() {
        let none = Catalogue { lacking: vec!["all of it: refused".to_owned()], ..Catalogue::default() };
        let text = serde_json::to_string(&none).unwrap();
        assert_eq!(text, r#"{"databases":0,"relations":0,"lacking":["all of it: refused"]}"#);
        assert_eq!(serde_json::from_str::<Catalogue>(&text).unwrap(), none);
        let digest = Digest { size: 7, blake3: "ab".to_owned() };
        let some = Catalogue {
            object: Some(digest),
            lsn: Some(Lsn(0x10)),
            databases: 1,
            relations: 2,
            lacking: Vec::new(),
        };
        let text = serde_json::to_string(&some).unwrap();
        assert_eq!(text, r#"{"size":7,"blake3":"ab","lsn":"0/10","databases":1,"relations":2}"#);
        assert_eq!(serde_json::from_str::<Catalogue>(&text).unwrap(), some);
    }
}
