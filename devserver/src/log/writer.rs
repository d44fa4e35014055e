//! The writing side of a log in files.
//!
//! Producers put their batches into a queue and wait; one blocking task per log takes all that wait and writes them
//! together, and under [`Fsync::Always`] one fsync serves them all. Nothing is visible to readers, and nobody is told of
//! success, before that. A write that fails changes nothing: the file is cut back to where it was, the producers are told,
//! and the next write is tried as if nothing had happened.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::oneshot;
use wire::batch::set_base_offset;

use super::disk::DiskLog;
use super::retention::Extent;
use super::segment::{self, Index, Segment};
use super::{NewBatch, StorageError};
use crate::config::Fsync;

/// Slices handed to one vectored write.
const MAX_SLICES: usize = 256;
/// About so much is written before those who wait for it are answered.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<Append>,
    /// A task takes from the queue.
    busy: bool,
}

/// The batches of one producer, all or none of which are written.
struct Append {
    batches: Vec<NewBatch>,
    bytes: usize,
    reply: oneshot::Sender<Result<i64, StorageError>>,
}

/// The state of whoever writes.
#[derive(Default)]
pub(super) struct Writer {
    /// The active file may be longer than what was written with success.
    overlong: bool,
    /// The last write failed.
    failing: bool,
}

impl DiskLog {
    /// Queues the batches; the answer is the offset of their first record.
    pub(super) fn append(
        self: &Arc<Self>,
        batches: Vec<NewBatch>,
    ) -> oneshot::Receiver<Result<i64, StorageError>> {
        let (reply, receiver) = oneshot::channel();
        let bytes = batches.iter().map(|(data, _)| data.len()).sum();
        let mut queue = self.queue.lock();
        queue.waiting.push(Append { batches, bytes, reply });
        if !queue.busy {
            queue.busy = true;
            let log = self.clone();
            self.tasks.spawn_blocking(move || log.write_queue());
        }
        receiver
    }

    /// Writes until the queue is empty.
    fn write_queue(&self) {
        // If writing panics, those who wait learn it and the next producer starts a new task.
        let _guard = QueueGuard(self);
        loop {
            // Taken anew for each group: the cleaner needs its turn.
            let mut writer = self.writer.lock();
            let mut group = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.busy = false;
                    return;
                }
                let mut bytes = 0;
                let fits = |append: &&Append| {
                    bytes += append.bytes;
                    bytes <= MAX_GROUP_BYTES
                };
                let count = queue.waiting.iter().take_while(fits).count().max(1);
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            while !group.is_empty() {
                let count = self.count_that_fit(&group);
                self.write_run(&mut writer, group.drain(..count).collect());
            }
        }
    }

    /// How many of the group go to the same segment: the active one, or a new one if the first does not fit.
    fn count_that_fit(&self, group: &[Append]) -> usize {
        let active = self.state.read().segments.back().map_or(0, |active| active.extent.bytes);
        let mut segment = if self.retention.rolls(active, group[0].bytes as u64) { 0 } else { active };
        let fits = |append: &&Append| {
            let fits = !self.retention.rolls(segment, append.bytes as u64);
            segment += append.bytes as u64;
            fits
        };
        group.iter().take_while(fits).count().max(1)
    }

    /// Writes appends of one segment and answers them. If that fails, each gets its own chance: the last byte of room may
    /// be enough for some.
    fn write_run(&self, writer: &mut Writer, mut run: Vec<Append>) {
        match self.write_durably(writer, &mut run) {
            Ok(mut offset) => {
                if writer.failing {
                    tracing::warn!("{}: writing works again", self.dir.display());
                    writer.failing = false;
                }
                for append in run {
                    let count: i64 = append.batches.iter().map(|(_, header)| header.offset_count()).sum();
                    // Whoever has left does not need an answer.
                    let _ = append.reply.send(Ok(offset));
                    offset += count;
                }
            }
            Err(_) if run.len() > 1 => {
                for append in run {
                    self.write_run(writer, vec![append]);
                }
            }
            Err(error) => {
                if !writer.failing {
                    tracing::error!("{}: cannot write: {error}", self.dir.display());
                    writer.failing = true;
                }
                for append in run {
                    let _ = append.reply.send(Err(StorageError));
                }
            }
        }
    }

    /// Writes the run to the active segment, or a new one, and makes it visible. Returns its first offset.
    fn write_durably(&self, writer: &mut Writer, run: &mut [Append]) -> io::Result<i64> {
        let bytes: u64 = run.iter().map(|append| append.bytes as u64).sum();
        let active = self.state.read().segments.back().map(|active| active.extent.bytes);
        if active.is_none_or(|active| self.retention.rolls(active, run[0].bytes as u64)) {
            self.roll(writer)?;
        }
        let (file, position, base_offset) = {
            let state = self.state.read();
            let active = state.segments.back().expect("a segment was made");
            let file = active.file.clone().expect("the active segment has a file");
            (file, active.extent.bytes, state.end)
        };
        if writer.overlong {
            file.set_len(position)?;
            writer.overlong = false;
        }

        let mut index = Vec::new();
        let (mut offset, mut at) = (base_offset, position);
        for (data, header) in run.iter_mut().flat_map(|append| &mut append.batches) {
            set_base_offset(data, offset);
            index.push((offset, at));
            offset += header.offset_count();
            at += data.len() as u64;
        }
        let slices = run.iter().flat_map(|append| &append.batches).map(|(data, _)| &data[..]);
        let written = write_all(&file, slices, position)
            .and_then(|()| if self.fsync == Fsync::Always { self.sync_file(&file) } else { Ok(()) });
        if let Err(error) = written {
            writer.overlong = file.set_len(position).is_err();
            return Err(error);
        }

        let mut state = self.state.write();
        let active = state.segments.back_mut().expect("a segment was made");
        for (offset, position) in index {
            active.index.note(offset, position);
        }
        active.extent.bytes += bytes;
        active.extent.modified = SystemTime::now();
        state.end = offset;
        drop(state);
        self.dirty.store(self.fsync != Fsync::Always, Ordering::Release);
        super::announce(&self.ends, offset);
        Ok(base_offset)
    }

    /// Closes the active segment, if there is one, and begins the next at the end of the log.
    pub(super) fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let (active, end) = {
            let state = self.state.read();
            (
                state.segments.back().and_then(|active| active.file.clone().zip(Some(active.extent.bytes))),
                state.end,
            )
        };
        if let Some((file, bytes)) = active {
            if writer.overlong {
                file.set_len(bytes)?;
                writer.overlong = false;
            }
            // Whatever the mode: a closed segment is never synced again, and the next start refuses a log of which a segment
            // has outlived a piece of the one before.
            file.sync_data()?;
        } else {
            // The next start refuses records without a topic.
            self.journal.sync_here()?;
        }
        let file = self.create(end)?;
        self.new_files.store(true, Ordering::Release);
        let extent = Extent { base_offset: end, bytes: 0, modified: SystemTime::now() };
        let mut state = self.state.write();
        if let Some(closed) = state.segments.back_mut() {
            closed.file = None;
        }
        state.segments.push_back(Segment { extent, index: Index::default(), file: Some(Arc::new(file)) });
        Ok(())
    }

    fn create(&self, base_offset: i64) -> io::Result<File> {
        let deleted = self.files.lock();
        if *deleted {
            return Err(io::Error::new(ErrorKind::NotFound, "the topic was deleted"));
        }
        fs::create_dir_all(&self.dir)?;
        // A file that is there already is empty of records: an earlier attempt got no further.
        let path = segment::path(&self.dir, base_offset);
        File::options().read(true).write(true).create(true).truncate(true).open(path)
    }
}

struct QueueGuard<'a>(&'a DiskLog);

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue.lock();
            queue.busy = false;
            queue.waiting.clear();
        }
    }
}

fn write_all<'a>(file: &File, slices: impl Iterator<Item = &'a [u8]>, mut position: u64) -> io::Result<()> {
    let mut slices: Vec<_> = slices.map(IoSlice::new).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let count = left.len().min(MAX_SLICES);
        match rustix::io::pwritev(file, &left[..count], position) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
