//! A live server: how it is found, reached, logged into, and asked. Knows no repository.
//!
//! The client is small and our own, because none of the published ones speaks physical replication: one
//! connection, one command at a time, over `postgres-protocol`'s messages. Ordinary SQL goes over the same
//! client in its simple-query form, so that a connection string means the same for both.
//!
//! Everything here is async, and nothing above the operations is.

mod auth;
pub mod base_backup;
pub mod catalogue;
mod connection;
pub mod conninfo;
mod error;
mod passfile;
pub mod replication;
mod service_file;
pub mod sql;
mod tls;
pub mod wal_stream;

pub use connection::{Connection, Purpose, Row};
pub use conninfo::{ConnInfo, ConnInfoError};
pub use error::{PostgresError, ServerError};
