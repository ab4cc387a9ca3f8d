//! Everything that needs more than a function call: real servers, real stores, the real binary.
//!
//! One binary, so that one link serves all tests. A module's name is what it proves. A test that cannot have what it needs
//! fails and says so; it never passes without having looked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::disallowed_methods)]

mod architecture;
mod configuration;
mod databases_of_every_shape;
mod demo;
mod house_rules;
mod memory_is_a_constant;
mod support;

mod a_million_segments;
mod backup;
mod bad_input_of_the_hooks;
mod every_target_is_exact;
mod hooks_start_light;
mod killed_at_random;
mod libpq_conventions;
mod logins;
mod looking_at_what_is_stored;
mod one_process_that_stays;
mod prefetch;
mod promise_10_secrets_stay_secret;
mod promise_1_acknowledged_is_durable;
mod promise_2_nothing_is_overwritten;
mod promise_3_only_proof_of_absence_is_absence;
mod promise_4_delivered_is_verified;
mod promise_5_the_last_write_commits;
mod promise_6_plan_then_touch;
mod promise_7_a_check_can_fail;
mod promise_8_no_hostage;
mod promise_9_no_stranger_writes_and_none_is_written_to;
mod read_ahead;
mod replication;
mod restored_servers;
mod round_trip;
mod s3_through_the_binary;
mod samples;
mod segments_of_every_size;
mod settings_that_recovery_depends_on;
mod storage_conformance;
mod storage_faults;
mod wal_oracle;
mod what_happened;
mod whatever_the_scanner_is_fed;
