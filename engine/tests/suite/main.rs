//! The tests of the engine against the development server; one program, because each would link the server anew.
#![allow(missing_docs)]

mod common;

mod admin;
mod consumer;
mod ends;
mod faults;
mod incarnations;
mod kills;
mod leader_moves;
mod memory;
mod peer;
mod producer;
mod producer_faults;
mod producer_memory;
mod producer_shares;
mod round_trip;
mod scale;
mod silent;
mod starts;
