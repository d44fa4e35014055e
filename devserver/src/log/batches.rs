//! Batches in memory, as slices of the frames that brought them.
//!
//! Invariants: batches are contiguous (each begins where the one before ends), and the first begins at `start`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Batches below this size are copied: a slice would keep its whole read buffer alive, and thousands of tiny slices cost
/// more to send than one copy.
const SMALL_BATCH: usize = 4096;
/// Small batches are collected in chunks of this size.
const ARENA_BYTES: usize = 64 * 1024;

/// What a read takes from a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The first offset that is wanted; the batch that holds it comes whole.
    pub(super) from: i64,
    /// No batch that reaches beyond this offset is read.
    pub(super) until: i64,
    /// How many bytes are wanted.
    pub(super) max_bytes: usize,
    /// Exactly `max_bytes`, even if that ends within a batch; otherwise whole batches, at least one.
    pub(super) cut: bool,
}

/// What a read has taken.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Batches back to back.
    pub(super) pieces: Vec<Bytes>,
    /// The offset behind them, that of the last one even if it is cut.
    pub(super) next_offset: i64,
}

/// Contiguous batches.
#[derive(Default)]
pub(super) struct StoredBatches {
    batches: VecDeque<StoredBatch>,
    arena: BytesMut,
}

struct StoredBatch {
    next_offset: i64,
    data: Bytes,
}

impl StoredBatches {
    /// Adds the batch that ends before `next_offset`.
    pub(super) fn push(&mut self, data: BytesMut, next_offset: i64) {
        let data = if data.len() < SMALL_BATCH { self.copy(&data) } else { data.freeze() };
        self.batches.push_back(StoredBatch { next_offset, data });
    }

    /// Forgets the batches that end at or before `start`.
    pub(super) fn remove_before(&mut self, start: i64) {
        let removed = self.batches.partition_point(|batch| batch.next_offset <= start);
        self.batches.drain(..removed);
    }

    /// The batches of `span` back to back, without a copy but for small ones.
    pub(super) fn read(&self, span: Span) -> Found {
        let first = self.batches.partition_point(|batch| batch.next_offset <= span.from);
        let (mut pieces, mut len, mut next_offset) = (Vec::new(), 0, 0);
        let mut small = BytesMut::new();
        for batch in self.batches.range(first..) {
            if batch.next_offset > span.until {
                break;
            }
            let room = span.max_bytes.saturating_sub(len);
            let data = match &batch.data {
                data if data.len() <= room => data.clone(),
                data if span.cut => data.slice(..room),
                data if len == 0 => data.clone(),
                _ => break,
            };
            if data.is_empty() {
                break;
            }
            len += data.len();
            next_offset = batch.next_offset;
            if data.len() < SMALL_BATCH {
                small.extend_from_slice(&data);
            } else {
                if !small.is_empty() {
                    pieces.push(small.split().freeze());
                }
                pieces.push(data);
            }
        }
        if !small.is_empty() {
            pieces.push(small.freeze());
        }
        Found { pieces, next_offset }
    }

    fn copy(&mut self, data: &[u8]) -> Bytes {
        if self.arena.capacity() < data.len() {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.arena.extend_from_slice(data);
        self.arena.split().freeze()
    }
}
