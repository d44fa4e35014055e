//! The two tasks of a connection, and the table of who waits for which answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::frame::{LENGTH_PREFIX, MIN_PAYLOAD, announced};
use wire::memory::{Memory, SMALLEST};

use super::{Chunks, ReadHalf};
use crate::budget::{Budget, Charge};
use crate::error::{Error, ErrorKind, Result};

/// Size of the read buffer.
const READ_BUFFER: usize = 64 * 1024;

/// More room is made when less than this is free.
const READ_MINIMUM: usize = 4 * 1024;

/// Answers of one frame that are larger than this are charged like those of streams.
const SMALL_ANSWER: usize = 4 * 1024;

/// `heard` of a connection that does not read at the moment.
const NOT_READING: u64 = u64::MAX;

/// What the two tasks and the waiting requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: String,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) lost: watch::Sender<Option<Error>>,
    /// Whether streams come on this connection: then the kernel is to acknowledge at once.
    pub(super) streams: AtomicBool,
    begun: Instant,
    /// When something came last, in milliseconds since `begun`.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) by_id: HashMap<i32, Waiter>,
    pub(super) lost: Option<Error>,
    /// The last answer that was no part of a stream, and when it came.
    pub(super) last: Option<(i32, Instant)>,
}

impl Waiting {
    /// A server answers the requests of one connection one after another.
    fn answered(&mut self, id: i32) {
        self.last = Some((id, Instant::now()));
    }
}

#[derive(Debug)]
pub(super) enum Waiter {
    Once(oneshot::Sender<Bytes>),
    Stream(mpsc::Sender<Bytes>),
    /// All answers, or the first only, go to an inbox that many requests share.
    Inbox {
        inbox: Inbox,
        tag: u64,
        once: bool,
    },
}

/// Where the answers to many requests go.
pub(crate) type Inbox = mpsc::UnboundedSender<Incoming>;

/// An answer in an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What the request was sent with.
    pub(crate) tag: u64,
    /// Without the correlation id.
    pub(crate) body: Bytes,
    /// What it takes up; bounds how much there may be in the inbox.
    pub(crate) charge: Option<Charge>,
}

/// One answer as it was read.
struct Frame {
    id: i32,
    body: Bytes,
    charge: Option<Charge>,
}

impl Shared {
    pub(super) fn new(peer: &str) -> Self {
        Shared {
            peer: peer.to_owned(),
            waiting: Mutex::default(),
            lost: watch::Sender::new(None),
            streams: AtomicBool::new(false),
            begun: Instant::now(),
            heard: AtomicU64::new(0),
        }
    }

    /// How long nothing has come although it could have.
    pub(super) fn silent_for(&self) -> Duration {
        match self.heard.load(Ordering::Relaxed) {
            NOT_READING => Duration::ZERO,
            heard => self.begun.elapsed().saturating_sub(Duration::from_millis(heard)),
        }
    }

    fn hears(&self) {
        self.heard.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether a frame of this length counts in the budget of its consumer before it is read.
    fn is_charged(&self, id: i32, length: usize) -> bool {
        length > SMALL_ANSWER
            || matches!(
                self.waiting.lock().by_id.get(&id),
                Some(Waiter::Stream(_) | Waiter::Inbox { once: false, .. })
            )
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

    fn deliver(&self, Frame { id, body, charge }: Frame) -> Result<()> {
        let mut waiting = self.waiting.lock();
        match waiting.by_id.get(&id) {
            Some(Waiter::Inbox { inbox, tag, once }) => {
                let once = *once;
                // Whoever asked may be gone; then the connection goes too.
                let _ = inbox.send(Incoming { tag: *tag, body, charge });
                if once {
                    waiting.by_id.remove(&id);
                    waiting.answered(id);
                }
                Ok(())
            }
            Some(Waiter::Stream(sender)) => match sender.try_send(body) {
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
                waiting.answered(id);
                if let Some(Waiter::Once(sender)) = waiting.by_id.remove(&id) {
                    // Nobody may be waiting any more: a time-out or a cancel was faster.
                    let _ = sender.send(body);
                }
                Ok(())
            }
            // Late answers to requests that were given up.
            None if id > 0 => {
                if !self.streams.load(Ordering::Relaxed) {
                    waiting.answered(id);
                }
                Ok(())
            }
            None => Err(self.protocol(format_args!("an answer carries the correlation id {id}"))),
        }
    }
}

/// Reads frames until the connection is lost. What `budget` has no room for is not read: then the peer has to wait.
pub(super) async fn read_frames(
    reader: impl ReadHalf,
    shared: Arc<Shared>,
    max_frame: usize,
    budget: Option<Arc<Budget>>,
) {
    let memory = budget.as_ref().map_or_else(Memory::default, |budget| budget.memory().clone());
    let mut frames = Frames { reader, buffer: BytesMut::new(), memory, budget, max_frame };
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

/// Reads frames, each into memory of its own: what is kept of one keeps nothing of another.
struct Frames<R> {
    reader: R,
    buffer: BytesMut,
    memory: Memory,
    budget: Option<Arc<Budget>>,
    max_frame: usize,
}

impl<R: ReadHalf> Frames<R> {
    async fn next(&mut self, shared: &Shared) -> Result<Frame> {
        loop {
            let length = announced(&self.buffer, self.max_frame).map_err(|error| shared.protocol(error))?;
            let id = self.buffer.get(LENGTH_PREFIX..).and_then(|rest| rest.first_chunk());
            if let (Some(length), Some(id)) = (length, id) {
                return self.frame(i32::from_be_bytes(*id), length, shared).await;
            }
            self.fill(shared).await?;
        }
    }

    async fn frame(&mut self, id: i32, length: usize, shared: &Shared) -> Result<Frame> {
        let charge = match &self.budget {
            Some(budget) if shared.is_charged(id, length) => {
                shared.heard.store(NOT_READING, Ordering::Relaxed);
                let charge = budget.admit(length).await;
                shared.hears();
                Some(charge)
            }
            _ => None,
        };
        self.buffer.advance(LENGTH_PREFIX + MIN_PAYLOAD);
        let size = length - MIN_PAYLOAD;
        if size < SMALLEST {
            while self.buffer.len() < size {
                self.fill(shared).await?;
            }
            let body = Bytes::copy_from_slice(&self.buffer[..size]);
            self.buffer.advance(size);
            return Ok(Frame { id, body, charge });
        }
        // Bounded by the frame cap; memory that is never written to costs nothing.
        let mut block = self.memory.take(size);
        let mut there = self.buffer.len().min(size);
        block[..there].copy_from_slice(&self.buffer[..there]);
        self.buffer.advance(there);
        while there < size {
            let read = self.reader.read(&mut block[there..size]).await;
            there += self.came(read, shared)?;
        }
        Ok(Frame { id, body: Bytes::from_owner(block).slice(..size), charge })
    }

    async fn fill(&mut self, shared: &Shared) -> Result<()> {
        if self.buffer.capacity() - self.buffer.len() < READ_MINIMUM {
            self.buffer.reserve(READ_BUFFER);
        }
        let read = self.reader.read_buf(&mut self.buffer).await;
        self.came(read, shared).map(drop)
    }

    fn came(&self, read: std::io::Result<usize>, shared: &Shared) -> Result<usize> {
        match read {
            Ok(0) => Err(shared.gone()),
            Ok(bytes) => {
                shared.hears();
                if shared.streams.load(Ordering::Relaxed) {
                    self.reader.acknowledge_quickly();
                }
                Ok(bytes)
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
