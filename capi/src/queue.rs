//! The completion queue: a ready-made sink with a descriptor to poll, a drain that never blocks and a wait that does.
//!
//! What it does is in [`mailbox`](crate::mailbox); here are its C functions. Contexts keep a [`Queue`] alive through their
//! sinks, so freeing in any order is safe.

use std::sync::Arc;
use std::time::Duration;

use crate::boundary::{boundary, boundary_or, boundary_pointer};
use crate::completion::{fluvio_completion, fluvio_status, fluvio_value_free};
use crate::error::{Failure, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque, Origin};
use crate::mailbox::{Mailbox, Waited};
use crate::platform::{self, Wake};
use crate::{arguments, sink};

/// Flag of `fluvio_queue_new`: the descriptor is the end of a socket pair instead of an eventfd, for hosts that poll
/// sockets only.
pub const FLUVIO_QUEUE_SOCKET: u32 = 1;

/// A ready-made sink: collects completions until the host fetches them, in batches.
pub struct fluvio_queue {
    _private: [u8; 0],
}

impl Opaque for fluvio_queue {
    type Value = Arc<Queue>;
    const NAME: &'static str = "queue";
}

/// What is behind a queue and its sinks.
pub struct Queue {
    origin: Origin,
    mailbox: Mailbox<Item, Wake>,
}

/// A completion that nobody has fetched.
struct Item(fluvio_completion);

// SAFETY: the queue owns the completion's value, which may be handed to any thread.
unsafe impl Send for Item {}

impl Item {
    fn free(self) {
        // SAFETY: the queue owns the value and forgets it now.
        unsafe { fluvio_value_free(self.0.kind, self.0.value) }
    }
}

impl Queue {
    pub(crate) fn new(flags: u32) -> Result<Self, Failure> {
        if flags & !FLUVIO_QUEUE_SOCKET != 0 {
            return Err(Failure::invalid(format!("flags is {flags:#x}: only FLUVIO_QUEUE_SOCKET is known")));
        }
        let wake = if flags & FLUVIO_QUEUE_SOCKET == 0 { Wake::event() } else { Wake::socket() }.map_err(
            |error| Failure::new(fluvio_error_kind::System, format!("the wake-up descriptor: {error}")),
        )?;
        Ok(Queue { origin: Origin::here(), mailbox: Mailbox::new(wake) })
    }

    /// Takes a completion with its value; frees it if nobody will fetch it.
    pub(crate) fn push(&self, completion: fluvio_completion) {
        if self.origin.is_here()
            && let Err(item) = self.mailbox.push(Item(completion))
        {
            item.free();
        }
    }

    fn close(&self) {
        self.mailbox.close().into_iter().for_each(Item::free);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where completions are written, as the caller passes it: `capacity` of them fit.
///
/// # Safety
/// `out` is NULL or valid for writing `capacity` completions, and nobody else uses it during `'a`.
unsafe fn room_for<'a>(
    out: *mut fluvio_completion,
    capacity: usize,
) -> Result<impl FnMut(Item) + use<'a>, Failure> {
    // SAFETY: by this function's contract; the completions may be uninitialised and are only written.
    let slots = unsafe { arguments::slice_mut("out", out.cast::<std::mem::MaybeUninit<_>>(), capacity) }?;
    let mut slots = slots.iter_mut();
    Ok(move |item: Item| {
        if let Some(slot) = slots.next() {
            slot.write(item.0);
        }
    })
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
            Ok(handle::into_raw(Arc::new(Queue::new(flags)?)))
        })
    }
}

/// The descriptor to poll: readable while completions wait, unless a thread in `fluvio_queue_wait` is about to take
/// them. A wake does not make it readable. Non-blocking, closed on exec. -1 for NULL and in a forked child.
///
/// Ownership: borrowed until `fluvio_queue_free`: stop polling before that. Only to be polled, not to be read.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_get_fd(queue: *const fluvio_queue) -> i32 {
    // SAFETY: the caller passes NULL or a live queue.
    boundary_or(-1, || unsafe { handle::get(queue) }.map_or(-1, |queue| queue.mailbox.descriptor().fd()))
}

/// Fetches up to `capacity` completions without blocking. If the result equals `capacity` more may wait; then the
/// descriptor stays readable.
///
/// Parameters: `out` has room for `capacity` completions.
/// Ownership: the caller owns the values of the completions.
/// Completion: none.
/// Threads: any.
/// Errors: returns 0 for NULL, for a capacity that memory cannot hold, and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_drain(
    queue: *mut fluvio_queue,
    out: *mut fluvio_completion,
    capacity: usize,
) -> usize {
    // SAFETY: the caller passes NULL or a live queue, and an array of `capacity` elements.
    boundary_or(0, || unsafe {
        match (handle::get(queue), room_for(out, capacity)) {
            (Ok(queue), Ok(take)) => queue.mailbox.drain(capacity, take),
            _ => 0,
        }
    })
}

/// Fetches up to `capacity` completions; if there are none, blocks until one comes, the time is over, somebody wakes it or
/// the queue is closed.
///
/// Parameters: `out` has room for `capacity` completions, at least one; `timeout_ms` is milliseconds, negative: for ever.
///   `*count` gets how many were fetched: at least 1 if OK, 0 otherwise.
/// Ownership: the caller owns the values of the completions.
/// Completion: none. OK: completions; EMPTY: the time is over; WOKEN: by `fluvio_queue_wake`; END: the queue is closed; ERROR.
/// Threads: any but the library's; any number at once.
/// Errors: INVALID_ARGUMENT, FORKED, BUSY (inside `complete` or `release`, where nothing may block).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_wait(
    queue: *mut fluvio_queue,
    out: *mut fluvio_completion,
    capacity: usize,
    timeout_ms: i64,
    count: *mut usize,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid, and an array of `capacity` elements.
    unsafe {
        boundary(error, || {
            let count = arguments::out("count", count)?.write(0);
            if sink::inside_host() {
                return Err(Failure::new(
                    fluvio_error_kind::Busy,
                    "fluvio_queue_wait blocks: it cannot be called inside complete or release",
                ));
            }
            // A share of its own, so that a queue that is freed too early does no harm to a thread that waits already.
            let queue = Arc::clone(handle::get(queue)?);
            let take = room_for(out, capacity)?;
            if capacity == 0 {
                return Err(Failure::invalid("capacity is 0: give room for one completion at least"));
            }
            let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            Ok(match queue.mailbox.wait(capacity, timeout, take) {
                Waited::Items(fetched) => {
                    *count = fetched;
                    fluvio_status::Ok
                }
                Waited::TimedOut => fluvio_status::Empty,
                Waited::Woken => fluvio_status::Woken,
                Waited::Closed => fluvio_status::End,
            })
        })
    }
}

/// Ends one `fluvio_queue_wait`: one that is going on, else the next one. As many calls end as many waits. A wait that finds
/// completions gives those first. NULL is allowed; nothing happens in a forked child.
///
/// Threads: any, also inside `complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_wake(queue: *mut fluvio_queue) {
    // SAFETY: the caller passes NULL or a live queue.
    boundary_or((), || unsafe {
        if let Ok(queue) = handle::get(queue) {
            queue.mailbox.wake();
        }
    });
}

/// Closes a queue: every `fluvio_queue_wait`, now and later, says END, so that the threads that use the queue can be joined
/// before it is freed. What waits in it, and what comes later, is freed. Contexts that use it stay valid. NULL is
/// allowed; nothing happens in a forked child, or the second time.
///
/// Ownership: nothing changes hands. The queue stays valid and is still to be freed.
/// Threads: any, also inside `complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_close(queue: *mut fluvio_queue) {
    // SAFETY: the caller passes NULL or a live queue.
    boundary_or((), || unsafe {
        if let Ok(queue) = handle::get(queue) {
            queue.close();
        }
    });
}

/// Frees a queue, and closes it first. Contexts that use it stay valid. NULL is allowed.
///
/// Ownership: takes the queue: as with every handle, no other call may use it any more (see `fluvio_queue_close`).
/// Threads: any, also inside `complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_queue_free(queue: *mut fluvio_queue) {
    // SAFETY: the caller passes NULL or a queue that it owns and does not use again.
    boundary_or((), || unsafe {
        if let Ok(queue) = handle::get(queue) {
            queue.close();
        }
        handle::free(queue);
    });
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
