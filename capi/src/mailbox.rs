//! The core of the completion queue: items that somebody fetches by polling a descriptor or by waiting.
//!
//! Wake rule: while items are there, either the descriptor is armed (readable, or about to be made so by the thread that
//! armed it) or a thread in `wait` is on its way to take them and arms the descriptor for what it leaves. Hosts that only
//! wait never pay for the descriptor. A wake-up may be spurious, never lost: it is cleared only under the lock, with the
//! mailbox empty. A wake is kept until a wait has taken it, so it cannot come too early.
//!
//! Nothing here knows of C. `tests/loom.rs` runs this file under every order of its threads.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// What a host polls: made readable by `set`, unreadable by `clear`.
pub(crate) trait Descriptor {
    fn set(&self);
    fn clear(&self);
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// So many items were taken.
    Items(usize),
    /// Nothing came in time.
    TimedOut,
    /// Somebody called `wake`.
    Woken,
    /// The mailbox is closed, and empty.
    Closed,
}

pub(crate) struct Mailbox<T, D> {
    descriptor: D,
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    armed: bool,
    waiting: usize,
    /// Wakes that no wait has taken yet.
    wakes: usize,
    closed: bool,
}

impl<T, D: Descriptor> Mailbox<T, D> {
    pub(crate) fn new(descriptor: D) -> Self {
        let state = State { items: VecDeque::new(), armed: false, waiting: 0, wakes: 0, closed: false };
        Mailbox { descriptor, state: Mutex::new(state), arrived: Condvar::new() }
    }

    pub(crate) fn descriptor(&self) -> &D {
        &self.descriptor
    }

    /// Adds an item; gives it back if the mailbox is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.announce(state);
        Ok(())
    }

    /// Items are there: makes sure that somebody hears of them.
    fn announce(&self, mut state: MutexGuard<'_, State<T>>) {
        if state.waiting > 0 {
            drop(state);
            self.arrived.notify_one();
        } else if !state.armed {
            state.armed = true;
            drop(state);
            self.descriptor.set();
        }
    }

    /// Takes up to `capacity` items, without waiting.
    pub(crate) fn drain(&self, capacity: usize, take: impl FnMut(T)) -> usize {
        let mut state = self.state();
        let count = state.take(capacity, take);
        if state.items.is_empty() {
            // Also if nothing was armed: the wake-up may have been spurious.
            state.armed = false;
            self.descriptor.clear();
        }
        count
    }

    /// Takes up to `capacity` items, which is at least 1; waits for the first of them.
    pub(crate) fn wait(&self, capacity: usize, timeout: Option<Duration>, take: impl FnMut(T)) -> Waited {
        // A timeout beyond the clock's range is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.state();
        state.waiting += 1;
        let mut in_time = true;
        while state.items.is_empty() && state.wakes == 0 && !state.closed && in_time {
            state = match deadline {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    in_time = !left.is_zero();
                    if !in_time {
                        break;
                    }
                    self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.waiting -= 1;
        let count = state.take(capacity, take);
        let waited = if count > 0 {
            Waited::Items(count)
        } else if state.wakes > 0 {
            state.wakes -= 1;
            Waited::Woken
        } else if state.closed {
            Waited::Closed
        } else {
            Waited::TimedOut
        };
        if !state.items.is_empty() {
            self.announce(state);
        } else if state.armed {
            state.armed = false;
            self.descriptor.clear();
        }
        waited
    }

    /// Ends one wait, the next one if none is going on.
    pub(crate) fn wake(&self) {
        let mut state = self.state();
        state.wakes = state.wakes.saturating_add(1);
        drop(state);
        self.arrived.notify_one();
    }

    /// Ends all waits, now and later, and gives back what nobody fetched.
    pub(crate) fn close(&self) -> VecDeque<T> {
        let mut state = self.state();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.arrived.notify_all();
        items
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// No foreign code that can panic runs under the lock, so a poisoned one is whole.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self, capacity: usize, take: impl FnMut(T)) -> usize {
        let count = capacity.min(self.items.len());
        self.items.drain(..count).for_each(take);
        count
    }
}
