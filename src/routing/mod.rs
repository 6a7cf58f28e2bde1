//! Which node may answer a statement, and which of those should: positions in the WAL, the
//! topology, the gate and the selection. Pure: no I/O, no clock (time is an argument), no log.

pub mod floor;
pub mod gate;
pub mod guarantee;
pub mod history;
pub mod judge;
pub mod lsn;
pub mod patience;
pub mod select;
pub mod switches;
#[cfg(test)]
mod testing;
pub mod token;
pub mod topology;

pub use floor::{Bound, Floor, Lost, Pending};
pub use gate::{Level, PrimaryReason, ReadNeed, Verdict, gate};
pub use guarantee::{Guarantee, Guarantees};
pub use history::{History, UnixMillis};
pub use judge::{Judgement, Refused, Unknown};
pub use lsn::{Lsn, Mark, Position, SystemId, Timeline, WalGeometry, Xid};
pub use patience::{Patience, WaitEnd};
pub use select::{Choice, OnLag, Preference, select};
pub use switches::Switches;
pub use token::Tokens;
pub use topology::{
    Node, NodeIndex, NodeName, NodeSet, NodeState, Observation, Role, Topology, shown_by_replica,
};
