//! The completion queue: a ready-made sink with a descriptor to poll, a drain that never blocks and a wait that does.
//!
//! The core is [`Shared`]; contexts keep it alive through their sinks, so freeing in any order is safe. Wake rule: while
//! items wait, either the descriptor is armed (readable, or about to be made so by the thread that armed it) or a thread
//! in `wait` is on its way to take them and arms the descriptor for what it leaves. Hosts that only wait never pay for
//! the descriptor. A wake-up may be spurious, never lost: it is cleared only under the lock, with the queue empty.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::boundary::{boundary_or, boundary_pointer};
use crate::completion::{fluvio_completion, fluvio_status, fluvio_value_free};
use crate::error::{Failure, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque, Origin};
use crate::platform::{self, Wake};
use crate::sink::fluvio_sink;

/// Flag of `fluvio_queue_new`: the descriptor is the end of a socket pair instead of an eventfd, for hosts that poll
/// sockets only.
pub const FLUVIO_QUEUE_SOCKET: u32 = 1;

/// A ready-made sink: collects completions until the host fetches them, in batches.
pub struct fluvio_queue {
    _private: [u8; 0],
}

impl Opaque for fluvio_queue {
    type Value = Arc<Shared>;
    const NAME: &'static str = "queue";
}

/// What is behind a queue and its sinks.
pub struct Shared {
    origin: Origin,
    wake: Wake,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<fluvio_completion>,
    armed: bool,
    waiting: usize,
    closed: bool,
}

// SAFETY: the completions' values are owned by the queue and may be handed to any thread.
unsafe impl Send for State {}

impl Shared {
    fn new(flags: u32) -> Result<Self, Failure> {
        if flags & !FLUVIO_QUEUE_SOCKET != 0 {
            return Err(Failure::invalid(format!("flags is {flags:#x}: only FLUVIO_QUEUE_SOCKET is known")));
        }
        let wake = if flags & FLUVIO_QUEUE_SOCKET == 0 { Wake::event() } else { Wake::socket() }.map_err(
            |error| Failure::new(fluvio_error_kind::System, format!("the wake-up descriptor: {error}")),
        )?;
        Ok(Shared { origin: Origin::here(), wake, state: Mutex::default(), arrived: Condvar::new() })
    }

    fn push(&self, completion: fluvio_completion) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            free(&completion);
            return;
        }
        state.items.push_back(completion);
        self.announce(state);
    }

    /// Items wait: makes sure that somebody hears of them.
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting > 0 {
            drop(state);
            self.arrived.notify_one();
        } else if !state.armed {
            state.armed = true;
            drop(state);
            self.wake.set();
        }
    }

    fn drain(&self, out: &mut [std::mem::MaybeUninit<fluvio_completion>]) -> usize {
        let mut state = self.state();
        let count = state.take(out);
        if state.items.is_empty() {
            // Also if nothing was armed: the wake-up may have been spurious.
            state.armed = false;
            self.wake.clear();
        }
        count
    }

    fn wait(&self, out: &mut [std::mem::MaybeUninit<fluvio_completion>], timeout: Option<Duration>) -> usize {
        if out.is_empty() {
            return 0;
        }
        // A timeout beyond the clock's range is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.state();
        state.waiting += 1;
        while state.items.is_empty() && !state.closed {
            state = match deadline {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.waiting -= 1;
        let count = state.take(out);
        if state.items.is_empty() {
            if state.armed {
                state.armed = false;
                self.wake.clear();
            }
        } else {
            self.announce(state);
        }
        count
    }

    /// Frees what waits, and from now on what comes.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.arrived.notify_all();
        items.iter().for_each(free);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, out: &mut [std::mem::MaybeUninit<fluvio_completion>]) -> usize {
        let count = out.len().min(self.items.len());
        for (slot, item) in out.iter_mut().zip(self.items.drain(..count)) {
            slot.write(item);
        }
        count
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

fn free(completion: &fluvio_completion) {
    // SAFETY: the queue owns the value and forgets it now.
    unsafe { fluvio_value_free(completion.kind, completion.value) }
}

/// The `complete` of a queue's sink.
pub(crate) unsafe extern "C" fn complete(context: *mut c_void, completion: *const fluvio_completion) {
    // SAFETY: the context is the share that fluvio_queue_sink gave away; the completion is valid for this call.
    boundary_or((), || unsafe {
        let queue = &*context.cast::<Shared>();
        if queue.origin.is_here() {
            queue.push(*completion);
        }
    });
}

/// The `release` of a queue's sink.
unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: takes back the share that fluvio_queue_sink gave away, once.
    boundary_or((), || drop(unsafe { Arc::from_raw(context.cast_const().cast::<Shared>()) }));
}

/// Makes a completion queue.
///
/// Parameters: `flags` is 0 or `FLUVIO_QUEUE_SOCKET`. `error` may be NULL.
/// Ownership: the caller frees the queue with `fluvio_queue_free`.
/// Completion: none.
/// Threads: any.
/// Errors: NULL is returned, and `*error` says why: INVALID_ARGUMENT, SYSTEM (no descriptor).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_new(flags: u32, error: *mut *mut fluvio_error) -> *mut fluvio_queue {
    // SAFETY: the caller passes NULL or a valid pointer.
    unsafe {
        boundary_pointer(error, || {
            platform::detect_forks().map_err(|error| {
                Failure::new(fluvio_error_kind::System, format!("pthread_atfork: {error}"))
            })?;
            Ok(handle::into_raw(Arc::new(Shared::new(flags)?)))
        })
    }
}

/// The descriptor to poll: readable while completions wait, unless a thread in `fluvio_queue_wait` is about to take
/// them. Non-blocking, closed on exec. -1 for NULL and in a forked child.
///
/// Ownership: borrowed until `fluvio_queue_free`: stop polling before that. Only to be polled, not to be read.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_fd(queue: *const fluvio_queue) -> i32 {
    // SAFETY: the caller passes NULL or a live queue.
    boundary_or(-1, || unsafe { handle::get(queue) }.map_or(-1, |queue| queue.wake.fd()))
}

/// Fills in `*sink` for one `fluvio_context_new`. Several contexts may share a queue: call it once for each.
///
/// Parameters: `sink` is written.
/// Ownership: the sink holds a share of the queue until its context is freed.
/// Completion: none.
/// Threads: any.
/// Errors: ERROR if one of the two is NULL, or in a forked child; then `*sink` is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_sink(
    queue: *mut fluvio_queue,
    sink: *mut fluvio_sink,
) -> fluvio_status {
    // SAFETY: the caller passes NULL or valid pointers.
    boundary_or(fluvio_status::Error, || unsafe {
        match handle::get(queue) {
            Ok(queue) if !sink.is_null() => {
                let context = Arc::into_raw(Arc::clone(queue)).cast_mut().cast();
                sink.write(fluvio_sink { complete: Some(complete), release: Some(release), context });
                fluvio_status::Ok
            }
            _ => fluvio_status::Error,
        }
    })
}

/// Fetches up to `capacity` completions without blocking. If the result equals `capacity` more may wait; then the
/// descriptor stays readable.
///
/// Parameters: `out` has room for `capacity` completions.
/// Ownership: the caller owns the values of the completions.
/// Completion: none.
/// Threads: any.
/// Errors: 0 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_drain(
    queue: *mut fluvio_queue,
    out: *mut fluvio_completion,
    capacity: usize,
) -> usize {
    // SAFETY: the caller passes NULL or a live queue, and an array of `capacity` elements.
    boundary_or(0, || unsafe {
        if out.is_null() || capacity > isize::MAX as usize / size_of::<fluvio_completion>() {
            return 0;
        }
        handle::get(queue)
            .map_or(0, |queue| queue.drain(std::slice::from_raw_parts_mut(out.cast(), capacity)))
    })
}

/// Fetches up to `capacity` completions; if there are none, blocks until one comes or the time is over.
///
/// Parameters: `out` has room for `capacity` completions; `timeout_ms` is milliseconds, negative: for ever.
/// Ownership: the caller owns the values of the completions.
/// Completion: none.
/// Threads: any but the library's (not inside `complete`).
/// Errors: 0 when the time is over, when the queue is freed meanwhile, for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_wait(
    queue: *mut fluvio_queue,
    out: *mut fluvio_completion,
    capacity: usize,
    timeout_ms: i64,
) -> usize {
    // SAFETY: the caller passes NULL or a live queue, and an array of `capacity` elements.
    boundary_or(0, || unsafe {
        if out.is_null() || capacity > isize::MAX as usize / size_of::<fluvio_completion>() {
            return 0;
        }
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        // A share of its own: the queue may be freed by another thread while this one waits.
        let Ok(queue) = handle::get(queue).map(Arc::clone) else { return 0 };
        queue.wait(std::slice::from_raw_parts_mut(out.cast(), capacity), timeout)
    })
}

/// Frees a queue; threads in `fluvio_queue_wait` return. What waits in it, and what comes later, is freed. Contexts
/// that use it stay valid. NULL is allowed.
///
/// Ownership: takes the queue.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_free(queue: *mut fluvio_queue) {
    // SAFETY: the caller passes NULL or a queue that it owns and does not use again.
    boundary_or((), || unsafe {
        if let Ok(shared) = handle::get(queue) {
            shared.close();
        }
        handle::free(queue);
    });
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
