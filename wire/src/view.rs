//! Decodes a record set into columns of spans: one walk, no allocation per record, no copy of keys or values.
//!
//! The columns index into the record set that was decoded, so whoever hands them out keeps that buffer alive. They share
//! one block of memory, whose size is known before anything is decoded ([`columns_bytes`]). Only complete batches are
//! decoded; what follows them is reported, never guessed at.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::batch::{BatchError, BatchHeader, Batches, Rest};
use crate::builder::NO_TIMESTAMP;
use crate::memory::{Block, Memory};
use crate::varint;

/// `key_starts` of a record without a key.
pub const NO_KEY: u32 = u32::MAX;

/// Bytes that the columns take up per record.
const BYTES_PER_RECORD: usize = 2 * size_of::<i64>() + 4 * size_of::<u32>();

/// The shortest record: a length, attributes, two deltas, no key, an empty value, no headers.
const SHORTEST_RECORD: usize = 7;

/// One field of every record.
pub struct Column<T> {
    block: Option<Arc<Block>>,
    /// In bytes.
    start: usize,
    end: usize,
    values: PhantomData<T>,
}

impl<T: FromBytes + Immutable + KnownLayout> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let bytes = self.block.as_ref().and_then(|block| block.get(self.start..self.end));
        // Blocks are aligned, and columns of them begin and end with a value.
        bytes.and_then(|bytes| <[T]>::ref_from_bytes(bytes).ok()).unwrap_or(&[])
    }
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        Column { block: self.block.clone(), start: self.start, end: self.end, values: PhantomData }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column { block: None, start: 0, end: 0, values: PhantomData }
    }
}

impl<T: FromBytes + Immutable + KnownLayout + PartialEq> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: FromBytes + Immutable + KnownLayout + Eq> Eq for Column<T> {}

impl<T: FromBytes + Immutable + KnownLayout + std::fmt::Debug> std::fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// Records as columns, one entry per record in each. Positions count from the start of the record set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecordColumns {
    /// Offsets in the partition.
    pub offsets: Column<i64>,
    /// Milliseconds since 1970, -1 if there is none.
    pub timestamps: Column<i64>,
    /// Where keys start, [`NO_KEY`] for a NULL key.
    pub key_starts: Column<u32>,
    /// Where keys end; 0 for a NULL key.
    pub key_ends: Column<u32>,
    /// Where values start.
    pub value_starts: Column<u32>,
    /// Where values end.
    pub value_ends: Column<u32>,
}

impl RecordColumns {
    /// Records held.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The columns in a block that has room for `room` records and holds `len`.
    fn new(block: Block, room: usize, len: usize) -> Self {
        if len == 0 {
            return RecordColumns::default();
        }
        let block = Arc::new(block);
        let mut at = 0;
        RecordColumns {
            offsets: column(&block, &mut at, room, len),
            timestamps: column(&block, &mut at, room, len),
            key_starts: column(&block, &mut at, room, len),
            key_ends: column(&block, &mut at, room, len),
            value_starts: column(&block, &mut at, room, len),
            value_ends: column(&block, &mut at, room, len),
        }
    }
}

/// The column that begins at `at`, which moves behind it.
fn column<T>(block: &Arc<Block>, at: &mut usize, room: usize, len: usize) -> Column<T> {
    let start = *at;
    *at += room * size_of::<T>();
    Column { block: Some(Arc::clone(block)), start, end: start + len * size_of::<T>(), values: PhantomData }
}

/// The columns while they are written.
struct Writer<'a> {
    len: usize,
    offsets: &'a mut [i64],
    timestamps: &'a mut [i64],
    key_starts: &'a mut [u32],
    key_ends: &'a mut [u32],
    value_starts: &'a mut [u32],
    value_ends: &'a mut [u32],
}

impl<'a> Writer<'a> {
    fn new(mut block: &'a mut [u8], room: usize) -> Self {
        Writer {
            len: 0,
            offsets: split(&mut block, room),
            timestamps: split(&mut block, room),
            key_starts: split(&mut block, room),
            key_ends: split(&mut block, room),
            value_starts: split(&mut block, room),
            value_ends: split(&mut block, room),
        }
    }

    /// `None` if there is no room.
    #[inline]
    fn push(&mut self, offset: i64, timestamp: i64, key: (u32, u32), value: (u32, u32)) -> Option<()> {
        let at = self.len;
        *self.offsets.get_mut(at)? = offset;
        *self.timestamps.get_mut(at)? = timestamp;
        *self.key_starts.get_mut(at)? = key.0;
        *self.key_ends.get_mut(at)? = key.1;
        *self.value_starts.get_mut(at)? = value.0;
        *self.value_ends.get_mut(at)? = value.1;
        self.len = at + 1;
        Some(())
    }
}

/// Takes `room` values off the front of `block`.
fn split<'a, T>(block: &mut &'a mut [u8], room: usize) -> &'a mut [T]
where
    T: FromBytes + IntoBytes + KnownLayout,
{
    let all = std::mem::take(block);
    let (front, rest) = all.split_at_mut((room * size_of::<T>()).min(all.len()));
    *block = rest;
    <[T]>::mut_from_bytes(front).unwrap_or_default()
}

/// Bytes that the columns of `set` take up once it is decoded.
pub fn columns_bytes(set: &[u8]) -> usize {
    record_count(set) * BYTES_PER_RECORD
}

/// Records that the headers of the complete batches announce, as far as the bytes can hold them.
fn record_count(set: &[u8]) -> usize {
    Batches::new(set)
        .map(|(range, header)| match header.compression() {
            0 => announced(&set[range], &header).unwrap_or(0),
            _ => 0,
        })
        .sum()
}

/// How many records follow the header of `batch`; `None` if it cannot hold as many as it says.
fn announced(batch: &[u8], header: &BatchHeader) -> Option<usize> {
    let count = batch.get(header.records_at()..)?.first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    (count <= batch.len() / SHORTEST_RECORD).then_some(count)
}

/// What a record set held.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The records of the complete, valid batches, from the start offset on.
    pub columns: RecordColumns,
    /// The offset behind the last complete batch: what to acknowledge. `None` if there was no complete batch.
    pub next_offset: Option<i64>,
    /// Bytes that the complete batches take up.
    pub consumed: usize,
    /// What stands behind them, if anything.
    pub rest: Option<Rest>,
    /// Why decoding stopped in front of a complete batch. The batches before it are in `columns`.
    pub error: Option<BatchError>,
}

/// Decodes `set` (the batches of a record set without its length prefix) into columns in a block of `memory`. Records
/// below `start_offset` are left out: a server answers with the whole batch that holds the wanted offset.
pub fn decode(set: &[u8], start_offset: i64, check_crc: bool, memory: &Memory) -> Decoded {
    let mut decoded = Decoded::default();
    let room = record_count(set);
    let mut block = memory.take(room * BYTES_PER_RECORD);
    let mut columns = Writer::new(&mut block, room);
    let mut batches = Batches::new(set);
    for (range, header) in batches.by_ref() {
        let before = columns.len;
        let batch = &set[range.clone()];
        if let Err(error) = decode_batch(batch, range.start, &header, start_offset, check_crc, &mut columns) {
            columns.len = before;
            decoded.error = Some(error);
            break;
        }
        decoded.next_offset = Some(header.next_offset());
        decoded.consumed = range.end;
    }
    if decoded.error.is_none() {
        match batches.rest() {
            Rest::Nothing => {}
            Rest::Invalid(error) => decoded.error = Some(error),
            cut => decoded.rest = Some(cut),
        }
    }
    let len = columns.len;
    decoded.columns = RecordColumns::new(block, room, len);
    decoded
}

fn decode_batch(
    batch: &[u8],
    base: usize,
    header: &BatchHeader,
    start_offset: i64,
    check_crc: bool,
    columns: &mut Writer<'_>,
) -> Result<(), BatchError> {
    if check_crc {
        header.verify_crc(batch)?;
    }
    if header.compression() != 0 {
        return Err(BatchError::Compressed { base_offset: header.base_offset, codec: header.compression() });
    }
    let corrupt = |index| BatchError::Record { base_offset: header.base_offset, index };
    let count = announced(batch, header).ok_or(corrupt(0))?;
    let mut at = header.records_at() + 4;
    for index in 0..count {
        at = decode_record(batch, at, base, header, start_offset, columns).ok_or(corrupt(index))?;
    }
    Ok(())
}

/// Decodes the record at `at`; the position behind it, or `None` if it is not valid.
#[inline]
fn decode_record(
    batch: &[u8],
    mut at: usize,
    base: usize,
    header: &BatchHeader,
    start_offset: i64,
    columns: &mut Writer<'_>,
) -> Option<usize> {
    let length = usize::try_from(varint::get(batch, &mut at)?).ok()?;
    let end = at.checked_add(length).filter(|end| *end <= batch.len())?;
    let record = &batch[..end];
    at += 1; // attributes: unused
    let timestamp_delta = varint::get(record, &mut at)?;
    let offset_delta = varint::get(record, &mut at)?;
    let has_key = *record.get(at)?;
    at += 1;
    let key = match has_key {
        0 => (NO_KEY, 0),
        1 => {
            let (start, end) = span(record, &mut at)?;
            ((base + start) as u32, (base + end) as u32)
        }
        _ => return None,
    };
    let (value_start, value_end) = span(record, &mut at)?;
    let offset = header.base_offset.checked_add(offset_delta)?;
    if offset < header.base_offset || offset > header.last_offset() {
        return None;
    }
    if offset >= start_offset {
        let timestamp = match header.first_timestamp {
            NO_TIMESTAMP => NO_TIMESTAMP,
            first => first.wrapping_add(timestamp_delta),
        };
        columns.push(offset, timestamp, key, ((base + value_start) as u32, (base + value_end) as u32))?;
    }
    Some(end)
}

#[inline]
fn span(record: &[u8], at: &mut usize) -> Option<(usize, usize)> {
    let length = usize::try_from(varint::get(record, at)?).ok()?;
    let start = *at;
    let end = start.checked_add(length).filter(|end| *end <= record.len())?;
    *at = end;
    Some((start, end))
}

#[cfg(test)]
mod tests;
