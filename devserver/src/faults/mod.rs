//! Faults on demand: what a client has to survive, produced on purpose.
//!
//! A [`Fault`] says what happens (its [`Effect`]), to what (its [`Selector`]) and how often. It has one form, JSON, for the
//! command line, the control socket and Rust: `{"kind": "delay", "request": "produce", "seconds": 0.5, "count": 3}`. The
//! `registry` holds those that are injected; `connection` applies what concerns one connection, `cluster` what concerns the
//! cluster's state.
//!
//! Invariant: without a fault the server does nothing but look at one atomic number.

mod cluster;
mod codes;
mod connection;
mod held;
mod kinds;
mod registry;
mod requests;

pub(crate) use self::connection::{Answer, ConnectionFaults, Direction, Fate};
pub(crate) use self::held::HeldAnswers;
pub use self::kinds::{
    Effect, Fault, FaultError, Interruption, PlaneKind, PlaneSelector, Seconds, Selector, When,
};
pub(crate) use self::registry::Faults;
pub use self::registry::{ClearError, FaultId, InjectedFault};
pub use self::requests::RequestName;
