//! Small objects that were read before, so that reading them again can be the question whether they have changed.
//!
//! A repository's identity is read for every segment. "Not modified" is an answer without a body: from a Ceph radosgw
//! it takes 2 ms, and the few bytes themselves, which the kernel holds back until the head of the answer was
//! acknowledged, 44 ms. A server that knows no conditions sends the object as ever.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Larger objects are read as ever.
const LARGEST: usize = 16 << 10;

/// How many are kept: those of a repository that every segment needs are three.
const MOST: usize = 8;

/// An object as it was last read.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// The server's name for exactly these bytes.
    pub(super) etag: String,
    pub(super) bytes: Bytes,
}

/// By name, the one read last at the end.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<VecDeque<(String, Version)>>);

impl Known {
    pub(super) fn find(&self, name: &str) -> Option<Version> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(of, _)| of == name).map(|(_, version)| version.clone())
    }

    /// Keeps what was read, or that nothing was there. A weak tag stands for more than one content.
    pub(super) fn keep(&self, name: &str, read: Option<Version>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, _)| of != name);
        let fits = |version: &Version| {
            version.bytes.len() <= LARGEST && !version.etag.is_empty() && !version.etag.starts_with("W/")
        };
        if let Some(version) = read.filter(fits) {
            known.push_back((name.to_owned(), version));
            if known.len() > MOST {
                known.pop_front();
            }
        }
    }
}
