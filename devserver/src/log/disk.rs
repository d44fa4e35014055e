//! A log in segment files, as readers and the cleaner see it.
//!
//! Writing is the business of [`super::writer`], on blocking threads. Invariants: what `state` knows of is written, and
//! under [`Fsync::Always`](crate::config::Fsync) on the disk; the segment list changes only under the `writer` lock;
//! files are made and removed only under `files`, and none after the topic was deleted, because a new topic of the same
//! name owns the path then.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::batches::{Found, Span};
use super::recovery;
use super::retention::Retention;
use super::segment::{self, Fetch, Place, Segment};
use super::writer::{Queue, Writer};
use super::{LogEnd, ReadError, check_start};
use crate::config::Fsync;
use crate::store::Journal;

/// No more than this is read on a thread of the runtime.
const MAX_INLINE_READ: usize = 1024 * 1024;

pub(super) struct DiskLog {
    pub(super) dir: PathBuf,
    pub(super) retention: Retention,
    pub(super) fsync: Fsync,
    pub(super) ends: watch::Sender<LogEnd>,
    /// Where the topic is known from.
    pub(super) journal: Arc<Journal>,
    /// What writes: the server ends after it.
    pub(super) tasks: TaskTracker,
    pub(super) state: RwLock<State>,
    pub(super) queue: Mutex<Queue>,
    pub(super) writer: Mutex<Writer>,
    /// Whether the topic is being deleted; locked while files are made or removed.
    pub(super) files: Mutex<bool>,
    /// Something was written that no fsync has followed.
    pub(super) dirty: AtomicBool,
    /// Files were made since the directories were last synced.
    pub(super) new_files: AtomicBool,
}

/// What can be read.
pub(super) struct State {
    /// The last one is written to. Empty until something is written for the first time.
    pub(super) segments: VecDeque<Segment>,
    pub(super) end: i64,
}

impl DiskLog {
    /// Opens the log in `dir`, which need not exist. `ends` learns where it ends.
    pub(super) fn open(
        dir: PathBuf,
        retention: Retention,
        fsync: Fsync,
        ends: watch::Sender<LogEnd>,
        journal: Arc<Journal>,
        tasks: TaskTracker,
    ) -> anyhow::Result<Self> {
        let found = recovery::recover(&dir)?;
        let end = found.last().map_or(0, |last| last.end);
        let mut segments: VecDeque<_> = found
            .into_iter()
            .map(|found| Segment { extent: found.extent, index: found.index, file: None })
            .collect();
        if let Some(active) = segments.back_mut() {
            let path = segment::path(&dir, active.extent.base_offset);
            active.file = Some(Arc::new(File::options().read(true).write(true).open(path)?));
        }
        Ok(DiskLog {
            dir,
            retention,
            fsync,
            ends,
            journal,
            tasks,
            state: RwLock::new(State { segments, end }),
            queue: Mutex::default(),
            writer: Mutex::default(),
            files: Mutex::new(false),
            dirty: AtomicBool::new(false),
            new_files: AtomicBool::new(false),
        })
    }

    pub(super) fn start(&self) -> i64 {
        self.state.read().start()
    }

    pub(super) fn end(&self) -> i64 {
        self.state.read().end
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.read().segments.iter().map(|segment| segment.extent.bytes).sum()
    }

    /// The first offset of the log, and the batches of `span`: from the page cache if everything is there, otherwise read on
    /// a blocking thread.
    pub(super) async fn read(self: &Arc<Self>, span: Span) -> Result<(i64, Found), ReadError> {
        let (start, found) = {
            let state = self.state.read();
            let start = state.start();
            check_start(span.from, start)?;
            let found = state.find(span.from).map(|segment| {
                let position = segment.index.floor(span.from);
                let place = Place { position, limit: segment.extent.bytes };
                (segment.extent.base_offset, segment.file.clone(), place)
            });
            (start, found)
        };
        let Some((base_offset, file, place)) = found.filter(|_| span.from < span.until) else {
            return Ok((start, Found::default()));
        };
        let cached = match &file {
            Some(file) if span.max_bytes.min(place.len()) <= MAX_INLINE_READ => {
                segment::read(file, place, span, Fetch::Cached)
            }
            _ => Err(ErrorKind::WouldBlock.into()),
        };
        let read = match cached {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let log = self.clone();
                let blocking = move || {
                    let file = file.map_or_else(|| log.open_closed(base_offset).map(Arc::new), Ok)?;
                    segment::read(&file, place, span, Fetch::Any)
                };
                tokio::task::spawn_blocking(blocking)
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            read => read,
        };
        match read {
            Ok(found) => Ok((start, found)),
            Err(error) => {
                // The segment may have been removed meanwhile, or the whole topic, of which its followers are told.
                check_start(span.from, self.start())?;
                if *self.files.lock() {
                    return Ok((start, Found::default()));
                }
                let path = segment::path(&self.dir, base_offset);
                tracing::error!("cannot read {}: {error}", path.display());
                Err(ReadError::Storage)
            }
        }
    }

    fn open_closed(&self, base_offset: i64) -> io::Result<File> {
        let file = File::open(segment::path(&self.dir, base_offset))?;
        // Deleted by now: this may be a file of a new topic of the same name.
        if *self.files.lock() { Err(ErrorKind::NotFound.into()) } else { Ok(file) }
    }

    /// Removes what the retention of the topic does not keep. Blocks.
    pub(super) fn clean(&self, now: SystemTime) -> bool {
        let _writer = self.writer.lock();
        let expired = {
            let state = self.state.read();
            let extents: Vec<_> = state.segments.iter().map(|segment| segment.extent).collect();
            self.retention.expired(extents.iter(), now)
        };
        if let Err(error) = self.remove_oldest(expired) {
            tracing::error!("cannot remove old records: {error}");
        }
        expired > 0
    }

    /// Removes everything that was written so far. Blocks.
    pub(super) fn evict(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        if self.state.read().segments.back().is_some_and(|active| active.extent.bytes > 0) {
            self.roll(&mut writer)?;
        }
        let closed = self.state.read().segments.len().saturating_sub(1);
        self.remove_oldest(closed)
    }

    /// Removes segments; for the holder of the writer lock. Stops at one that stays, because the next start refuses a log
    /// with a hole.
    fn remove_oldest(&self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        // Whatever a loss of power leaves then, the log goes on at its offset.
        self.active_file().map_or(Ok(()), |active| self.sync_file(&active))?;
        for _ in 0..count {
            let Some(segment) = self.state.write().segments.pop_front() else {
                break;
            };
            let path = segment::path(&self.dir, segment.extent.base_offset);
            // For each file anew: the deletion of the topic waits for it.
            let removed = {
                let deleted = self.files.lock();
                if *deleted { Ok(()) } else { fs::remove_file(&path) }
            };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    self.state.write().segments.push_front(segment);
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes sure that what was written is on the disk. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let synced = self.active_file().map_or(Ok(()), |file| self.sync_file(&file));
        if synced.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        synced
    }

    fn active_file(&self) -> Option<Arc<File>> {
        self.state.read().segments.back().and_then(|active| active.file.clone())
    }

    /// Makes sure that what was written to `file` is on the disk, and that it can be found there.
    pub(super) fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        if self.new_files.swap(false, Ordering::AcqRel) {
            // The partition's own directory, its topic's, and that of all logs.
            let synced = self.dir.ancestors().take(3).try_for_each(sync_directory);
            if synced.is_err() {
                self.new_files.store(true, Ordering::Release);
            }
            return synced;
        }
        Ok(())
    }

    /// From now on nothing is made or removed at the paths of this log, or it is again.
    pub(super) fn leave_files(&self, leave: bool) {
        *self.files.lock() = leave;
    }
}

impl State {
    fn start(&self) -> i64 {
        self.segments.front().map_or(self.end, |segment| segment.extent.base_offset)
    }

    fn find(&self, offset: i64) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.extent.base_offset <= offset);
        behind.checked_sub(1).map(|at| &self.segments[at])
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path) {
        // Its topic was deleted.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        opened => opened?.sync_all(),
    }
}

#[cfg(test)]
mod tests;
