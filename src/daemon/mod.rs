//! The process that stays between the hooks' calls.
//!
//! The server starts a hook for each segment. What would be paid each time (a TLS session, an SDK's start) or can be
//! done ahead (the next segments, either way) is kept in one process for each data directory: a hook that
//! needs it starts it, and it ends by itself when it is idle, when the server is gone, or when settings or binary
//! have changed.
//!
//! It can only ever help: its answers are "durable", "the verified file stands there", and "absent", which is said only
//! when every repository, asked after the hook's question came, has proved it by the hook's own rules. Whatever else
//! there is to say (a failure, a warning, a conflict, a gap) the hook finds out by itself, as it does where this
//! process cannot be started, hangs, or dies in the midst of an answer.

mod ask;
mod attend;
mod hooks;
mod meeting_point;
mod wire;

pub use ask::{Call, ask};
pub use attend::{Duty, Finding, attend};
pub use hooks::{Hooks, OpenStorages, Told};
pub use meeting_point::MeetingPoint;
pub use wire::{Answer, Work};

#[cfg(test)]
mod tests;
