//! The batch header, and the walk over the batches of a record set.
//!
//! Layout (fluvio-protocol 0.50.1, `record/batch.rs`), all integers big-endian:
//!
//! ```text
//!  0 base_offset i64        21 attributes i16 (0x07 codec, 0x10 schema id present)
//!  8 batch_len i32          23 last_offset_delta i32
//! 12 leader epoch i32       27 first_timestamp i64     35 max_timestamp i64
//! 16 magic i8 = 2           43 producer_id i64         51 producer_epoch i16
//! 17 crc32c u32 over 21..   53 first_sequence i32      57 [schema id u32]  records
//! ```
//!
//! `batch_len` counts everything from byte 12 on. The base offset is outside the checksum: it is the one field that a
//! server patches. A response can be cut anywhere, so a batch counts only if all of its bytes are there.

use std::ops::Range;

/// Bytes of the header without a schema id.
pub const HEADER_LEN: usize = 57;
/// Bytes in front of what `batch_len` counts.
pub const PREAMBLE_LEN: usize = 12;
/// The only batch format there is.
pub const MAGIC: i8 = 2;
/// Bytes of the schema id, where the attributes announce one.
pub const SCHEMA_ID_LEN: usize = 4;

const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const COMPRESSION_BITS: i16 = 0x07;
const SCHEMA_BIT: i16 = 0x10;

/// What can be wrong with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header has.
    #[error("batch header needs {HEADER_LEN} bytes, only {0} are there")]
    ShortHeader(usize),
    /// The length cannot hold the header.
    #[error("batch at offset {base_offset} has an impossible length {batch_len}")]
    Length {
        /// Base offset as read.
        base_offset: i64,
        /// Length as read.
        batch_len: i32,
    },
    /// Another format.
    #[error("batch at offset {base_offset} has format {magic}, only {MAGIC} is known")]
    Magic {
        /// Base offset as read.
        base_offset: i64,
        /// Format as read.
        magic: i8,
    },
    /// The checksum does not match the content.
    #[error(
        "batch at offset {base_offset} is corrupt: checksum {computed:#010x}, header says {stored:#010x}"
    )]
    Crc {
        /// Base offset as read.
        base_offset: i64,
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The records cannot be decoded.
    #[error("batch at offset {base_offset} is corrupt: record {index} cannot be decoded")]
    Record {
        /// Base offset as read.
        base_offset: i64,
        /// Index of the record in its batch.
        index: usize,
    },
    /// The records are compressed with this codec (1 gzip, 2 snappy, 3 lz4, 4 zstd).
    #[error("batch at offset {base_offset} is compressed with codec {codec}")]
    Compressed {
        /// Base offset as read.
        base_offset: i64,
        /// Codec number of the attributes.
        codec: u8,
    },
}

/// A decoded batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind the preamble.
    pub batch_len: i32,
    /// CRC32C of everything behind the checksum itself.
    pub crc: u32,
    /// Codec and schema bits.
    pub attributes: i16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970 of the first record, -1 if there is none.
    pub first_timestamp: i64,
    /// Milliseconds since 1970 of the newest record, -1 if there is none.
    pub max_timestamp: i64,
}

impl BatchHeader {
    /// Decodes the header at the front of `bytes` and checks its format and length, not the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::ShortHeader(bytes.len()));
        };
        let base_offset = i64::from_be_bytes(field(header, 0));
        let batch_len = i32::from_be_bytes(field(header, 8));
        let magic = header[16] as i8;
        let parsed = BatchHeader {
            base_offset,
            batch_len,
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            first_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
        };
        if magic != MAGIC {
            return Err(BatchError::Magic { base_offset, magic });
        }
        let minimum = parsed.records_at() - PREAMBLE_LEN;
        // The last offset may never lie before the first: everything behind it computes with it.
        if (batch_len as i64) < minimum as i64
            || parsed.last_offset_delta < 0
            || base_offset.checked_add(i64::from(parsed.last_offset_delta) + 1).is_none()
        {
            return Err(BatchError::Length { base_offset, batch_len });
        }
        Ok(parsed)
    }

    /// Bytes of the whole batch, preamble included.
    pub fn total_len(&self) -> usize {
        PREAMBLE_LEN + self.batch_len as usize
    }

    /// Where the records begin.
    pub fn records_at(&self) -> usize {
        HEADER_LEN + if self.has_schema() { SCHEMA_ID_LEN } else { 0 }
    }

    /// Codec number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn compression(&self) -> u8 {
        (self.attributes & COMPRESSION_BITS) as u8
    }

    /// Whether a schema id stands between the header and the records.
    pub fn has_schema(&self) -> bool {
        self.attributes & SCHEMA_BIT != 0
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset behind the batch: what to acknowledge and where to go on.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The offsets that the batch takes up. SmartModule output can hold fewer records.
    pub fn offset_count(&self) -> i64 {
        i64::from(self.last_offset_delta) + 1
    }

    /// Checks the checksum of `batch`, which holds the whole batch of this header.
    pub fn verify_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(batch.get(CRC_FROM..self.total_len()).unwrap_or_default());
        if computed == self.crc {
            Ok(())
        } else {
            Err(BatchError::Crc { base_offset: self.base_offset, stored: self.crc, computed })
        }
    }
}

fn field<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}

/// Patches the base offset of the batch at the front of `batch`; the checksum does not cover it.
///
/// # Panics
/// If `batch` is shorter than 8 bytes.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
}

/// Computes the checksum of `batch`, which must be exactly one batch, and stores it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

/// Walks the complete batches of a record set.
///
/// Ends at the first batch that is cut or invalid; [`Batches::rest`] then says what is left.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    set: &'a [u8],
    at: usize,
}

/// What follows the last complete batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the record set ends with a batch.
    Nothing,
    /// A batch that is cut.
    Cut {
        /// Bytes of the whole batch, if its header is there.
        needed: Option<usize>,
    },
    /// A header that is no batch header.
    Invalid(BatchError),
}

impl<'a> Batches<'a> {
    /// Walks `set`, the batches of a record set without its length prefix.
    pub fn new(set: &'a [u8]) -> Self {
        Batches { set, at: 0 }
    }

    /// Bytes of the complete batches so far.
    pub fn consumed(&self) -> usize {
        self.at
    }

    /// What stands behind the batches that were yielded so far.
    pub fn rest(&self) -> Rest {
        let rest = &self.set[self.at..];
        if rest.is_empty() {
            return Rest::Nothing;
        }
        match BatchHeader::parse(rest) {
            Ok(header) => Rest::Cut { needed: Some(header.total_len()) },
            Err(BatchError::ShortHeader(_)) => Rest::Cut { needed: None },
            Err(error) => Rest::Invalid(error),
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = (Range<usize>, BatchHeader);

    fn next(&mut self) -> Option<Self::Item> {
        let header = BatchHeader::parse(&self.set[self.at..]).ok()?;
        let end = self.at.checked_add(header.total_len())?;
        if end > self.set.len() {
            return None;
        }
        let range = self.at..end;
        self.at = end;
        Some((range, header))
    }
}
