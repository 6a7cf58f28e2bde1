//! Everything that needs PostgreSQL, or a whole Causeway: one binary, a file per theme.

mod admin;
mod bad_input;
mod cancel;
mod check;
mod cli;
mod consistency;
mod demo;
mod front;
mod fuzz;
mod holes;
mod keys;
mod lab;
mod monitor;
mod pools;
mod prepared;
mod profiles;
mod promotion;
mod raw;
mod readme;
mod settings;
mod startup;
mod streaming;
mod support;
mod tokens;
mod waits;
mod wire;
