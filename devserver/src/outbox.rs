//! The outgoing side of a connection: frames from any task, written in the order in which they were sent.
//!
//! [`Outbox::send`] never waits: it writes what the socket takes at once and leaves the rest to [`Outbox::drive`], which
//! the connection's own task runs. So a slow client stops nobody else, and what was sent before something else (a watch
//! update before the reply to the request that caused it) reaches its socket first. Exactly one task writes at a time:
//! the one that has set `busy`. Faults may hold answers back, stop the writing or end it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::counters::PlaneCounts;
use crate::faults::{Answer, ConnectionFaults, Direction, Fate, HeldAnswers};

/// No further request is handled while more bytes than this wait for the client to read them.
const CONGESTED_BYTES: usize = 8 * 1024 * 1024;
/// Slices handed to one vectored write.
const MAX_SLICES: usize = 64;

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Frames on their way to one client.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// `None` once the connection is closed. Locked by whoever has set `busy`, and to close.
    writer: Mutex<Option<Writer>>,
    /// Wakes [`Outbox::drive`]: the socket took no more, or what it waits for has happened.
    progress: Notify,
    closed: CancellationToken,
    faults: ConnectionFaults,
    counts: Arc<PlaneCounts>,
    /// Pieces are written one by one.
    split: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes that were sent and not yet written, those of the writing task included.
    backlog: usize,
    /// A task writes, or the socket is full.
    busy: bool,
    /// The socket is full.
    blocked: bool,
    /// The connection's task waits for the queue to shrink.
    awaited: bool,
    /// What faults hold back.
    held: HeldAnswers,
    /// Faults have come or gone since the connection's task has looked.
    faults_changed: bool,
}

impl Outbox {
    /// `closed` ends with the connection; the outbox cancels it when the socket fails. With `split`, pieces are written
    /// one by one.
    pub(crate) fn new(
        writer: Writer,
        closed: CancellationToken,
        faults: ConnectionFaults,
        counts: Arc<PlaneCounts>,
        split: bool,
    ) -> Self {
        Outbox {
            state: Mutex::default(),
            writer: Mutex::new(Some(writer)),
            progress: Notify::new(),
            closed,
            faults,
            counts,
            split,
        }
    }

    /// The faults of this connection.
    pub(crate) fn faults(&self) -> &ConnectionFaults {
        &self.faults
    }

    /// What counts the bytes, requests and streams of this connection.
    pub(crate) fn counts(&self) -> &Arc<PlaneCounts> {
        &self.counts
    }

    /// Has the connection's task look at the faults again.
    pub(crate) fn faults_changed(&self) {
        self.state.lock().faults_changed = true;
        self.progress.notify_one();
    }

    /// Sends one frame, given in pieces.
    pub(crate) fn send(&self, frame: impl IntoIterator<Item = Bytes>) {
        if self.is_closed() {
            return;
        }
        {
            let mut state = self.state.lock();
            if self.faults.all().is_quiet() && state.held.is_empty() {
                state.enqueue(frame);
            } else {
                self.send_with_faults(&mut state, frame.into_iter().collect());
            }
            if state.busy || state.queue.is_empty() {
                return;
            }
            state.busy = true;
        }
        if self.poll_write(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.progress.notify_one();
        }
    }

    fn send_with_faults(&self, state: &mut State, frame: Vec<Bytes>) {
        let stream = self.faults.stream_of(&frame);
        match self.faults.after(frame) {
            Answer::Sent(frame) if state.held.holds(stream) => state.held.push(stream, frame, None, None),
            Answer::Sent(frame) => state.enqueue(frame),
            Answer::Held(frame, fault, due) => {
                state.held.push(stream, frame, Some(fault), due);
                // The connection's task watches the time.
                self.progress.notify_one();
            }
            Answer::Dropped => {}
            Answer::Closed => self.closed.cancel(),
        }
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn backlog(&self) -> usize {
        self.state.lock().backlog
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Whether everything that was sent is on its way to the client.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        !state.busy && state.queue.is_empty() && state.held.is_empty()
    }

    /// Whether so much is unread that the client's next request has to wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.backlog() > CONGESTED_BYTES
    }

    /// Writes on whenever the socket could not take everything, and sends what is held back no longer. Returns when faults
    /// have come or gone and, with `congested`, once the client has caught up; otherwise never. May be dropped and called
    /// again at any time.
    pub(crate) async fn drive(&self, congested: bool) {
        loop {
            let due = {
                let mut state = self.state.lock();
                let released = state.held.release(|fault| self.faults.all().is_injected(fault));
                state.enqueue(released);
                if !state.busy && !state.queue.is_empty() {
                    (state.busy, state.blocked) = (true, true);
                }
                state.held.next_due()
            };
            if self.state.lock().blocked && !self.faults.is_stalled() {
                std::future::poll_fn(|context| self.poll_write(context)).await;
            }
            if std::mem::take(&mut self.state.lock().faults_changed) {
                return;
            }
            if congested {
                let mut state = self.state.lock();
                if state.backlog <= CONGESTED_BYTES {
                    return;
                }
                state.awaited = true;
            }
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.progress.notified() => {}
                () = due => {}
            }
        }
    }

    /// Forgets what was not written and closes the sending half.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        if let Some(mut writer) = self.writer.lock().take() {
            // Says goodbye if the socket takes it at once (TLS has an end of its own). Nobody is left to hear of an error.
            let _ = Pin::new(&mut writer).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        self.state.lock().queue.clear();
    }

    /// Writes until the queue is empty and flushed, or the socket takes no more. Only for the task that has set `busy`,
    /// which is reset at the end and stays set while the socket is full or a fault keeps everything from it.
    fn poll_write(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut writer = self.writer.lock();
        if self.is_closed() {
            return Poll::Ready(());
        }
        let mut pieces = VecDeque::new();
        let mut flushed = false;
        loop {
            if pieces.is_empty() {
                let mut state = self.state.lock();
                if flushed && state.queue.is_empty() {
                    state.busy = false;
                    state.blocked = false;
                    if std::mem::take(&mut state.awaited) {
                        self.progress.notify_one();
                    }
                    return Poll::Ready(());
                }
                std::mem::swap(&mut pieces, &mut state.queue);
            }
            let Some(writer) = writer.as_mut() else {
                return Poll::Ready(());
            };
            if self.faults.interrupt(Direction::Sent) == Fate::Closed {
                self.closed.cancel();
                return Poll::Ready(());
            }
            if self.faults.is_stalled() {
                self.state.lock().wait(pieces);
                // What stalls may have gone meanwhile, and the connection's task have looked too early.
                self.progress.notify_one();
                return Poll::Ready(());
            }
            let progress = match pieces.is_empty() {
                // What TLS has taken is not yet what the socket has taken.
                true => Pin::new(writer).poll_flush(context).map_ok(|()| {
                    flushed = true;
                    0
                }),
                false => {
                    flushed = false;
                    let most = self.faults.limit(Direction::Sent);
                    write_some(writer, context, &pieces, if self.split { 1 } else { MAX_SLICES }, most)
                }
            };
            match progress {
                Poll::Ready(Ok(written)) => {
                    consume(&mut pieces, written);
                    self.faults.count(Direction::Sent, written);
                    self.counts.sent(written);
                    self.state.lock().backlog -= written;
                    if self.faults.interrupt(Direction::Sent) == Fate::Closed {
                        self.closed.cancel();
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "writing to a client failed");
                    self.closed.cancel();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    self.state.lock().wait(pieces);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl State {
    fn enqueue(&mut self, frame: impl IntoIterator<Item = Bytes>) {
        for piece in frame {
            self.backlog += piece.len();
            self.queue.push_back(piece);
        }
    }

    /// Puts what could not be written back in front.
    fn wait(&mut self, mut pieces: VecDeque<Bytes>) {
        pieces.append(&mut self.queue);
        self.queue = pieces;
        self.blocked = true;
    }
}

/// Writes what the socket takes of the first `count` pieces; with `most`, so many bytes of the first one.
fn write_some(
    writer: &mut Writer,
    context: &mut Context<'_>,
    pieces: &VecDeque<Bytes>,
    count: usize,
    most: Option<u64>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut count = pieces.len().min(count);
    for (slice, piece) in slices.iter_mut().zip(pieces).take(count) {
        *slice = IoSlice::new(piece);
    }
    if let (Some(most), Some(first)) = (most, pieces.front()) {
        slices[0] = IoSlice::new(&first[..first.len().min(usize::try_from(most).unwrap_or(usize::MAX))]);
        count = 1;
    }
    match Pin::new(writer).poll_write_vectored(context, &slices[..count]) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        other => other,
    }
}

fn consume(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = pieces.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        pieces.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, BufWriter};
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_a_writer_keeps_in_a_buffer_of_its_own_is_flushed() {
        // As TLS does; the pipe behind it takes three bytes at a time.
        let (near, mut far) = tokio::io::duplex(3);
        let faults = ConnectionFaults::new(Arc::default(), crate::plane::Plane::Controller);
        let closed = CancellationToken::new();
        let outbox = Outbox::new(Box::new(BufWriter::new(near)), closed, faults, Arc::default(), false);
        outbox.send([Bytes::from_static(b"one "), Bytes::from_static(b"frame")]);
        let mut received = [0; 9];
        tokio::select! {
            () = outbox.drive(false) => unreachable!("it has no reason to return"),
            read = timeout(Duration::from_secs(10), far.read_exact(&mut received)) => {
                read.expect("in time").expect("a frame");
            }
        }
        assert_eq!(&received, b"one frame");
        outbox.close();
    }
}
