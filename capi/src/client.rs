//! The client: a connection to a cluster.

use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Client, ClientOptions};
use tokio::sync::watch;

use crate::boundary::{boundary, boundary_or};
use crate::completion::{Outcome, fluvio_status};
use crate::context::fluvio_context;
use crate::error::{Failure, c_text, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque};
use crate::operation::WhenCancelled;
use crate::options::{self, fluvio_options};

/// A connection to a cluster. Thread-safe; belongs to no context.
pub struct fluvio_client {
    _private: [u8; 0],
}

impl Opaque for fluvio_client {
    type Value = ClientHandle;
    const NAME: &'static str = "client";
}

/// What is behind a `fluvio_client`.
pub struct ClientHandle {
    client: Client,
    closed: AtomicBool,
    /// Each operation that was started with this client has a receiver until it has completed.
    operations: Arc<watch::Sender<()>>,
    endpoint: CString,
    platform_version: CString,
}

impl ClientHandle {
    fn new(client: Client) -> Self {
        let endpoint = c_text(client.endpoint().to_owned());
        let platform_version = c_text(client.platform_version().to_string());
        let operations = Arc::new(watch::Sender::new(()));
        ClientHandle { client, closed: AtomicBool::new(false), operations, endpoint, platform_version }
    }

    /// The client, unless it was closed.
    pub(crate) fn open(&self) -> Result<&Client, Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::new(fluvio_error_kind::Closed, "the client is closed"));
        }
        Ok(&self.client)
    }

    /// To be kept until an operation has completed: closing completes afterwards.
    pub(crate) fn under_way(&self) -> watch::Receiver<()> {
        self.operations.subscribe()
    }
}

/// Connects to a cluster and checks its platform version.
///
/// Parameters: `options` may be NULL: all defaults. Without endpoint and profile it is the active profile. Unknown keys are
///   refused by name. Keys: `endpoint` ("host:port"), `profile` (of the profile file of the fluvio command line),
///   `client_id`, `connect_timeout_ms`, `request_timeout_ms`, `close_timeout_ms`, `max_frame_size_bytes`.
/// Ownership: what is needed of the options is copied.
/// Completion: CLIENT; the receiver frees it with `fluvio_client_free`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, DUPLICATE, FORKED. Of the completion: CONFIG, CONNECTION, TIMEOUT, PROTOCOL,
///   UNSUPPORTED_VERSION, UNSUPPORTED.
/// Cancellation: the connection is dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_connect(
    context: *mut fluvio_context,
    options: *const fluvio_options,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let operations = handle::get(context)?;
            let options = ClientOptions::from_json(options::document(options)?)?;
            operations.start(user_data, None, async move {
                let client = Client::connect(options).await?;
                Ok(Outcome::value::<fluvio_client>(ClientHandle::new(client)))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// The platform version that the cluster reported, such as "0.18.1"; NULL for NULL.
///
/// Ownership: borrowed until `fluvio_client_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_client_get_platform_version(client: *const fluvio_client) -> *const c_char {
    boundary_or(std::ptr::null(), || {
        // SAFETY: the caller passes NULL or a live client.
        unsafe { handle::peek(client) }.map_or(std::ptr::null(), |client| client.platform_version.as_ptr())
    })
}

/// The endpoint that the client is connected to, as given or as the profile says; NULL for NULL.
///
/// Ownership: borrowed until `fluvio_client_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_client_get_endpoint(client: *const fluvio_client) -> *const c_char {
    boundary_or(std::ptr::null(), || {
        // SAFETY: the caller passes NULL or a live client.
        unsafe { handle::peek(client) }.map_or(std::ptr::null(), |client| client.endpoint.as_ptr())
    })
}

/// Closes a client with its producers (what they accepted is sent first, within `close_timeout_ms`) and consumers. Later
/// calls that use it get CLOSED. A producer or consumer that is being opened completes with CLOSED at once, a call of
/// administration that is under way once the producers are closed; all of them complete before this does.
///
/// Parameters: `client` stays valid and is still to be freed.
/// Ownership: nothing changes hands.
/// Completion: NONE.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, DUPLICATE, FORKED. Closing again is no error.
/// Cancellation: closing goes on, unobserved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_client_close(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let handle = handle::get(client)?;
            let (client, operations) = (handle.client.clone(), Arc::clone(&handle.operations));
            handle::get(context)?.start_in_order(user_data, None, WhenCancelled::GoOn, async move {
                client.close().await;
                // Each has its own end now. Whoever hears of this one may listen no longer.
                operations.closed().await;
                Ok::<_, Failure>(Outcome::done())
            })?;
            handle.closed.store(true, Ordering::Release);
            Ok(fluvio_status::Ok)
        })
    }
}

/// Frees a client without waiting for anything. Producers and consumers made from it go on until they are freed. NULL
/// is allowed.
///
/// Ownership: takes the client and ends its strings.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_client_free(client: *mut fluvio_client) {
    // SAFETY: the caller passes NULL or a client that it owns and does not use again.
    boundary_or((), || unsafe { handle::free_in_runtime(client) });
}
