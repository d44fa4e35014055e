//! The data directory: who owns it, the metadata, and where the logs of the topics are.
//!
//! ```text
//! LOCK                         locked by the one server that uses the directory; holds its process id
//! meta/snapshot.json           all objects and consumer offsets as of some time
//! meta/journal.ndjson          what has changed since
//! log/<topic>/<partition>/     segments: <first offset, 20 digits>.log
//! log/.unnamed/<partition>/    of the topic whose name is empty
//! log/.deleting-<topic>        of a topic whose deletion is under way: taken back unless the metadata says it is gone
//! log/.deleted-<number>        to be removed
//! ```

mod change;
mod journal;
mod lines;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow, bail};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::record::ReplicaKey;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::AdminSpec;
use fluvio_sc_schema::core::Spec;
use fluvio_sc_schema::objects::Metadata;
use fluvio_spu_schema::server::consumer_offset::ConsumerOffset;
use rustix::fs::FlockOperation;
use tokio_util::task::TaskTracker;

pub(crate) use self::change::Change;
pub(crate) use self::journal::Journal;
use crate::config::Fsync;
use crate::log::sync_directory;

/// Stands for the empty name of a topic, which is allowed and would be the directory of all logs. No topic is called so.
const UNNAMED: &str = ".unnamed";
const DELETING: &str = ".deleting-";
const DELETED: &str = ".deleted-";

/// The directory of a server, which belongs to it as long as this lives.
pub(crate) struct DataDir {
    pub(crate) journal: Arc<Journal>,
    logs: PathBuf,
    deletions: AtomicU64,
    tasks: TaskTracker,
    _lock: Lock,
}

impl DataDir {
    /// Opens or makes the directory, and finishes what its last owner has left unfinished. Blocks. `tasks` are to be waited
    /// for in the end.
    pub(crate) fn open(root: &Path, fsync: Fsync, tasks: TaskTracker) -> anyhow::Result<Self> {
        let (meta, logs) = (root.join("meta"), root.join("log"));
        for dir in [root, &meta, &logs] {
            make_directory(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        }
        let lock = lock(root)?;
        let journal = Arc::new(Journal::open(meta, fsync, tasks.clone())?);
        let data_dir = DataDir { journal, logs, deletions: AtomicU64::new(0), tasks, _lock: lock };
        data_dir.tidy().with_context(|| format!("in the directory {}", data_dir.logs.display()))?;
        Ok(data_dir)
    }

    /// All stored objects of a kind.
    pub(crate) fn objects<S>(&self) -> anyhow::Result<Vec<Metadata<S>>>
    where
        S: AdminSpec,
        S::Status: Encoder + Decoder,
    {
        self.decode(S::LABEL)
    }

    /// All stored offsets of consumers.
    pub(crate) fn consumer_offsets(&self) -> anyhow::Result<Vec<ConsumerOffset>> {
        self.decode(change::CONSUMER_OFFSET)
    }

    fn decode<T: Decoder>(&self, kind: &str) -> anyhow::Result<Vec<T>> {
        let all = self.journal.of_kind(kind).into_iter();
        all.map(|(name, object)| {
            object.decode().with_context(|| {
                format!("the stored {kind} {name:?} cannot be read: was it written by a newer version?")
            })
        })
        .collect()
    }

    /// Where the segments of a partition are.
    pub(crate) fn partition(&self, key: &ReplicaKey) -> PathBuf {
        self.topic_dir(&key.topic).join(key.partition.to_string())
    }

    /// The first step of the deletion of a topic: its logs are out of the way, and would be taken back at the next start.
    /// Blocks.
    pub(crate) fn set_aside(&self, topic: &str) -> io::Result<()> {
        if rename_if_there(&self.topic_dir(topic), &self.deleting(topic))? {
            // Before the metadata says that the topic is gone: the next start refuses records without a topic.
            sync_directory(&self.logs)?;
        }
        Ok(())
    }

    /// Takes the first step back.
    pub(crate) fn take_back(&self, topic: &str) -> io::Result<()> {
        rename_if_there(&self.deleting(topic), &self.topic_dir(topic)).map(|_| ())
    }

    /// The last step, once the metadata says that the topic is gone: removes its logs, on another thread. Blocks.
    pub(crate) fn discard(&self, topic: &str) -> io::Result<()> {
        let set_aside = self.deleting(topic);
        if !set_aside.try_exists()? {
            return Ok(());
        }
        // A topic that a loss of power brings back brings its records.
        if let Err(error) = self.journal.sync_here() {
            tracing::error!(topic, "cannot sync the metadata before the logs of the topic go: {error}");
        }
        let deleted = loop {
            let number = self.deletions.fetch_add(1, Ordering::Relaxed);
            let deleted = self.logs.join(format!("{DELETED}{number}"));
            // An earlier process may not have been able to remove its own.
            if !deleted.try_exists()? {
                break deleted;
            }
        };
        fs::rename(&set_aside, &deleted)?;
        // Otherwise they could come back to a new topic of the same name.
        sync_directory(&self.logs)?;
        self.tasks.spawn_blocking(move || remove(&deleted));
        Ok(())
    }

    fn topic_dir(&self, topic: &str) -> PathBuf {
        self.logs.join(if topic.is_empty() { UNNAMED } else { topic })
    }

    fn deleting(&self, topic: &str) -> PathBuf {
        self.logs.join(format!("{DELETING}{topic}"))
    }

    /// Ends deletions that were under way, and refuses logs that belong to no topic.
    fn tidy(&self) -> anyhow::Result<()> {
        let topics: HashSet<_> =
            self.journal.of_kind(TopicSpec::LABEL).into_iter().map(|(name, _)| name).collect();
        for entry in fs::read_dir(&self.logs)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| anyhow!("{name:?} is no topic: move it away"))?;
            if name.starts_with(DELETED) {
                remove(&entry.path());
            } else if let Some(topic) = name.strip_prefix(DELETING) {
                if topics.contains(topic) && !self.topic_dir(topic).exists() {
                    self.take_back(topic)?;
                } else {
                    remove(&entry.path());
                }
            } else if !topics.contains(if name == UNNAMED { "" } else { name }) {
                bail!(
                    "{name:?} has records, but the metadata knows no such topic: restore the directory meta from a copy, \
                     or move {name:?} away"
                );
            }
        }
        Ok(())
    }
}

/// Takes the lock of a directory, or says who has it.
fn lock(root: &Path) -> anyhow::Result<Lock> {
    let path = root.join("LOCK");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            file.read_to_string(&mut owner)?;
            bail!(
                "the data directory {} is in use by the server with process id {}: stop it, or choose another directory",
                root.display(),
                owner.trim()
            );
        }
        Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
    let owner = format!("{}\n", std::process::id());
    if let Err(error) = file.write_all_at(owner.as_bytes(), 0).and_then(|()| file.set_len(owner.len() as u64))
    {
        // The lock counts, and a full disk is no reason not to start.
        tracing::warn!("cannot write {}: {error}", path.display());
    }
    Ok(Lock(file))
}

/// The lock of a directory.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough while a process that is just being started by another thread has it too. If this
        // fails, which it has no reason to do, the end of that process unlocks it.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Makes a directory, and those above it, such that a loss of power does not take it away.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // That of a relative path of one name is the current directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// Returns whether there was something to rename.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        renamed => renamed.map(|()| true),
    }
}

/// Removes a directory of a topic that is gone; what remains is tried again at the next start.
fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
