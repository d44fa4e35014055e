//! The metadata on disk: a snapshot of all objects, and a journal of what has changed since.
//!
//! A change is one line of the journal, written before anybody sees the change; what the objects are is their business
//! alone, here they are bytes in the platform's own encoding. A snapshot replaces the one before atomically. While it is
//! written the journal so far waits under another name; to apply its lines again to a newer snapshot changes nothing, so
//! at whatever moment the process ends, snapshot, old journal and journal together are the metadata.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::change::{Change, Encoded};
use super::lines::{Objects, SNAPSHOT, apply, line_of, read_file, remove_if_there, write_snapshot};
use crate::config::Fsync;
use crate::log::{StorageError, sync_directory};

const JOURNAL: &str = "journal.ndjson";
/// The next journal, empty.
const NEW_JOURNAL: &str = "journal.ndjson.new";
/// What a snapshot that is being written makes superfluous.
const OLD_JOURNAL: &str = "journal.old.ndjson";
/// A journal of at least this size, and twice the size of the snapshot, is replaced by a new snapshot.
const MIN_JOURNAL_BYTES: u64 = 1024 * 1024;

/// Where changes are written to.
pub(crate) struct Journal {
    dir: PathBuf,
    fsync: Fsync,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// How many lines are known to be on the disk.
    durable: AtomicU64,
    /// Locked by whoever waits for a thread to bring lines to the disk.
    turn: tokio::sync::Mutex<()>,
    /// Locked by the thread that brings lines or a snapshot to the disk: of two fsyncs at once, one alone learns of a
    /// failure.
    syncing: Mutex<()>,
}

struct State {
    objects: Objects,
    file: Arc<File>,
    /// The old journal, while a snapshot is written.
    old_file: Option<Arc<File>>,
    /// Bytes of the journal's valid lines.
    bytes: u64,
    /// The file may be longer than that.
    overlong: bool,
    snapshot_bytes: u64,
    /// Lines written by this process.
    lines: u64,
    /// An fsync has failed that was to bring the lines up to here to the disk. The system takes them for written since.
    doubtful: u64,
    compacting: bool,
    failing: bool,
}

impl Journal {
    /// Reads the metadata in `dir`, and writes it anew as a snapshot if there is room.
    pub(super) fn open(dir: PathBuf, fsync: Fsync, tasks: TaskTracker) -> anyhow::Result<Self> {
        let mut objects = Objects::new();
        read_file(&dir.join(SNAPSHOT), &mut objects, false)?;
        // A loss of power can tear both.
        read_file(&dir.join(OLD_JOURNAL), &mut objects, true)?;
        let bytes = read_file(&dir.join(JOURNAL), &mut objects, true)?;
        let (file, bytes, snapshot_bytes) = begin(&dir, &objects, bytes)
            .with_context(|| format!("cannot write the metadata in {}", dir.display()))?;
        let state = State {
            objects,
            file: Arc::new(file),
            old_file: None,
            bytes,
            overlong: false,
            snapshot_bytes,
            lines: 0,
            doubtful: 0,
            compacting: false,
            failing: false,
        };
        Ok(Journal {
            dir,
            fsync,
            tasks,
            state: Mutex::new(state),
            durable: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(()),
            syncing: Mutex::new(()),
        })
    }

    /// The names and the bytes of all objects of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<(String, Encoded)> {
        let state = self.state.lock();
        let all = state.objects.iter().filter(|((of, _), _)| of == kind);
        all.map(|((_, name), object)| (name.clone(), object.clone())).collect()
    }

    /// Writes changes that happen together. Nothing has changed after an error.
    pub(crate) fn record(self: &Arc<Self>, changes: Vec<Change>) -> Result<(), StorageError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        let appended = line_of(changes.clone()).and_then(|line| state.append(&line));
        if let Err(error) = appended {
            if !state.failing {
                tracing::error!("{}: cannot write: {error}", self.dir.join(JOURNAL).display());
                state.failing = true;
            }
            return Err(StorageError);
        }
        state.failing = false;
        apply(&mut state.objects, changes);
        if state.bytes > MIN_JOURNAL_BYTES.max(2 * state.snapshot_bytes) && !state.compacting {
            state.compacting = true;
            let journal = self.clone();
            self.tasks.spawn_blocking(move || journal.compact_in_background());
        }
        Ok(())
    }

    /// Returns once everything that was recorded is as safe as this server promises before it acknowledges.
    pub(crate) async fn acknowledgeable(self: &Arc<Self>) -> Result<(), StorageError> {
        if self.fsync == Fsync::Always { self.sync().await } else { Ok(()) }
    }

    /// Brings everything that was recorded to the disk; one fsync serves all who wait.
    pub(crate) async fn sync(self: &Arc<Self>) -> Result<(), StorageError> {
        let wanted = self.state.lock().lines;
        let _turn = self.turn.lock().await;
        if self.durable.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let journal = self.clone();
        let result = tokio::task::spawn_blocking(move || journal.sync_here()).await;
        result.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
            tracing::error!("{}: cannot sync: {error}", self.dir.join(JOURNAL).display());
            StorageError
        })
    }

    /// The same on this thread. Blocks, and waits for no other thread of the pool to become free.
    pub(crate) fn sync_here(&self) -> io::Result<()> {
        let wanted = self.state.lock().lines;
        if self.durable.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let _syncing = self.syncing.lock();
        if self.durable.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let (file, old_file, lines, doubtful) = {
            let state = self.state.lock();
            (state.file.clone(), state.old_file.clone(), state.lines, state.doubtful > 0)
        };
        if doubtful {
            // Another fsync would succeed without the lines that are lost: all is written anew.
            return self.compact();
        }
        let synced = || -> io::Result<()> {
            if let Some(old_file) = old_file {
                old_file.sync_data()?;
                sync_directory(&self.dir)?;
            }
            file.sync_data()
        };
        if let Err(error) = synced() {
            self.doubt();
            return Err(error);
        }
        self.durable.fetch_max(lines, Ordering::AcqRel);
        Ok(())
    }

    /// An fsync has failed.
    fn doubt(&self) {
        let mut state = self.state.lock();
        state.doubtful = state.lines;
    }

    fn compact_in_background(&self) {
        let syncing = self.syncing.lock();
        if let Err(error) = self.compact() {
            tracing::error!("{}: cannot write a snapshot: {error}", self.dir.display());
        }
        drop(syncing);
        self.state.lock().compacting = false;
    }

    /// Replaces the journal by a snapshot. For the holder of `syncing`. Blocks.
    fn compact(&self) -> io::Result<()> {
        let mut set_aside = self.set_journal_aside()?;
        if set_aside.is_none() {
            // An attempt that failed has left its old journal behind, which has to go first.
            self.write_snapshot(0)?;
            set_aside = self.set_journal_aside()?;
        }
        self.write_snapshot(set_aside.unwrap_or(0))
    }

    /// Begins a new journal, unless there is an old one beside it already. Returns the number of the last line before it.
    fn set_journal_aside(&self) -> io::Result<Option<u64>> {
        let (journal, old_journal) = (self.dir.join(JOURNAL), self.dir.join(OLD_JOURNAL));
        // Without a journal an earlier attempt got no further than to rename it, and it is still written to.
        let is_aside = old_journal.try_exists()?;
        if is_aside && journal.try_exists()? {
            return Ok(None);
        }
        // Nearly all of its lines, so that a loss of power does not take old ones and leave new ones.
        let file = self.state.lock().file.clone();
        if file.sync_data().is_err() {
            self.doubt();
        }
        let new_journal = self.dir.join(NEW_JOURNAL);
        let file = Arc::new(File::create(&new_journal)?);
        let mut state = self.state.lock();
        state.cut()?;
        if !is_aside {
            fs::rename(&journal, &old_journal)?;
        }
        fs::rename(&new_journal, &journal)?;
        state.old_file = Some(std::mem::replace(&mut state.file, file));
        state.bytes = 0;
        Ok(Some(state.lines))
    }

    /// Writes a snapshot, which makes the old journal superfluous, and brings the lines up to its last one, `set_aside`, to
    /// the disk. No later ones: the journal could still lose these, and what it kept would undo what the snapshot has of
    /// them.
    fn write_snapshot(&self, set_aside: u64) -> io::Result<()> {
        let objects = self.state.lock().objects.clone();
        sync_directory(&self.dir)?;
        let bytes = write_snapshot(&self.dir, &objects)?;
        remove_if_there(&self.dir.join(OLD_JOURNAL))?;
        sync_directory(&self.dir)?;
        self.durable.fetch_max(set_aside, Ordering::AcqRel);
        let mut state = self.state.lock();
        state.old_file = None;
        state.snapshot_bytes = bytes;
        if state.doubtful <= set_aside {
            state.doubtful = 0;
        }
        Ok(())
    }

    /// Whether everything that was recorded is on the disk.
    #[cfg(test)]
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire) >= self.state.lock().lines
    }
}

/// Begins an empty journal behind a new snapshot; or, if that cannot be written, goes on behind the `bytes` of the journal
/// that is there: whoever has no room left must be able to start and delete something. Returns the journal, its size and
/// that of the snapshot.
fn begin(dir: &Path, objects: &Objects, bytes: u64) -> io::Result<(File, u64, u64)> {
    let file = File::options().write(true).create(true).truncate(false).open(dir.join(JOURNAL))?;
    match write_snapshot(dir, objects) {
        Ok(snapshot_bytes) => {
            // From here on the journals say nothing new. Without the new one, the old one must not come back.
            remove_if_there(&dir.join(OLD_JOURNAL))?;
            sync_directory(dir)?;
            file.set_len(0)?;
            file.sync_all()?;
            sync_directory(dir)?;
            Ok((file, 0, snapshot_bytes))
        }
        Err(error) => {
            tracing::warn!("{}: cannot write a snapshot, going on without: {error}", dir.display());
            file.set_len(bytes)?;
            file.sync_all()?;
            if let Ok(old_file) = File::open(dir.join(OLD_JOURNAL)) {
                old_file.sync_data()?;
            }
            sync_directory(dir)?;
            Ok((file, bytes, fs::metadata(dir.join(SNAPSHOT)).map_or(0, |metadata| metadata.len())))
        }
    }
}

impl State {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.cut()?;
        if let Err(error) = self.file.write_all_at(line, self.bytes) {
            self.overlong = true;
            // If this fails too, it is tried again before the next line.
            let _ = self.cut();
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    /// Cuts off what a failed write has left behind the last line.
    fn cut(&mut self) -> io::Result<()> {
        if self.overlong {
            self.file.set_len(self.bytes)?;
            self.overlong = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
