//! Columns against the records that they were made of.

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
        let decoded = decode(&set, start, true, &Memory::default());
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
        let decoded = decode(&set, 0, true, &Memory::default());
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
        let decoded = decode(&set, 0, true, &Memory::default());
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
        let decoded = decode(&set, 0, true, &Memory::default());
        prop_assert!(decoded.error.is_some() || decoded.rest.is_some());
        prop_assert!(decoded.columns.is_empty());
    }

    #[test]
    fn garbage_never_panics(set in prop::collection::vec(any::<u8>(), 0..600), crc in any::<bool>()) {
        decode(&set, 0, crc, &Memory::default());
    }

    #[test]
    fn damage_without_a_checksum_never_panics(sent in records(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut set = built(&sent, 0);
        let len = set.len();
        for (at, byte) in damage {
            set[at.index(len)] = byte;
        }
        decode(&set, 0, false, &Memory::default());
    }
}

#[test]
fn a_bad_batch_keeps_what_came_before_it() {
    let record = (None, b"value".to_vec());
    let mut set = built(std::slice::from_ref(&record), 0);
    let mut bad = built(&[(None, b"other".to_vec())], 1);
    *bad.last_mut().unwrap() ^= 0xff;
    set.extend(bad);
    let decoded = decode(&set, 0, true, &Memory::default());
    assert_eq!(pairs(&set, &decoded.columns), [record]);
    assert!(matches!(decoded.error, Some(BatchError::Crc { base_offset: 1, .. })));
    assert_eq!(decoded.next_offset, Some(1));
}

#[test]
fn the_size_of_the_columns_is_known_before() {
    let mut set = built(&vec![(None, Vec::new()); 1000], 0);
    assert_eq!(columns_bytes(&set), 32_000);
    let columns = decode(&set, 990, true, &Memory::default()).columns;
    assert_eq!((columns.len(), columns.offsets[0], columns.value_ends.len()), (10, 990, 10));
    // A count that cannot be true reserves nothing.
    set[crate::batch::HEADER_LEN..][..4].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(columns_bytes(&set), 0);
}

#[test]
fn a_compressed_batch_is_named() {
    let mut set = built(&[(None, b"value".to_vec())], 5);
    set[22] |= 4;
    crate::batch::set_crc(&mut set);
    assert_eq!(
        decode(&set, 0, true, &Memory::default()).error,
        Some(BatchError::Compressed { base_offset: 5, codec: 4 })
    );
}
