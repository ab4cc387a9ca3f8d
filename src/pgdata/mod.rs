//! The files inside a data directory, and the streams they travel in. Bytes to values and back; no I/O.

#![warn(clippy::indexing_slicing)]

pub mod backup_manifest;
pub mod control_file;
pub mod recovery_settings;
pub mod server_settings;
pub mod tablespace_map;
pub mod tar;
