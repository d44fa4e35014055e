//! The log of one partition: in memory, or in segment files.
//!
//! Batches are kept as they came and handed out as they are: a server never looks at a record. Invariants, wherever a log
//! is kept: batches are contiguous (each begins where the one before ends), and the end that `ends` announces is the end
//! of the last batch. The high watermark is the log end, since all replicas of a partition are this log, unless it is held
//! back on purpose; it never falls.

mod batches;
mod disk;
mod memory;
mod recovery;
mod retention;
mod segment;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use fluvio_spu_schema::Isolation;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;
use wire::batch::BatchHeader;

use self::batches::{Found, Span};
use self::disk::DiskLog;
pub(crate) use self::disk::sync_directory;
use self::memory::MemoryLog;
pub(crate) use self::retention::Retention;
use crate::config::Fsync;
use crate::store::Journal;

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The offset behind the last record.
    pub(crate) offset: i64,
    /// The offset behind the last record that all replicas have.
    pub(crate) high_watermark: i64,
    /// The topic is gone.
    pub(crate) deleted: bool,
    /// The high watermark stands still.
    held: bool,
}

impl LogEnd {
    /// The offset behind the last record that a reader may see.
    pub(crate) fn visible(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.offset,
            Isolation::ReadCommitted => self.high_watermark,
        }
    }
}

/// What a read found.
#[derive(Debug, Default)]
pub(crate) struct LogSlice {
    /// Batches back to back.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pub(crate) len: usize,
    /// The offset behind the last record, even if its batch is cut.
    pub(crate) next_offset: i64,
    /// First offset of the log.
    pub(crate) start: i64,
    /// The high watermark.
    pub(crate) high_watermark: i64,
}

/// Why a read is impossible.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// Behind the end of the log.
    BeyondEnd {
        /// The end of the log.
        end: i64,
    },
    /// Before its start.
    Evicted {
        /// The first offset that can be read.
        start: i64,
    },
    /// The disk failed; the log of the server says how.
    Storage,
}

/// Batches could not be written; the log of the server says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageError;

/// A batch that is about to be appended: its bytes and their decoded header.
pub(crate) type NewBatch = (BytesMut, BatchHeader);

pub(crate) struct PartitionLog {
    place: Place,
    ends: watch::Sender<LogEnd>,
}

enum Place {
    Memory(MemoryLog),
    Disk(Arc<DiskLog>),
}

/// Batches on their way into a log, in the order in which [`PartitionLog::append`] was called.
#[must_use]
pub(crate) enum Appending {
    /// They are there.
    Done(i64),
    /// They wait for the disk.
    Waiting(oneshot::Receiver<Result<i64, StorageError>>),
}

impl Appending {
    /// The offset of their first record.
    pub(crate) async fn done(self) -> Result<i64, StorageError> {
        match self {
            Appending::Done(offset) => Ok(offset),
            Appending::Waiting(reply) => reply.await.unwrap_or(Err(StorageError)),
        }
    }
}

impl PartitionLog {
    /// An empty log in memory.
    pub(crate) fn in_memory(retention: Retention) -> Self {
        PartitionLog { place: Place::Memory(MemoryLog::new(retention)), ends: new_ends() }
    }

    /// The log in the directory `dir`, which is made with the first batch, once what `journal` knows of its topic is on the
    /// disk. `tasks` are to be waited for in the end.
    pub(crate) fn open(
        dir: PathBuf,
        retention: Retention,
        fsync: Fsync,
        journal: Arc<Journal>,
        tasks: TaskTracker,
    ) -> anyhow::Result<Self> {
        let ends = new_ends();
        let log = DiskLog::open(dir, retention, fsync, ends.clone(), journal, tasks)?;
        announce(&ends, log.end());
        Ok(PartitionLog { place: Place::Disk(Arc::new(log)), ends })
    }

    /// Appends the batches, all of them or none. They keep their place in the order even if nobody waits for the result.
    pub(crate) fn append(&self, batches: Vec<NewBatch>) -> Appending {
        match &self.place {
            Place::Memory(log) => Appending::Done(log.append(batches, |end| announce(&self.ends, end))),
            Place::Disk(log) => Appending::Waiting(log.append(batches)),
        }
    }

    /// Reads batches from the one that holds `from` on, as far as `isolation` may see. With `cut`, exactly `max_bytes` of
    /// them, even if that ends within a batch; otherwise whole batches, at least one. An answer may be shorter than what
    /// there is.
    pub(crate) async fn read(
        &self,
        from: i64,
        isolation: Isolation,
        max_bytes: usize,
        cut: bool,
    ) -> Result<LogSlice, ReadError> {
        let ends = self.ends();
        if from > ends.offset {
            return Err(ReadError::BeyondEnd { end: ends.offset });
        }
        let span = Span { from, until: ends.visible(isolation), max_bytes, cut };
        let (start, Found { pieces, next_offset }) = match &self.place {
            Place::Memory(log) => log.read(span)?,
            Place::Disk(log) => log.read(span).await?,
        };
        let len = pieces.iter().map(Bytes::len).sum();
        Ok(LogSlice { pieces, len, next_offset, start, high_watermark: ends.high_watermark })
    }

    /// First offset.
    pub(crate) fn start(&self) -> i64 {
        match &self.place {
            Place::Memory(log) => log.start(),
            Place::Disk(log) => log.start(),
        }
    }

    /// How far the log reaches.
    pub(crate) fn ends(&self) -> LogEnd {
        *self.ends.borrow()
    }

    /// Makes the high watermark stand still, or lets it catch up.
    pub(crate) fn hold_high_watermark(&self, held: bool) {
        self.ends.send_modify(|end| {
            end.held = held;
            if !held {
                end.high_watermark = end.offset;
            }
        });
    }

    /// Bytes of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Memory(log) => log.bytes(),
            Place::Disk(log) => log.bytes(),
        }
    }

    /// Follows the end of the log.
    pub(crate) fn watch(&self) -> watch::Receiver<LogEnd> {
        self.ends.subscribe()
    }

    /// Tells everybody who follows the log that its topic is gone.
    pub(crate) fn delete(&self) {
        self.ends.send_modify(|end| end.deleted = true);
    }

    /// From now on nothing is made or removed at the paths of this log, or it is again.
    pub(crate) fn leave_files(&self, leave: bool) {
        if let Place::Disk(log) = &self.place {
            log.leave_files(leave);
        }
    }

    /// Removes what the retention of the topic does not keep, and says whether that was anything. Blocks if the log is on
    /// disk.
    pub(crate) fn clean(&self, now: SystemTime) -> bool {
        match &self.place {
            Place::Memory(log) => log.clean(now),
            Place::Disk(log) => log.clean(now),
        }
    }

    /// Removes everything that was written so far, whatever the retention of the topic. Blocks if the log is on disk.
    pub(crate) fn evict(&self) -> io::Result<()> {
        match &self.place {
            Place::Memory(log) => {
                log.evict();
                Ok(())
            }
            Place::Disk(log) => log.evict(),
        }
    }

    /// Makes sure that what was written is on the disk, if the log is. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match &self.place {
            Place::Memory(_) => Ok(()),
            Place::Disk(log) => log.sync(),
        }
    }
}

fn new_ends() -> watch::Sender<LogEnd> {
    watch::Sender::new(LogEnd { offset: 0, high_watermark: 0, deleted: false, held: false })
}

/// Tells those who follow a log where it ends now.
fn announce(ends: &watch::Sender<LogEnd>, offset: i64) {
    ends.send_modify(|end| {
        end.offset = offset;
        if !end.held {
            end.high_watermark = offset;
        }
    });
}

fn check_start(from: i64, start: i64) -> Result<(), ReadError> {
    if from < start { Err(ReadError::Evicted { start }) } else { Ok(()) }
}
