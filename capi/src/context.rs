//! The context: binds a sink, or a queue, and holds what is pending on it.

use std::sync::Arc;

use crate::boundary::{boundary_or, boundary_pointer};
use crate::error::{Failure, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque};
use crate::operation::Operations;
use crate::queue::fluvio_queue;
use crate::sink::{CheckedSink, Sink, fluvio_sink};
use crate::{platform, runtime};

/// Binds one completion sink, or a queue. Every asynchronous function takes a context and a user_data that is unique among the
/// context's pending operations. Clients, producers and consumers belong to no context.
pub struct fluvio_context {
    _private: [u8; 0],
}

impl Opaque for fluvio_context {
    type Value = Arc<Operations>;
    const NAME: &'static str = "context";
}

/// Makes a context. The first one of a process starts the library's threads.
///
/// Parameters: `sink` is copied; its `size` and `complete` are required.
/// Ownership: the caller frees the context with `fluvio_context_free`. The sink's `context` stays in use until `release`;
///   on failure it is not used and `release` is not called.
/// Completion: none.
/// Threads: any.
/// Errors: NULL is returned, and `*error` says why: INVALID_ARGUMENT, SYSTEM (threads cannot be started).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_context_new(
    sink: *const fluvio_sink,
    error: *mut *mut fluvio_error,
) -> *mut fluvio_context {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary_pointer(error, || {
            let sink = sink.as_ref().ok_or_else(|| Failure::invalid("sink is NULL"))?;
            let sink = CheckedSink::new(sink)?;
            Ok(handle::into_raw(Operations::new(start_library()?, sink.bind())))
        })
    }
}

/// Makes a context whose completions go into a queue. Several contexts may share one.
///
/// Ownership: the caller frees the context with `fluvio_context_free`. It keeps what it needs of the queue, which may be
///   freed before it.
/// Completion: none.
/// Threads: any.
/// Errors: NULL is returned, and `*error` says why: INVALID_ARGUMENT, FORKED, SYSTEM (threads cannot be started).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_context_new_on_queue(
    queue: *mut fluvio_queue,
    error: *mut *mut fluvio_error,
) -> *mut fluvio_context {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary_pointer(error, || {
            let queue = Arc::clone(handle::get(queue)?);
            Ok(handle::into_raw(Operations::new(start_library()?, Sink::Queue(queue))))
        })
    }
}

/// The runtime, made if needed, and what must be there before a handle is.
pub(crate) fn start_library() -> Result<&'static tokio::runtime::Handle, Failure> {
    platform::detect_forks()
        .map_err(|error| Failure::new(fluvio_error_kind::System, format!("pthread_atfork: {error}")))?;
    runtime::get()
}

/// Frees a context and returns at once. What is pending completes as CANCELLED; when the last `complete` has returned,
/// `release` is called once, on a library thread. NULL is allowed.
///
/// Ownership: takes the context.
/// Threads: any, also inside `complete`.
/// Cancellation: as by `fluvio_cancel` for every pending operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_context_free(context: *mut fluvio_context) {
    // SAFETY: the caller passes NULL or a context that it owns and does not use again.
    boundary_or((), || unsafe {
        if let Ok(operations) = handle::get(context) {
            operations.close();
        }
        handle::free(context);
    });
}

/// Cancels the operation that is pending under `user_data`; a no-op if there is none. Its completion still comes, soon
/// and with status CANCELLED, unless it won the race. What cancelling means is said at each function.
///
/// Parameters: `context` may be NULL (a no-op).
/// Completion: none of its own.
/// Threads: any, also inside `complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_cancel(context: *mut fluvio_context, user_data: u64) {
    boundary_or((), || {
        // SAFETY: the caller passes NULL or a live context.
        if let Ok(operations) = unsafe { handle::get(context) } {
            operations.cancel(user_data);
        }
    });
}
