//! Builds a batch in wire format while the records arrive: one append per record, header and checksum at the end.
//!
//! Nothing is copied again afterwards: [`BatchBuilder::finish`] hands the same buffer out.

use crate::batch::{HEADER_LEN, MAGIC, PREAMBLE_LEN, set_crc};
use crate::varint;

/// Bytes in front of the first record: the header and the record count.
pub const EMPTY_LEN: usize = HEADER_LEN + 4;

/// How much a growing buffer has in advance at most.
const LARGEST_STEP: usize = 16 * 1024;

/// Batches up to this length are moved rather than cut off: what they leave free is used as a whole.
const LARGEST_MOVED: usize = 4 * 1024;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// The largest distance between two timestamps of a batch; the platform's varints hold no more.
const MAX_TIMESTAMP_DELTA: i64 = 1 << 30;

/// The most bytes that a record with this key and value adds to a batch.
pub fn max_record_len(key: Option<&[u8]>, value: &[u8]) -> usize {
    // length, attributes, two deltas of 5 bytes at most, key tag, key length, value length, header count
    const OVERHEAD: usize = 5 + 1 + 5 + 5 + 1 + 5 + 5 + 1;
    OVERHEAD + key.map_or(0, <[u8]>::len) + value.len()
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    records: i32,
    first_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch with room for `capacity` bytes in all.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::with_buffer(Vec::with_capacity(capacity.max(EMPTY_LEN)))
    }

    /// An empty batch that is built in `buffer`, whose content is dropped.
    pub fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(EMPTY_LEN, 0);
        BatchBuilder { buffer, records: 0, first_timestamp: NO_TIMESTAMP, max_timestamp: NO_TIMESTAMP }
    }

    /// Records so far.
    pub fn records(&self) -> u32 {
        self.records as u32
    }

    /// Bytes of the batch as it stands.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no record was appended yet.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether a record with this timestamp can still be expressed in this batch.
    pub fn accepts(&self, timestamp: i64) -> bool {
        self.records == 0
            || (self.records < i32::MAX && (timestamp - self.first_timestamp).abs() < MAX_TIMESTAMP_DELTA)
    }

    /// Has the buffer hold `record_len` bytes more (see [`max_record_len`]). It grows by the half or 16 KiB, and beyond `most`
    /// only as far as it has to: little is kept that is not used.
    pub fn make_room(&mut self, record_len: usize, most: usize) {
        let needed = self.buffer.len() + record_len;
        let capacity = self.buffer.capacity();
        if capacity < needed {
            let grown = needed.max((capacity + (capacity / 2).min(LARGEST_STEP)).min(most));
            self.buffer.reserve_exact(grown - self.buffer.len());
        }
    }

    /// No record follows: gives back what of the buffer is not used, if that is much. A small batch moves into a block of its
    /// own: cut off in place, the rest would be a hole that is too small for the next buffer, as many of them as batches.
    pub fn give_back(&mut self) {
        if self.buffer.capacity() - self.buffer.len() <= self.buffer.len() / 4 {
            return;
        }
        if self.buffer.len() <= LARGEST_MOVED {
            self.buffer = self.buffer.as_slice().to_vec();
        } else {
            self.buffer.shrink_to_fit();
        }
    }

    /// Appends a record. `key` of `None` is a NULL key, which is not an empty one; `timestamp` is in milliseconds since
    /// 1970. The caller keeps the size within its limits and asks [`BatchBuilder::accepts`] first.
    pub fn push(&mut self, key: Option<&[u8]>, value: &[u8], timestamp: i64) {
        if self.records == 0 {
            self.first_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp - self.first_timestamp;
        let offset_delta = i64::from(self.records);
        let key_len = key.map_or(0, |key| varint::len(key.len() as i64) + key.len());
        let record_len = 1
            + varint::len(timestamp_delta)
            + varint::len(offset_delta)
            + 1
            + key_len
            + varint::len(value.len() as i64)
            + value.len()
            + 1;
        let out = &mut self.buffer;
        // Nothing to do where room was made before: that is for the most that such a record can need.
        out.reserve(record_len + varint::len(record_len as i64));
        varint::put(out, record_len as i64);
        out.push(0); // attributes: unused
        varint::put(out, timestamp_delta);
        varint::put(out, offset_delta);
        match key {
            None => out.push(0),
            Some(key) => {
                out.push(1);
                varint::put(out, key.len() as i64);
                out.extend_from_slice(key);
            }
        }
        varint::put(out, value.len() as i64);
        out.extend_from_slice(value);
        out.push(0); // no headers: the platform has none
        self.records += 1;
    }

    /// Completes header and checksum. The base offset is 0: the server assigns it.
    pub fn finish(self) -> Vec<u8> {
        let mut batch = self.buffer;
        let batch_len = (batch.len() - PREAMBLE_LEN) as i32;
        batch[8..12].copy_from_slice(&batch_len.to_be_bytes());
        batch[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        batch[16] = MAGIC as u8;
        batch[23..27].copy_from_slice(&(self.records - 1).to_be_bytes());
        batch[27..35].copy_from_slice(&self.first_timestamp.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        batch[43..51].copy_from_slice(&(-1i64).to_be_bytes());
        batch[51..53].copy_from_slice(&(-1i16).to_be_bytes());
        batch[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        batch[57..61].copy_from_slice(&self.records.to_be_bytes());
        set_crc(&mut batch);
        batch
    }
}
