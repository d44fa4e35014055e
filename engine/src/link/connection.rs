//! One connection: a reader task, a writer task, and the requests that wait for their answers.
//!
//! Invariants: every request gets exactly one outcome (its answer, the reason why the connection was lost, or its own
//! time-out); a future that is dropped leaves no half-written frame, because only the writer task writes; no answer is
//! allocated for beyond the frame cap; and one slow reader of a stream never holds up another, because a stream that
//! receives more than was asked for ends the connection.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fluvio_protocol::api::Request;
use fluvio_protocol::link::versions::{ApiVersionsRequest, ApiVersionsResponse};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::shared::{Inbox, Shared, Waiter, read_frames, write_frames};
use super::{ByteStream, Chunks, Reply, StreamFrames};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::encode_request;

/// What a connection needs to know of its client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_frame: usize,
    /// What answers of streams are charged to before they are read.
    pub(crate) budget: Option<Arc<Budget>>,
}

/// A connection after its handshake. Dropping the last clone closes it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Chunks>,
    /// Of the last request.
    last_id: Mutex<i32>,
    versions: HashMap<u16, (i16, i16)>,
    platform: semver::Version,
    settings: Settings,
    tasks: [AbortHandle; 2],
}

impl Connection {
    /// Connects over TCP and shakes hands, both within the connect time-out.
    pub(crate) async fn open(endpoint: &str, settings: &Settings) -> Result<Self> {
        let timed_out = || {
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "no connection to {endpoint} within {} ms: the peer does not answer, or is no Fluvio server",
                    settings.connect_timeout.as_millis()
                ),
            )
        };
        let connect = async {
            let stream = super::dial(endpoint, settings.connect_timeout, settings.request_timeout).await?;
            Self::handshake(stream, endpoint, settings).await
        };
        let connected = tokio::time::timeout(settings.connect_timeout, connect).await;
        connected.unwrap_or_else(|_| Err(timed_out())).map_err(|error| error.with_endpoint(endpoint))
    }

    /// Shakes hands over a connected stream.
    pub(crate) async fn handshake(stream: impl ByteStream, peer: &str, settings: &Settings) -> Result<Self> {
        let shared = Arc::new(Shared::new(peer));
        let (reader, writer) = stream.split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let budget = settings.budget.clone();
        let read = read_frames(reader, Arc::clone(&shared), settings.max_frame, budget);
        let read = tokio::spawn(watched(read, "the reader of a connection", Arc::clone(&shared)));
        let write = write_frames(writer, queue, Arc::clone(&shared));
        let write = tokio::spawn(watched(write, "the writer of a connection", Arc::clone(&shared)));
        let mut inner = Inner {
            shared,
            outgoing,
            last_id: Mutex::new(0),
            versions: HashMap::from([(
                ApiVersionsRequest::API_KEY,
                (0, ApiVersionsRequest::DEFAULT_API_VERSION),
            )]),
            platform: semver::Version::new(0, 0, 0),
            settings: settings.clone(),
            tasks: [read.abort_handle(), write.abort_handle()],
        };
        let answer = inner.request(hello())?.answer().await?;
        if answer.error_code.is_error() {
            return Err(Error::from_code(&answer.error_code, peer, None));
        }
        inner.platform = answer.platform_version.to_semver();
        for api in answer.api_keys {
            inner.versions.insert(api.api_key as u16, (api.min_version, api.max_version));
        }
        Ok(Connection { inner: Arc::new(inner) })
    }

    /// The platform version that the peer announced.
    pub(crate) fn platform_version(&self) -> &semver::Version {
        &self.inner.platform
    }

    /// `host:port` of the peer.
    pub(crate) fn peer(&self) -> &str {
        &self.inner.shared.peer
    }

    /// The version to use for `R` on this connection.
    pub(crate) fn version<R: Request>(&self) -> Result<i16> {
        self.inner.version::<R>()
    }

    /// Sends a request and waits for its answer within the request time-out, see [`Turn`]. Dropping the future forgets the
    /// answer; the request may still be executed.
    pub(crate) async fn call<R: Request>(&self, request: R) -> Result<R::Response> {
        self.call_within(request, self.inner.settings.request_timeout).await
    }

    /// Like [`Connection::call`], with a time-out of its own.
    pub(crate) async fn call_within<R: Request>(&self, request: R, limit: Duration) -> Result<R::Response> {
        self.begin(request, limit)?.await
    }

    /// Like [`Connection::call_within`] in two steps: an error of this one means that nothing was sent.
    pub(crate) fn begin<R: Request>(
        &self,
        request: R,
        limit: Duration,
    ) -> Result<impl Future<Output = Result<R::Response>>> {
        let reply = self.inner.request(request)?;
        Ok(async move {
            let turn = reply.turn();
            let mut answer = std::pin::pin!(reply.answer());
            let mut until = turn.begun() + limit;
            loop {
                if let Ok(answer) = tokio::time::timeout_at(until, answer.as_mut()).await {
                    return answer;
                }
                let later = turn.begun() + limit;
                if later <= until {
                    return Err(self.timed_out(limit));
                }
                until = later;
            }
        })
    }

    /// The error of a request that was not answered within `limit`.
    pub(crate) fn timed_out(&self, limit: Duration) -> Error {
        let message = format!("no answer from {} within {} ms", self.peer(), limit.as_millis());
        Error::new(ErrorKind::Timeout, message)
    }

    /// Sends a request without waiting.
    #[cfg(test)]
    pub(crate) fn request<R: Request>(&self, request: R) -> Result<Reply<R::Response>> {
        self.inner.request(request)
    }

    /// Sends a frame whose body was encoded elsewhere; `body` gets the version and the correlation id.
    pub(crate) fn request_encoded<R: Request>(
        &self,
        encode: impl FnOnce(i16, i32, &str) -> Result<Chunks>,
    ) -> Result<Reply<R::Response>> {
        let version = self.inner.version::<R>()?;
        self.inner.submit(version, |id| encode(version, id, &self.inner.settings.client_id))
    }

    /// Sends a request that is answered by a stream of frames; `capacity` is the most that may wait undelivered.
    pub(crate) fn stream<R: Request>(&self, request: R, capacity: usize) -> Result<StreamFrames> {
        let version = self.inner.version::<R>()?;
        let (sender, receiver) = mpsc::channel(capacity);
        self.inner.shared.streams.store(true, Ordering::Relaxed);
        let encode = |id| encode_request(request, version, id, &self.inner.settings.client_id);
        let id = self.inner.enqueue(Waiter::Stream(sender), encode)?;
        Ok(StreamFrames::new(receiver, version, &self.inner.shared, id))
    }

    /// Sends a request whose answers go to `inbox` with this tag: all of them, or the first one only.
    pub(crate) fn subscribe<R: Request>(
        &self,
        request: R,
        once: bool,
        inbox: &Inbox,
        tag: u64,
    ) -> Result<()> {
        let version = self.inner.version::<R>()?;
        if !once {
            self.inner.shared.streams.store(true, Ordering::Relaxed);
        }
        let encode = |id| encode_request(request, version, id, &self.inner.settings.client_id);
        self.inner.enqueue(Waiter::Inbox { inbox: inbox.clone(), tag, once }, encode).map(drop)
    }

    /// How long the peer has said nothing although it was listened to: not while there is no room for answers.
    pub(crate) fn silent_for(&self) -> Duration {
        self.inner.shared.silent_for()
    }

    /// The error for an answer that cannot be decoded.
    pub(crate) fn protocol(&self, what: impl std::fmt::Display) -> Error {
        self.inner.shared.protocol(what)
    }

    /// Completes with the reason once the connection is lost.
    pub(crate) async fn lost(&self) -> Error {
        self.loss().await
    }

    /// Like [`Connection::lost`]; keeps nothing open.
    pub(crate) fn loss(&self) -> impl Future<Output = Error> + Send + 'static + use<> {
        let shared = Arc::clone(&self.inner.shared);
        async move {
            let mut lost = shared.lost.subscribe();
            // The sender lives in `shared`: waiting cannot fail.
            match lost.wait_for(Option::is_some).await {
                Ok(error) => error.clone().unwrap_or_else(|| shared.gone()),
                Err(_) => shared.gone(),
            }
        }
    }

    /// Whether the connection is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.inner.shared.waiting.lock().lost.is_some()
    }

    /// Ends the connection: whoever still waits gets `error`.
    pub(crate) fn fail(&self, error: Error) {
        self.inner.shared.fail(error);
        self.inner.abort();
    }

    /// Asks the peer for a sign of life.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.call(hello()).await.map(|_: ApiVersionsResponse| ())
    }
}

/// One of the two tasks of a connection: if it panics, whoever waits for an answer hears of it.
async fn watched(task: impl Future<Output = ()>, what: &'static str, shared: Arc<Shared>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        shared.fail(Error::panic(what));
    }
}

fn hello() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        client_os: std::env::consts::OS.to_owned(),
        client_arch: std::env::consts::ARCH.to_owned(),
    }
}

impl Inner {
    fn version<R: Request>(&self) -> Result<i16> {
        let unsupported = |offer: String| {
            Error::new(
                ErrorKind::UnsupportedVersion,
                format!(
                    "{} offers {offer} for request {}, versions {} to {} are needed",
                    self.shared.peer,
                    R::API_KEY,
                    R::MIN_API_VERSION,
                    R::MAX_API_VERSION
                ),
            )
        };
        match self.versions.get(&R::API_KEY) {
            None => Err(unsupported("nothing".to_owned())),
            Some((min, max)) => {
                let version = R::MAX_API_VERSION.min(*max);
                if version >= R::MIN_API_VERSION && version >= *min {
                    Ok(version)
                } else {
                    Err(unsupported(format!("versions {min} to {max}")))
                }
            }
        }
    }

    fn request<R: Request>(&self, request: R) -> Result<Reply<R::Response>> {
        let version = self.version::<R>()?;
        self.submit(version, |id| encode_request(request, version, id, &self.settings.client_id))
    }

    fn submit<T>(&self, version: i16, encode: impl FnOnce(i32) -> Result<Chunks>) -> Result<Reply<T>> {
        let (sender, receiver) = oneshot::channel();
        let id = self.enqueue(Waiter::Once(sender), encode)?;
        Ok(Reply::new(receiver, version, &self.shared, id))
    }

    fn enqueue(&self, waiter: Waiter, encode: impl FnOnce(i32) -> Result<Chunks>) -> Result<i32> {
        // Held until the frame is in the queue: the order of the ids is that of the requests.
        let mut last_id = self.last_id.lock();
        let id = last_id.wrapping_add(1).max(1);
        let frame = encode(id)?;
        *last_id = id;
        {
            let mut waiting = self.shared.waiting.lock();
            if let Some(error) = &waiting.lost {
                return Err(error.clone());
            }
            waiting.by_id.insert(id, waiter);
        }
        // A closed channel means that the writer failed: it has told, or is about to tell, every waiter.
        let _ = self.outgoing.send(frame);
        Ok(id)
    }

    fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort();
        self.shared.fail(self.shared.gone());
    }
}
