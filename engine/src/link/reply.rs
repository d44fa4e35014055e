//! What comes back for a request: one answer, or the frames of a stream.
//!
//! Invariant: a request whose answer nobody waits for any more is forgotten, and its answer dropped when it comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use fluvio_protocol::Decoder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::shared::Shared;
use crate::error::Result;

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

/// Since when the server can work on a request, as far as is known. It answers those of one connection one after another:
/// the clock of each starts anew with every answer to one before it, whoever sent that.
#[derive(Debug)]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    id: i32,
    sent: Instant,
}

impl Turn {
    pub(crate) fn begun(&self) -> Instant {
        let last = self.shared.waiting.lock().last;
        last.filter(|(id, _)| *id < self.id).map_or(self.sent, |(_, at)| at.max(self.sent))
    }

    /// Whether one after it was answered: no answer is to be expected any more.
    pub(crate) fn is_left_out(&self) -> bool {
        self.shared.waiting.lock().last.is_some_and(|(id, _)| id > self.id)
    }
}

impl<T> Reply<T> {
    pub(super) fn new(
        receiver: oneshot::Receiver<Bytes>,
        version: i16,
        shared: &Arc<Shared>,
        id: i32,
    ) -> Self {
        let waiting = Forget { shared: Arc::clone(shared), id };
        Reply { receiver, version, waiting, answer: std::marker::PhantomData }
    }

    /// For whoever limits the time of an answer. To be taken when the request is made.
    pub(crate) fn turn(&self) -> Turn {
        Turn { shared: Arc::clone(&self.waiting.shared), id: self.waiting.id, sent: Instant::now() }
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
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>, version: i16, shared: &Arc<Shared>, id: i32) -> Self {
        StreamFrames { receiver, shared: Arc::clone(shared), version, id }
    }

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
