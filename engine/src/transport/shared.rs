//! The two tasks of a connection, and the table of who waits for which answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use wire::frame::{LENGTH_PREFIX, announced, split_frame};
use wire::pool::Pool;

use super::{Chunks, ReadHalf};
use crate::error::{Error, ErrorKind, Result};

/// Size of a fresh read buffer. Small frames share one, so that a kept one pins little more than itself.
const READ_BUFFER: usize = 64 * 1024;

/// Frames from this size on get a buffer of their own.
const LARGE_FRAME: usize = wire::pool::SMALLEST;

/// Large buffers that are kept: about as many answers as a consumer holds in advance.
const KEPT_BUFFERS: usize = 10;

/// A new buffer is taken when less than this is free.
const READ_MINIMUM: usize = 4 * 1024;

/// What the two tasks and the waiting requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: String,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) lost: watch::Sender<Option<Error>>,
    /// Whether streams come on this connection: then the kernel is to acknowledge at once.
    pub(super) streams: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) by_id: HashMap<i32, Waiter>,
    pub(super) lost: Option<Error>,
}

#[derive(Debug)]
pub(super) enum Waiter {
    Once(oneshot::Sender<Bytes>),
    Stream(mpsc::Sender<Bytes>),
}

impl Shared {
    pub(super) fn new(peer: &str) -> Self {
        Shared {
            peer: peer.to_owned(),
            waiting: Mutex::default(),
            lost: watch::Sender::new(None),
            streams: AtomicBool::new(false),
        }
    }

    pub(super) fn gone(&self) -> Error {
        Error::new(ErrorKind::Connection, format!("the connection to {} was closed", self.peer))
    }

    pub(super) fn fail(&self, error: Error) {
        let waiters = {
            let mut waiting = self.waiting.lock();
            if waiting.lost.is_some() {
                return;
            }
            waiting.lost = Some(error.clone());
            std::mem::take(&mut waiting.by_id)
        };
        self.lost.send_replace(Some(error));
        // Dropping the senders wakes everyone; they read the reason from `waiting.lost`.
        drop(waiters);
    }

    pub(super) fn reason(&self) -> Error {
        self.waiting.lock().lost.clone().unwrap_or_else(|| self.gone())
    }

    pub(super) fn protocol(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Protocol, format!("{} does not talk like a Fluvio server: {what}", self.peer))
    }

    pub(super) fn deliver(&self, mut frame: Bytes) -> Result<()> {
        let id = frame.get_i32();
        let mut waiting = self.waiting.lock();
        match waiting.by_id.get(&id) {
            Some(Waiter::Stream(sender)) => match sender.try_send(frame) {
                Ok(()) => Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    waiting.by_id.remove(&id);
                    Ok(())
                }
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Err(self.protocol("a stream sends more than was asked for"))
                }
            },
            Some(Waiter::Once(_)) => {
                if let Some(Waiter::Once(sender)) = waiting.by_id.remove(&id) {
                    // Nobody may be waiting any more: a time-out or a cancel was faster.
                    let _ = sender.send(frame);
                }
                Ok(())
            }
            // Late answers to requests that were given up.
            None if id > 0 => Ok(()),
            None => Err(self.protocol(format_args!("an answer carries the correlation id {id}"))),
        }
    }
}

pub(super) async fn read_frames(reader: impl ReadHalf, shared: Arc<Shared>, max_frame: usize) {
    let mut frames = Frames { reader, buffer: BytesMut::new(), large: Pool::new(KEPT_BUFFERS), max_frame };
    let error = loop {
        let delivered = match frames.next(&shared).await {
            Ok(frame) => shared.deliver(frame),
            Err(error) => Err(error),
        };
        if let Err(error) = delivered {
            break error;
        }
    };
    tracing::debug!(peer = shared.peer, %error, "connection ends");
    shared.fail(error);
}

/// Reads frames. Small ones are pieces of a shared buffer, large ones get a buffer of their own that is used again.
struct Frames<R> {
    reader: R,
    buffer: BytesMut,
    large: Pool,
    max_frame: usize,
}

impl<R: ReadHalf> Frames<R> {
    async fn next(&mut self, shared: &Shared) -> Result<Bytes> {
        loop {
            match announced(&self.buffer, self.max_frame).map_err(|error| shared.protocol(error))? {
                Some(length) if length >= LARGE_FRAME => return self.large(length, shared).await,
                Some(_) => {
                    let frame = split_frame(&mut self.buffer, self.max_frame);
                    if let Some(frame) = frame.map_err(|error| shared.protocol(error))? {
                        return Ok(frame.freeze());
                    }
                }
                None => {}
            }
            if self.buffer.capacity() - self.buffer.len() < READ_MINIMUM {
                self.buffer.reserve(READ_BUFFER);
            }
            let read = self.reader.read_buf(&mut self.buffer).await;
            self.came(read, shared)?;
        }
    }

    async fn large(&mut self, length: usize, shared: &Shared) -> Result<Bytes> {
        self.buffer.advance(LENGTH_PREFIX);
        // Bounded by the frame cap; memory that is never written to costs nothing.
        let mut frame = self.large.take(length);
        let begun = self.buffer.len().min(length);
        frame.extend_from_slice(&self.buffer.split_to(begun));
        while frame.len() < length {
            let missing = length - frame.len();
            let read = self.reader.read_buf(&mut (&mut frame).limit(missing)).await;
            self.came(read, shared)?;
        }
        Ok(self.large.freeze(frame))
    }

    fn came(&self, read: std::io::Result<usize>, shared: &Shared) -> Result<()> {
        match read {
            Ok(0) => Err(shared.gone()),
            Ok(_) => {
                if shared.streams.load(Ordering::Relaxed) {
                    self.reader.acknowledge_quickly();
                }
                Ok(())
            }
            Err(error) => {
                let message = format!("the connection to {} was lost: {error}", shared.peer);
                Err(Error::new(ErrorKind::Connection, message))
            }
        }
    }
}

pub(super) async fn write_frames(
    mut writer: impl tokio::io::AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Chunks>,
    shared: Arc<Shared>,
) {
    while let Some(mut frames) = queue.recv().await {
        while let Ok(more) = queue.try_recv() {
            frames.append(more);
        }
        if let Err(error) = writer.write_all_buf(&mut frames).await {
            let message = format!("the connection to {} was lost: {error}", shared.peer);
            shared.fail(Error::new(ErrorKind::Connection, message));
            return;
        }
    }
}
