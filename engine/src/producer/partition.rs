//! What waits to be sent to one partition: the open batch that gathers, and sealed batches in their order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::builder::{BatchBuilder, EMPTY_LEN, max_record_len};
use wire::pool::Pool;

use super::core::{Core, record_room};
use super::outcome::Waiters;
use crate::error::Error;

/// One partition of the topic.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) index: u32,
    pub(super) queue: Mutex<Queue>,
    reachable: AtomicBool,
}

impl Partition {
    pub(super) fn new(index: u32) -> Self {
        Partition { index, queue: Mutex::default(), reachable: AtomicBool::new(true) }
    }

    /// Whether the last attempt to reach its leader succeeded.
    pub(super) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Nothing waits any more, and not because it was sent. The next record tries again.
    pub(super) fn gave_up(&self, queue: &mut Queue) {
        queue.known = false;
        self.set_reachable(true);
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
    }
}

/// The records of one partition that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    open: Option<OpenBatch>,
    sealed: VecDeque<Waiting>,
    /// Records accepted so far.
    pub(super) accepted: u64,
    /// Records whose fate was told so far.
    resolved: u64,
    /// The number of the first record of each batch without a fate: with more than one in flight, batches can get theirs
    /// out of order.
    untold: BTreeSet<u64>,
    /// Whether the dispatcher has this partition in its lists.
    pub(super) known: bool,
    /// Whether the dispatcher waits for a full batch, because the open one lingers.
    pub(super) wake_when_sealed: bool,
    /// Requests with batches of this partition that are unanswered.
    pub(super) in_flight: usize,
    /// Nothing is sent before this point in time: the last attempt failed.
    pub(super) retry_at: Option<Instant>,
    /// Size of the last batch: a hint for the next one.
    last_len: usize,
}

/// A batch that gathers.
#[derive(Debug)]
pub(super) struct OpenBatch {
    first: u64,
    builder: BatchBuilder,
    /// Where the builder's buffer goes when the batch has its fate.
    buffers: Pool,
    waiters: Waiters,
    room: usize,
    opened: Instant,
}

/// A batch that waits for its turn.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Header and checksum are still missing.
    Gathered(OpenBatch),
    /// It was sent before and comes back for another try.
    Returned(Batch),
}

/// A complete batch with everyone who waits for it.
#[derive(Debug)]
pub(super) struct Batch {
    /// Number of its first record among all that its partition accepted.
    pub(super) first: u64,
    pub(super) bytes: Bytes,
    pub(super) waiters: Waiters,
    pub(super) records: u32,
    pub(super) room: usize,
    pub(super) opened: Instant,
    pub(super) attempts: u32,
    pub(super) last_error: Option<Error>,
}

impl Waiting {
    /// Completes header and checksum.
    pub(super) fn sealed(self) -> Batch {
        match self {
            Waiting::Returned(batch) => batch,
            Waiting::Gathered(open) => Batch {
                first: open.first,
                records: open.builder.records(),
                bytes: open.buffers.freeze(open.builder.finish()),
                waiters: open.waiters,
                room: open.room,
                opened: open.opened,
                attempts: 0,
                last_error: None,
            },
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Waiting::Gathered(open) => open.builder.len(),
            Waiting::Returned(batch) => batch.bytes.len(),
        }
    }

    pub(super) fn opened(&self) -> Instant {
        match self {
            Waiting::Gathered(open) => open.opened,
            Waiting::Returned(batch) => batch.opened,
        }
    }
}

impl Queue {
    /// Appends a record; its waiter is to be added to [`Queue::open_waiters`] under the same lock.
    pub(super) fn push(&mut self, core: &Core, key: Option<&[u8]>, value: &[u8], timestamp: i64) {
        let record_len = max_record_len(key, value);
        if let Some(open) = &self.open
            && (open.builder.len() + record_len > core.options.batch_bytes
                || !open.builder.accepts(timestamp))
        {
            self.seal();
        }
        let hint = self.last_len.max(512).min(core.options.batch_bytes).max(EMPTY_LEN + record_len);
        let first = self.accepted;
        let open = self.open.get_or_insert_with(|| OpenBatch {
            first,
            builder: BatchBuilder::with_buffer(core.buffers.take(hint)),
            buffers: core.buffers.clone(),
            waiters: Waiters::default(),
            room: 0,
            opened: Instant::now(),
        });
        if open.builder.is_empty() {
            self.untold.insert(first);
        }
        open.builder.push(key, value, timestamp);
        open.room += record_room(key, value);
        self.accepted += 1;
    }

    /// Who waits for the batch that the last record went to.
    ///
    /// # Panics
    /// If no record was pushed before.
    pub(super) fn open_waiters(&mut self) -> &mut Waiters {
        match &mut self.open {
            Some(open) => &mut open.waiters,
            None => unreachable!("a waiter is added after its record"),
        }
    }

    /// The records of a batch were told their fate.
    pub(super) fn told(&mut self, first: u64, records: u32) {
        self.untold.remove(&first);
        self.resolved += u64::from(records);
    }

    /// Whether each of the first `accepted` records was told its fate.
    pub(super) fn is_told(&self, accepted: u64) -> bool {
        self.untold.first().is_none_or(|first| *first >= accepted)
    }

    /// Records without a fate.
    pub(super) fn undelivered(&self) -> u64 {
        self.accepted - self.resolved
    }

    /// Ends the open batch: it is sent as soon as its turn comes.
    pub(super) fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            self.last_len = open.builder.len();
            self.sealed.push_back(Waiting::Gathered(open));
        }
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty()
    }

    /// When the oldest batch was opened.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sealed.front().map(Waiting::opened).or(self.open.as_ref().map(|open| open.opened))
    }

    /// When the open batch may be sent although it is not full; `None` if a batch can be sent now or nothing waits.
    pub(super) fn lingers_until(&self, linger: std::time::Duration) -> Option<Instant> {
        if self.sealed.is_empty() { self.open.as_ref().map(|open| open.opened + linger) } else { None }
    }

    /// Bytes of the batch that [`Queue::pop`] would hand out.
    pub(super) fn front_len(&self) -> Option<usize> {
        self.sealed.front().map(Waiting::len).or(self.open.as_ref().map(|open| open.builder.len()))
    }

    /// The oldest batch.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// Puts a batch back in front, for another try.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.sealed.push_front(Waiting::Returned(batch));
    }

    /// Everything that waits.
    pub(super) fn take_all(&mut self) -> VecDeque<Waiting> {
        self.seal();
        std::mem::take(&mut self.sealed)
    }
}
