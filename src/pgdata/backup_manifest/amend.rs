//! One file's line changed, and the manifest's own sum with it: what is done to a manifest when a restore
//! has to write another file than the server sent.
//!
//! The server writes a line a file, and its sum last (`AddFileToBackupManifest`, `SendBackupManifest` in
//! PostgreSQL's backup_manifest.c).

use aws_lc_rs::digest;

/// See the module's text.
pub struct ManifestAmendment {
    start: String,
    size: usize,
    crc32c: u32,
    sum: digest::Context,
}

impl std::fmt::Debug for ManifestAmendment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestAmendment").field("start", &self.start).finish_non_exhaustive()
    }
}

impl ManifestAmendment {
    /// The file at `path` (plain ASCII) now has these bytes.
    pub fn new(path: &str, bytes: &[u8]) -> Self {
        Self {
            start: format!("{{ \"Path\": \"{path}\", "),
            size: bytes.len(),
            crc32c: crc32c::crc32c(bytes),
            sum: digest::Context::new(&digest::SHA256),
        }
    }

    /// Takes the next line, with its end, and changes it where it has to be.
    pub fn line(&mut self, line: &mut Vec<u8>) {
        if line.starts_with(b"\"Manifest-Checksum\"") {
            let sum = self.sum.clone().finish();
            let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            *line = format!("\"Manifest-Checksum\": \"{hex}\"}}\n").into_bytes();
            return;
        }
        if line.starts_with(self.start.as_bytes()) {
            let text = String::from_utf8_lossy(line);
            let modified = text.split("\"Last-Modified\": \"").nth(1).and_then(|rest| rest.split('"').next());
            let end = if text.trim_end().ends_with(',') { ",\n" } else { "\n" };
            let hex: String = self.crc32c.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let changed = format!(
                "{}\"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{hex}\" }}{end}",
                self.start,
                self.size,
                modified.unwrap_or("1970-01-01 00:00:00 GMT"),
            );
            *line = changed.into_bytes();
        }
        self.sum.update(line);
    }
}
