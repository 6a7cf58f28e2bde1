//! The program around the library: what each command does.

pub mod check;
pub mod explain;
pub mod logging;
mod recorder;
mod serve;
mod users;

pub use serve::{Causeway, Running, StartError};
use serve::{lists, options};
