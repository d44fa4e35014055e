//! What is found on disk when a log is opened.
//!
//! Every batch is checked: its format, its checksum, and that it begins where the one before ends. A process that was
//! killed, or a machine that lost power, leaves the last segment with a torn tail: a piece of a batch with nothing behind
//! it. That tail is cut off, and nothing else ever is: damage anywhere else is an error that names the file, because
//! records that were acknowledged would be lost without a word.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use wire::batch::{BatchHeader, HEADER_LEN};

use super::retention::Extent;
use super::segment::{self, Index};

/// Room for reads of small batches.
const READ_BYTES: usize = 1024 * 1024;

/// A segment as it was found.
pub(super) struct Found {
    pub(super) extent: Extent,
    pub(super) index: Index,
    /// The offset behind its last record.
    pub(super) end: i64,
}

/// What a walk over the batches of a file has seen.
struct Scan {
    index: Index,
    /// Bytes of the valid batches at the front.
    bytes: u64,
    end: i64,
    /// Why the batch behind them is none.
    fault: Option<String>,
}

/// The segments of the partition in `dir`, the oldest first; none if there is no such directory.
pub(super) fn recover(dir: &Path) -> anyhow::Result<Vec<Found>> {
    let bases = segments_in(dir).with_context(|| format!("cannot read the directory {}", dir.display()))?;
    let mut found: Vec<Found> = Vec::with_capacity(bases.len());
    for (number, base) in bases.iter().enumerate() {
        let path = segment::path(dir, *base);
        if let Some(previous) = found.last() {
            ensure!(
                previous.end == *base,
                "records {}..{base} of {} are missing: a segment before {} is lost or was cut. Restore it from a copy, \
                 or remove the older segments to go on without their records",
                previous.end,
                dir.display(),
                path.display(),
            );
        }
        let last = number + 1 == bases.len();
        let segment = open(&path, *base, last).with_context(|| format!("segment {}", path.display()))?;
        found.push(segment);
    }
    Ok(found)
}

/// The first offsets of the segments in `dir`, in order.
fn segments_in(dir: &Path) -> anyhow::Result<Vec<i64>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut bases = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        match name.to_str().and_then(segment::base_offset) {
            Some(base) => bases.push(base),
            None => bail!("{name:?} is no file of this server: move it away"),
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

fn open(path: &Path, base_offset: i64, last: bool) -> anyhow::Result<Found> {
    let file = OpenOptions::new().read(true).write(last).open(path)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    let scan = scan(&file, base_offset, metadata.len())?;
    if let Some(fault) = scan.fault {
        let position = scan.bytes;
        let torn = last && !valid_batch_behind(&file, position, scan.end)?;
        ensure!(
            torn,
            "damaged at byte {position}: {fault}. Records from offset {} on would be lost: restore the file from a copy, \
             or, to give them up, remove the later segments and cut this one with `truncate --size={position} {}`",
            scan.end,
            path.display(),
        );
        tracing::warn!(
            "{}: cut off {} bytes behind offset {}, the rest of a write that never ended ({fault})",
            path.display(),
            metadata.len() - position,
            scan.end,
        );
        file.set_len(position).context("cutting off the torn tail")?;
        file.sync_all()?;
    }
    let extent = Extent { base_offset, bytes: scan.bytes, modified };
    Ok(Found { extent, index: scan.index, end: scan.end })
}

/// Walks the valid batches at the front of `file`.
fn scan(file: &File, base_offset: i64, len: u64) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut scan = Scan { index: Index::default(), bytes: 0, end: base_offset, fault: None };
    let mut batch = Vec::new();
    while scan.bytes < len {
        match next_batch(&mut reader, &mut batch, len - scan.bytes, scan.end)? {
            Ok(header) => {
                scan.index.note(header.base_offset, scan.bytes);
                scan.bytes += header.total_len() as u64;
                scan.end = header.next_offset();
            }
            Err(fault) => {
                scan.fault = Some(fault);
                break;
            }
        }
    }
    Ok(scan)
}

/// Reads the next of the `left` bytes as a batch that begins at `expected`, or says why they are none.
fn next_batch(
    reader: &mut impl Read,
    batch: &mut Vec<u8>,
    left: u64,
    expected: i64,
) -> io::Result<Result<BatchHeader, String>> {
    if left < HEADER_LEN as u64 {
        return Ok(Err(format!("{left} bytes are no batch")));
    }
    batch.resize(HEADER_LEN, 0);
    reader.read_exact(batch)?;
    let header = match BatchHeader::parse(batch) {
        Ok(header) if header.base_offset != expected => {
            return Ok(Err(format!("the batch begins at offset {}, not {expected}", header.base_offset)));
        }
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if header.total_len() as u64 > left {
        return Ok(Err(format!("{left} bytes of a batch of {} are there", header.total_len())));
    }
    batch.resize(header.total_len(), 0);
    reader.read_exact(&mut batch[HEADER_LEN..])?;
    Ok(header.verify_crc(batch).map(|()| header).map_err(|error| error.to_string()))
}

/// Whether a whole batch of a later offset than `end` stands anywhere behind `position`: then what stands there is no
/// torn tail.
fn valid_batch_behind(file: &File, position: u64, end: i64) -> io::Result<bool> {
    let len = file.metadata()?.len().saturating_sub(position);
    let mut rest = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut rest, position)?;
    Ok((1..rest.len()).any(|at| {
        let candidate = &rest[at..];
        BatchHeader::parse(candidate).is_ok_and(|header| {
            header.base_offset > end
                && header.total_len() <= candidate.len()
                && header.verify_crc(candidate).is_ok()
        })
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;
    use wire::batch::set_base_offset;
    use wire::builder::BatchBuilder;

    use super::*;

    /// A segment of batches with so many records each.
    fn segment_of(base: i64, counts: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut ends, mut offset) = (Vec::new(), Vec::new(), base);
        for (number, count) in counts.iter().enumerate() {
            let mut builder = BatchBuilder::with_capacity(256);
            for record in 0..*count {
                builder.push(
                    None,
                    format!("record {record} of batch {number}").as_bytes(),
                    1_700_000_000_000,
                );
            }
            let mut batch = builder.finish().to_vec();
            set_base_offset(&mut batch, offset);
            offset += *count as i64;
            file.extend(batch);
            ends.push(file.len());
        }
        (file, ends)
    }

    fn write(dir: &TempDir, base: i64, bytes: &[u8]) {
        fs::write(segment::path(dir.path(), base), bytes).expect("write");
    }

    fn error_of(dir: &TempDir) -> String {
        match recover(dir.path()) {
            Ok(_) => panic!("an error was expected"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn finds_what_was_written() {
        let dir = TempDir::new().expect("a directory");
        assert!(recover(&dir.path().join("none")).expect("nothing").is_empty());
        let (first, _) = segment_of(0, &[3, 1]);
        let (second, _) = segment_of(4, &[2]);
        write(&dir, 0, &first);
        write(&dir, 4, &second);
        write(&dir, 6, &[]);
        let found = recover(dir.path()).expect("three segments");
        let seen: Vec<_> =
            found.iter().map(|found| (found.extent.base_offset, found.extent.bytes, found.end)).collect();
        assert_eq!(seen, [(0, first.len() as u64, 4), (4, second.len() as u64, 6), (6, 0, 6)]);
    }

    #[test]
    fn damage_before_the_tail_is_an_error_that_says_what_to_do() {
        let dir = TempDir::new().expect("a directory");
        let (mut first, ends) = segment_of(0, &[3, 1]);
        write(&dir, 0, &first);
        write(&dir, 4, &segment_of(4, &[2]).0);
        write(&dir, 9, &[]);
        let error = error_of(&dir);
        assert!(error.contains("records 6..9") && error.contains("00000000000000000009.log"), "{error}");
        fs::remove_file(segment::path(dir.path(), 9)).expect("remove");

        let flipped = ends[0] + 30;
        first[flipped] ^= 1;
        write(&dir, 0, &first);
        let error = error_of(&dir);
        for part in ["00000000000000000000.log", "checksum", "offset 3", &format!("--size={}", ends[0])] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(fs::read(segment::path(dir.path(), 0)).expect("read"), first, "nothing was touched");

        // In the last segment too, if a whole batch follows.
        let (mut last, _) = segment_of(0, &[3, 1, 2]);
        last[60] ^= 1;
        write(&dir, 0, &last);
        fs::remove_file(segment::path(dir.path(), 4)).expect("remove");
        assert!(error_of(&dir).contains("damaged at byte 0"));
        assert_eq!(fs::read(segment::path(dir.path(), 0)).expect("read"), last, "nothing was touched");
    }

    #[test]
    fn a_foreign_file_is_an_error() {
        for name in ["notes.txt", "7.log", "0000000000000000000x.log"] {
            let dir = TempDir::new().expect("a directory");
            fs::write(dir.path().join(name), b"").expect("write");
            assert!(error_of(&dir).contains(name));
        }
    }

    proptest! {
        #[test]
        fn any_truncation_leaves_the_whole_batches(
            counts in prop::collection::vec(1..5_usize, 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let dir = TempDir::new().expect("a directory");
            let (bytes, ends) = segment_of(70, &counts);
            let kept = cut.index(bytes.len() + 1);
            write(&dir, 70, &bytes[..kept]);
            let whole = ends.iter().filter(|end| **end <= kept).count();
            for _ in 0..2 {
                let found = recover(dir.path()).expect("a torn tail").remove(0);
                prop_assert_eq!(found.end, 70 + counts[..whole].iter().sum::<usize>() as i64);
                let left = fs::read(segment::path(dir.path(), 70)).expect("read");
                prop_assert_eq!(left.len() as u64, found.extent.bytes);
                prop_assert_eq!(&left[..], &bytes[..whole.checked_sub(1).map_or(0, |last| ends[last])]);
            }
        }

        #[test]
        fn a_flipped_bit_never_changes_a_batch(
            counts in prop::collection::vec(1..5_usize, 1..6),
            bit in any::<prop::sample::Index>(),
        ) {
            let dir = TempDir::new().expect("a directory");
            let (mut bytes, ends) = segment_of(7, &counts);
            let intact = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            write(&dir, 7, &bytes);
            let damaged = ends.iter().filter(|end| **end <= bit / 8).count();
            let start = damaged.checked_sub(1).map_or(0, |last| ends[last]);
            match recover(dir.path()) {
                Ok(found) => {
                    let left = found[0].extent.bytes as usize;
                    // The leader epoch is outside the checksum and says nothing here.
                    let harmless = (12..16).contains(&(bit / 8 - start));
                    prop_assert!(harmless || (left == start && damaged + 1 == ends.len()));
                    prop_assert!(harmless || bytes[..left] == intact[..left]);
                }
                Err(error) => {
                    prop_assert!(damaged + 1 < ends.len(), "the tail is cut off: {error:#}");
                    prop_assert!(error.to_string().contains(".log"));
                }
            }
        }
    }
}
