//! A client from accept to the end of its log-in: encryption, start-up packet, authentication.
//! What it does afterwards is the session's business; a cancel request never becomes a session.

mod authenticate;
mod greet;

pub use authenticate::{LogIn, Strangers, authenticate};
pub use greet::{Arrival, ClientTls, GreetError, greet};
