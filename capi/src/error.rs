//! Errors: immutable handles with everything that the engine knows about a failure.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

use engine::{ErrorKind, Outcome};

use crate::boundary::boundary_or;
use crate::completion::name_of;
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
    /// Any other error code of the server: see `fluvio_error_get_code`.
    Server = 11,
    /// A record does not fit into a request, or into the producer's buffer.
    RecordTooLarge = 12,
    /// The wanted offset is no longer there.
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
    /// The wanted offset lies beyond the end of the log.
    OffsetOutOfRange = 22,
}

const KIND_NAMES: [(fluvio_error_kind, &CStr); 22] = [
    (fluvio_error_kind::InvalidArgument, c"INVALID_ARGUMENT"),
    (fluvio_error_kind::Connection, c"CONNECTION"),
    (fluvio_error_kind::Timeout, c"TIMEOUT"),
    (fluvio_error_kind::Protocol, c"PROTOCOL"),
    (fluvio_error_kind::UnsupportedVersion, c"UNSUPPORTED_VERSION"),
    (fluvio_error_kind::Config, c"CONFIG"),
    (fluvio_error_kind::TopicNotFound, c"TOPIC_NOT_FOUND"),
    (fluvio_error_kind::TopicAlreadyExists, c"TOPIC_ALREADY_EXISTS"),
    (fluvio_error_kind::PartitionNotFound, c"PARTITION_NOT_FOUND"),
    (fluvio_error_kind::TopicDeleted, c"TOPIC_DELETED"),
    (fluvio_error_kind::Server, c"SERVER"),
    (fluvio_error_kind::RecordTooLarge, c"RECORD_TOO_LARGE"),
    (fluvio_error_kind::OffsetEvicted, c"OFFSET_EVICTED"),
    (fluvio_error_kind::Corrupt, c"CORRUPT"),
    (fluvio_error_kind::Unsupported, c"UNSUPPORTED"),
    (fluvio_error_kind::Closed, c"CLOSED"),
    (fluvio_error_kind::Busy, c"BUSY"),
    (fluvio_error_kind::Forked, c"FORKED"),
    (fluvio_error_kind::Panic, c"PANIC"),
    (fluvio_error_kind::Duplicate, c"DUPLICATE"),
    (fluvio_error_kind::System, c"SYSTEM"),
    (fluvio_error_kind::OffsetOutOfRange, c"OFFSET_OUT_OF_RANGE"),
];

/// What became of the record, or of the request, whose error this is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_outcome {
    /// The error is about something else.
    None = 0,
    /// It reached no server, or the server refused it: another try cannot do it twice.
    NotSent = 1,
    /// It was sent, and nobody knows what became of it: another try may do it twice.
    Unknown = 2,
    /// The server did it all the same.
    Written = 3,
}

const OUTCOME_NAMES: [(fluvio_outcome, &CStr); 4] = [
    (fluvio_outcome::None, c"NONE"),
    (fluvio_outcome::NotSent, c"NOT_SENT"),
    (fluvio_outcome::Unknown, c"UNKNOWN"),
    (fluvio_outcome::Written, c"WRITTEN"),
];

/// Of an error: it is about no partition in particular.
pub const FLUVIO_NO_PARTITION: u32 = 4294967295;

/// Of an error: it was met at no SPU.
pub const FLUVIO_NO_SPU: i32 = -1;

/// An error. Immutable; all its strings are NUL-terminated UTF-8 and valid until `fluvio_error_free`.
pub struct fluvio_error {
    _private: [u8; 0],
}

impl Opaque for fluvio_error {
    type Value = ErrorText;
    const NAME: &'static str = "error";
}

/// What is behind a `fluvio_error`.
#[derive(Clone)]
pub struct ErrorText {
    kind: fluvio_error_kind,
    code: i32,
    retriable: bool,
    message: CString,
    detail: CString,
    topic: Option<CString>,
    partition: u32,
    spu: i32,
    endpoint: Option<CString>,
    outcome: fluvio_outcome,
}

/// A failure on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    kind: fluvio_error_kind,
    code: i32,
    retriable: bool,
    message: String,
    detail: String,
    outcome: fluvio_outcome,
    /// Boxed, so that a result is small.
    place: Box<Place>,
}

/// Where a failure was met.
#[derive(Debug, Clone, Default)]
struct Place {
    topic: Option<String>,
    partition: Option<u32>,
    spu: Option<i32>,
    endpoint: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: fluvio_error_kind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            code: 0,
            retriable: false,
            message: message.into(),
            detail: "{}".to_owned(),
            outcome: fluvio_outcome::None,
            place: Box::default(),
        }
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
            topic: self.place.topic.map(c_text),
            partition: self.place.partition.unwrap_or(FLUVIO_NO_PARTITION),
            spu: self.place.spu.unwrap_or(FLUVIO_NO_SPU),
            endpoint: self.place.endpoint.map(c_text),
            outcome: self.outcome,
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
            ErrorKind::OffsetOutOfRange => fluvio_error_kind::OffsetOutOfRange,
            ErrorKind::Corrupt => fluvio_error_kind::Corrupt,
            ErrorKind::Unsupported => fluvio_error_kind::Unsupported,
            ErrorKind::Closed => fluvio_error_kind::Closed,
            ErrorKind::Panic => fluvio_error_kind::Panic,
        };
        Failure {
            kind,
            code: i32::from(error.code()),
            retriable: error.is_retriable(),
            message: error.message().to_owned(),
            // A map of strings to JSON values always serialises.
            detail: serde_json::to_string(error.detail()).unwrap_or_else(|_| "{}".to_owned()),
            place: Box::new(Place {
                topic: error.topic().map(str::to_owned),
                partition: error.partition(),
                spu: error.spu(),
                endpoint: error.endpoint().map(str::to_owned),
            }),
            outcome: match error.outcome() {
                None => fluvio_outcome::None,
                Some(Outcome::NotSent) => fluvio_outcome::NotSent,
                Some(Outcome::Unknown) => fluvio_outcome::Unknown,
                Some(Outcome::Written) => fluvio_outcome::Written,
            },
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
pub unsafe extern "C" fn fluvio_error_get_code(error: *const fluvio_error) -> i32 {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(0, || unsafe { handle::peek(error) }.map_or(0, |error| error.code))
}

/// Whether the same call may succeed later without a change. For a record it is true only where another try cannot write it
/// twice.
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
pub unsafe extern "C" fn fluvio_error_get_message(error: *const fluvio_error) -> *const c_char {
    boundary_or(c"".as_ptr(), || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(c"", |error| error.message.as_c_str()).as_ptr()
    })
}

/// What became of the record or request that the error is about; `FLUVIO_OUTCOME_NONE` for other errors and for NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_outcome(error: *const fluvio_error) -> fluvio_outcome {
    boundary_or(fluvio_outcome::None, || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(fluvio_outcome::None, |error| error.outcome)
    })
}

/// The topic that the error is about; NULL if there is none, and for NULL.
///
/// Ownership: borrowed until `fluvio_error_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_topic(error: *const fluvio_error) -> *const c_char {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(ptr::null(), || optional(unsafe { handle::peek(error) }.map(|error| &error.topic)))
}

/// The partition of the topic that the error is about; `FLUVIO_NO_PARTITION` if there is none, and for NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_partition(error: *const fluvio_error) -> u32 {
    boundary_or(FLUVIO_NO_PARTITION, || {
        // SAFETY: the caller passes NULL or a live error.
        unsafe { handle::peek(error) }.map_or(FLUVIO_NO_PARTITION, |error| error.partition)
    })
}

/// The id of the SPU at which the error was met; `FLUVIO_NO_SPU` if there is none, and for NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_spu(error: *const fluvio_error) -> i32 {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(FLUVIO_NO_SPU, || unsafe { handle::peek(error) }.map_or(FLUVIO_NO_SPU, |error| error.spu))
}

/// The "host:port" at which the error was met; NULL if there is none, and for NULL.
///
/// Ownership: borrowed until `fluvio_error_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_endpoint(error: *const fluvio_error) -> *const c_char {
    // SAFETY: the caller passes NULL or a live error.
    boundary_or(ptr::null(), || optional(unsafe { handle::peek(error) }.map(|error| &error.endpoint)))
}

fn optional(text: Option<&Option<CString>>) -> *const c_char {
    text.and_then(Option::as_ref).map_or(ptr::null(), |text| text.as_ptr())
}

/// The name of a `fluvio_error_kind`, such as "TIMEOUT": its enumerator without the prefix; "UNKNOWN" for other numbers.
///
/// Ownership: the string is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_error_kind_name(kind: u32) -> *const c_char {
    name_of(&KIND_NAMES, |known| known as u32 == kind)
}

/// The name of a `fluvio_outcome`, such as "NOT_SENT"; "UNKNOWN" for other numbers, too.
///
/// Ownership: the string is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_outcome_name(outcome: u32) -> *const c_char {
    name_of(&OUTCOME_NAMES, |known| known as u32 == outcome)
}

/// Facts for programs as a JSON object, "{}" if there is nothing to add; never a credential.
///
/// Ownership: borrowed until `fluvio_error_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_error_get_detail(error: *const fluvio_error) -> *const c_char {
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
