//! The C border of the engine: opaque handles, one completion per operation, nothing that could unwind or block.
//!
//! One file per C concept. The exported functions are written out, since the header is generated from these sources;
//! their doc comments are the C documentation, in this order: what, parameters, ownership, completion, threads, errors,
//! cancellation. Shared by all: [`boundary`] (panics become errors), [`handle`] (opaque pointers and fork detection),
//! [`arguments`] (checks of what comes in), [`operation`] (pending operations: exactly one completion each). What threads meet in
//! is [`mailbox`] and [`pending`], which loom checks.
//!
//! Invariants:
//! * no callback is called while a lock of this crate is held, nor on the stack of the call that started its operation;
//! * a pointer is checked before it is used, as far as that is possible: NULL, made before a fork, alignment, UTF-8;
//! * in a forked child nothing that a library thread could have held or shared is touched.
#![allow(non_camel_case_types)] // C names.
#![allow(clippy::missing_safety_doc)] // The safety contract of an exported function is its C documentation.

mod admin;
mod arguments;
mod batch;
mod boundary;
mod client;
mod completion;
mod consumer;
mod context;
mod deliveries;
mod document;
mod error;
mod handle;
mod live;
mod mailbox;
mod operation;
mod options;
mod pending;
mod platform;
mod producer;
mod queue;
mod room;
mod runtime;
mod sink;
mod slot_table;
mod slots;
mod subscription;
mod sync;
mod undelivered;
mod version;

pub use admin::*;
pub use batch::*;
pub use client::*;
pub use completion::*;
pub use consumer::*;
pub use context::*;
pub use deliveries::*;
pub use document::*;
pub use error::*;
#[cfg(feature = "live-objects")]
pub use live::fluvio_live_objects;
pub use options::*;
pub use producer::*;
pub use queue::*;
pub use room::*;
pub use sink::*;
pub use slots::*;
pub use subscription::*;
pub use undelivered::fluvio_flush_all;
pub use version::*;
