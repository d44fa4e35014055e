//! The locks under what is checked with loom: [`mailbox`](crate::mailbox) and [`pending`](crate::pending) take theirs
//! from here. `tests/loom.rs` compiles the same two files with loom's locks in this module's place.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
