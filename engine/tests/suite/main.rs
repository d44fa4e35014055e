//! The tests of the engine against the development server; one program, because each would link the server anew.
#![allow(missing_docs)]

mod common;

mod consumer;
mod ends;
mod faults;
mod kills;
mod leader_moves;
mod peer;
mod producer;
mod round_trip;
mod silent;
