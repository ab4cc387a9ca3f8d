//! Read-ahead: what is ready behind the file that the server asks for is pushed with it, and answered from proof. A proof is
//! believed only while everything that it names is still so.

pub(crate) mod backlog;
mod backlogs_of_real_servers;
mod buckets;
mod from_proof_only_what_is_so;
mod memory;
mod order_of_calls;
mod spool;
mod what_goes_wrong_ahead;
