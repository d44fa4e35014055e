//! Completions, and the values that they carry.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use crate::boundary::boundary_or;
use crate::client::fluvio_client;
use crate::consumer::fluvio_consumer;
use crate::deliveries::fluvio_deliveries;
use crate::document::fluvio_document;
use crate::error::{Failure, fluvio_error};
use crate::handle::{self, Opaque};
use crate::producer::fluvio_producer;
use crate::room::fluvio_room;
use crate::subscription::fluvio_subscription;

/// How a call or an operation went.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_status {
    /// Done; of an asynchronous call: exactly one completion will come.
    Ok = 0,
    /// Send: there is no room, nothing was copied, no completion will come; wait with `fluvio_producer_reserve`.
    Full = 1,
    /// Take: there is nothing to take now; wait with `fluvio_consumer_ready`. Wait: the time is over.
    Empty = 2,
    /// Take: the consumer is closed or at its end; nothing will come any more. Wait: the queue is closed, or nothing was
    /// started in the slot.
    End = 3,
    /// Completion: cancelled, or its context was freed.
    Cancelled = 4,
    /// Call: `*error` says why. Completion: its value is a `fluvio_error`.
    Error = 5,
    /// Wait: somebody called `fluvio_queue_wake`.
    Woken = 6,
    /// Wait for a slot: the thread has handled a signal.
    Interrupted = 7,
}

const STATUS_NAMES: [(fluvio_status, &CStr); 8] = [
    (fluvio_status::Ok, c"OK"),
    (fluvio_status::Full, c"FULL"),
    (fluvio_status::Empty, c"EMPTY"),
    (fluvio_status::End, c"END"),
    (fluvio_status::Cancelled, c"CANCELLED"),
    (fluvio_status::Error, c"ERROR"),
    (fluvio_status::Woken, c"WOKEN"),
    (fluvio_status::Interrupted, c"INTERRUPTED"),
];

/// The name of a `fluvio_status`, such as "FULL": its enumerator without the prefix; "UNKNOWN" for other numbers.
///
/// Ownership: the string is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_status_name(status: u32) -> *const c_char {
    name_of(&STATUS_NAMES, |known| known as u32 == status)
}

/// The name of what `matches`, from a table of an enum's values.
pub(crate) fn name_of<T: Copy>(names: &[(T, &'static CStr)], matches: impl Fn(T) -> bool) -> *const c_char {
    names.iter().find(|(value, _)| matches(*value)).map_or(c"UNKNOWN", |(_, name)| name).as_ptr()
}

/// What the value of a completion is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_value_kind {
    /// NULL.
    None = 0,
    /// A `fluvio_error`.
    Error = 1,
    /// A `fluvio_client`.
    Client = 2,
    /// A `fluvio_producer`.
    Producer = 3,
    /// A `fluvio_consumer`.
    Consumer = 4,
    /// A `fluvio_room`.
    Room = 5,
    /// A `fluvio_deliveries`.
    Deliveries = 6,
    /// A `fluvio_document`.
    Document = 7,
    /// A `fluvio_subscription`.
    Subscription = 8,
}

/// The end of one operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct fluvio_completion {
    /// As given to the call.
    pub user_data: u64,
    /// A `fluvio_status`: OK, CANCELLED or ERROR.
    pub status: u32,
    /// A `fluvio_value_kind`.
    pub kind: u32,
    /// Owned by the receiver, who frees it with the function of its type or with `fluvio_value_free(kind, value)`.
    pub value: *mut c_void,
    /// Of an acknowledged record, else -1.
    pub offset: i64,
    /// Of an acknowledged record, else 0.
    pub partition: u32,
    /// All 0: what later versions add is put here.
    pub reserved: [u32; 7],
}

/// A value on its way to the caller; freed if it does not arrive.
pub(crate) struct Value {
    kind: fluvio_value_kind,
    pointer: *mut c_void,
}

// SAFETY: everything behind the pointers is Send (asserted in `Value::of`), and the pointer is the only one.
unsafe impl Send for Value {}

/// An opaque type that completions carry.
pub(crate) trait Carried: Opaque {
    const KIND: fluvio_value_kind;
}

impl Carried for fluvio_error {
    const KIND: fluvio_value_kind = fluvio_value_kind::Error;
}
impl Carried for fluvio_client {
    const KIND: fluvio_value_kind = fluvio_value_kind::Client;
}
impl Carried for fluvio_producer {
    const KIND: fluvio_value_kind = fluvio_value_kind::Producer;
}
impl Carried for fluvio_consumer {
    const KIND: fluvio_value_kind = fluvio_value_kind::Consumer;
}
impl Carried for fluvio_room {
    const KIND: fluvio_value_kind = fluvio_value_kind::Room;
}
impl Carried for fluvio_deliveries {
    const KIND: fluvio_value_kind = fluvio_value_kind::Deliveries;
}
impl Carried for fluvio_document {
    const KIND: fluvio_value_kind = fluvio_value_kind::Document;
}

impl Carried for fluvio_subscription {
    const KIND: fluvio_value_kind = fluvio_value_kind::Subscription;
}

impl Value {
    pub(crate) fn of<C: Carried>(value: C::Value) -> Self
    where
        C::Value: Send,
    {
        Value { kind: C::KIND, pointer: handle::into_raw::<C>(value).cast() }
    }

    const fn none() -> Self {
        Value { kind: fluvio_value_kind::None, pointer: ptr::null_mut() }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the value was not handed out.
        unsafe { fluvio_value_free(self.kind as u32, self.pointer) }
    }
}

/// How an operation ended.
pub(crate) struct Outcome {
    status: fluvio_status,
    value: Value,
    offset: i64,
    partition: u32,
}

impl Outcome {
    pub(crate) const fn done() -> Self {
        Outcome { status: fluvio_status::Ok, value: Value::none(), offset: -1, partition: 0 }
    }

    pub(crate) const fn cancelled() -> Self {
        Outcome { status: fluvio_status::Cancelled, value: Value::none(), offset: -1, partition: 0 }
    }

    pub(crate) const fn acked(partition: u32, offset: i64) -> Self {
        Outcome { status: fluvio_status::Ok, value: Value::none(), offset, partition }
    }

    pub(crate) fn value<C: Carried>(value: C::Value) -> Self
    where
        C::Value: Send,
    {
        Outcome { status: fluvio_status::Ok, value: Value::of::<C>(value), offset: -1, partition: 0 }
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        let value = Value { kind: fluvio_value_kind::Error, pointer: failure.into_raw().cast() };
        Outcome { status: fluvio_status::Error, value, offset: -1, partition: 0 }
    }

    /// What the sink gets; the value's ownership goes with it.
    pub(crate) fn into_completion(self, user_data: u64) -> fluvio_completion {
        let value = std::mem::ManuallyDrop::new(self.value);
        fluvio_completion {
            user_data,
            status: self.status as u32,
            kind: value.kind as u32,
            value: value.pointer,
            offset: self.offset,
            partition: self.partition,
            reserved: [0; 7],
        }
    }
}

/// Frees what a completion carried, whatever it is. NULL and `FLUVIO_VALUE_KIND_NONE` are no-ops.
///
/// Parameters: `kind` and `value` as the completion had them.
/// Ownership: takes the value.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_value_free(kind: u32, value: *mut c_void) {
    const ERROR: u32 = fluvio_value_kind::Error as u32;
    const CLIENT: u32 = fluvio_value_kind::Client as u32;
    const PRODUCER: u32 = fluvio_value_kind::Producer as u32;
    const CONSUMER: u32 = fluvio_value_kind::Consumer as u32;
    const ROOM: u32 = fluvio_value_kind::Room as u32;
    const DELIVERIES: u32 = fluvio_value_kind::Deliveries as u32;
    const DOCUMENT: u32 = fluvio_value_kind::Document as u32;
    const SUBSCRIPTION: u32 = fluvio_value_kind::Subscription as u32;
    if value.is_null() {
        return;
    }
    // SAFETY: the caller passes a value with the kind that it came with, owns it and does not use it again.
    boundary_or((), || unsafe {
        match kind {
            ERROR => handle::free::<fluvio_error>(value.cast()),
            CLIENT => handle::free_in_runtime::<fluvio_client>(value.cast()),
            PRODUCER => handle::free_in_runtime::<fluvio_producer>(value.cast()),
            CONSUMER => handle::free_in_runtime::<fluvio_consumer>(value.cast()),
            ROOM => handle::free_in_runtime::<fluvio_room>(value.cast()),
            DELIVERIES => handle::free::<fluvio_deliveries>(value.cast()),
            DOCUMENT => handle::free::<fluvio_document>(value.cast()),
            SUBSCRIPTION => handle::free::<fluvio_subscription>(value.cast()),
            _ => {}
        }
    });
}
