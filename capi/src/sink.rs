//! Where completions go: a function, and its context. Released once, after the last call has returned.

use std::ffi::c_void;

use crate::completion::fluvio_completion;
use crate::error::Failure;

/// Receives one completion. Called on a thread of the library, outside its locks, exactly once per accepted call. It may
/// call any function of this library except `fluvio_queue_wait`. It must not block and must not unwind (no C++ exception,
/// no longjmp). Completions of one context may come on several threads at once.
///
/// `context` is that of the sink; `completion` is valid during the call, its value belongs to the receiver.
pub type fluvio_complete_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, completion: *const fluvio_completion)>;

/// Called once, on a thread of the library, when the context was freed and the last `complete` has returned.
pub type fluvio_release_fn = Option<unsafe extern "C" fn(context: *mut c_void)>;

/// Where the completions of a context go.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fluvio_sink {
    /// Required.
    pub complete: fluvio_complete_fn,
    /// May be NULL.
    pub release: fluvio_release_fn,
    /// Passed to both; may be NULL.
    pub context: *mut c_void,
}

/// A sink in use. Dropping it calls `release`: whoever may still call `complete` holds a share.
pub(crate) struct Sink {
    complete: unsafe extern "C" fn(*mut c_void, *const fluvio_completion),
    release: fluvio_release_fn,
    context: *mut c_void,
}

// SAFETY: the C contract says that both functions are called on threads of the library, possibly several at once.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Sink {
    pub(crate) fn new(sink: &fluvio_sink) -> Result<Self, Failure> {
        let complete = sink.complete.ok_or_else(|| Failure::invalid("sink->complete is NULL"))?;
        Ok(Sink { complete, release: sink.release, context: sink.context })
    }

    /// Whether completions may also come on the caller's thread, inside the call that started the operation: so for the
    /// queue, which only keeps them. A function of the host is never called there.
    pub(crate) fn is_queue(&self) -> bool {
        std::ptr::fn_addr_eq(self.complete, crate::queue::complete as unsafe extern "C" fn(_, _))
    }

    pub(crate) fn complete(&self, completion: &fluvio_completion) {
        // SAFETY: the C contract of fluvio_sink: valid until `release` was called.
        unsafe { (self.complete)(self.context, completion) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the C contract of fluvio_sink; the last share is gone, so no call is running or will come.
            unsafe { release(self.context) }
        }
    }
}
