//! One file or folder for each verb: no clap, no printing, no exit. Everything comes as an argument:
//! repository, options, clock, monitor.

pub mod archive_get;
pub mod archive_push;
pub mod backup;
pub mod check;
pub mod data_directory;
pub mod events;
mod in_full;
pub mod restore;
pub mod seal;
pub mod verify;
