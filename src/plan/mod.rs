//! Pure decisions: what the archive covers, which moments can be restored, and the plan of a restore.
//!
//! Nothing here reads a store, a clock or a directory. The facts come as values ([`Archive`],
//! [`BackupFacts`]); what is in a segment is asked of a [`WalReader`], because only the search itself knows
//! which segments it needs. The rules are those of the server: which timeline's segment it asks for, and
//! before or behind which record it stops. A plan that is made here is one that the server can follow to its
//! end; what it could not follow is refused, with the reason and the choices.

mod attempt;
mod choose;
mod coverage;
mod ends;
mod evidence;
mod half_dropped;
mod lineage_plan;
mod order;
mod restore_plan;
mod road;
mod run;
mod search;
mod stop;
mod target;
#[cfg(test)]
mod tests;
mod window;

pub use coverage::{Archive, Lineage, Timeline};
pub use evidence::{Place, SegmentFacts, WalReader};
pub use half_dropped::half_dropped;
pub use restore_plan::{BackupFacts, RestorePlan, WalRange, plan};
pub use road::{Estimate, Road};
pub use run::{Barrier, Run, Visited};
pub use target::{Stop, StopKind, Target, TimelineChoice, Wanted};
pub use window::{Window, gaps, windows};
