//! `pitr`: a PostgreSQL WAL archiver and point-in-time recovery tool.
//!
//! The map of the house; imports go down only, and a test reads the sources to keep it so.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | one file per verb: arguments → options → operation → words. Alone knows clap, stdout, exit codes |
//! | [`daemon`] | the process that stays between the hooks' calls |
//! | [`operation`] | one file or folder per verb: no clap, no printing, no exit |
//! | [`plan`] | pure decisions: coverage, recovery windows, restore plans. No I/O, no clock |
//! | [`repository`] | pitr's own format: object names, cluster identity, WAL archive, backup sets |
//! | [`storage`] | named bytes, durable when `Ok`: local directory, S3, retries |
//! | [`postgres`] | a live server: conninfo, connection, replication protocol, base backup, SQL |
//! | [`codec`] | plaintext ↔ object bytes |
//! | [`pgdata`] | files inside a data directory: control file, backup label, manifest, tar, recovery settings |
//! | [`wal`] | PostgreSQL's WAL: pages, records, scan, timeline history. Pure bytes → values |
//! | [`types`] | LSN, timeline, names, sizes, moments. No I/O |
//! | [`durable`] | the only place that creates, renames or syncs a local file |

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::disallowed_methods,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod cli;
pub mod codec;
pub mod daemon;
pub mod durable;
pub mod operation;
pub mod pgdata;
pub mod plan;
pub mod postgres;
pub mod repository;
pub mod storage;
pub mod types;
pub mod wal;
