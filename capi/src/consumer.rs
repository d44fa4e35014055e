//! The consumer: waits for readiness asynchronously, takes batches synchronously.

use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::ErrorKind;
use engine::consumer::{Consumer, ConsumerOptions, Taken};

use crate::batch::{fluvio_batch, fluvio_batch_view, view_of};
use crate::boundary::{boundary, boundary_or};
use crate::client::fluvio_client;
use crate::completion::{Outcome, fluvio_status};
use crate::context::fluvio_context;
use crate::error::{Failure, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque};
use crate::operation::{Claim, WhenCancelled};
use crate::options::{self, fluvio_options};
use crate::{arguments, error};

/// Reads a topic. It has one waiter and one taker at a time; belongs to no context.
pub struct fluvio_consumer {
    _private: [u8; 0],
}

impl Opaque for fluvio_consumer {
    type Value = ConsumerHandle;
    const NAME: &'static str = "consumer";
}

/// What is behind a `fluvio_consumer`.
pub struct ConsumerHandle {
    consumer: Arc<Consumer>,
    waiting: Arc<AtomicBool>,
    taking: AtomicBool,
}

/// Opens a consumer of a topic.
///
/// Parameters: `topic` is UTF-8, `topic_len` bytes. `options` may be NULL: all defaults. Unknown keys are refused by name.
///   Keys: `partitions` (array of numbers; absent: all), `start` ({"beginning": n}, {"end": n} or {"offset": n}; default
///   {"end": 0}; of these only an offset has to be there still when reading begins), `prefetch_bytes`, `isolation`
///   ("read_uncommitted", "read_committed"), `check_crc` (true).
/// Ownership: the inputs are copied. The consumer may outlive the client handle.
/// Completion: CONSUMER; the receiver frees it with `fluvio_consumer_free`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED. Of the completion: TOPIC_NOT_FOUND, PARTITION_NOT_FOUND,
///   OFFSET_EVICTED, OFFSET_OUT_OF_RANGE, SERVER, TIMEOUT, CONNECTION, CLOSED.
/// Cancellation: nothing is left open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_consumer_open(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    topic: *const c_char,
    topic_len: usize,
    options: *const fluvio_options,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(client)?;
            let client = handle.open()?.clone();
            let topic = arguments::name("topic", topic, topic_len)?.to_owned();
            let options = ConsumerOptions::from_json(options::document(options)?)?;
            handle::get(context)?.start_counted(user_data, handle.under_way(), async move {
                let consumer = client.consumer(&topic, options).await?;
                Ok(Outcome::value::<fluvio_consumer>(ConsumerHandle {
                    consumer: Arc::new(consumer),
                    waiting: Arc::default(),
                    taking: AtomicBool::new(false),
                }))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Waits until `fluvio_consumer_take` would not say EMPTY. Level-triggered: completes soon while a batch, an error or
/// the end is waiting, and consumes nothing.
///
/// Ownership: nothing changes hands. The consumer may be freed meanwhile.
/// Completion: NONE.
/// Threads: any; one waiter at a time.
/// Errors: of the call: BUSY (another wait is pending), INVALID_ARGUMENT, DUPLICATE, FORKED.
/// Cancellation: nothing is lost, and the next wait may be started at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_consumer_ready(
    consumer: *mut fluvio_consumer,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(consumer)?;
            let operations = handle::get(context)?;
            let claim = Claim::take(&handle.waiting).ok_or_else(|| busy("wait for"))?;
            let ready = handle.consumer.ready();
            operations.start_in_order(user_data, Some(claim), WhenCancelled::Drop, async move {
                ready.await;
                Ok::<_, error::Failure>(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

fn busy(what: &str) -> Failure {
    Failure::new(
        fluvio_error_kind::Busy,
        format!("another call is in progress to {what} this consumer's batches"),
    )
}

/// Takes the next batch, without blocking.
///
/// Parameters: `batch` is written if the status is OK; so is `view`, unless it is NULL.
/// Ownership: the caller frees the batch with `fluvio_batch_free`; the view is borrowed until then.
/// Completion: none. OK: a batch; EMPTY: nothing now, wait with `fluvio_consumer_ready`; END: closed, or nothing will come
///   any more; ERROR.
/// Threads: any; one taker at a time.
/// Errors: BUSY (another thread is taking), INVALID_ARGUMENT, FORKED, and what went wrong on a partition, each once, after
///   the partition's data: OFFSET_EVICTED, OFFSET_OUT_OF_RANGE, TOPIC_DELETED, CORRUPT, UNSUPPORTED, SERVER. The other partitions go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_consumer_take(
    consumer: *mut fluvio_consumer,
    batch: *mut *mut fluvio_batch,
    view: *mut fluvio_batch_view,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(consumer)?;
            let out = arguments::out("batch", batch)?;
            if handle.taking.swap(true, Ordering::Acquire) {
                return Err(busy("take"));
            }
            let _taking = Taking(&handle.taking);
            let taken = match handle.consumer.take() {
                // To those who take, the end of a closed consumer is an end like others.
                Err(error) if error.kind() == ErrorKind::Closed => Taken::End,
                result => result?,
            };
            match taken {
                Taken::Batch(taken) => {
                    if !view.is_null() {
                        // The columns stay where they are when the batch moves into its handle.
                        view.write(view_of(&taken));
                    }
                    out.write(handle::into_raw(taken));
                    Ok(fluvio_status::Ok)
                }
                Taken::Empty => Ok(fluvio_status::Empty),
                Taken::End => Ok(fluvio_status::End),
            }
        })
    }
}

struct Taking<'a>(&'a AtomicBool);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Closes a consumer: its stream ends, what was prefetched is dropped, `fluvio_consumer_take` says END.
///
/// Parameters: `consumer` stays valid and is still to be freed.
/// Ownership: nothing changes hands. Batches that were taken stay valid.
/// Completion: NONE.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, DUPLICATE, FORKED. Closing again is no error.
/// Cancellation: closing goes on, unobserved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_consumer_close(
    consumer: *mut fluvio_consumer,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let consumer = Arc::clone(&handle::get(consumer)?.consumer);
            handle::get(context)?.start_in_order(user_data, None, WhenCancelled::GoOn, async move {
                consumer.close().await;
                Ok::<_, error::Failure>(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Frees a consumer, and closes it without waiting. Batches that were taken stay valid. NULL is allowed.
///
/// Ownership: takes the consumer.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_consumer_free(consumer: *mut fluvio_consumer) {
    // SAFETY: the caller passes NULL or a consumer that it owns and does not use again.
    boundary_or((), || unsafe { handle::free_in_runtime(consumer) });
}
