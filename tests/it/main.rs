//! Everything that needs PostgreSQL, or a whole Causeway: one binary, a file per theme.

mod admin;
mod bad_input;
mod builtins;
mod cancel;
mod catalogue;
mod check;
mod cli;
mod consistency;
mod demo;
mod differential;
mod front;
mod fuzz;
mod holes;
mod lab;
mod monitor;
mod pools;
mod prepared;
mod raw;
mod readme;
mod settings;
mod startup;
mod streaming;
mod support;
mod wire;
