//! The bytes of the Fluvio protocol, without any I/O: frames, record batches, varints and checksums.
//!
//! The engine and the development server share this crate and nothing else. Invariants: no function panics on bytes that
//! a peer can influence, no allocation is larger than what the caller's limits allow, and a batch that is not complete is
//! never taken for a complete one (a real server cuts its answers in the middle of a batch).

pub mod batch;
pub mod builder;
pub mod frame;
pub mod memory;
pub mod pool;
pub mod varint;
pub mod view;
