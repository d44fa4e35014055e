//! The table of pending operations of one context: who may complete what, once.
//!
//! It maps user_data to the operation that is pending under it. The right to complete is the entry itself: whoever removes
//! it calls the sink, everybody else finds nothing. A serial number tells an operation from a later one with the same
//! user_data. An entry holds a share of the sink and gives it to whoever removes it, so the sink goes when the table was
//! closed and the last call has returned.
//!
//! Nothing here knows of C. `tests/loom.rs` runs this file under every order of its threads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Table<S, P> {
    state: Mutex<State<S, P>>,
}

struct State<S, P> {
    /// `None` once the table was closed.
    sink: Option<Arc<S>>,
    pending: HashMap<u64, Pending<S, P>, BuildHasherDefault<UserDataHasher>>,
    next_serial: u64,
}

struct Pending<S, P> {
    serial: u64,
    sink: Arc<S>,
    payload: P,
}

/// Why nothing was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The user_data is pending already.
    Duplicate,
    /// The table was closed.
    Closed,
}

impl<S, P> Table<S, P> {
    pub(crate) fn new(sink: S) -> Self {
        let state = State { sink: Some(Arc::new(sink)), pending: HashMap::default(), next_serial: 0 };
        Table { state: Mutex::new(state) }
    }

    /// Enters an operation and gives its serial number. `begin` is called under the lock, if it is entered: whoever
    /// completes it comes afterwards. It must not call anything foreign.
    pub(crate) fn register<R>(
        &self,
        user_data: u64,
        payload: P,
        begin: impl FnOnce() -> R,
    ) -> Result<(u64, R), Refused> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(sink) = &state.sink else { return Err(Refused::Closed) };
        let Entry::Vacant(entry) = state.pending.entry(user_data) else { return Err(Refused::Duplicate) };
        let serial = state.next_serial;
        state.next_serial += 1;
        entry.insert(Pending { serial, sink: Arc::clone(sink), payload });
        Ok((serial, begin()))
    }

    /// Reaches what is pending under `user_data`, under the lock: `change` must not call anything foreign.
    pub(crate) fn with<R>(&self, user_data: u64, change: impl FnOnce(u64, &mut P) -> R) -> Option<R> {
        self.state().pending.get_mut(&user_data).map(|pending| change(pending.serial, &mut pending.payload))
    }

    /// Removes the operation, unless somebody has: whoever gets it completes it.
    pub(crate) fn remove(&self, user_data: u64, serial: u64) -> Option<(Arc<S>, P)> {
        match self.state().pending.entry(user_data) {
            Entry::Occupied(entry) if entry.get().serial == serial => {
                let Pending { sink, payload, .. } = entry.remove();
                Some((sink, payload))
            }
            _ => None,
        }
    }

    /// Refuses operations from now on. Gives the table's own share of the sink, and what is pending.
    pub(crate) fn close(&self) -> (Option<Arc<S>>, Vec<u64>) {
        let mut state = self.state();
        (state.sink.take(), state.pending.keys().copied().collect())
    }

    /// No foreign code that can panic runs under the lock, so a poisoned one is whole.
    fn state(&self) -> MutexGuard<'_, State<S, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// user_data comes from the program itself (counters, addresses), so mixing the bits is all that is needed.
#[derive(Default)]
struct UserDataHasher(u64);

impl Hasher for UserDataHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing; the table takes its tag from the upper bits and its slot from the lower ones.
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
