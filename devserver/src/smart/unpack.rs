//! Decompression with a limit: a small request may not fill the memory.

use std::borrow::Cow;
use std::io::{self, Read};

/// More than any module has.
const MOST_MODULE_BYTES: u64 = 64 * 1024 * 1024;
/// More than the records of any batch have.
const MOST_RECORD_BYTES: u64 = 256 * 1024 * 1024;

/// A module, which travels compressed with gzip.
pub(super) fn module(packed: &[u8]) -> io::Result<Vec<u8>> {
    read(flate2::read::GzDecoder::new(packed), MOST_MODULE_BYTES)
}

/// The records of a batch that is compressed with `codec` (1 gzip, 2 snappy, 3 lz4, 4 zstd).
pub(super) fn records(codec: u8, packed: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let records = match codec {
        0 => return Ok(packed.into()),
        1 => read(flate2::read::GzDecoder::new(packed), MOST_RECORD_BYTES),
        2 => read(snap::read::FrameDecoder::new(packed), MOST_RECORD_BYTES),
        3 => read(lz4_flex::frame::FrameDecoder::new(packed), MOST_RECORD_BYTES),
        4 => read(zstd::Decoder::new(packed)?, MOST_RECORD_BYTES),
        _ => Err(io::Error::other(format!("unknown compression value for batch {codec}"))),
    };
    records.map(Cow::from)
}

fn read(packed: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    packed.take(most + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > most {
        return Err(io::Error::other(format!("more than {most} bytes when it is decompressed")));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use fluvio_compression::Compression;

    use super::*;

    #[test]
    fn every_codec_of_the_platform_is_read() {
        let text = b"the quick brown fox ".repeat(1000);
        for codec in 0..=4 {
            let compression = Compression::try_from(codec).expect("a codec");
            let packed = compression.compress(&text).expect("compress");
            assert_eq!(records(codec as u8, &packed).expect("unpack"), &text[..], "{compression}");
            if codec != 0 {
                assert!(records(codec as u8, &packed[..packed.len() / 2]).is_err(), "{compression}");
                assert!(records(codec as u8, b"garbage").is_err(), "{compression}");
            }
        }
        assert!(records(5, &text).is_err());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        assert_eq!(read(&[7; 10][..], 10).expect("just as much"), [7; 10]);
        let error = read(&[7; 11][..], 10).expect_err("one more");
        assert_eq!(error.to_string(), "more than 10 bytes when it is decompressed");
    }
}
