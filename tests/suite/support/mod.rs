//! What tests stand on: a directory of their own, servers, the binary.
//!
//! As root everything that belongs to the server runs as user `postgres` (a server refuses root), otherwise as ourselves.

// Each helper is there for the tests that will need it; an unused one is no mistake.
#![allow(dead_code, unused_imports)]

mod account;
mod broken_s3;
pub(crate) mod finished;
mod installation;
mod lack;
mod pitr;
mod s3;
mod server;
mod small_disk;
mod standby;
pub(crate) mod synthetic_archive;
mod test_dir;
mod vast_store;
pub(crate) mod wal_bytes;

pub(crate) use account::Account;
pub(crate) use broken_s3::{Answer, BrokenS3};
pub(crate) use finished::Finished;
pub(crate) use installation::{Installation, all_majors, distribution_major};
pub(crate) use lack::{lacking, program};
pub(crate) use pitr::{Outcome, Pitr};
pub(crate) use s3::{Kind as S3Kind, S3Server};
pub(crate) use server::{Server, ServerBuilder, StopMode};
pub(crate) use small_disk::SmallDisk;
pub(crate) use synthetic_archive::{SYSTEM, commit_time};
pub(crate) use test_dir::TestDir;
pub(crate) use vast_store::{Requests, VastStore};

/// Asks again until `done` says yes; panics with `what` after `seconds`.
#[track_caller]
pub(crate) fn wait_until(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !done() {
        assert!(std::time::Instant::now() < end, "waited {seconds} s in vain until {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
