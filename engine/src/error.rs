//! The one error type: a kind to act on, the server's code where there is one, and a message that names the value.

use std::fmt;
use std::sync::Arc;

use fluvio_protocol::Encoder;
use fluvio_protocol::link::ErrorCode;
use serde_json::{Map, Value};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarse enough to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Bad input at this call.
    InvalidArgument,
    /// A peer is unreachable, refused the connection or was lost.
    Connection,
    /// No answer within the configured time.
    Timeout,
    /// The peer is no Fluvio server, or talks nonsense.
    Protocol,
    /// The platform is too old, or does not offer a needed API version.
    UnsupportedVersion,
    /// The profile file is missing, unreadable or incomplete.
    Config,
    /// There is no such topic.
    TopicNotFound,
    /// A topic of that name exists.
    TopicAlreadyExists,
    /// The topic has no such partition.
    PartitionNotFound,
    /// The topic was deleted while in use.
    TopicDeleted,
    /// Any other error of the server.
    Server,
    /// A record does not fit into a request.
    RecordTooLarge,
    /// The wanted offset is no longer, or not yet, in the log.
    OffsetEvicted,
    /// A batch failed its checksum or cannot be decoded.
    Corrupt,
    /// Something that this version does not do.
    Unsupported,
    /// The client, producer or consumer is closed.
    Closed,
}

/// An error. Cheap to clone: the same failure is reported to everyone whom it concerns.
#[derive(Debug, Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    code: i16,
    message: String,
    retriable: bool,
    detail: Map<String, Value>,
}

impl Error {
    /// An error that did not come from a server. Connection errors and timeouts are retriable, others are not.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retriable = matches!(kind, ErrorKind::Connection | ErrorKind::Timeout);
        Self::build(Inner { kind, code: 0, message: message.into(), retriable, detail: Map::new() })
    }

    /// The error that a server reported with `code`, about `what` (a topic, or a partition such as `orders-0`).
    pub(crate) fn from_code(code: &ErrorCode, what: &str, text: Option<&str>) -> Self {
        let kind = match code {
            ErrorCode::TopicNotFound => ErrorKind::TopicNotFound,
            ErrorCode::TopicAlreadyExists => ErrorKind::TopicAlreadyExists,
            ErrorCode::TopicDeleted => ErrorKind::TopicDeleted,
            ErrorCode::OffsetEvicted { .. } | ErrorCode::OffsetOutOfRange => ErrorKind::OffsetEvicted,
            ErrorCode::MessageTooLarge => ErrorKind::RecordTooLarge,
            ErrorCode::RequestTimedOut { .. } => ErrorKind::Timeout,
            _ => ErrorKind::Server,
        };
        let retriable = matches!(
            code,
            ErrorCode::NotLeaderForPartition
                | ErrorCode::PartitionNotLeader
                | ErrorCode::PartitionPendingInitialization
                | ErrorCode::TopicPendingInitialization
                | ErrorCode::TopicNotProvisioned
                | ErrorCode::RequestTimedOut { .. }
                | ErrorCode::SpuOffline
        );
        let mut detail = Map::new();
        if let ErrorCode::OffsetEvicted { offset, next_available } = code {
            detail.insert("offset".into(), (*offset).into());
            detail.insert("next_available".into(), (*next_available).into());
        }
        let code_text = match code {
            ErrorCode::Other(message) => message.clone(),
            other => other.to_string(),
        };
        let message = match text {
            Some(text) if !text.is_empty() && text != code_text => format!("{what}: {code_text} ({text})"),
            _ => format!("{what}: {code_text}"),
        };
        Self::build(Inner { kind, code: code_number(code), message, retriable, detail })
    }

    /// The same error with another fact in its detail object.
    pub(crate) fn with_detail(self, key: &str, value: impl Into<Value>) -> Self {
        let inner = &*self.inner;
        let mut detail = inner.detail.clone();
        detail.insert(key.to_owned(), value.into());
        Self::build(Inner {
            kind: inner.kind,
            code: inner.code,
            message: inner.message.clone(),
            retriable: inner.retriable,
            detail,
        })
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    fn build(inner: Inner) -> Self {
        Error { inner: Arc::new(inner) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The server's error code (`fluvio-protocol`, `link/error_code.rs`), 0 where the error is not the server's.
    pub fn code(&self) -> i16 {
        self.inner.code
    }

    /// The text for a person: what failed, on which value, and what to do where that is known.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Whether the same call may succeed later without a change.
    pub fn is_retriable(&self) -> bool {
        self.inner.retriable
    }

    /// Facts for programs, as a JSON object. Never holds a credential.
    pub fn detail(&self) -> &Map<String, Value> {
        &self.inner.detail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Error {}

/// The number of a code: the platform's enum keeps it to itself, its encoding starts with it.
fn code_number(code: &ErrorCode) -> i16 {
    let mut bytes = Vec::new();
    match code.encode(&mut bytes, 25) {
        Ok(()) => bytes.first_chunk::<2>().map_or(-1, |number| i16::from_be_bytes(*number)),
        Err(_) => -1,
    }
}
