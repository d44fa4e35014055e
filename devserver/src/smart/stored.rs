//! The batches of a log, one by one, from an offset to an end that stands when the reading begins.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fluvio_spu_schema::Isolation;
use tokio::runtime::Handle;
use wire::batch::BatchHeader;

use crate::cluster::Replica;

/// Bytes that are read at once: a log can be larger than the memory.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Reads as it is asked, on the thread that asks: one of [`super::worker`], never one that runs tasks.
pub(crate) struct StoredBatches {
    replica: Arc<Replica>,
    isolation: Isolation,
    at: i64,
    end: i64,
    /// Whole batches that were read and not handed out yet, in reverse order.
    pieces: Vec<Bytes>,
}

impl StoredBatches {
    /// The first is the one that holds `from`, the last the one before `end`.
    pub(crate) fn new(replica: Arc<Replica>, isolation: Isolation, from: i64, end: i64) -> Self {
        StoredBatches { replica, isolation, at: from, end, pieces: Vec::new() }
    }

    fn advance(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.pieces.is_empty() {
            let read = self.replica.log.read(self.at, self.isolation, READ_BYTES, false);
            let slice = Handle::current().block_on(read);
            let slice = slice.map_err(|error| io::Error::other(format!("{error:?}")))?;
            self.pieces = slice.pieces;
            self.pieces.reverse();
        }
        let missing = || io::Error::other(format!("no batch at offset {}", self.at));
        let piece = self.pieces.last_mut().ok_or_else(missing)?;
        let header = BatchHeader::parse(piece).map_err(io::Error::other)?;
        if header.total_len() > piece.len() {
            return Err(io::Error::other("a batch of the log is cut"));
        }
        let batch = piece.split_to(header.total_len());
        if piece.is_empty() {
            self.pieces.pop();
        }
        self.at = header.next_offset();
        Ok(Some(batch))
    }
}

impl Iterator for StoredBatches {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
