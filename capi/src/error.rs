//! Errors: immutable handles with everything that the engine knows about a failure.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};

use engine::ErrorKind;

use crate::boundary::boundary_or;
use crate::handle::{self, Opaque};

/// What went wrong, coarse enough to act on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_error_kind {
    /// Bad input at this call; the message names the value.
    InvalidArgument = 1,
    /// A peer is unreachable, refused the connection or was lost.
    Connection = 2,
    /// No answer within the configured time.
    Timeout = 3,
    /// The peer is no Fluvio server, or talks nonsense (also: a frame over the cap).
    Protocol = 4,
    /// The platform is older than 0.9.0, or does not offer a needed API version.
    UnsupportedVersion = 5,
    /// The profile file is missing, unreadable or incomplete.
    Config = 6,
    /// There is no such topic.
    TopicNotFound = 7,
    /// A topic of that name exists.
    TopicAlreadyExists = 8,
    /// The topic has no such partition.
    PartitionNotFound = 9,
    /// The topic was deleted while in use.
    TopicDeleted = 10,
    /// Any other error code of the server: see `fluvio_error_code`.
    Server = 11,
    /// A record does not fit into a request, or into the producer's buffer.
    RecordTooLarge = 12,
    /// The start offset is no longer there, or beyond the end.
    OffsetEvicted = 13,
    /// A batch failed its checksum or cannot be decoded.
    Corrupt = 14,
    /// Something that this version does not do.
    Unsupported = 15,
    /// Use of a closed handle.
    Closed = 16,
    /// A second taker or waiter on one consumer.
    Busy = 17,
    /// A handle made before fork() was used in the child.
    Forked = 18,
    /// A bug in the library, caught at the border.
    Panic = 19,
    /// The user_data is already pending on this context.
    Duplicate = 20,
    /// The operating system refused threads or file descriptors.
    System = 21,
}

/// An error. Immutable; all its strings are NUL-terminated UTF-8 and valid until `fluvio_error_free`.
pub struct fluvio_error {
    _private: [u8; 0],
}

impl Opaque for fluvio_error {
    type Value = ErrorText;
    const NAME: &'static str = "error";
}

/// What is behind a `fluvio_error`.
pub struct ErrorText {
    kind: fluvio_error_kind,
    code: i32,
    retriable: bool,
    message: CString,
    detail: CString,
}

/// A failure on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    kind: fluvio_error_kind,
    code: i32,
    retriable: bool,
    message: String,
    detail: String,
}

impl Failure {
    pub(crate) fn new(kind: fluvio_error_kind, message: impl Into<String>) -> Self {
        Failure { kind, code: 0, retriable: false, message: message.into(), detail: "{}".to_owned() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(fluvio_error_kind::InvalidArgument, message)
    }

    /// From what a panic carried.
    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::new(fluvio_error_kind::Panic, format!("a bug in the library, please report it: {text}"))
    }

    /// Gives the failure to the caller.
    pub(crate) fn into_raw(self) -> *mut fluvio_error {
        handle::into_raw(ErrorText {
            kind: self.kind,
            code: self.code,
            retriable: self.retriable,
            message: c_text(self.message),
            detail: c_text(self.detail),
        })
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::InvalidArgument => fluvio_error_kind::InvalidArgument,
            ErrorKind::Connection => fluvio_error_kind::Connection,
            ErrorKind::Timeout => fluvio_error_kind::Timeout,
            ErrorKind::Protocol => fluvio_error_kind::Protocol,
            ErrorKind::UnsupportedVersion => fluvio_error_kind::UnsupportedVersion,
            ErrorKind::Config => fluvio_error_kind::Config,
            ErrorKind::TopicNotFound => fluvio_error_kind::TopicNotFound,
            ErrorKind::TopicAlreadyExists => fluvio_error_kind::TopicAlreadyExists,
            ErrorKind::PartitionNotFound => fluvio_error_kind::PartitionNotFound,
            ErrorKind::TopicDeleted => fluvio_error_kind::TopicDeleted,
            ErrorKind::Server => fluvio_error_kind::Server,
            ErrorKind::RecordTooLarge => fluvio_error_kind::RecordTooLarge,
            ErrorKind::OffsetEvicted => fluvio_error_kind::OffsetEvicted,
            ErrorKind::Corrupt => fluvio_error_kind::Corrupt,
            ErrorKind::Unsupported => fluvio_error_kind::Unsupported,
            ErrorKind::Closed => fluvio_error_kind::Closed,
        };
        Failure {
            kind,
            code: i32::from(error.code()),
            retriable: error.is_retriable(),
            message: error.message().to_owned(),
            // A map of strings to JSON values always serialises.
            detail: serde_json::to_string(error.detail()).unwrap_or_else(|_| "{}".to_owned()),
        }
    }
}

/// Text for C: a NUL inside (a server may send one) would end it early.
pub(crate) fn c_text(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let bytes: Vec<u8> =
            error.into_vec().into_iter().map(|byte| if byte == 0 { b'?' } else { byte }).collect();
        CString::new(bytes).unwrap_or_default()
    })
}

/// The kind of an error; `FLUVIO_ERROR_KIND_INVALID_ARGUMENT` for NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_kind(error: *const fluvio_error) -> fluvio_error_kind {
    boundary_or(fluvio_error_kind::Panic, || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(fluvio_error_kind::InvalidArgument, |error| error.kind)
    })
}

/// The server's error code, 0 where the error is not the server's.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_code(error: *const fluvio_error) -> i32 {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(0, || unsafe { handle::peek(error) }.map_or(0, |error| error.code))
}

/// Whether the same call may succeed later without a change.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_is_retriable(error: *const fluvio_error) -> bool {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(false, || unsafe { handle::peek(error) }.is_some_and(|error| error.retriable))
}

/// The text for a person; "" for NULL.
///
/// Ownership: borrowed until `fluvio_error_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_message(error: *const fluvio_error) -> *const c_char {
    boundary_or(c"".as_ptr(), || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(c"", |error| error.message.as_c_str()).as_ptr()
    })
}

/// Facts for programs as a JSON object, "{}" if there is nothing to add; never a credential.
///
/// Ownership: borrowed until `fluvio_error_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_detail(error: *const fluvio_error) -> *const c_char {
    const NOTHING: &CStr = c"{}";
    boundary_or(NOTHING.as_ptr(), || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(NOTHING, |error| error.detail.as_c_str()).as_ptr()
    })
}

/// Frees an error. NULL is allowed.
///
/// Ownership: takes the error and ends its strings.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_free(error: *mut fluvio_error) {
    // SAFETY: the caller passes NULL or an error that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(error) });
}
