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
    /// The wanted offset is no longer in the log.
    OffsetEvicted,
    /// The wanted offset lies beyond the end of the log.
    OffsetOutOfRange,
    /// A batch failed its checksum or cannot be decoded.
    Corrupt,
    /// Something that this version does not do.
    Unsupported,
    /// The client, producer or consumer is closed.
    Closed,
    /// A bug in this library: a task of it ended by a panic.
    Panic,
}

/// What became of a record, or of a request, whose error this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It never reached a server, or the server said that it did nothing: another try cannot do it twice.
    NotSent,
    /// It was sent and nobody knows what became of it.
    Unknown,
    /// The server did it all the same.
    Written,
}

/// What an error is about, as far as it is about something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    topic: Option<String>,
    partition: Option<u32>,
    spu: Option<i32>,
    endpoint: Option<String>,
}

/// An error. Cheap to clone: the same failure is reported to everyone whom it concerns. Two are equal if nothing that can
/// be asked of them differs.
#[derive(Debug, Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    code: i16,
    message: String,
    retriable: bool,
    outcome: Option<Outcome>,
    place: Place,
    detail: Map<String, Value>,
}

impl Error {
    /// An error that did not come from a server. Connection errors and timeouts are retriable, others are not.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retriable = matches!(kind, ErrorKind::Connection | ErrorKind::Timeout);
        Self::build(Inner {
            kind,
            code: 0,
            message: message.into(),
            retriable,
            outcome: None,
            place: Place::default(),
            detail: Map::new(),
        })
    }

    /// The error that a server reported with `code`, about `what` (a topic, or a partition such as `orders-0`).
    pub(crate) fn from_code(code: &ErrorCode, what: &str, text: Option<&str>) -> Self {
        let kind = match code {
            ErrorCode::TopicNotFound => ErrorKind::TopicNotFound,
            ErrorCode::TopicAlreadyExists => ErrorKind::TopicAlreadyExists,
            ErrorCode::TopicDeleted => ErrorKind::TopicDeleted,
            ErrorCode::OffsetEvicted { .. } => ErrorKind::OffsetEvicted,
            ErrorCode::OffsetOutOfRange => ErrorKind::OffsetOutOfRange,
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
        Self::build(Inner {
            kind,
            code: code_number(code),
            message,
            retriable,
            outcome: None,
            place: Place::default(),
            detail,
        })
    }

    /// The same error with another fact in its detail object.
    pub(crate) fn with_detail(self, key: &str, value: impl Into<Value>) -> Self {
        self.changed(|inner| drop(inner.detail.insert(key.to_owned(), value.into())))
    }

    /// The same error with another text.
    pub(crate) fn with_message(self, message: String) -> Self {
        self.changed(|inner| inner.message = message)
    }

    /// The same error, about this topic.
    pub(crate) fn with_topic(self, topic: &str) -> Self {
        self.changed(|inner| inner.place.topic = Some(topic.to_owned()))
    }

    /// The same error, about this partition.
    pub(crate) fn with_partition(self, topic: &str, partition: u32) -> Self {
        self.changed(|inner| {
            inner.place.topic = Some(topic.to_owned());
            inner.place.partition = Some(partition);
        })
    }

    /// The same error, met at this SPU.
    pub(crate) fn with_spu(self, id: i32, endpoint: &str) -> Self {
        self.changed(|inner| {
            inner.place.spu = Some(id);
            inner.place.endpoint = Some(endpoint.to_owned());
        })
    }

    /// The same error, met at `host:port`.
    pub(crate) fn with_endpoint(self, endpoint: &str) -> Self {
        self.changed(|inner| inner.place.endpoint = Some(endpoint.to_owned()))
    }

    /// The same error, with what became of the record or request. Only what was not sent can be tried again without
    /// being done twice, so everything else is not retriable.
    pub(crate) fn with_outcome(self, outcome: Outcome) -> Self {
        self.changed(|inner| {
            inner.outcome = Some(outcome);
            inner.retriable &= outcome == Outcome::NotSent;
        })
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Self::build(inner)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    /// What a task left behind that panicked.
    pub(crate) fn panic(what: &str) -> Self {
        let message = format!("a bug in this library, please report it: {what} ended by a panic");
        Self::new(ErrorKind::Panic, message)
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

    /// What became of the record or request; `None` where the error is about something else.
    pub fn outcome(&self) -> Option<Outcome> {
        self.inner.outcome
    }

    /// The topic that it is about.
    pub fn topic(&self) -> Option<&str> {
        self.inner.place.topic.as_deref()
    }

    /// The partition of [`Error::topic`] that it is about.
    pub fn partition(&self) -> Option<u32> {
        self.inner.place.partition
    }

    /// The id of the SPU at which it was met.
    pub fn spu(&self) -> Option<i32> {
        self.inner.place.spu
    }

    /// `host:port` of the peer at which it was met.
    pub fn endpoint(&self) -> Option<&str> {
        self.inner.place.endpoint.as_deref()
    }

    /// Facts for programs, as a JSON object. Never holds a credential.
    pub fn detail(&self) -> &Map<String, Value> {
        &self.inner.detail
    }
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner == other.inner
    }
}

impl Eq for Error {}

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
