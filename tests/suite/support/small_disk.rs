//! A file system of the test's own that can be full or read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::lacking;

/// A mounted tmpfs, gone at the end. Only root may have one.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of this size (`400k`, `2m`) on a directory that is there; everybody may write into it.
    #[track_caller]
    pub(crate) fn mount(on: impl Into<PathBuf>, size: &str) -> Self {
        let on = on.into();
        if !mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0777"), "tmpfs"], &on) {
            lacking("the right to mount a small file system (root)");
        }
        Self(on)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts it again, `ro` or with another size.
    #[track_caller]
    pub(crate) fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0), "remount,{options}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of the test may still stand in it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(arguments: &[&str], on: &Path) -> bool {
    Command::new("mount").args(arguments).arg(on).status().is_ok_and(|status| status.success())
}
