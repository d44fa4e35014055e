//! Decodes a record set into columns of spans: one walk, no allocation per record, no copy of keys or values.
//!
//! The columns index into the record set that was decoded, so whoever hands them out keeps that buffer alive. Only
//! complete batches are decoded; what follows them is reported, never guessed at.

use crate::batch::{BatchError, BatchHeader, Batches, Rest};
use crate::builder::NO_TIMESTAMP;
use crate::varint;

/// `key_starts` of a record without a key.
pub const NO_KEY: u32 = u32::MAX;

/// Records as columns, one entry per record in each. Positions count from the start of the record set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecordColumns {
    /// Offsets in the partition.
    pub offsets: Vec<i64>,
    /// Milliseconds since 1970, -1 if there is none.
    pub timestamps: Vec<i64>,
    /// Where keys start, [`NO_KEY`] for a NULL key.
    pub key_starts: Vec<u32>,
    /// Where keys end; 0 for a NULL key.
    pub key_ends: Vec<u32>,
    /// Where values start.
    pub value_starts: Vec<u32>,
    /// Where values end.
    pub value_ends: Vec<u32>,
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

    fn reserve(&mut self, records: usize) {
        self.offsets.reserve(records);
        self.timestamps.reserve(records);
        self.key_starts.reserve(records);
        self.key_ends.reserve(records);
        self.value_starts.reserve(records);
        self.value_ends.reserve(records);
    }

    fn truncate(&mut self, records: usize) {
        self.offsets.truncate(records);
        self.timestamps.truncate(records);
        self.key_starts.truncate(records);
        self.key_ends.truncate(records);
        self.value_starts.truncate(records);
        self.value_ends.truncate(records);
    }
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

/// Decodes `set` (the batches of a record set without its length prefix). Records below `start_offset` are left out: a
/// server answers with the whole batch that holds the wanted offset.
pub fn decode(set: &[u8], start_offset: i64, check_crc: bool) -> Decoded {
    let mut decoded = Decoded::default();
    let mut batches = Batches::new(set);
    for (range, header) in batches.by_ref() {
        let before = decoded.columns.len();
        let batch = &set[range.clone()];
        let result = decode_batch(batch, range.start, &header, start_offset, check_crc, &mut decoded.columns);
        if let Err(error) = result {
            decoded.columns.truncate(before);
            decoded.error = Some(error);
            return decoded;
        }
        decoded.next_offset = Some(header.next_offset());
        decoded.consumed = range.end;
    }
    match batches.rest() {
        Rest::Nothing => {}
        Rest::Invalid(error) => decoded.error = Some(error),
        cut => decoded.rest = Some(cut),
    }
    decoded
}

fn decode_batch(
    batch: &[u8],
    base: usize,
    header: &BatchHeader,
    start_offset: i64,
    check_crc: bool,
    columns: &mut RecordColumns,
) -> Result<(), BatchError> {
    if check_crc {
        header.verify_crc(batch)?;
    }
    if header.compression() != 0 {
        return Err(BatchError::Compressed { base_offset: header.base_offset, codec: header.compression() });
    }
    let corrupt = |index| BatchError::Record { base_offset: header.base_offset, index };
    let records_at = header.records_at();
    let count = batch
        .get(records_at..)
        .and_then(|records| records.first_chunk::<4>())
        .map(|count| i32::from_be_bytes(*count))
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(corrupt(0))?;
    // The shortest record has seven bytes: a count that cannot be true reserves nothing.
    if count > batch.len() / 7 {
        return Err(corrupt(0));
    }
    columns.reserve(count);
    let mut at = records_at + 4;
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
    columns: &mut RecordColumns,
) -> Option<usize> {
    let length = usize::try_from(varint::get(batch, &mut at)?).ok()?;
    let end = at.checked_add(length).filter(|end| *end <= batch.len())?;
    let record = &batch[..end];
    at += 1; // attributes: unused
    let timestamp_delta = varint::get(record, &mut at)?;
    let offset_delta = varint::get(record, &mut at)?;
    let has_key = *record.get(at)?;
    at += 1;
    let (key_start, key_end) = match has_key {
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
        columns.offsets.push(offset);
        columns.timestamps.push(if header.first_timestamp == NO_TIMESTAMP {
            NO_TIMESTAMP
        } else {
            header.first_timestamp.wrapping_add(timestamp_delta)
        });
        columns.key_starts.push(key_start);
        columns.key_ends.push(key_end);
        columns.value_starts.push((base + value_start) as u32);
        columns.value_ends.push((base + value_end) as u32);
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
mod tests {
    use super::*;
    use crate::batch::set_base_offset;
    use crate::builder::BatchBuilder;
    use bytes::Bytes;
    use fluvio_protocol::record::{Batch, MemoryRecords, RawRecords, Record};
    use fluvio_protocol::{Decoder, Encoder};
    use proptest::prelude::*;

    type Pair = (Option<Vec<u8>>, Vec<u8>);

    fn built(records: &[Pair], base_offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::with_capacity(64);
        for (index, (key, value)) in records.iter().enumerate() {
            builder.push(key.as_deref(), value, 1_000 + index as i64);
        }
        let mut batch = builder.finish();
        set_base_offset(&mut batch, base_offset);
        batch
    }

    fn pairs(set: &[u8], columns: &RecordColumns) -> Vec<Pair> {
        (0..columns.len())
            .map(|i| {
                let key = (columns.key_starts[i] != NO_KEY)
                    .then(|| set[columns.key_starts[i] as usize..columns.key_ends[i] as usize].to_vec());
                let value = set[columns.value_starts[i] as usize..columns.value_ends[i] as usize].to_vec();
                (key, value)
            })
            .collect()
    }

    fn records() -> impl Strategy<Value = Vec<Pair>> {
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        prop::collection::vec((prop::option::of(bytes.clone()), bytes), 1..20)
    }

    proptest! {
        #[test]
        fn what_is_built_is_decoded(first in records(), second in records(), start in 0i64..40) {
            let mut set = built(&first, 10);
            set.extend(built(&second, 10 + first.len() as i64));
            let decoded = decode(&set, start, true);
            prop_assert_eq!(decoded.error, None);
            prop_assert_eq!(decoded.rest, None);
            prop_assert_eq!(decoded.next_offset, Some(10 + (first.len() + second.len()) as i64));
            let all: Vec<Pair> = first.into_iter().chain(second).collect();
            let skipped = (start - 10).clamp(0, all.len() as i64) as usize;
            prop_assert_eq!(pairs(&set, &decoded.columns), &all[skipped..]);
            prop_assert_eq!(decoded.columns.offsets.first().copied(), (skipped < all.len()).then(|| start.max(10)));
        }

        #[test]
        fn the_platform_reads_ours(sent in records()) {
            let batch = built(&sent, 7);
            let mut read = Batch::<MemoryRecords>::default();
            read.decode(&mut Bytes::from(batch), 0).unwrap();
            prop_assert_eq!(read.base_offset, 7);
            let received: Vec<Pair> = read
                .records()
                .iter()
                .map(|record| (record.key().map(|key| key.as_ref().to_vec()), record.value().as_ref().to_vec()))
                .collect();
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn we_read_the_platforms(sent in records()) {
            let records: Vec<Record> = sent
                .iter()
                .map(|(key, value)| match key {
                    None => Record::new(value.clone()),
                    Some(key) => Record::new_key_value(key.clone(), value.clone()),
                })
                .collect();
            let raw = Batch::<RawRecords>::try_from(Batch::from(records)).unwrap();
            let mut set = Vec::new();
            raw.encode(&mut set, 0).unwrap();
            let decoded = decode(&set, 0, true);
            prop_assert_eq!(decoded.error, None);
            prop_assert_eq!(pairs(&set, &decoded.columns), sent);
        }

        #[test]
        fn a_cut_delivers_complete_batches_only(first in records(), second in records(), cut in 1usize..200) {
            let mut set = built(&first, 0);
            let complete = set.len();
            let last = built(&second, first.len() as i64);
            set.extend(&last);
            set.truncate(set.len() - cut.min(last.len() - 1));
            let decoded = decode(&set, 0, true);
            prop_assert_eq!(decoded.consumed, complete);
            prop_assert_eq!(decoded.next_offset, Some(first.len() as i64));
            prop_assert_eq!(pairs(&set, &decoded.columns), first);
            let left = set.len() - complete;
            let needed = (left >= crate::batch::HEADER_LEN).then_some(last.len());
            prop_assert_eq!(decoded.rest, Some(Rest::Cut { needed }));
        }

        #[test]
        fn a_flipped_bit_is_found(sent in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut set = built(&sent, 0);
            let at = 16 + at.index(set.len() - 16);
            set[at] ^= 1 << bit;
            let decoded = decode(&set, 0, true);
            prop_assert!(decoded.error.is_some() || decoded.rest.is_some());
            prop_assert!(decoded.columns.is_empty());
        }

        #[test]
        fn garbage_never_panics(set in prop::collection::vec(any::<u8>(), 0..600), crc in any::<bool>()) {
            decode(&set, 0, crc);
        }

        #[test]
        fn damage_without_a_checksum_never_panics(sent in records(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut set = built(&sent, 0);
            let len = set.len();
            for (at, byte) in damage {
                set[at.index(len)] = byte;
            }
            decode(&set, 0, false);
        }
    }

    #[test]
    fn a_bad_batch_keeps_what_came_before_it() {
        let record = (None, b"value".to_vec());
        let mut set = built(std::slice::from_ref(&record), 0);
        let mut bad = built(&[(None, b"other".to_vec())], 1);
        *bad.last_mut().unwrap() ^= 0xff;
        set.extend(bad);
        let decoded = decode(&set, 0, true);
        assert_eq!(pairs(&set, &decoded.columns), [record]);
        assert!(matches!(decoded.error, Some(BatchError::Crc { base_offset: 1, .. })));
        assert_eq!(decoded.next_offset, Some(1));
    }

    #[test]
    fn a_compressed_batch_is_named() {
        let mut set = built(&[(None, b"value".to_vec())], 5);
        set[22] |= 4;
        crate::batch::set_crc(&mut set);
        assert_eq!(decode(&set, 0, true).error, Some(BatchError::Compressed { base_offset: 5, codec: 4 }));
    }
}
