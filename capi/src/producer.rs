//! The producer: records into the engine's open batches, one completion per record or per send_many.

use std::ffi::c_char;
use std::sync::Arc;

use engine::producer::{
    Ack, AckHandler, Deliveries, DeliveriesHandler, Many, Producer, ProducerOptions, Room, Sent,
};

use crate::arguments;
use crate::boundary::{boundary, boundary_or};
use crate::client::fluvio_client;
use crate::completion::{Outcome, fluvio_status};
use crate::context::fluvio_context;
use crate::deliveries::{DeliveriesHandle, fluvio_deliveries};
use crate::error::{Failure, fluvio_error};
use crate::handle::{self, Opaque};
use crate::operation::{Ticket, WhenCancelled};
use crate::options::{self, fluvio_options};
use crate::room::fluvio_room;
use crate::runtime;
use crate::undelivered::OnTheWay;

/// Room that a record takes at most besides the bytes of its key and value: what its place in a batch, its handler and its
/// completion take of the memory. A record of `fluvio_producer_send_many` takes 64, and the call the rest once, until all of
/// its records have their fate.
pub const FLUVIO_RECORD_OVERHEAD: usize = 288;

const _: () = assert!(
    FLUVIO_RECORD_OVERHEAD == engine::producer::RECORD_OVERHEAD
        && engine::producer::MANY_OVERHEAD == 64
        && engine::producer::CALL_OVERHEAD == FLUVIO_RECORD_OVERHEAD - 64
);

/// As a key's length, or as its start in a batch: the record has no key (an empty key has the length 0).
pub const FLUVIO_NO_KEY: u32 = 4294967295;

/// The partitioner chooses: SipHash of the key; records without one stay in one partition until its batch is full or sent,
/// then go to the next that can be reached.
pub const FLUVIO_ANY_PARTITION: u32 = 4294967295;

/// Sends records to a topic. Thread-safe; belongs to no context.
pub struct fluvio_producer {
    _private: [u8; 0],
}

impl Opaque for fluvio_producer {
    type Value = Arc<Producer>;
    const NAME: &'static str = "producer";
}

/// A pending send: whom to tell, and how many records wait for it.
struct Delivery {
    ticket: Ticket,
    _records: OnTheWay,
}

impl AckHandler for Delivery {
    fn acked(self: Box<Self>, result: engine::Result<Ack>) {
        self.ticket.finish(match result {
            Ok(ack) => Outcome::acked(ack.partition, ack.offset),
            Err(error) => Outcome::failed(error.into()),
        });
    }
}

impl DeliveriesHandler for Delivery {
    fn delivered(self: Box<Self>, deliveries: Deliveries) {
        self.ticket.finish(Outcome::value::<fluvio_deliveries>(DeliveriesHandle::new(deliveries)));
    }
}

/// Opens a producer for a topic.
///
/// Parameters: `topic` is UTF-8, `topic_len` bytes. `options` may be NULL: all defaults. Unknown keys are refused by name.
///   Keys: `batch_size_bytes`, `max_request_size_bytes`, `linger_ms`, `buffer_bytes`, `in_flight` (requests of this producer
///   that may be unanswered per SPU, each with at most one batch of a partition; above 1 a retry may change the order),
///   `isolation` ("read_uncommitted", "read_committed"), `delivery_timeout_ms` (counted by the batch, from its first record on),
///   `retry_initial_ms`, `retry_max_ms`.
/// Ownership: the inputs are copied. The producer may outlive the client handle.
/// Completion: PRODUCER; the receiver frees it with `fluvio_producer_free`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED. Of the completion: TOPIC_NOT_FOUND, SERVER, TIMEOUT,
///   CONNECTION, CLOSED.
/// Cancellation: nothing is left open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_open(
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
            let options = ProducerOptions::from_json(options::document(options)?)?;
            handle::get(context)?.start_counted(user_data, handle.under_way(), async move {
                let producer = Arc::new(client.producer(&topic, options).await?);
                if let Some(undelivered) = runtime::undelivered() {
                    undelivered.add(&producer);
                }
                Ok(Outcome::value::<fluvio_producer>(producer))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// How many partitions the topic has now; 0 for NULL and in a forked child.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_get_partition_count(producer: *const fluvio_producer) -> u32 {
    // SAFETY: the caller passes NULL or a live producer.
    boundary_or(0, || unsafe { handle::get(producer) }.map_or(0, |producer| producer.partition_count()))
}

/// The size of the buffer, which bounds what can be reserved; 0 for NULL and in a forked child.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_get_buffer_bytes(producer: *const fluvio_producer) -> usize {
    // SAFETY: the caller passes NULL or a live producer.
    boundary_or(0, || unsafe { handle::get(producer) }.map_or(0, |producer| producer.buffer_bytes()))
}

/// The most bytes that key and value of one record can have together; 0 for NULL and in a forked child.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_get_max_record_bytes(producer: *const fluvio_producer) -> usize {
    // SAFETY: the caller passes NULL or a live producer.
    boundary_or(0, || unsafe { handle::get(producer) }.map_or(0, |producer| producer.max_record_bytes()))
}

/// Waits for room in the buffer, first come, first served.
///
/// Parameters: `bytes` counts the keys and values, and `FLUVIO_RECORD_OVERHEAD` per record.
/// Ownership: nothing changes hands.
/// Completion: ROOM; the receiver passes it to a send, or gives it back with `fluvio_room_free`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT (more than the buffer), DUPLICATE, FORKED. Of the completion: CLOSED.
/// Cancellation: nothing is reserved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_reserve(
    producer: *mut fluvio_producer,
    context: *mut fluvio_context,
    bytes: usize,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let producer = handle::get(producer)?.clone();
            let buffer = producer.buffer_bytes();
            if bytes > buffer {
                return Err(Failure::invalid(format!(
                    "bytes is {bytes}, the producer's buffer has {buffer}"
                )));
            }
            handle::get(context)?.start_in_order(user_data, None, WhenCancelled::Drop, async move {
                Ok(Outcome::value::<fluvio_room>(Some(producer.reserve(bytes).await?)))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Runs a send with the caller's room, whose handle stays the caller's.
///
/// # Safety
/// `room` is NULL or a live room that nobody else uses.
unsafe fn with_room<T>(
    room: *mut fluvio_room,
    send: impl FnOnce(&mut Option<Room>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if room.is_null() {
        return send(&mut None);
    }
    // SAFETY: by this function's contract.
    send(unsafe { handle::get_mut(room) }?)
}

/// Sends one record: copies it into the buffer if there is room, and returns.
///
/// Parameters: `room` is NULL (only if there is room now) or what `fluvio_producer_reserve` gave. `key` may be NULL for
///   a record without a key; `value` may be NULL if `value_len` is 0. `partition` is a partition or
///   `FLUVIO_ANY_PARTITION`.
/// Ownership: key and value are copied. OK takes what was reserved; the room itself stays the caller's to free.
/// Completion: if OK, NONE with the record's partition and offset, or an error. FULL: nothing was copied, no completion.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, PARTITION_NOT_FOUND, RECORD_TOO_LARGE, CLOSED, DUPLICATE, FORKED. Of the
///   completion: SERVER, TOPIC_DELETED, TIMEOUT, CONNECTION.
/// Cancellation: the completion comes as CANCELLED, and the record is still sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_send(
    producer: *mut fluvio_producer,
    context: *mut fluvio_context,
    room: *mut fluvio_room,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
    partition: u32,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let producer = handle::get(producer)?;
            let operations = handle::get(context)?;
            let key_bytes = arguments::slice("key", key, key_len)?;
            let key = (!key.is_null()).then_some(key_bytes);
            let value = arguments::slice("value", value, value_len)?;
            let partition = arguments::partition(partition);
            let mut refused = None;
            let sent = with_room(room, |room| {
                let handler = || match operations.ticket(user_data) {
                    Ok(ticket) => {
                        Ok(Box::new(Delivery { ticket, _records: OnTheWay::new(1) }) as Box<dyn AckHandler>)
                    }
                    Err(failure) => Err(refuse(&mut refused, failure)),
                };
                Ok(producer.send(room, key, value, partition, handler)?)
            });
            match (refused, sent) {
                (Some(failure), _) => Err(failure),
                (None, Ok(Sent::Accepted)) => Ok(fluvio_status::Ok),
                (None, Ok(Sent::Full)) => Ok(fluvio_status::Full),
                (None, Err(failure)) => Err(failure),
            }
        })
    }
}

/// Keeps a refusal of the border, which the engine's error cannot express, and makes the engine refuse the record.
fn refuse(refused: &mut Option<Failure>, failure: Failure) -> engine::Error {
    *refused = Some(failure);
    engine::Error::new(engine::ErrorKind::InvalidArgument, "refused at the border")
}

/// Sends many records with one call: copies as many as there is room for, and returns.
///
/// Parameters: `room` as for `fluvio_producer_send`. `arena` holds key and value of each record, back to back, `arena_len`
///   bytes in all. `key_lengths` may be NULL (no keys); an entry of `FLUVIO_NO_KEY` is a record without a key.
///   `value_lengths` has `count` entries, at least one. `partition` is a partition or `FLUVIO_ANY_PARTITION`.
///   `*accepted` gets how many records were taken, from the front: at least 1 if OK, 0 otherwise; the caller goes on with
///   the rest.
/// Ownership: everything is copied. OK takes what was reserved; the room itself stays the caller's to free.
/// Completion: if OK, DELIVERIES for the accepted records, with status OK even if some of them failed; freed with
///   `fluvio_deliveries_free`. FULL: nothing was copied, no completion.
/// Threads: any.
/// Errors: of the call, with nothing accepted: INVALID_ARGUMENT, PARTITION_NOT_FOUND, RECORD_TOO_LARGE (with the detail
///   {"record": index}), CLOSED, DUPLICATE, FORKED.
/// Cancellation: the completion comes as CANCELLED, and the records are still sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_send_many(
    producer: *mut fluvio_producer,
    context: *mut fluvio_context,
    room: *mut fluvio_room,
    arena: *const u8,
    arena_len: usize,
    key_lengths: *const u32,
    value_lengths: *const u32,
    count: usize,
    partition: u32,
    user_data: u64,
    accepted: *mut usize,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let accepted = arguments::out("accepted", accepted)?.write(0);
            let producer = handle::get(producer)?;
            let operations = handle::get(context)?;
            let arena = arguments::slice("arena", arena, arena_len)?;
            let value_lengths = arguments::slice("value_lengths", value_lengths, count)?;
            let key_lengths = match key_lengths.is_null() {
                true => None,
                false => Some(arguments::slice("key_lengths", key_lengths, count)?),
            };
            if value_lengths.is_empty() {
                return Err(Failure::invalid("count is 0: give at least one record"));
            }
            let partition = arguments::partition(partition);
            let records = Many { arena, key_lengths, value_lengths };
            let mut refused = None;
            let sent = with_room(room, |room| {
                let handler = |accepted| match operations.ticket(user_data) {
                    Ok(ticket) => {
                        let records = OnTheWay::new(accepted);
                        Ok(Box::new(Delivery { ticket, _records: records }) as Box<dyn DeliveriesHandler>)
                    }
                    Err(failure) => Err(refuse(&mut refused, failure)),
                };
                Ok(producer.send_many(room, records, partition, handler)?)
            });
            match (refused, sent) {
                (Some(failure), _) => Err(failure),
                (None, Ok(0)) => Ok(fluvio_status::Full),
                (None, Ok(count)) => {
                    *accepted = count;
                    Ok(fluvio_status::Ok)
                }
                (None, Err(failure)) => Err(failure),
            }
        })
    }
}

/// Waits until every record that was accepted before has its fate. What is open is sent without lingering.
///
/// Ownership: nothing changes hands.
/// Completion: NONE; failed records report themselves.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, DUPLICATE, FORKED.
/// Cancellation: the records are still sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_flush(
    producer: *mut fluvio_producer,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let producer = handle::get(producer)?.clone();
            handle::get(context)?.start_in_order(user_data, None, WhenCancelled::Drop, async move {
                producer.flush().await;
                Ok::<_, Failure>(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Closes a producer: no more sends from now on, and what was accepted is flushed within the client's
/// `close_timeout_ms`.
///
/// Parameters: `producer` stays valid and is still to be freed.
/// Ownership: nothing changes hands.
/// Completion: NONE.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, DUPLICATE, FORKED. Of the completion: TIMEOUT, with the detail
///   {"undelivered": n}.
/// Cancellation: the producer is closed, and the records are still sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_close(
    producer: *mut fluvio_producer,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let producer = handle::get(producer)?.clone();
            handle::get(context)?.start_in_order(user_data, None, WhenCancelled::GoOn, async move {
                producer.close().await?;
                Ok(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Frees a producer without waiting: what was accepted is still sent while the process lives. NULL is allowed.
///
/// Ownership: takes the producer.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_producer_free(producer: *mut fluvio_producer) {
    // SAFETY: the caller passes NULL or a producer that it owns and does not use again.
    boundary_or((), || unsafe { handle::free_in_runtime(producer) });
}
