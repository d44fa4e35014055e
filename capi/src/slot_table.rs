//! What is in the slots of one set: who has filled which, what was seen of it, and the failures that count.
//!
//! Invariants: the value of a completion belongs to the slot; a slot that was freed while its operation was pending is
//! forgotten at once, but for a counted one, which stays until its record has its fate; a failure is counted once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::completion::{fluvio_completion, fluvio_status, fluvio_value_free};
use crate::error::{ErrorText, fluvio_error};
use crate::handle::{self, Origin};
use crate::platform;

/// How many failures are kept as errors; more are only counted.
pub(crate) const KEPT_FAILURES: usize = 16;

/// The slots, by user_data.
pub(crate) struct Slots {
    origin: Origin,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<u64, Slot>,
    last: u64,
    failed: u64,
    /// The first of those, in the order in which the slots were made; of one slot, in that of its operations.
    failures: BTreeMap<(u64, u64), ErrorText>,
    /// The last of the others, which are only counted.
    latest: Option<ErrorText>,
}

/// Nobody sleeps until the slot is filled.
pub(crate) const PENDING: u32 = 0;
/// Somebody does.
pub(crate) const AWAITED: u32 = 1;
pub(crate) const FILLED: u32 = 2;

struct Slot {
    word: Arc<AtomicU32>,
    counted: bool,
    /// How many operations were started in it.
    begun: u64,
    stage: Stage,
}

enum Stage {
    /// Nothing was started in it.
    Idle,
    Pending {
        /// The owner is gone: it was counted, and only its failure is of interest.
        freed: bool,
    },
    Filled {
        completion: Kept,
        seen: bool,
    },
}

/// What was in a slot before it was used again.
pub(crate) struct Before(#[expect(dead_code, reason = "it is there to be dropped")] Option<Stage>);

/// A completion that owns its value.
struct Kept(fluvio_completion);

// SAFETY: everything behind a value is Send (asserted in `Value::of`), and the pointer is the only owning one.
unsafe impl Send for Kept {}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: the value is this one's, and nobody uses it any more: so says the contract of fluvio_slot_free.
        unsafe { fluvio_value_free(self.0.kind, self.0.value) }
    }
}

impl Kept {
    /// The error of an operation that failed.
    fn failure(&self) -> Option<&ErrorText> {
        // SAFETY: the value is alive as long as this is.
        (self.0.status == fluvio_status::Error as u32)
            .then(|| unsafe { handle::peek(self.0.value.cast::<fluvio_error>()) })
            .flatten()
    }
}

impl Slots {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Slots { origin: Origin::here(), state: Mutex::default() })
    }

    pub(crate) fn add(&self, counted: bool) -> (u64, Arc<AtomicU32>) {
        let mut state = self.state();
        state.last += 1;
        let user_data = state.last;
        let word = Arc::new(AtomicU32::new(PENDING));
        state
            .slots
            .insert(user_data, Slot { word: Arc::clone(&word), counted, begun: 0, stage: Stage::Idle });
        (user_data, word)
    }

    /// An operation was started; called before anything can complete it. What was in the slot is the caller's to drop,
    /// outside of all locks.
    #[must_use]
    pub(crate) fn begin(&self, user_data: u64) -> Before {
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(&user_data) else { return Before(None) };
        slot.word.store(PENDING, Ordering::Relaxed);
        slot.begun += 1;
        Before(Some(std::mem::replace(&mut slot.stage, Stage::Pending { freed: false })))
    }

    /// Takes a completion with its value.
    pub(crate) fn complete(&self, completion: fluvio_completion) {
        let completion = Kept(completion);
        if !self.origin.is_here() {
            return;
        }
        let mut state = self.state();
        let State { slots, failed, failures, latest, .. } = &mut *state;
        let user_data = completion.0.user_data;
        let Some(slot) = slots.get_mut(&user_data) else {
            drop(state);
            return;
        };
        if slot.counted
            && let Some(failure) = completion.failure()
        {
            *failed += 1;
            if failures.len() < KEPT_FAILURES {
                failures.insert((user_data, slot.begun), failure.clone());
            } else {
                *latest = Some(failure.clone());
            }
        }
        if matches!(slot.stage, Stage::Pending { freed: true }) {
            slots.remove(&user_data);
            drop(state);
            return;
        }
        slot.stage = Stage::Filled { completion, seen: false };
        let word = Arc::clone(&slot.word);
        let before = word.swap(FILLED, Ordering::Release);
        drop(state);
        if before == AWAITED {
            platform::wake_sleepers(&word);
        }
    }

    pub(crate) fn read(&self, user_data: u64) -> Option<fluvio_completion> {
        match &self.state().slots.get(&user_data)?.stage {
            Stage::Filled { completion, .. } => Some(completion.0),
            _ => None,
        }
    }

    pub(crate) fn is_idle(&self, user_data: u64) -> bool {
        matches!(self.state().slots.get(&user_data), None | Some(Slot { stage: Stage::Idle, .. }))
    }

    /// The failure of a counted slot has reached its owner.
    pub(crate) fn see(&self, user_data: u64) {
        let mut state = self.state();
        let State { slots, failed, failures, latest, .. } = &mut *state;
        if let Some(Slot { counted: true, begun, stage: Stage::Filled { completion, seen }, .. }) =
            slots.get_mut(&user_data)
            && completion.failure().is_some()
            && !std::mem::replace(seen, true)
        {
            *failed -= 1;
            failures.remove(&(user_data, *begun));
            if *failed == 0 {
                *latest = None;
            }
        }
    }

    /// All failures so far have reached their owner.
    pub(crate) fn see_all(&self) {
        let mut state = self.state();
        let State { slots, failed, failures, latest, .. } = &mut *state;
        for slot in slots.values_mut() {
            if let Slot { counted: true, stage: Stage::Filled { seen, .. }, .. } = slot {
                *seen = true;
            }
        }
        *failed = 0;
        failures.clear();
        *latest = None;
    }

    /// The owner is gone. Whether the operation is to be cancelled.
    pub(crate) fn remove(&self, user_data: u64) -> bool {
        let mut state = self.state();
        let pending = match state.slots.get_mut(&user_data) {
            Some(Slot { counted: true, stage: Stage::Pending { freed }, .. }) => {
                *freed = true;
                return false;
            }
            Some(slot) => matches!(slot.stage, Stage::Pending { .. }),
            None => return false,
        };
        let slot = state.slots.remove(&user_data);
        drop(state);
        drop(slot);
        pending
    }

    pub(crate) fn pending(&self) -> usize {
        let pending = |slot: &&Slot| slot.counted && matches!(slot.stage, Stage::Pending { .. });
        self.state().slots.values().filter(pending).count()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.state().failed
    }

    /// One of the failures that are kept; once these were seen, the last of the others.
    pub(crate) fn failure(&self, index: usize) -> Option<ErrorText> {
        let state = self.state();
        state
            .failures
            .values()
            .chain(state.failures.is_empty().then_some(state.latest.as_ref()).flatten())
            .nth(index)
            .cloned()
    }

    /// Slots that are there, freed ones too.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.state().slots.len()
    }

    /// No foreign code runs under the lock, so a poisoned one is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
