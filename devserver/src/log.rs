//! The log of one partition, in memory.
//!
//! Batches are kept as they came, as slices of the frames that brought them, and are handed out without a copy: a server
//! never looks at a record. Invariants: batches are contiguous (each begins where the one before ends), and the end that
//! `ends` announces is the end of the last batch. The high watermark is the log end, since all replicas of a partition are
//! this log, unless it is held back on purpose; it never falls.

use bytes::{Bytes, BytesMut};
use fluvio_spu_schema::Isolation;
use parking_lot::RwLock;
use tokio::sync::watch;
use wire::batch::{BatchHeader, set_base_offset};

/// Batches below this size are copied: a slice would keep its whole read buffer alive, and thousands of tiny slices cost
/// more to send than one copy.
const SMALL_BATCH: usize = 4096;
/// Small batches are collected in chunks of this size.
const ARENA_BYTES: usize = 64 * 1024;

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The offset behind the last record.
    pub(crate) offset: i64,
    /// The offset behind the last record that all replicas have.
    pub(crate) high_watermark: i64,
    /// The topic is gone.
    pub(crate) deleted: bool,
}

impl LogEnd {
    /// The offset behind the last record that a reader may see.
    pub(crate) fn visible(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.offset,
            Isolation::ReadCommitted => self.high_watermark,
        }
    }
}

/// What a read found.
#[derive(Debug, Default)]
pub(crate) struct LogSlice {
    /// Batches back to back.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pub(crate) len: usize,
    /// The offset behind the last record, even if its batch is cut.
    pub(crate) next_offset: i64,
    /// First offset of the log.
    pub(crate) start: i64,
    /// The high watermark.
    pub(crate) high_watermark: i64,
}

/// Why a read is impossible.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// Behind the end of the log.
    BeyondEnd {
        /// The end of the log.
        end: i64,
    },
    /// Before its start.
    Evicted {
        /// The first offset that can be read.
        start: i64,
    },
}

/// A batch that is about to be appended: its bytes and their decoded header.
pub(crate) type NewBatch = (BytesMut, BatchHeader);

pub(crate) struct PartitionLog {
    state: RwLock<State>,
    ends: watch::Sender<LogEnd>,
}

#[derive(Default)]
struct State {
    batches: Vec<StoredBatch>,
    end: i64,
    /// The high watermark stands still.
    held: bool,
    bytes: u64,
    arena: BytesMut,
}

struct StoredBatch {
    next_offset: i64,
    data: Bytes,
}

impl PartitionLog {
    pub(crate) fn new() -> Self {
        PartitionLog {
            state: RwLock::default(),
            ends: watch::Sender::new(LogEnd { offset: 0, high_watermark: 0, deleted: false }),
        }
    }

    /// Appends the batches and returns the offset of their first record.
    pub(crate) fn append(&self, batches: impl IntoIterator<Item = NewBatch>) -> i64 {
        let mut state = self.state.write();
        let base_offset = state.end;
        for (mut data, header) in batches {
            set_base_offset(&mut data, state.end);
            state.end += header.offset_count();
            state.bytes += data.len() as u64;
            let data = if data.len() < SMALL_BATCH { state.copy(&data) } else { data.freeze() };
            let next_offset = state.end;
            state.batches.push(StoredBatch { next_offset, data });
        }
        // Under the lock, so that ends are announced in order.
        self.ends.send_modify(|end| {
            end.offset = state.end;
            if !state.held {
                end.high_watermark = state.end;
            }
        });
        base_offset
    }

    /// Makes the high watermark stand still, or lets it catch up.
    pub(crate) fn hold_high_watermark(&self, held: bool) {
        let mut state = self.state.write();
        state.held = held;
        if !held {
            self.ends.send_modify(|end| end.high_watermark = end.offset);
        }
    }

    /// Reads batches from the one that holds `from` on, as far as `isolation` may see. With `cut`, exactly `max_bytes` of them, even if that ends within
    /// a batch; otherwise whole batches, at least one.
    pub(crate) fn read(
        &self,
        from: i64,
        isolation: Isolation,
        max_bytes: usize,
        cut: bool,
    ) -> Result<LogSlice, ReadError> {
        let state = self.state.read();
        let visible = self.ends().visible(isolation);
        let start = 0;
        if from > state.end {
            return Err(ReadError::BeyondEnd { end: state.end });
        }
        if from < start {
            return Err(ReadError::Evicted { start });
        }
        let high_watermark = self.ends().high_watermark;
        let mut slice = LogSlice { start, high_watermark, ..LogSlice::default() };
        let first = state.batches.partition_point(|batch| batch.next_offset <= from);
        let mut small = BytesMut::new();
        for batch in state.batches[first..].iter().take_while(|batch| batch.next_offset <= visible) {
            let room = max_bytes.saturating_sub(slice.len);
            let data = match &batch.data {
                data if data.len() <= room => data.clone(),
                data if cut => data.slice(..room),
                data if slice.len == 0 => data.clone(),
                _ => break,
            };
            if data.is_empty() {
                break;
            }
            slice.len += data.len();
            slice.next_offset = batch.next_offset;
            if data.len() < SMALL_BATCH {
                small.extend_from_slice(&data);
            } else {
                if !small.is_empty() {
                    slice.pieces.push(small.split().freeze());
                }
                slice.pieces.push(data);
            }
        }
        if !small.is_empty() {
            slice.pieces.push(small.freeze());
        }
        Ok(slice)
    }

    /// First offset.
    pub(crate) fn start(&self) -> i64 {
        0
    }

    /// How far the log reaches.
    pub(crate) fn ends(&self) -> LogEnd {
        *self.ends.borrow()
    }

    /// Bytes of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.read().bytes
    }

    /// Follows the end of the log.
    pub(crate) fn watch(&self) -> watch::Receiver<LogEnd> {
        self.ends.subscribe()
    }

    /// Tells everybody who follows the log that its topic is gone.
    pub(crate) fn delete(&self) {
        self.ends.send_modify(|end| end.deleted = true);
    }
}

impl State {
    fn copy(&mut self, data: &[u8]) -> Bytes {
        if self.arena.capacity() < data.len() {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.arena.extend_from_slice(data);
        self.arena.split().freeze()
    }
}
