//! Segment files: raw batches back to back, named by the offset of their first record.
//!
//! A sparse index in memory leads near the batch of an offset; the batch headers lead the rest of the way. What lies
//! behind the indexed bytes of a segment (a write that is under way, or has failed) is never read.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;
use wire::batch::{BatchHeader, HEADER_LEN};

use super::batches::{Found, Span};
use super::retention::Extent;

/// The index knows one batch in this many bytes.
const INDEX_INTERVAL: u64 = 16 * 1024;
/// The most that one read returns, whatever is asked for, a larger batch apart: an answer can always be shorter.
const MAX_READ: usize = 32 * 1024 * 1024;
/// A file of batches is called after its first offset, and this.
const EXTENSION: &str = "log";

/// A segment of a log, as its readers see it.
pub(super) struct Segment {
    pub(super) extent: Extent,
    pub(super) index: Index,
    /// The file of the segment that is written to; a closed one is opened for each read.
    pub(super) file: Option<Arc<File>>,
}

/// Where some of the batches of a segment begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Base offset and position, in order.
    entries: Vec<(i64, u64)>,
}

impl Index {
    /// Notes the next batch, if it is far enough behind the last one that was noted.
    pub(super) fn note(&mut self, base_offset: i64, position: u64) {
        let due = self.entries.last().is_none_or(|(_, last)| position >= last + INDEX_INTERVAL);
        if due {
            self.entries.push((base_offset, position));
        }
    }

    /// The position of the last noted batch that begins at or before `offset`.
    pub(super) fn floor(&self, offset: i64) -> u64 {
        let behind = self.entries.partition_point(|(base, _)| *base <= offset);
        behind.checked_sub(1).map_or(0, |at| self.entries[at].1)
    }
}

/// The file of the segment that begins at `base_offset`.
pub(super) fn path(dir: &Path, base_offset: i64) -> PathBuf {
    dir.join(format!("{base_offset:020}.{EXTENSION}"))
}

/// The first offset of the segment in a file of this name; `None` if it is no segment's name.
pub(super) fn base_offset(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok())?
}

/// A place in a segment's file from which a read can start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where a batch begins, at most [`INDEX_INTERVAL`] before the one that is wanted.
    pub(super) position: u64,
    /// The end of the batches that may be read.
    pub(super) limit: u64,
}

impl Place {
    /// The most that can be read from here.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.position)).unwrap_or(usize::MAX)
    }
}

/// How bytes are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetch {
    /// From the page cache only: [`ErrorKind::WouldBlock`] if something has to come from the disk.
    Cached,
    /// From wherever it is.
    Any,
}

/// Reads the batches of `span` in one piece. Empty if none of them is within reach of `place`.
pub(super) fn read(file: &File, mut place: Place, span: Span, fetch: Fetch) -> io::Result<Found> {
    let wanted = span.max_bytes.min(MAX_READ);
    loop {
        let room = place.len();
        let mut buffer = vec![0; room.min(wanted + INDEX_INTERVAL as usize + HEADER_LEN)];
        read_exact(file, &mut buffer, place.position, fetch)?;
        let mut start = 0;
        let mut first = header_at(&buffer, start)?;
        while let Some(header) = first.filter(|header| header.next_offset() <= span.from) {
            start += header.total_len();
            first = header_at(&buffer, start)?;
        }
        if first.is_none() && start > 0 && start < room {
            // The wanted batch lies behind a large one.
            place.position += start as u64;
            continue;
        }
        let (end, next_offset) = end_of(&buffer, start, wanted, span)?;
        if end > buffer.len() {
            // One batch that is larger than what was asked for.
            buffer.resize(end, 0);
            read_exact(file, &mut buffer, place.position, fetch)?;
        }
        return Ok(Found { pieces: vec![Bytes::from(buffer).slice(start..end)], next_offset });
    }
}

/// Where the batches of `span` end that begin at `start`, and at which offset; behind the buffer if the first one is not
/// all there.
fn end_of(buffer: &[u8], start: usize, wanted: usize, span: Span) -> io::Result<(usize, i64)> {
    let (mut end, mut next_offset) = (start, 0);
    while let Some(header) = header_at(buffer, end)?.filter(|header| header.next_offset() <= span.until) {
        let next = end + header.total_len();
        if next - start <= wanted {
            (end, next_offset) = (next, header.next_offset());
        } else if span.cut {
            return Ok((start + wanted, header.next_offset()));
        } else if end == start {
            return Ok((next, header.next_offset()));
        } else {
            break;
        }
    }
    Ok((end, next_offset))
}

/// The header at `at`; `None` if it is not all there.
fn header_at(buffer: &[u8], at: usize) -> io::Result<Option<BatchHeader>> {
    match buffer.get(at..).filter(|rest| rest.len() >= HEADER_LEN) {
        None => Ok(None),
        Some(rest) => match BatchHeader::parse(rest) {
            Ok(header) => Ok(Some(header)),
            Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
        },
    }
}

fn read_exact(file: &File, buffer: &mut [u8], position: u64, fetch: Fetch) -> io::Result<()> {
    match fetch {
        Fetch::Any => file.read_exact_at(buffer, position),
        Fetch::Cached => {
            let len = buffer.len();
            let slices = &mut [IoSliceMut::new(buffer)];
            match rustix::io::preadv2(file, slices, position, ReadWriteFlags::NOWAIT) {
                Ok(read) if read == len => Ok(()),
                // A part is cached only, or the file system has no such reads.
                Ok(_) | Err(_) => Err(ErrorKind::WouldBlock.into()),
            }
        }
    }
}
