//! What the handles of one producer and its dispatcher share: the partitions, the room, and how both ends meet.
//!
//! Whoever accepts records holds the read lock of `partitions` meanwhile; whoever closes takes the write lock once after
//! it has set `closed`. So what was accepted before is seen by the flush that follows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use wire::builder::{EMPTY_LEN, max_record_len};
use wire::pool::Pool;

use super::outcome::Tally;
use super::partition::{Batch, Partition, Queue};
use super::partitioner::Partitioner;
use super::{Many, NO_KEY, ProducerOptions, RECORD_OVERHEAD, Room, dispatcher};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};

/// Buffers of sealed batches that are kept for later ones.
const KEPT_BUFFERS: usize = 32;

/// What the handles and the dispatcher share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) cluster: Arc<Cluster>,
    pub(super) topic: String,
    pub(super) options: ProducerOptions,
    pub(super) partitions: RwLock<Vec<Arc<Partition>>>,
    pub(super) partitioner: Partitioner,
    pub(super) room: Arc<Semaphore>,
    /// Partitions that have something to send and are not yet known to the dispatcher.
    pub(super) dirty: Mutex<Vec<Arc<Partition>>>,
    /// For batches, so that their memory is used again.
    pub(super) buffers: Pool,
    pub(super) wake: Notify,
    /// Counts resolved batches, for those who flush.
    pub(super) progress: watch::Sender<u64>,
    pub(super) closed: AtomicBool,
    /// Set once nothing can be sent any more: the dispatcher ends when the queues are empty.
    pub(super) ending: AtomicBool,
    /// Why what is unanswered is given up, once it is.
    pub(super) given_up: OnceLock<Error>,
    /// True once the dispatcher has ended.
    pub(super) ended: watch::Sender<bool>,
}

impl Many<'_> {
    pub(super) fn len(&self) -> usize {
        self.value_lengths.len()
    }

    pub(super) fn key_length(&self, index: usize) -> Option<usize> {
        self.key_lengths
            .map(|lengths| lengths[index])
            .filter(|length| *length != NO_KEY)
            .map(|length| length as usize)
    }

    pub(super) fn check(&self, core: &Core) -> Result<()> {
        if let Some(keys) = self.key_lengths
            && keys.len() != self.len()
        {
            return Err(Error::invalid(format!("{} key lengths for {} values", keys.len(), self.len())));
        }
        let mut total = 0usize;
        for (index, value) in self.value_lengths.iter().enumerate() {
            let key = self.key_length(index).unwrap_or(0);
            let length = *value as usize + key;
            core.check_length(length).map_err(|error| error.with_detail("record", index))?;
            total += length;
        }
        if total == self.arena.len() {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "the lengths add up to {total} bytes, the arena has {}",
                self.arena.len()
            )))
        }
    }

    /// How many of the first records fit into `available` bytes, and the bytes that they take.
    pub(super) fn fitting(&self, available: usize) -> (usize, usize) {
        let mut needed = 0;
        for index in 0..self.len() {
            let length = self.value_lengths[index] as usize + self.key_length(index).unwrap_or(0);
            if needed + length + RECORD_OVERHEAD > available {
                return (index, needed);
            }
            needed += length + RECORD_OVERHEAD;
        }
        (self.len(), needed)
    }
}

impl Core {
    /// Waits for the partitions of the topic and starts the dispatcher.
    pub(super) async fn open(
        cluster: Arc<Cluster>,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Arc<Self>> {
        options.check()?;
        let count = cluster.partition_count(topic).await?;
        let core = Arc::new(Core {
            room: Arc::new(Semaphore::new(options.buffer_bytes)),
            cluster,
            topic: topic.to_owned(),
            options,
            partitions: RwLock::new((0..count).map(|index| Arc::new(Partition::new(index))).collect()),
            partitioner: Partitioner::default(),
            dirty: Mutex::default(),
            buffers: Pool::new(KEPT_BUFFERS),
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            given_up: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(dispatcher::run(Arc::clone(&core)));
        Ok(core)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("producer")) } else { Ok(()) }
    }

    pub(super) fn check_size(&self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.check_length(key.map_or(0, <[u8]>::len) + value.len())
    }

    pub(super) fn check_length(&self, length: usize) -> Result<()> {
        let batch = EMPTY_LEN + max_record_len(None, &[]) + length;
        let most = self.options.max_request_bytes.min(self.options.buffer_bytes);
        if batch <= most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "a record of {length} bytes needs {batch} in a request, {most} are allowed: raise max_request_bytes"
            ),
        ))
    }

    /// The partitions of a producer that is open. Whoever closes it waits for this lock: what is accepted under it is seen.
    pub(super) fn open_partitions(&self) -> Result<RwLockReadGuard<'_, Vec<Arc<Partition>>>> {
        let partitions = self.partitions.read();
        self.check_open()?;
        Ok(partitions)
    }

    pub(super) fn choose<'a>(
        &self,
        partitions: &'a [Arc<Partition>],
        partition: Option<u32>,
        key: Option<&[u8]>,
    ) -> Result<&'a Arc<Partition>> {
        let Some(index) = partition else {
            return Ok(&partitions[self.partitioner.choose(key, partitions)]);
        };
        partitions.get(index as usize).ok_or_else(|| {
            Error::new(
                ErrorKind::PartitionNotFound,
                format!("topic {:?} has no partition {index}, it has {}", self.topic, partitions.len()),
            )
        })
    }

    /// Room for `bytes` from what the caller reserved, else from what is free; `None` if there is not enough.
    pub(super) fn take_room(
        self: &Arc<Self>,
        reserved: &mut Option<Room>,
        bytes: usize,
    ) -> Result<Option<OwnedSemaphorePermit>> {
        if let Some(room) = reserved {
            if !std::ptr::eq(room.owner.as_ptr(), Arc::as_ptr(self)) {
                return Err(Error::invalid("the room was reserved at another producer"));
            }
            if let Some(part) = room.permit.split(bytes) {
                return Ok(Some(part));
            }
        }
        Ok(Arc::clone(&self.room).try_acquire_many_owned(bytes as u32).ok())
    }

    pub(super) fn append(
        &self,
        partitions: &[Arc<Partition>],
        records: Many<'_>,
        accepted: usize,
        partition: Option<u32>,
        tally: &Arc<Tally>,
    ) {
        let timestamp = now();
        // Neighbours mostly go to the same partition: its lock is kept until another one's turn comes.
        let mut current: Option<(usize, MutexGuard<'_, Queue>)> = None;
        let mut at = 0;
        for index in 0..accepted {
            let key = records.key_length(index).map(|length| &records.arena[at..at + length]);
            at += key.map_or(0, <[u8]>::len);
            let value = &records.arena[at..at + records.value_lengths[index] as usize];
            at += value.len();
            let chosen = match partition {
                Some(partition) => partition as usize,
                None => self.partitioner.choose(key, partitions),
            };
            if let Some((locked, queue)) = current.take_if(|(locked, _)| *locked != chosen) {
                self.announce(&partitions[locked], queue);
            }
            let (_, queue) = current.get_or_insert_with(|| (chosen, partitions[chosen].queue.lock()));
            queue.push(self, key, value, timestamp);
            queue.open_waiters().push_many(tally, index as u32);
        }
        if let Some((locked, queue)) = current {
            self.announce(&partitions[locked], queue);
        }
    }

    /// Tells the dispatcher of a partition that has something to send, unless it knows.
    pub(super) fn announce(&self, partition: &Arc<Partition>, mut queue: MutexGuard<'_, Queue>) {
        let wake = if queue.known {
            queue.wake_when_sealed && queue.lingers_until(Duration::ZERO).is_none() && {
                queue.wake_when_sealed = false;
                true
            }
        } else {
            queue.known = true;
            self.dirty.lock().push(Arc::clone(partition));
            true
        };
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    pub(super) async fn flush(&self) {
        let mut progress = self.progress.subscribe();
        let targets: Vec<(Arc<Partition>, u64)> = self
            .partitions
            .read()
            .iter()
            .map(|partition| {
                let mut queue = partition.queue.lock();
                queue.seal();
                (Arc::clone(partition), queue.accepted)
            })
            .collect();
        self.wake.notify_one();
        let done = || targets.iter().all(|(partition, target)| partition.queue.lock().is_told(*target));
        while !done() {
            // The sender is in `self`: it cannot be gone.
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.refuse();
        let timeout = self.cluster.close_timeout;
        let flushed = tokio::time::timeout(timeout, self.flush()).await;
        let undelivered: u64 = if flushed.is_ok() { 0 } else { self.undelivered() };
        let error = Error::new(
            ErrorKind::Timeout,
            format!(
                "{undelivered} records of topic {:?} were not acknowledged within {} ms",
                self.topic,
                timeout.as_millis()
            ),
        )
        .with_detail("undelivered", undelivered);
        if flushed.is_err() {
            // The dispatcher fails what waits and what is unanswered, and ends.
            let _ = self.given_up.set(error.clone());
        }
        self.end();
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
        if undelivered == 0 { Ok(()) } else { Err(error) }
    }

    pub(super) fn undelivered(&self) -> u64 {
        self.partitions.read().iter().map(|partition| partition.queue.lock().undelivered()).sum()
    }

    /// From here on, no record is accepted and nobody waits for room.
    pub(super) fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
        // A send that saw the producer open holds this lock: behind this line its records are in their queues.
        drop(self.partitions.write());
    }

    /// Lets the dispatcher end once the queues are empty.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.seal_all();
    }

    /// Has everything sent that gathers.
    pub(super) fn seal_all(&self) {
        for partition in self.partitions.read().iter() {
            partition.queue.lock().seal();
        }
        self.wake.notify_one();
    }

    /// Fails everything that waits for one partition.
    pub(super) fn fail_queued(&self, partition: &Partition, error: &Error) {
        let batches = partition.queue.lock().take_all();
        for batch in batches {
            self.resolve(partition, batch.sealed(), Err(error.clone()));
        }
    }

    /// Tells everyone who waits for a batch, and frees its room. It counts as told only afterwards: whoever flushes may
    /// rely on the handlers having been called.
    pub(super) fn resolve(&self, partition: &Partition, batch: Batch, result: Result<i64>) {
        self.room.add_permits(batch.room);
        batch.waiters.resolve(partition.index, result);
        partition.queue.lock().told(batch.first, batch.records);
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

pub(super) fn record_room(key: Option<&[u8]>, value: &[u8]) -> usize {
    key.map_or(0, <[u8]>::len) + value.len() + RECORD_OVERHEAD
}

pub(super) fn now() -> i64 {
    // A clock before 1970 gives no timestamp.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |elapsed| elapsed.as_millis() as i64)
}
