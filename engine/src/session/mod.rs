//! What is spoken with SPUs as state machines without I/O: answers, losses, commands and time in, requests and records out.
//!
//! Nothing here knows of tasks, sockets or clocks, so every order of events can be tried (`fetch_tests.rs`, `produce/`).

mod answer;
mod fetch;
#[cfg(test)]
mod fetch_tests;
pub(crate) mod produce;

pub(crate) use answer::Answer;
pub(crate) use fetch::{Action, Fetch, Position, Time};
