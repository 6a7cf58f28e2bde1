//! Everything that needs PostgreSQL, or a whole Causeway: one binary, a file per theme.

mod abuse;
mod admin;
mod bad_input;
mod cancel;
mod check;
mod cli;
mod consistency;
mod conversations;
mod demo;
mod front;
mod fuzz;
mod holes;
mod lab;
mod monitor;
mod pins;
mod pools;
mod prepared;
mod process;
mod raw;
mod readme;
mod replication;
mod settings;
mod startup;
mod streaming;
mod support;
mod wire;
