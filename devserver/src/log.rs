//! The log of one partition, in memory.
//!
//! Batches are kept as they came, as slices of the frames that brought them, and are handed out without a copy: a server
//! never looks at a record. Invariants: batches are contiguous (each begins where the one before ends), and the end that
//! `ends` announces is the end of the last batch. With one replica the high watermark is the log end.

use bytes::{Bytes, BytesMut};
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
    /// The topic is gone.
    pub(crate) deleted: bool,
}

/// What a read found.
#[derive(Debug, Default)]
pub(crate) struct LogSlice {
    /// Batches back to back.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pub(crate) len: usize,
    /// First offset of the log.
    pub(crate) start: i64,
    /// The offset behind the last record.
    pub(crate) end: i64,
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
            ends: watch::Sender::new(LogEnd { offset: 0, deleted: false }),
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
        self.ends.send_modify(|end| end.offset = state.end);
        base_offset
    }

    /// Reads batches from the one that holds `from` on. With `cut`, exactly `max_bytes` of them, even if that ends within
    /// a batch; otherwise whole batches, at least one.
    pub(crate) fn read(&self, from: i64, max_bytes: usize, cut: bool) -> Result<LogSlice, ReadError> {
        let state = self.state.read();
        let start = 0;
        if from > state.end {
            return Err(ReadError::BeyondEnd { end: state.end });
        }
        if from < start {
            return Err(ReadError::Evicted { start });
        }
        let mut slice = LogSlice { start, end: state.end, ..LogSlice::default() };
        let first = state.batches.partition_point(|batch| batch.next_offset <= from);
        let mut small = BytesMut::new();
        for batch in &state.batches[first..] {
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

    /// The offset behind the last record.
    pub(crate) fn end(&self) -> i64 {
        self.ends.borrow().offset
    }

    /// First offset and the offset behind the last record.
    pub(crate) fn range(&self) -> (i64, i64) {
        (0, self.end())
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
