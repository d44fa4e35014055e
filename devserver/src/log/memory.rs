//! A log in memory: the batches as they came, and the segments by which retention removes them.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::RwLock;
use wire::batch::set_base_offset;

use super::batches::{Found, Span, StoredBatches};
use super::retention::{Extent, Retention};
use super::{NewBatch, ReadError, check_start};

pub(super) struct MemoryLog {
    retention: Retention,
    state: RwLock<State>,
}

struct State {
    batches: StoredBatches,
    /// The last one is written to. Never empty.
    segments: VecDeque<Extent>,
    end: i64,
}

impl MemoryLog {
    pub(super) fn new(retention: Retention) -> Self {
        let state =
            State { batches: StoredBatches::default(), segments: VecDeque::from([empty_segment(0)]), end: 0 };
        MemoryLog { retention, state: RwLock::new(state) }
    }

    /// Appends the batches and returns the offset of their first record. `announce` is told the new end under the lock,
    /// so that ends are announced in order.
    pub(super) fn append(&self, batches: Vec<NewBatch>, announce: impl FnOnce(i64)) -> i64 {
        let now = SystemTime::now();
        let state = &mut *self.state.write();
        let base_offset = state.end;
        for (mut data, header) in batches {
            set_base_offset(&mut data, state.end);
            let bytes = data.len() as u64;
            if self.retention.rolls(state.active().bytes, bytes) {
                state.segments.push_back(empty_segment(state.end));
                // Without waiting for the cleaner: memory is not a disk, gigabytes may come until then.
                let expired = self.retention.expired(state.segments.iter(), now);
                state.remove_oldest(expired);
            }
            let active = state.active();
            active.bytes += bytes;
            active.modified = now;
            state.end += header.offset_count();
            state.batches.push(data, state.end);
        }
        announce(state.end);
        base_offset
    }

    /// The first offset of the log, and the batches of `span`.
    pub(super) fn read(&self, span: Span) -> Result<(i64, Found), ReadError> {
        let state = self.state.read();
        let start = state.start();
        check_start(span.from, start)?;
        Ok((start, state.batches.read(span)))
    }

    pub(super) fn start(&self) -> i64 {
        self.state.read().start()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.read().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Removes what the retention of the topic does not keep.
    pub(super) fn clean(&self, now: SystemTime) -> bool {
        let state = &mut *self.state.write();
        let expired = self.retention.expired(state.segments.iter(), now);
        state.remove_oldest(expired);
        expired > 0
    }

    /// Removes everything that was written so far.
    pub(super) fn evict(&self) {
        let state = &mut *self.state.write();
        if state.active().bytes > 0 {
            state.segments.push_back(empty_segment(state.end));
        }
        let closed = state.segments.len() - 1;
        state.remove_oldest(closed);
    }
}

impl State {
    fn active(&mut self) -> &mut Extent {
        self.segments.back_mut().expect("the last segment stays")
    }

    fn start(&self) -> i64 {
        self.segments.front().map_or(self.end, |segment| segment.base_offset)
    }

    fn remove_oldest(&mut self, count: usize) {
        self.segments.drain(..count);
        let start = self.start();
        self.batches.remove_before(start);
    }
}

fn empty_segment(base_offset: i64) -> Extent {
    Extent { base_offset, bytes: 0, modified: SystemTime::now() }
}
