//! Batches on their way through a chain: what goes in, and the one batch that comes out.
//!
//! The output is shaped as the real server's. Its base offset is that of the first batch that gave a record, its last
//! offset that of the last batch that went in (the offsets in between are taken, also without a record), it has no
//! timestamps, and it is compressed as the first batch was. Records keep the offset deltas that the module gave them, plus
//! the base offset of the output *minus* that of their own batch: the sign is the real server's, so from the second batch
//! on deltas are not true offsets and can be negative.

use std::io;

use bytes::BytesMut;
use fluvio_compression::Compression;
use fluvio_protocol::Encoder;
use fluvio_protocol::record::{Batch, MemoryRecords, RawRecords, Record};
use wire::batch::BatchHeader;

use super::{Limit, unpack};

/// What a chain gets of a batch.
pub(super) struct Input {
    pub(super) header: BatchHeader,
    /// Not compressed.
    pub(super) records: Vec<u8>,
}

impl Input {
    /// Takes a complete batch apart.
    pub(super) fn read(batch: &[u8]) -> io::Result<Self> {
        let header = BatchHeader::parse(batch).map_err(io::Error::other)?;
        let records = batch.get(header.records_at()..header.total_len()).unwrap_or_default();
        let records = unpack::records(header.compression(), records)?.into_owned();
        Ok(Input { header, records })
    }
}

/// The batch that comes out, as far as it has come.
pub(super) struct Output {
    batch: Batch<MemoryRecords>,
    bytes: usize,
    limit: Limit,
}

impl Output {
    pub(super) fn new(limit: Limit) -> Self {
        Output { batch: Batch::default(), bytes: 0, limit }
    }

    /// Adds what came out for a batch; `false` if it did not fit and nothing has changed.
    pub(super) fn add(&mut self, input: &BatchHeader, mut records: Vec<Record>) -> bool {
        let is_first = self.batch.records().is_empty();
        if is_first && records.is_empty() {
            return true;
        }
        let base_offset = if is_first { input.base_offset } else { self.batch.base_offset };
        let relative = base_offset.wrapping_sub(input.base_offset);
        for record in &mut records {
            let delta = record.preamble.offset_delta();
            record.preamble.set_offset_delta(delta.wrapping_add(relative));
        }
        let bytes = if records.is_empty() { 0 } else { records.write_size(0) };
        let exceeds = self.bytes.saturating_add(bytes) > self.limit.max_bytes;
        let taken = self.batch.last_offset_delta().checked_add(input.last_offset_delta);
        let Some(taken) = taken.and_then(|taken| taken.checked_add(1)) else {
            return false;
        };
        if exceeds && (!is_first || self.limit.even_the_first) && bytes > 0 {
            return false;
        }
        if is_first {
            let codec = Compression::try_from(input.compression() as i8).unwrap_or_default();
            self.batch.header.set_compression(codec);
            self.batch.base_offset = base_offset;
        }
        self.bytes += bytes;
        self.batch.mut_records().append(&mut records);
        self.batch.set_offset_delta(taken);
        true
    }

    /// The whole batch and the offset behind it; `None` if no record came out.
    pub(super) fn finish(self) -> anyhow::Result<Option<(BytesMut, i64)>> {
        if self.batch.records().is_empty() {
            return Ok(None);
        }
        let next_offset = self.batch.get_last_offset().wrapping_add(1);
        let batch = Batch::<RawRecords>::try_from(self.batch)?;
        let mut bytes = BytesMut::with_capacity(batch.write_size(0));
        batch.encode(&mut bytes, 0)?;
        Ok(Some((bytes, next_offset)))
    }
}

#[cfg(test)]
mod tests {
    use wire::batch::{set_base_offset, set_crc};
    use wire::builder::BatchBuilder;

    use super::*;

    fn header(base_offset: i64, count: i32) -> BatchHeader {
        let mut batch = BatchBuilder::with_capacity(64);
        (0..count).for_each(|_| batch.push(None, b"x", 1));
        let mut batch = batch.finish();
        set_base_offset(&mut batch, base_offset);
        BatchHeader::parse(&batch).expect("a header")
    }

    fn records(deltas: &[i64]) -> Vec<Record> {
        let with_delta = |delta: &i64| {
            let mut record = Record::new("value");
            record.preamble.set_offset_delta(*delta);
            record
        };
        deltas.iter().map(with_delta).collect()
    }

    fn deltas(output: &Output) -> Vec<i64> {
        output.batch.records().iter().map(|record| record.preamble.offset_delta()).collect()
    }

    fn limited(max_bytes: usize) -> Output {
        Output::new(Limit { max_bytes, even_the_first: false })
    }

    #[test]
    fn the_output_spans_from_the_first_batch_with_a_record_to_the_last_batch() {
        let mut output = Output::new(Limit::NONE);
        assert!(output.add(&header(10, 5), records(&[])));
        assert!(output.add(&header(15, 4), records(&[1, 3])));
        assert!(output.add(&header(19, 3), records(&[2])));
        assert!(output.add(&header(22, 2), records(&[])));
        // As the real server, which adds the distance with the wrong sign.
        assert_eq!(deltas(&output), [1, 3, -2]);
        let (batch, next_offset) = output.finish().expect("encode").expect("a batch");
        let header = BatchHeader::parse(&batch).expect("a header");
        assert_eq!((header.base_offset, header.last_offset(), next_offset), (15, 23, 24));
        assert_eq!((header.first_timestamp, header.max_timestamp), (-1, -1));
        assert_eq!(header.total_len(), batch.len());
        header.verify_crc(&batch).expect("a checksum");
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut output = Output::new(Limit::NONE);
        assert!(output.add(&header(0, 5), records(&[])));
        assert!(output.finish().expect("encode").is_none());
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_time_but_for_the_first() {
        let mut output = limited(1);
        assert!(output.add(&header(0, 2), records(&[0, 1])));
        assert!(!output.add(&header(2, 2), records(&[0])));
        let (_, next_offset) = output.finish().expect("encode").expect("a batch");
        assert_eq!(next_offset, 2);
        // A batch without output costs nothing.
        let mut output = limited(1);
        assert!(output.add(&header(0, 2), records(&[0, 1])));
        assert!(output.add(&header(2, 2), records(&[])));
        assert_eq!(output.finish().expect("encode").expect("a batch").1, 4);
    }

    #[test]
    fn the_real_server_leaves_out_even_the_first() {
        let mut output = Output::new(Limit { max_bytes: 1, even_the_first: true });
        assert!(!output.add(&header(0, 2), records(&[0, 1])));
        assert!(output.finish().expect("encode").is_none());
    }

    #[test]
    fn the_output_is_compressed_as_the_first_batch_that_gave_a_record() {
        for codec in 0..=4 {
            let mut output = Output::new(Limit::NONE);
            let mut first = header(0, 2);
            first.attributes |= i16::from(codec);
            assert!(output.add(&first, records(&[0, 1])));
            assert!(output.add(&header(2, 1), records(&[0])));
            let (batch, _) = output.finish().expect("encode").expect("a batch");
            let input = Input::read(&batch).expect("a batch");
            assert_eq!(input.header.compression(), codec);
            assert_eq!(input.records[..4], 3_i32.to_be_bytes());
        }
    }

    #[test]
    fn a_schema_id_is_no_part_of_the_records() {
        let mut plain = BatchBuilder::with_capacity(64);
        plain.push(None, b"value", 1);
        let plain = plain.finish();
        let mut batch = plain.clone();
        batch.splice(57..57, [0, 0, 0, 9]);
        batch[22] |= 0x10;
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        set_crc(&mut batch);
        assert_eq!(Input::read(&batch).expect("a batch").records, plain[57..]);
    }
}
