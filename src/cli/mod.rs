//! One file for each verb: arguments → options → operation → words. Alone knows clap, stdout and exit codes.

pub mod backup;
pub mod check;
