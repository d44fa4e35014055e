//! The producer: batches built while records arrive, one bounded buffer, every record's fate reported.
//!
//! What holds: a record that was accepted is sent or its error is reported, exactly once, also when the producer is
//! dropped; records of one partition keep their order, under retry too as long as `in_flight` is 1; where there is no
//! room nothing is copied. After a retry a record can be in the log twice: the server may have written a request whose
//! answer was lost.

mod dispatcher;
mod options;
mod outcome;
mod partition;
mod partitioner;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use wire::builder::{EMPTY_LEN, max_record_len};

pub use options::{Isolation, ProducerOptions};
pub use outcome::{Ack, AckHandler, Deliveries, DeliveriesHandler};

use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use outcome::Tally;
use partition::{Partition, Queue};
use partitioner::Partitioner;

/// Room that a record takes besides its key and value.
pub const RECORD_OVERHEAD: usize = 32;

/// The key length that stands for no key in [`Many`].
pub const NO_KEY: u32 = u32::MAX;

/// Whether a record was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It will be sent, and its handler called.
    Accepted,
    /// There is no room: nothing was copied. [`Producer::reserve`] waits for room.
    Full,
}

/// Records for [`Producer::send_many`].
#[derive(Debug, Clone, Copy)]
pub struct Many<'a> {
    /// Key and value of each record, back to back.
    pub arena: &'a [u8],
    /// Length of each key, [`NO_KEY`] for none; `None` if no record has one.
    pub key_lengths: Option<&'a [u32]>,
    /// Length of each value.
    pub value_lengths: &'a [u32],
}

/// Reserved room in the buffer of one producer. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
    owner: Weak<Core>,
}

/// A producer for one topic. Clones share everything; usable from any task and thread.
///
/// When the last clone is dropped, what was accepted is still sent.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
}

/// What the handles and the dispatcher share.
#[derive(Debug)]
struct Core {
    cluster: Arc<Cluster>,
    topic: String,
    options: ProducerOptions,
    partitions: RwLock<Vec<Arc<Partition>>>,
    partitioner: Partitioner,
    room: Arc<Semaphore>,
    /// Partitions that have something to send and are not yet known to the dispatcher.
    dirty: Mutex<Vec<Arc<Partition>>>,
    wake: Notify,
    /// Counts resolved batches, for those who flush.
    progress: watch::Sender<u64>,
    closed: AtomicBool,
    /// Set once nothing can be sent any more: the dispatcher ends when the queues are empty.
    ending: AtomicBool,
    /// Why what is unanswered is given up, once it is.
    given_up: OnceLock<Error>,
    /// True once the dispatcher has ended.
    ended: watch::Sender<bool>,
}

impl Producer {
    pub(crate) async fn open(cluster: Arc<Cluster>, topic: &str, options: ProducerOptions) -> Result<Self> {
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
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            given_up: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(dispatcher::run(Arc::clone(&core)));
        Ok(Producer { handle: Arc::new(Handle { core }) })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.handle.core.topic
    }

    /// Partitions of the topic as far as they are known. Partitions that are added later are picked up.
    pub fn partition_count(&self) -> u32 {
        self.handle.core.partitions.read().len() as u32
    }

    /// Bytes that may wait for their acknowledgement: keys, values and [`RECORD_OVERHEAD`] per record.
    pub fn buffer_bytes(&self) -> usize {
        self.handle.core.options.buffer_bytes
    }

    /// Waits, first come first served, until `bytes` are free, and keeps them for the caller. Dropping the future gives
    /// up the place in the queue and reserves nothing.
    pub async fn reserve(&self, bytes: usize) -> Result<Room> {
        let core = &self.handle.core;
        core.check_open()?;
        if bytes > core.options.buffer_bytes {
            return Err(Error::invalid(format!(
                "cannot reserve {bytes} bytes: the buffer of this producer holds {}",
                core.options.buffer_bytes
            )));
        }
        let owner = Arc::downgrade(core);
        // At most the buffer, which the options keep within 32 bits.
        let permit = Arc::clone(&core.room).acquire_many_owned(bytes as u32).await;
        permit.map(|permit| Room { permit, owner }).map_err(|_| Error::closed("producer"))
    }

    /// Hands a record over. Never blocks.
    ///
    /// `key` of `None` is no key, which is not an empty one. Without a `partition`, the key's hash chooses, or round
    /// robin if there is no key. `room` of a former [`Producer::reserve`] is used first and taken if the record is.
    /// `handler` is called once the record is certain to be accepted, and returns whom to tell of its fate; if it fails,
    /// the record is not accepted.
    pub fn send(
        &self,
        room: &mut Option<Room>,
        key: Option<&[u8]>,
        value: &[u8],
        partition: Option<u32>,
        handler: impl FnOnce() -> Result<Box<dyn AckHandler>>,
    ) -> Result<Sent> {
        let core = &self.handle.core;
        core.check_size(key, value)?;
        let partitions = core.open_partitions()?;
        let partition = core.choose(&partitions, partition, key)?;
        let Some(permit) = core.take_room(room, record_room(key, value))? else {
            return Ok(Sent::Full);
        };
        let handler = handler()?;
        let mut queue = partition.queue.lock();
        queue.push(core, key, value, now());
        queue.open_waiters().push_one(handler);
        core.announce(partition, queue);
        permit.forget();
        *room = None;
        Ok(Sent::Accepted)
    }

    /// Hands over as many of the records as there is room for, in their order, and returns how many: 0 is "full".
    ///
    /// Like [`Producer::send`] otherwise; `handler` gets the number accepted and is told the fate of all of them at once.
    pub fn send_many(
        &self,
        room: &mut Option<Room>,
        records: Many<'_>,
        partition: Option<u32>,
        handler: impl FnOnce(usize) -> Result<Box<dyn DeliveriesHandler>>,
    ) -> Result<usize> {
        let core = &self.handle.core;
        records.check(core)?;
        let partitions = core.open_partitions()?;
        if let Some(partition) = partition {
            core.choose(&partitions, Some(partition), None)?;
        }
        let reserved = room.as_ref().map_or(0, |room| room.permit.num_permits());
        let (accepted, needed) = records.fitting(reserved.max(core.room.available_permits()));
        if accepted == 0 {
            return Ok(0);
        }
        let Some(permit) = core.take_room(room, needed)? else {
            // Someone else was faster: as if there had been no room to begin with.
            return Ok(0);
        };
        let tally = Tally::new(accepted, handler(accepted)?);
        core.append(&partitions, records, accepted, partition, &tally);
        permit.forget();
        *room = None;
        Ok(accepted)
    }

    /// Sends what is gathered now, and completes once every record that was accepted before has its fate. Dropping the
    /// future changes nothing for the records.
    pub async fn flush(&self) {
        self.handle.core.flush().await;
    }

    /// Refuses further records, flushes within the close time-out and ends. What is undelivered then fails, for its
    /// handlers and, with its number, for the caller. Repeating it is harmless.
    pub async fn close(&self) -> Result<()> {
        self.handle.core.close().await
    }

    pub(crate) fn downgrade(&self) -> WeakProducer {
        WeakProducer { core: Arc::downgrade(&self.handle.core) }
    }
}

/// A reference that keeps no producer alive; what the client closes.
#[derive(Debug)]
pub(crate) struct WeakProducer {
    core: Weak<Core>,
}

impl WeakProducer {
    pub(crate) fn is_alive(&self) -> bool {
        self.core.strong_count() > 0
    }

    pub(crate) async fn close(&self) -> Result<()> {
        match self.core.upgrade() {
            Some(core) => core.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.refuse();
        self.core.end();
    }
}

impl Many<'_> {
    fn len(&self) -> usize {
        self.value_lengths.len()
    }

    fn key_length(&self, index: usize) -> Option<usize> {
        self.key_lengths
            .map(|lengths| lengths[index])
            .filter(|length| *length != NO_KEY)
            .map(|length| length as usize)
    }

    fn check(&self, core: &Core) -> Result<()> {
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
    fn fitting(&self, available: usize) -> (usize, usize) {
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
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("producer")) } else { Ok(()) }
    }

    fn check_size(&self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.check_length(key.map_or(0, <[u8]>::len) + value.len())
    }

    fn check_length(&self, length: usize) -> Result<()> {
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
    fn open_partitions(&self) -> Result<RwLockReadGuard<'_, Vec<Arc<Partition>>>> {
        let partitions = self.partitions.read();
        self.check_open()?;
        Ok(partitions)
    }

    fn choose<'a>(
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
    fn take_room(
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

    fn append(
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
    fn announce(&self, partition: &Arc<Partition>, mut queue: MutexGuard<'_, Queue>) {
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

    async fn flush(&self) {
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
        let done = || targets.iter().all(|(partition, target)| partition.queue.lock().resolved >= *target);
        while !done() {
            // The sender is in `self`: it cannot be gone.
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    async fn close(&self) -> Result<()> {
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

    fn undelivered(&self) -> u64 {
        self.partitions
            .read()
            .iter()
            .map(|partition| {
                let queue = partition.queue.lock();
                queue.accepted - queue.resolved
            })
            .sum()
    }

    /// From here on, no record is accepted and nobody waits for room.
    fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
        // A send that saw the producer open holds this lock: behind this line its records are in their queues.
        drop(self.partitions.write());
    }

    /// Lets the dispatcher end once the queues are empty.
    fn end(&self) {
        for partition in self.partitions.read().iter() {
            partition.queue.lock().seal();
        }
        self.ending.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Fails everything that waits for one partition.
    fn fail_queued(&self, partition: &Partition, error: &Error) {
        let batches = partition.queue.lock().take_all();
        for batch in batches {
            self.resolve(partition, batch.sealed(), Err(error.clone()));
        }
    }

    /// Tells everyone who waits for a batch, and frees its room.
    fn resolve(&self, partition: &Partition, batch: partition::Batch, result: Result<i64>) {
        let records = u64::from(batch.records);
        self.room.add_permits(batch.room);
        partition.queue.lock().resolved += records;
        batch.waiters.resolve(partition.index, result);
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn record_room(key: Option<&[u8]>, value: &[u8]) -> usize {
    key.map_or(0, <[u8]>::len) + value.len() + RECORD_OVERHEAD
}

fn now() -> i64 {
    // A clock before 1970 gives no timestamp.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |elapsed| elapsed.as_millis() as i64)
}
