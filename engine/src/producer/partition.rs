//! What gathers for one partition: the open batch, and full ones in their order.
//!
//! Whoever sends appends here, under the lock of the partition; the driver takes batches out. A buffer is as large as its
//! batch needs: a thousand open batches do not keep a thousand times the batch size.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use wire::builder::{BatchBuilder, EMPTY_LEN, max_record_len};
use wire::pool::{Pool, SMALLEST};

use super::handlers::Waiters;
use super::room::BATCH_OVERHEAD;
use super::share::Share;
use crate::session::produce::{Front, Parcel};

/// Buffers of open batches that are made in advance, all together.
const AHEAD_BYTES: usize = 1024 * 1024;

/// A buffer that grows step by step begins with this, or with what its first record needs.
const FIRST_BYTES: usize = 512;

/// However many batches are open, each may have this.
const SMALLEST_BATCH: usize = 4 * 1024;

/// One partition of the topic.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) index: u32,
    pub(super) queue: Mutex<Queue>,
    /// It takes no records at the moment.
    avoided: AtomicBool,
    /// Its SPU cannot be reached.
    away: AtomicBool,
}

impl Partition {
    pub(super) fn new(index: u32) -> Self {
        Partition {
            index,
            queue: Mutex::default(),
            avoided: AtomicBool::new(false),
            away: AtomicBool::new(false),
        }
    }

    /// Whether records without a key should go here.
    pub(super) fn is_reachable(&self) -> bool {
        !self.avoided.load(Ordering::Relaxed) && !self.is_away()
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub(super) fn set_avoided(&self, avoided: bool) {
        self.avoided.store(avoided, Ordering::Relaxed);
    }

    /// What the records of its SPU take.
    pub(super) fn held(&self) -> usize {
        self.queue.lock().share.held.load(Ordering::Relaxed)
    }

    /// Nobody leads it any more: its records go on to count for who did.
    pub(super) fn set_leaderless(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// From now on its records count for this SPU.
    pub(super) fn set_share(&self, share: &Arc<Share>) {
        self.away.store(share.away.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut queue = self.queue.lock();
        if !Arc::ptr_eq(&queue.share, share) {
            queue.share = Arc::clone(share);
        }
    }
}

/// Memory for batches.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Of sealed batches, to be used again.
    pool: Pool,
    /// What open batches have in advance.
    ahead: AtomicUsize,
    /// Batches that are open.
    open: AtomicUsize,
    /// Batches without a fate.
    untold: Mutex<Untold>,
    batch_bytes: usize,
    buffer_bytes: usize,
    /// How long a batch gathers at most while its SPU cannot be reached, in milliseconds.
    longest_ms: i64,
}

/// Batches without a fate, of all partitions: whoever flushes waits for those that were begun before, and keeps one number for
/// that. With more than one in flight, and more than one partition, they get their fates out of order.
#[derive(Debug, Default)]
struct Untold {
    /// The number of the next batch.
    next: u64,
    numbers: BTreeSet<u64>,
}

impl Buffers {
    /// The time of a batch is that of its first record, whose end is shared by those that join later. So while an SPU cannot
    /// be reached a batch takes none any more after an eighth of it: they begin another one. Where answers come, however
    /// late, batches gather until their turn: more of them than answers would never be sent.
    pub(super) fn new(batch_bytes: usize, buffer_bytes: usize, delivery_timeout: Duration) -> Self {
        let kept = (AHEAD_BYTES / batch_bytes).clamp(1, 8);
        Buffers {
            pool: Pool::new(kept),
            ahead: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            untold: Mutex::default(),
            batch_bytes,
            buffer_bytes,
            longest_ms: i64::try_from(delivery_timeout.as_millis() / 8).unwrap_or(i64::MAX),
        }
    }

    /// How large a batch may be now. Where many are open each has its share of a quarter of the buffer: a growing buffer leaves
    /// pieces behind, and batches as large as the whole buffer's share would leave too many.
    fn limit(&self) -> usize {
        self.limit_with(0)
    }

    /// The same if so many more are open.
    pub(super) fn limit_with(&self, more: usize) -> usize {
        let open = (self.open.load(Ordering::Relaxed) + more).max(1);
        self.batch_bytes.min((self.buffer_bytes / 4 / open).max(SMALLEST_BATCH))
    }

    /// A batch begins: its number.
    fn begin(&self) -> u64 {
        let mut untold = self.untold.lock();
        let number = untold.next;
        untold.next += 1;
        untold.numbers.insert(number);
        number
    }

    /// A batch was told its fate.
    pub(super) fn told(&self, number: u64) {
        self.untold.lock().numbers.remove(&number);
    }

    /// The number of the next batch: those before it have lower ones.
    pub(super) fn next(&self) -> u64 {
        self.untold.lock().next
    }

    /// Whether each batch with a lower number was told its fate.
    pub(super) fn are_told(&self, number: u64) -> bool {
        self.untold.lock().numbers.first().is_none_or(|first| *first >= number)
    }

    /// A buffer with room for a batch like the last one, if not too many have that, else for its first record.
    fn take(&self, hint: usize, needed: usize) -> (Vec<u8>, usize) {
        if hint >= SMALLEST && self.ahead.load(Ordering::Relaxed) + hint <= AHEAD_BYTES {
            let buffer = self.pool.take(hint.max(needed));
            let ahead = buffer.capacity();
            self.ahead.fetch_add(ahead, Ordering::Relaxed);
            return (buffer, ahead);
        }
        (Vec::with_capacity(needed.max(FIRST_BYTES)), 0)
    }
}

/// The records of one partition that gather.
#[derive(Debug, Default)]
pub(super) struct Queue {
    open: Option<OpenBatch>,
    /// Each in a block of its own: a line that grows keeps little in advance.
    full: VecDeque<Box<OpenBatch>>,
    /// Records accepted so far.
    accepted: u64,
    /// Records whose fate was told so far.
    resolved: u64,
    /// Whether the driver will look at this partition by itself.
    pub(super) known: bool,
    /// Whether it wants to be told of a full batch.
    pub(super) wake_when_full: bool,
    /// Whose records they are.
    pub(super) share: Arc<Share>,
    /// Size of the last batch: a hint for the next one.
    last_len: usize,
}

/// A batch that gathers, or waits for its header and checksum.
#[derive(Debug)]
pub(super) struct OpenBatch {
    first: u64,
    number: u64,
    builder: BatchBuilder,
    buffers: Arc<Buffers>,
    /// What of its buffer was made in advance.
    ahead: usize,
    waiters: Waiters,
    room: usize,
    opened: Instant,
    /// The same as the timestamp of its first record, which costs nothing to compare.
    begun_ms: i64,
    share: Arc<Share>,
}

/// A complete batch with everyone who waits for it.
#[derive(Debug)]
pub(super) struct Batch {
    first: u64,
    number: u64,
    pub(super) bytes: Bytes,
    waiters: Waiters,
    records: u32,
    /// What it takes of the buffer.
    pub(super) room: usize,
    opened: Instant,
    pub(super) share: Arc<Share>,
}

/// Who is told the fate of a batch.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) records: u32,
    pub(super) waiters: Waiters,
}

impl Parcel for Batch {
    type Waiters = Waiting;

    fn first(&self) -> u64 {
        self.first
    }

    fn records(&self) -> u32 {
        self.records
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn opened(&self) -> Instant {
        self.opened
    }

    fn waiters(&mut self) -> Waiting {
        Waiting { number: self.number, records: self.records, waiters: std::mem::take(&mut self.waiters) }
    }
}

impl OpenBatch {
    /// No record follows.
    fn complete(&mut self) {
        self.buffers.open.fetch_sub(1, Ordering::Relaxed);
        self.buffers.ahead.fetch_sub(std::mem::take(&mut self.ahead), Ordering::Relaxed);
        self.builder.give_back();
        self.waiters.complete();
    }

    /// Completes header and checksum.
    pub(super) fn sealed(self) -> Batch {
        Batch {
            first: self.first,
            number: self.number,
            records: self.builder.records(),
            bytes: self.buffers.pool.freeze(self.builder.finish()),
            waiters: self.waiters,
            room: self.room,
            opened: self.opened,
            share: self.share,
        }
    }
}

impl Queue {
    /// Whether a record of so many bytes would begin another batch although one is open.
    pub(super) fn is_full_for(&self, record_len: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.builder.len() + record_len > open.buffers.limit())
    }

    /// Appends a record that takes `room` of the buffer; its waiter is to be added to [`Queue::open_waiters`] under the
    /// same lock. True if it began a batch, which takes [`BATCH_OVERHEAD`] besides.
    pub(super) fn push(
        &mut self,
        buffers: &Arc<Buffers>,
        (key, value): (Option<&[u8]>, &[u8]),
        room: usize,
        timestamp: i64,
    ) -> bool {
        let record_len = max_record_len(key, value);
        let limit = buffers.limit();
        if let Some(open) = &self.open
            && (open.builder.len() + record_len > limit
                || !open.builder.accepts(timestamp)
                || (self.share.away.load(Ordering::Relaxed)
                    && timestamp.saturating_sub(open.begun_ms) > buffers.longest_ms))
        {
            self.seal();
        }
        let (first, begins) = (self.accepted, self.open.is_none());
        let open = self.open.get_or_insert_with(|| {
            let needed = EMPTY_LEN + record_len;
            let (buffer, ahead) = buffers.take(self.last_len.min(limit), needed);
            buffers.open.fetch_add(1, Ordering::Relaxed);
            OpenBatch {
                first,
                number: buffers.begin(),
                builder: BatchBuilder::with_buffer(buffer),
                buffers: Arc::clone(buffers),
                ahead,
                waiters: Waiters::default(),
                room: BATCH_OVERHEAD,
                opened: tokio::time::Instant::now().into_std(),
                begun_ms: timestamp,
                share: Arc::clone(&self.share),
            }
        });
        open.builder.make_room(record_len, limit);
        open.builder.push(key, value, timestamp);
        open.room += room;
        self.accepted += 1;
        begins
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

    /// The records that were pushed since take so much of the buffer: they count for their SPU.
    pub(super) fn count(&self, room: usize) {
        let share = self.open.as_ref().map_or(&self.share, |open| &open.share);
        share.held.fetch_add(room, Ordering::Relaxed);
    }

    /// The records of a batch were told their fate.
    pub(super) fn told(&mut self, records: u32) {
        self.resolved += u64::from(records);
    }

    /// Records without a fate.
    pub(super) fn undelivered(&self) -> u64 {
        self.accepted - self.resolved
    }

    /// Ends the open batch: it is sent as soon as its turn comes.
    pub(super) fn seal(&mut self) {
        if let Some(mut open) = self.open.take() {
            self.last_len = open.builder.len();
            open.complete();
            self.full.push_back(Box::new(open));
        }
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.full.is_empty()
    }

    /// Whether a batch waits that takes no more records.
    pub(super) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// What waits in front.
    pub(super) fn front(&self) -> Option<Front> {
        let front = self.full.front().map(|full| &**full).or(self.open.as_ref())?;
        Some(Front { opened: front.opened, len: front.builder.len(), full: self.has_full() })
    }

    /// The oldest batch, and whether it was still open.
    pub(super) fn pop(&mut self) -> Option<(Box<OpenBatch>, bool)> {
        let open = self.full.is_empty();
        if open {
            self.seal();
        }
        Some((self.full.pop_front()?, open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that comes while an SPU is away has nearly all of its time; one that waits for an answer goes with the others.
    #[test]
    fn an_old_batch_takes_no_record_while_its_spu_is_away() {
        let buffers = Arc::new(Buffers::new(1 << 17, 1 << 25, Duration::from_secs(80)));
        let mut queue = Queue::default();
        let mut at = |seconds: i64| {
            queue.push(&buffers, (None, b"value"), 100, 1000 * seconds);
            queue.full.len()
        };
        assert_eq!([at(0), at(5), at(60)], [0; 3]);
        queue.share.away.store(true, Ordering::Relaxed);
        let mut at = |seconds: i64| {
            queue.push(&buffers, (None, b"value"), 100, 1000 * seconds);
            queue.full.len()
        };
        assert_eq!([at(61), at(70), at(71), at(72), at(140)], [1, 1, 1, 2, 3]);
        let records: Vec<u32> = queue.full.iter().map(|batch| batch.builder.records()).collect();
        assert_eq!(records, [3, 3, 1]);
    }
}
