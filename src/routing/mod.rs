//! Which node may answer a statement, and which of those should: positions in the WAL, the
//! topology, the gate and the selection. Pure: no I/O, no clock (time is an argument), no log.

pub mod floor;
pub mod gate;
pub mod history;
pub mod lsn;
pub mod select;
#[cfg(test)]
mod testing;
pub mod topology;

pub use floor::{Bound, Floor};
pub use gate::{Level, PrimaryReason, ReadNeed, Verdict, gate};
pub use history::History;
pub use lsn::{Lsn, Position, SystemId, Timeline, WalGeometry};
pub use select::{Choice, Preference, select};
pub use topology::{Node, NodeIndex, NodeName, NodeSet, NodeState, Observation, Role, Topology};
