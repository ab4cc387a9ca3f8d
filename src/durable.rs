//! The only place that creates, renames or syncs a local file.
