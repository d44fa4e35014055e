//! One connection: a reader task, a writer task, and the requests that wait for their answers.
//!
//! Invariants: every request gets exactly one outcome (its answer, the reason why the connection was lost, or its own
//! time-out); a future that is dropped leaves no half-written frame, because only the writer task writes; no answer is
//! allocated for beyond the frame cap; and one slow reader of a stream never holds up another, because a stream that
//! receives more than was asked for ends the connection.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fluvio_protocol::Decoder;
use fluvio_protocol::api::Request;
use fluvio_protocol::link::versions::{ApiVersionsRequest, ApiVersionsResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::shared::{Shared, Waiter, read_frames, write_frames};
use super::{ByteStream, Chunks};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::encode_request;

/// What a connection needs to know of its client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_frame: usize,
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
    next_id: AtomicI32,
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
            let stream = super::dial(endpoint, settings.request_timeout).await?;
            Self::handshake(stream, endpoint, settings).await
        };
        tokio::time::timeout(settings.connect_timeout, connect).await.map_err(|_| timed_out())?
    }

    /// Shakes hands over a connected stream.
    pub(crate) async fn handshake(stream: impl ByteStream, peer: &str, settings: &Settings) -> Result<Self> {
        let shared = Arc::new(Shared::new(peer));
        let (reader, writer) = stream.split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let read = tokio::spawn(read_frames(reader, Arc::clone(&shared), settings.max_frame));
        let write = tokio::spawn(write_frames(writer, queue, Arc::clone(&shared)));
        let mut inner = Inner {
            shared,
            outgoing,
            next_id: AtomicI32::new(1),
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

    /// Sends a request and waits for its answer within the request time-out. Dropping the future forgets the answer; the
    /// request may still be executed.
    pub(crate) async fn call<R: Request>(&self, request: R) -> Result<R::Response> {
        self.call_within(request, self.inner.settings.request_timeout).await
    }

    /// Like [`Connection::call`], with a time-out of its own.
    pub(crate) async fn call_within<R: Request>(&self, request: R, limit: Duration) -> Result<R::Response> {
        let reply = self.inner.request(request)?;
        match tokio::time::timeout(limit, reply.answer()).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out(limit)),
        }
    }

    /// The error of a request that was not answered within `limit`.
    pub(crate) fn timed_out(&self, limit: Duration) -> Error {
        let message = format!("no answer from {} within {} ms", self.peer(), limit.as_millis());
        Error::new(ErrorKind::Timeout, message)
    }

    /// Sends a request without waiting.
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
        let id = self.inner.next_id();
        let frame = encode_request(request, version, id, &self.inner.settings.client_id)?;
        self.inner.shared.streams.store(true, Ordering::Relaxed);
        self.inner.enqueue(id, Waiter::Stream(sender), frame)?;
        Ok(StreamFrames { receiver, shared: Arc::clone(&self.inner.shared), version, id })
    }

    /// Completes with the reason once the connection is lost.
    pub(crate) async fn lost(&self) -> Error {
        let mut lost = self.inner.shared.lost.subscribe();
        // The sender lives in `shared`, which `self` holds: waiting cannot fail.
        match lost.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(|| self.inner.shared.gone()),
            Err(_) => self.inner.shared.gone(),
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

fn hello() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        client_os: std::env::consts::OS.to_owned(),
        client_arch: std::env::consts::ARCH.to_owned(),
    }
}

impl Inner {
    fn next_id(&self) -> i32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

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
        let id = self.next_id();
        let frame = encode(id)?;
        let (sender, receiver) = oneshot::channel();
        self.enqueue(id, Waiter::Once(sender), frame)?;
        let waiting = Forget { shared: Arc::clone(&self.shared), id };
        Ok(Reply { receiver, version, waiting, answer: std::marker::PhantomData })
    }

    fn enqueue(&self, id: i32, waiter: Waiter, frame: Chunks) -> Result<()> {
        {
            let mut waiting = self.shared.waiting.lock();
            if let Some(error) = &waiting.lost {
                return Err(error.clone());
            }
            waiting.by_id.insert(id, waiter);
        }
        // A closed channel means that the writer failed: it has told, or is about to tell, every waiter.
        let _ = self.outgoing.send(frame);
        Ok(())
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

/// The answer to a request, once it comes.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    receiver: oneshot::Receiver<Bytes>,
    version: i16,
    waiting: Forget,
    answer: std::marker::PhantomData<fn() -> T>,
}

/// Takes a request that nobody waits for any more out of the table.
#[derive(Debug)]
struct Forget {
    shared: Arc<Shared>,
    id: i32,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.shared.waiting.lock().by_id.remove(&self.id);
    }
}

impl<T: Decoder> Reply<T> {
    /// Waits for the answer, without a limit: the caller sets one.
    pub(crate) async fn answer(self) -> Result<T> {
        let shared = Arc::clone(&self.waiting.shared);
        match self.receiver.await {
            Ok(mut frame) => decode_body(&mut frame, self.version).map_err(|error| {
                let error = shared.protocol(error);
                // What else comes on this connection cannot be trusted.
                shared.fail(error.clone());
                error
            }),
            Err(_) => Err(shared.reason()),
        }
    }
}

/// The frames that answer a stream request, without their correlation ids.
#[derive(Debug)]
pub(crate) struct StreamFrames {
    receiver: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    version: i16,
    id: i32,
}

impl StreamFrames {
    /// The next frame, or why the connection was lost. Dropping the future loses nothing.
    pub(crate) async fn next<T: Decoder>(&mut self) -> Result<T> {
        match self.receiver.recv().await {
            Some(mut frame) => {
                decode_body(&mut frame, self.version).map_err(|error| self.shared.protocol(error))
            }
            None => Err(self.shared.reason()),
        }
    }
}

impl Drop for StreamFrames {
    fn drop(&mut self) {
        self.shared.waiting.lock().by_id.remove(&self.id);
    }
}

/// Decodes an answer. The platform's decoders are not written for hostile bytes: a panic in one is an error here.
pub(crate) fn decode_body<T: Decoder>(body: &mut Bytes, version: i16) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(|| T::decode_from(body, version))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("an answer cannot be decoded: {error}")),
        Err(_) => Err("an answer cannot be decoded".to_owned()),
    }
}
