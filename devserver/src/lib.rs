//! A development server that speaks the protocol of a Fluvio cluster (platform 0.18), in memory or in a directory.
//!
//! For first steps, tests and continuous integration: no Fluvio server can be installed from a package registry. It is a
//! library, so that Rust tests start one in their own process, and the binary `fluvio-devserver`. What it serves and where
//! it differs from a real cluster stands in `docs/devserver.md`.
//!
//! One process holds a streaming controller ([`Server::endpoint`]) and one or more streaming processing units, whose
//! addresses clients learn from the controller. All state is shared through `cluster`; a connection is one task, a stream another.

mod addresses;
mod assignment;
pub mod certificates;
mod cluster;
mod config;
mod connection;
mod control;
mod counters;
mod durability;
pub mod faults;
mod frames;
#[cfg(test)]
mod fuzz;
mod latency;
mod leaders;
mod log;
mod metadata;
mod outbox;
mod plane;
mod sc;
mod server;
mod smart;
mod spu;
mod store;
mod tls;
mod units;

pub use config::{Config, Fsync};
pub use control::Control;
pub use counters::{Counters, PlaneCounters};
pub use faults::{Fault, FaultId};
pub use leaders::LeaderError;
pub use server::Server;
pub use tls::Tls;
