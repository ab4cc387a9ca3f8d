//! A bucket as repository, from the settings to the last byte, through the binary alone: the whole way on real stores, every
//! way to log in, and every wrong word with its error, its question, and the right number of tries.

mod bad_input;
mod login;
mod tls;
mod whole_way;

use crate::support::{Pitr, S3Server, TestDir};

/// `pitr` with a bucket as repository, reached by variables.
pub(crate) fn with_bucket(dir: &TestDir, server: &S3Server, bucket: &str) -> Pitr {
    server
        .environment()
        .into_iter()
        .fold(Pitr::new(dir), |pitr, (name, value)| pitr.env(name, value))
        .repository(format!("s3://{bucket}/prod"))
        // No test asks a cloud's metadata service who it is.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PITR_ARCHIVE_GET_RETRY", "2")
        .env("PITR_ARCHIVE_PUSH_RETRY", "2")
}

const ABSENT: &str = "0000000100000000000000FF";
