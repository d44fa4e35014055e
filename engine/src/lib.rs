//! An asynchronous Fluvio client on tokio: connections, cluster metadata, producer, consumer and administration.
//!
//! It knows nothing of C or Python and can be used from Rust as it is. What must hold, and is tested against a real
//! server over TCP: a record that was accepted is sent or its error is reported; a record that was read is complete and in
//! order; nothing waits without a limit; dropping any future loses nothing.
//!
//! All futures run on a tokio runtime with time and I/O enabled. Functions that are not `async` may be called from any
//! thread, inside a runtime or not, and do not block.
#![forbid(unsafe_code)]

pub mod admin;
mod budget;
mod client;
mod cluster;
mod config;
pub mod consumer;
mod directory;
mod error;
mod link;
pub mod producer;
mod protocol;
#[cfg(test)]
mod recorded_tests;
mod session;
#[cfg(test)]
mod spu_tests;
pub mod subscription;

pub use client::Client;
pub use config::ClientOptions;
pub use error::{Error, ErrorKind, Outcome, Result};
