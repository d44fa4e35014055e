//! The two tasks of a connection, and the table of who waits for which answer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use wire::frame::split_frame;

use super::{Chunks, ReadHalf};
use crate::error::{Error, ErrorKind, Result};

/// Size of a fresh read buffer. Small frames share one, so that a kept one pins little more than itself.
const READ_BUFFER: usize = 64 * 1024;

/// A new buffer is taken when less than this is free.
const READ_MINIMUM: usize = 4 * 1024;

/// What the two tasks and the waiting requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: String,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) lost: watch::Sender<Option<Error>>,
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
        Shared { peer: peer.to_owned(), waiting: Mutex::default(), lost: watch::Sender::new(None) }
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

pub(super) async fn read_frames(mut reader: impl ReadHalf, shared: Arc<Shared>, max_frame: usize) {
    let mut buffer = BytesMut::new();
    let error = 'read: loop {
        if buffer.capacity() - buffer.len() < READ_MINIMUM {
            buffer.reserve(READ_BUFFER);
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break shared.gone(),
            Ok(_) => {}
            Err(error) => {
                let message = format!("the connection to {} was lost: {error}", shared.peer);
                break Error::new(ErrorKind::Connection, message);
            }
        }
        reader.acknowledge_quickly();
        loop {
            match split_frame(&mut buffer, max_frame) {
                Ok(Some(frame)) => {
                    if let Err(error) = shared.deliver(frame.freeze()) {
                        break 'read error;
                    }
                }
                Ok(None) => break,
                Err(error) => break 'read shared.protocol(error),
            }
        }
    };
    tracing::debug!(peer = shared.peer, %error, "connection ends");
    shared.fail(error);
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
