//! Slots: a sink that keeps every completion where its owner looks for it, for hosts that call and wait.
//!
//! A slot belongs to one operation at a time: the library fills it, any number of threads wait for it, and its owner frees
//! it. Nothing lies between the two. So whatever strikes the owner (a signal, a finaliser, an exception) and wherever, it
//! loses nothing that another one needs: freeing the slot is all the clean-up there is. An operation that is started with
//! the `user_data` of no slot completes into nothing.
//!
//! What is in them is kept in `slot_table.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::boundary::{boundary_or, boundary_pointer};
use crate::completion::{fluvio_completion, fluvio_status};
use crate::context::{self, fluvio_context};
use crate::error::fluvio_error;
use crate::handle::{self, Opaque, Origin};
use crate::live::Live;
use crate::operation::Operations;
use crate::platform::{self, Slept};
use crate::sink::{self, Sink};
use crate::slot_table::{AWAITED, FILLED, PENDING, Slots};

/// Flag of `fluvio_slot_new`: a failure of the operation counts (see `fluvio_slots_get_failed`) until it is seen, and
/// freeing the slot does not cancel it. For records whose fate nobody may ever ask for.
pub const FLUVIO_SLOT_COUNTED: u32 = 1;

/// A set of slots, with a context whose operations complete into them.
pub struct fluvio_slots {
    _private: [u8; 0],
}

/// A place for the completion of one operation at a time. What follows its field is the library's.
#[repr(C)]
pub struct fluvio_slot {
    /// To be given to the call that starts the operation.
    pub user_data: u64,
}

impl Opaque for fluvio_slots {
    type Value = Set;
    const NAME: &'static str = "slots";
}

/// What is behind a `fluvio_slots`.
pub struct Set {
    slots: Arc<Slots>,
    operations: Arc<Operations>,
    context: *mut fluvio_context,
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: the context was made with the set, and its users were told to stop before this.
        unsafe { context::fluvio_context_free(self.context) }
    }
}

/// What is behind a `fluvio_slot`.
#[repr(C)]
struct Owned {
    public: fluvio_slot,
    origin: Origin,
    slots: Arc<Slots>,
    operations: Arc<Operations>,
    word: Arc<AtomicU32>,
    _live: Live,
}

impl Owned {
    fn wait(&self, timeout: Option<Duration>) -> Result<fluvio_completion, fluvio_status> {
        let user_data = self.public.user_data;
        // A timeout beyond the clock's range is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.word.load(Ordering::Acquire) != FILLED && self.slots.is_idle(user_data) {
            return Err(fluvio_status::End);
        }
        loop {
            if self.word.load(Ordering::Acquire) == FILLED {
                return self.slots.read(user_data).ok_or(fluvio_status::End);
            }
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(fluvio_status::Empty);
            }
            let filled = self
                .word
                .compare_exchange(PENDING, AWAITED, Ordering::Acquire, Ordering::Acquire)
                .is_err_and(|found| found == FILLED);
            if !filled && platform::sleep_while(&self.word, AWAITED, left) == Slept::Interrupted {
                return Err(fluvio_status::Interrupted);
            }
        }
    }
}

/// Reaches a slot that is about to be used; `None` for NULL and in a forked child.
///
/// # Safety
/// `slot` is NULL, or came from `fluvio_slot_new` and is not freed during `'a`.
unsafe fn get<'a>(slot: *const fluvio_slot) -> Option<&'a Owned> {
    // SAFETY: by this function's contract; every slot is the head of an `Owned`.
    unsafe { slot.cast::<Owned>().as_ref() }.filter(|slot| slot.origin.is_here())
}

/// Makes a set of slots and its context. The first context of a process starts the library's threads.
///
/// Ownership: the caller frees the set with `fluvio_slots_free`.
/// Completion: none.
/// Threads: any.
/// Errors: NULL is returned, and `*error` says why: SYSTEM (threads cannot be started).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_new(error: *mut *mut fluvio_error) -> *mut fluvio_slots {
    // SAFETY: the caller passes NULL or a valid pointer.
    unsafe {
        boundary_pointer(error, || {
            let runtime = context::start_library()?;
            let slots = Slots::new();
            let operations = Operations::new(runtime, Sink::Slots(Arc::clone(&slots)));
            let context = handle::into_raw::<fluvio_context>(Arc::clone(&operations));
            Ok(handle::into_raw(Set { slots, operations, context }))
        })
    }
}

/// The context of a set of slots: an operation that is started on it with the `user_data` of a slot completes into that slot.
/// NULL for NULL and in a forked child.
///
/// Ownership: borrowed until `fluvio_slots_free`; not to be freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_get_context(slots: *const fluvio_slots) -> *mut fluvio_context {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or(std::ptr::null_mut(), || unsafe {
        handle::get(slots).map_or(std::ptr::null_mut(), |set| set.context)
    })
}

/// How many operations in counted slots are pending, freed ones too; 0 for NULL and in a forked child.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_get_pending(slots: *const fluvio_slots) -> usize {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or(0, || unsafe { handle::get(slots) }.map_or(0, |set| set.slots.pending()))
}

/// How many operations in counted slots have failed without having been seen, those of freed slots too; 0 for NULL and in a
/// forked child.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_get_failed(slots: *const fluvio_slots) -> u64 {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or(0, || unsafe { handle::get(slots) }.map_or(0, |set| set.slots.failed()))
}

/// The error of one of the failures that `fluvio_slots_get_failed` counts, in the order in which the slots were made. Of many
/// failures only the first are kept as errors; once those were seen, number 0 is the last of the others.
///
/// Parameters: `index` counts from 0.
/// Ownership: the caller frees the error with `fluvio_error_free`.
/// Threads: any.
/// Errors: NULL is returned where none is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_get_failure(
    slots: *const fluvio_slots,
    index: usize,
) -> *mut fluvio_error {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or(std::ptr::null_mut(), || unsafe {
        let failure = handle::get(slots).ok().and_then(|set| set.slots.failure(index));
        failure.map_or(std::ptr::null_mut(), handle::into_raw)
    })
}

/// Says that all failures so far have reached whoever asked: none of them counts any more.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_see_all(slots: *mut fluvio_slots) {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or((), || unsafe {
        if let Ok(set) = handle::get(slots) {
            set.slots.see_all();
        }
    });
}

/// Frees a set of slots. What is pending in it completes as CANCELLED; slots stay valid, and are to be freed. NULL is allowed.
///
/// Ownership: takes the set and its context.
/// Threads: any.
/// Cancellation: as by `fluvio_cancel` for every pending operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slots_free(slots: *mut fluvio_slots) {
    // SAFETY: the caller passes NULL or slots that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(slots) });
}

/// Makes a slot. It may be used for one operation after the other, each started after the last one's completion was read. A
/// failure of a counted slot that was not seen by then stays counted, until `fluvio_slots_see_all`.
///
/// Parameters: `flags` is 0 or `FLUVIO_SLOT_COUNTED`.
/// Ownership: the caller frees the slot with `fluvio_slot_free`.
/// Threads: any.
/// Errors: NULL is returned if `slots` is NULL or of another process, and for unknown flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slot_new(slots: *mut fluvio_slots, flags: u32) -> *mut fluvio_slot {
    // SAFETY: the caller passes NULL or live slots.
    boundary_or(std::ptr::null_mut(), || unsafe {
        if flags & !FLUVIO_SLOT_COUNTED != 0 {
            return std::ptr::null_mut();
        }
        let Ok(Set { slots, operations, .. }) = handle::get(slots) else { return std::ptr::null_mut() };
        let (user_data, word) = slots.add(flags & FLUVIO_SLOT_COUNTED != 0);
        Box::into_raw(Box::new(Owned {
            public: fluvio_slot { user_data },
            origin: Origin::here(),
            slots: Arc::clone(slots),
            operations: Arc::clone(operations),
            word,
            _live: Live::new(),
        }))
        .cast()
    })
}

/// Blocks until the operation in a slot has completed, the time is over, or this thread has handled a signal. Reading takes
/// nothing: the slot stays filled.
///
/// Parameters: `timeout_ms` is milliseconds, negative: for ever, 0: looks only. `*out` gets the completion.
/// Ownership: the completion's value stays the slot's and is valid until the slot is freed or used again.
/// Completion: none. OK: `*out` is written; EMPTY: the time is over; INTERRUPTED; END: nothing was started in it; ERROR.
/// Threads: any but the library's; any number at once.
/// Errors: ERROR for NULL, in a forked child, and inside `complete` or `release`, where nothing may block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slot_wait(
    slot: *mut fluvio_slot,
    timeout_ms: i64,
    out: *mut fluvio_completion,
) -> fluvio_status {
    // SAFETY: the caller passes NULL or a live slot, and NULL or a place for a completion.
    boundary_or(fluvio_status::Error, || unsafe {
        let Some(slot) = get(slot) else { return fluvio_status::Error };
        if out.is_null() || (timeout_ms != 0 && sink::inside_host()) {
            return fluvio_status::Error;
        }
        match slot.wait(u64::try_from(timeout_ms).ok().map(Duration::from_millis)) {
            Ok(completion) => {
                out.write(completion);
                fluvio_status::Ok
            }
            Err(status) => status,
        }
    })
}

/// Says that the failure of a counted slot has reached whoever asked: it does not count any more. The second time, and for
/// everything else, nothing happens. NULL is allowed.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slot_see(slot: *mut fluvio_slot) {
    // SAFETY: the caller passes NULL or a live slot.
    boundary_or((), || unsafe {
        if let Some(slot) = get(slot) {
            slot.slots.see(slot.public.user_data);
        }
    });
}

/// Frees a slot and what its completion carries, now or when it comes. NULL is allowed; nothing happens in a forked child.
///
/// Ownership: takes the slot.
/// Threads: any.
/// Cancellation: as by `fluvio_cancel`, but for a counted slot, whose operation goes on and counts if it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_slot_free(slot: *mut fluvio_slot) {
    // SAFETY: the caller passes NULL or a slot that it owns and does not use again; fluvio_slot_new made the box.
    boundary_or((), || unsafe {
        if get(slot).is_none() {
            return;
        }
        let slot = Box::from_raw(slot.cast::<Owned>());
        let user_data = slot.public.user_data;
        if slot.slots.remove(user_data) {
            slot.operations.cancel(user_data);
        }
    });
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
