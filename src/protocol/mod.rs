//! The frontend/backend protocol (manual, chapter "Frontend/Backend Protocol"): frames, the
//! messages that Causeway builds or must read whole, the replies that a server owes, SCRAM.
//!
//! Pure: bytes in, bytes and decisions out. The vocabulary of whole messages is pgwire's; what the
//! relay looks at by offset is read here, because most messages are never decoded at all.

pub mod error;
pub mod frame;
pub mod message;
pub mod owed;
pub mod scram;
pub mod startup;
