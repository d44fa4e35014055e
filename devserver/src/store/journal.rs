//! The metadata on disk: a snapshot of all objects, and a journal of what has changed since.
//!
//! A change is one line of the journal, written before anybody sees the change; what the objects are is their business
//! alone, here they are bytes in the platform's own encoding. A snapshot replaces the one before atomically. While it is
//! written the journal so far waits under another name; to apply its lines again to a newer snapshot changes nothing, so
//! at whatever moment the process ends, snapshot, old journal and journal together are the metadata.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use super::change::{Change, Encoded};
use crate::config::Fsync;
use crate::log::{StorageError, sync_directory};

const SNAPSHOT: &str = "snapshot.json";
const SNAPSHOT_IN_WORK: &str = "snapshot.json.new";
const JOURNAL: &str = "journal.ndjson";
/// What a snapshot that is being written makes superfluous.
const OLD_JOURNAL: &str = "journal.old.ndjson";
/// A journal of at least this size, and twice the size of the snapshot, is replaced by a new snapshot.
const MIN_JOURNAL_BYTES: u64 = 1024 * 1024;

/// All objects of a server: by kind, then by name.
pub(super) type Objects = BTreeMap<(String, String), Encoded>;

/// Where changes are written to.
pub(crate) struct Journal {
    dir: PathBuf,
    fsync: Fsync,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// How many lines are known to be on the disk. Locked while they are brought there.
    synced: tokio::sync::Mutex<u64>,
    /// Locked by whoever writes a snapshot.
    compaction: Mutex<()>,
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
    compacting: bool,
    failing: bool,
}

/// A line: changes that happen together, and the checksum of their text.
#[derive(Serialize, Deserialize)]
struct Line {
    crc32c: u32,
    changes: Vec<Change>,
}

impl Journal {
    /// Reads the metadata in `dir`, and writes it anew as a snapshot.
    pub(super) fn open(dir: PathBuf, fsync: Fsync, tasks: TaskTracker) -> anyhow::Result<Self> {
        let mut objects = Objects::new();
        read_file(&dir.join(SNAPSHOT), &mut objects, false)?;
        read_file(&dir.join(OLD_JOURNAL), &mut objects, false)?;
        read_file(&dir.join(JOURNAL), &mut objects, true)?;
        let written = || -> io::Result<(u64, File)> {
            let bytes = write_snapshot(&dir, &objects)?;
            // From here on the journals say nothing new.
            remove_if_there(&dir.join(OLD_JOURNAL))?;
            let file = File::options().write(true).create(true).truncate(true).open(dir.join(JOURNAL))?;
            file.sync_all()?;
            sync_directory(&dir)?;
            Ok((bytes, file))
        };
        let (snapshot_bytes, file) =
            written().with_context(|| format!("cannot write the metadata in {}", dir.display()))?;
        let file = Arc::new(file);
        let state = State {
            objects,
            file,
            old_file: None,
            bytes: 0,
            overlong: false,
            snapshot_bytes,
            lines: 0,
            compacting: false,
            failing: false,
        };
        Ok(Journal {
            dir,
            fsync,
            tasks,
            state: Mutex::new(state),
            synced: tokio::sync::Mutex::new(0),
            compaction: Mutex::new(()),
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
    pub(crate) async fn acknowledgeable(&self) -> Result<(), StorageError> {
        if self.fsync == Fsync::Always { self.sync().await } else { Ok(()) }
    }

    /// Brings everything that was recorded to the disk; one fsync serves all who wait.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        let wanted = self.state.lock().lines;
        let mut synced = self.synced.lock().await;
        if *synced >= wanted {
            return Ok(());
        }
        let (file, old_file, lines) = {
            let state = self.state.lock();
            (state.file.clone(), state.old_file.clone(), state.lines)
        };
        let dir = self.dir.clone();
        let sync = move || -> io::Result<()> {
            if let Some(old_file) = old_file {
                old_file.sync_data()?;
                sync_directory(&dir)?;
            }
            file.sync_data()
        };
        let result = tokio::task::spawn_blocking(sync).await;
        if let Err(error) = result.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::error!("{}: cannot sync: {error}", self.dir.join(JOURNAL).display());
            return Err(StorageError);
        }
        *synced = lines;
        Ok(())
    }

    fn compact_in_background(&self) {
        if let Err(error) = self.compact() {
            tracing::error!("{}: cannot write a snapshot: {error}", self.dir.display());
        }
        self.state.lock().compacting = false;
    }

    /// Writes a snapshot and drops the lines that it makes superfluous. Blocks.
    fn compact(&self) -> io::Result<()> {
        let _only_one = self.compaction.lock();
        let old_journal = self.dir.join(OLD_JOURNAL);
        let objects = {
            let mut state = self.state.lock();
            // One that is there already is left from an attempt that failed: the journal then waits for the next time.
            if !old_journal.exists() {
                state.cut()?;
                fs::rename(self.dir.join(JOURNAL), &old_journal)?;
                let file =
                    File::options().write(true).create(true).truncate(true).open(self.dir.join(JOURNAL));
                let file = match file {
                    Ok(file) => file,
                    Err(error) => {
                        fs::rename(&old_journal, self.dir.join(JOURNAL))?;
                        return Err(error);
                    }
                };
                state.old_file = Some(std::mem::replace(&mut state.file, Arc::new(file)));
                state.bytes = 0;
            }
            state.objects.clone()
        };
        sync_directory(&self.dir)?;
        let bytes = write_snapshot(&self.dir, &objects)?;
        fs::remove_file(&old_journal)?;
        sync_directory(&self.dir)?;
        let mut state = self.state.lock();
        state.old_file = None;
        state.snapshot_bytes = bytes;
        Ok(())
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

fn line_of(changes: Vec<Change>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { crc32c: checksum(&changes)?, changes })?;
    line.push(b'\n');
    Ok(line)
}

/// Of the changes as they are written; there is one way to write them.
fn checksum(changes: &[Change]) -> io::Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(changes)?))
}

fn apply(objects: &mut Objects, changes: Vec<Change>) {
    for Change { kind, name, object } in changes {
        match object {
            Some(object) => objects.insert((kind, name), object),
            None => objects.remove(&(kind, name)),
        };
    }
}

/// Applies the lines of a file. With `torn`, its last line may lack an end, and is no line then.
fn read_file(path: &Path, objects: &mut Objects, torn: bool) -> anyhow::Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if torn && !line.ends_with(b"\n") {
            tracing::warn!("{}: the last line was never ended and is left out", path.display());
            break;
        }
        let changes = read_line(line).with_context(|| {
            format!(
                "line {} of {} is damaged: restore the file from a copy, or remove the line to go on without the change",
                number + 1,
                path.display()
            )
        })?;
        apply(objects, changes);
    }
    Ok(())
}

fn read_line(line: &[u8]) -> anyhow::Result<Vec<Change>> {
    let line: Line = serde_json::from_slice(line)?;
    let computed = checksum(&line.changes)?;
    ensure!(computed == line.crc32c, "its checksum is {computed}, not {}", line.crc32c);
    Ok(line.changes)
}

/// Replaces the snapshot. Returns its size.
fn write_snapshot(dir: &Path, objects: &Objects) -> io::Result<u64> {
    let change = |((kind, name), object): (&(String, String), &Encoded)| Change {
        kind: kind.clone(),
        name: name.clone(),
        object: Some(object.clone()),
    };
    let text = line_of(objects.iter().map(change).collect())?;
    let in_work = dir.join(SNAPSHOT_IN_WORK);
    let file = File::create(&in_work)?;
    file.write_all_at(&text, 0)?;
    file.sync_all()?;
    fs::rename(&in_work, dir.join(SNAPSHOT))?;
    sync_directory(dir)?;
    Ok(text.len() as u64)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
