//! Where completions go: a queue of the library, or a function of the host with its context, which is released once, after
//! the last call has returned.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;

use crate::completion::fluvio_completion;
use crate::error::Failure;
use crate::queue::Queue;
use crate::slot_table::Slots;

/// Receives one completion. Called on a thread of the library, outside its locks, exactly once per accepted call, never
/// inside that call, possibly before it has returned. Completions of one context may come on several threads at once.
///
/// It may call every function of this library but the two that block, `fluvio_queue_wait` and `fluvio_flush_all`, which
/// refuse. It must not block and must not unwind (no C++ exception, no longjmp). `context` is that of the sink;
/// `completion` is valid during the call, its value belongs to the receiver.
pub type fluvio_complete_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, completion: *const fluvio_completion)>;

/// Called once, on a thread of the library, when the context was freed and the last `complete` has returned. What holds for
/// `complete` holds for it.
pub type fluvio_release_fn = Option<unsafe extern "C" fn(context: *mut c_void)>;

/// Where the completions of a context go.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fluvio_sink {
    /// `sizeof(fluvio_sink)`, set by the caller: what the caller does not know of is as if it were 0.
    pub size: usize,
    /// Required.
    pub complete: fluvio_complete_fn,
    /// May be NULL.
    pub release: fluvio_release_fn,
    /// Passed to both; may be NULL.
    pub context: *mut c_void,
}

/// The functions of a host that were found to be usable. Not a [`Sink`] yet: dropping it releases nothing.
pub(crate) struct CheckedSink {
    complete: unsafe extern "C" fn(*mut c_void, *const fluvio_completion),
    release: fluvio_release_fn,
    context: *mut c_void,
}

impl CheckedSink {
    pub(crate) fn new(sink: &fluvio_sink) -> Result<Self, Failure> {
        if sink.size != size_of::<fluvio_sink>() {
            return Err(Failure::invalid(format!(
                "sink->size is {}: set it to sizeof(fluvio_sink), {}",
                sink.size,
                size_of::<fluvio_sink>()
            )));
        }
        let complete = sink.complete.ok_or_else(|| Failure::invalid("sink->complete is NULL"))?;
        Ok(CheckedSink { complete, release: sink.release, context: sink.context })
    }

    pub(crate) fn bind(self) -> Sink {
        Sink::Host(Host(self))
    }
}

/// A sink in use. Dropping it calls `release`: whoever may still call `complete` holds a share.
pub(crate) enum Sink {
    Host(Host),
    Queue(Arc<Queue>),
    Slots(Arc<Slots>),
}

/// A host whose functions are in use.
pub(crate) struct Host(CheckedSink);

// SAFETY: the C contract says that both functions are called on threads of the library, possibly several at once.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

thread_local! {
    /// Whether a function of a host runs on this thread.
    static IN_HOST: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is inside a `complete` or `release`, where nothing may block.
pub(crate) fn inside_host() -> bool {
    IN_HOST.get()
}

fn call_host(call: impl FnOnce()) {
    // Not nested: what a host calls there completes on the runtime.
    IN_HOST.set(true);
    call();
    IN_HOST.set(false);
}

impl Sink {
    /// Whether completions may also come on the caller's thread, inside the call that started the operation: so for the
    /// queue, which only keeps them. A function of the host is never called there.
    pub(crate) fn at_once(&self) -> bool {
        matches!(self, Sink::Queue(_) | Sink::Slots(_))
    }

    pub(crate) fn complete(&self, completion: fluvio_completion) {
        match self {
            Sink::Host(host) => call_host(|| {
                // SAFETY: the C contract of fluvio_sink: valid until `release` was called.
                unsafe { (host.0.complete)(host.0.context, &raw const completion) }
            }),
            Sink::Queue(queue) => queue.push(completion),
            Sink::Slots(slots) => slots.complete(completion),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the C contract of fluvio_sink; the last share is gone, so no call is running or will come.
            call_host(|| unsafe { release(self.0.context) });
        }
    }
}
