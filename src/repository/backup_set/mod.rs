//! A backup as objects: `started.json` first, parts, index and manifest, `backup.json` last.

pub mod format;
