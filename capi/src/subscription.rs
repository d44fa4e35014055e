//! Subscriptions: one type for everything that is watched. Waits for readiness asynchronously, takes documents
//! synchronously.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::subscription::{Subscription, Taken};

use crate::arguments;
use crate::boundary::{boundary, boundary_or};
use crate::client::fluvio_client;
use crate::completion::{Outcome, fluvio_status};
use crate::context::fluvio_context;
use crate::document::fluvio_document;
use crate::error::{Failure, c_text, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque};
use crate::operation::{Claim, WhenCancelled};
use crate::options::{self, fluvio_options};

/// Documents about something that is watched. It has one waiter at a time; belongs to no context.
pub struct fluvio_subscription {
    _private: [u8; 0],
}

impl Opaque for fluvio_subscription {
    type Value = SubscriptionHandle;
    const NAME: &'static str = "subscription";
}

/// What is behind a `fluvio_subscription`.
pub struct SubscriptionHandle {
    subscription: Subscription,
    waiting: Arc<AtomicBool>,
}

/// What can be watched; more will follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_subscription_kind {
    /// The client's connection to the cluster. Documents: {"event": "connected" | "lost" | "reconnecting", "endpoint":
    /// "host:port"}, with "error" (why, of lost) or "attempt" (from 1, of reconnecting).
    Connection = 0,
}

/// Watches something of a client. The first document says how things are, the next ones what changes. Who takes slowly loses
/// the oldest documents: the next one then has "dropped", their number.
///
/// Parameters: `kind` is a `fluvio_subscription_kind`; `options` may be NULL, no kind of this version has any.
/// Ownership: nothing changes hands. The subscription may outlive the client handle.
/// Completion: SUBSCRIPTION; the receiver frees it with `fluvio_subscription_free`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED.
/// Cancellation: nothing is left open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_subscription_open(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    kind: u32,
    options: *const fluvio_options,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let client = handle::get(client)?.open()?.clone();
            let operations = handle::get(context)?;
            if kind != fluvio_subscription_kind::Connection as u32 {
                return Err(Failure::invalid(format!("kind is {kind}: give a fluvio_subscription_kind")));
            }
            refuse_keys(options::document(options)?)?;
            operations.start_in_order(user_data, None, WhenCancelled::Drop, async move {
                Ok::<_, Failure>(Outcome::value::<fluvio_subscription>(SubscriptionHandle {
                    subscription: client.connection_events(),
                    waiting: Arc::default(),
                }))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Refuses every key of a document where none is known. That it is an object was checked when the options were made.
fn refuse_keys(document: &str) -> Result<(), Failure> {
    let keys =
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(document).unwrap_or_default();
    match keys.keys().next() {
        None => Ok(()),
        Some(key) => Err(Failure::invalid(format!("subscription options: unknown field `{key}`"))),
    }
}

/// Waits until `fluvio_subscription_take` would not say EMPTY. Level-triggered: completes soon while a document or the end
/// is waiting, and consumes nothing.
///
/// Ownership: nothing changes hands. The subscription may be freed meanwhile.
/// Completion: NONE.
/// Threads: any; one waiter at a time.
/// Errors: of the call: BUSY (another wait is pending), INVALID_ARGUMENT, DUPLICATE, FORKED.
/// Cancellation: nothing is lost, and the next wait may be started at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_subscription_ready(
    subscription: *mut fluvio_subscription,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(subscription)?;
            let operations = handle::get(context)?;
            let claim = Claim::take(&handle.waiting).ok_or_else(|| {
                Failure::new(fluvio_error_kind::Busy, "another call waits for this subscription's documents")
            })?;
            let ready = handle.subscription.ready();
            operations.start_in_order(user_data, Some(claim), WhenCancelled::Drop, async move {
                ready.await;
                Ok::<_, Failure>(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Takes the next document, without blocking.
///
/// Parameters: `document` is written if the status is OK.
/// Ownership: the caller frees the document with `fluvio_document_free`.
/// Completion: none. OK: a document; EMPTY: nothing now, wait with `fluvio_subscription_ready`; END: the client was closed and
///   nothing will come any more; ERROR.
/// Threads: any.
/// Errors: INVALID_ARGUMENT, FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_subscription_take(
    subscription: *mut fluvio_subscription,
    document: *mut *mut fluvio_document,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(subscription)?;
            let out = arguments::out("document", document)?;
            Ok(match handle.subscription.take() {
                Taken::Document(taken) => {
                    let text = serde_json::Value::Object(taken).to_string();
                    out.write(handle::into_raw(c_text(text)));
                    fluvio_status::Ok
                }
                Taken::Empty => fluvio_status::Empty,
                Taken::End => fluvio_status::End,
            })
        })
    }
}

/// Frees a subscription, and ends it. Documents that were taken stay valid. NULL is allowed.
///
/// Ownership: takes the subscription.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_subscription_free(subscription: *mut fluvio_subscription) {
    // SAFETY: the caller passes NULL or a subscription that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(subscription) });
}
