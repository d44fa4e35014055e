//! What the handles of one producer and its driver share: the partitions, the room, and how both ends meet.
//!
//! Whoever accepts records holds the read lock of `partitions` meanwhile; whoever closes takes the write lock once after
//! it has set `closed`. So what was accepted before is seen by the flush that follows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, watch};
use wire::builder::max_record_len;

use super::handlers::{Tally, Waiters};
use super::partition::{Buffers, Partition, Queue, Waiting};
use super::partitioner::Partitioner;
use super::room::{Account, BATCH_OVERHEAD, MANY_OVERHEAD};
use super::share::Shares;
use super::{Isolation, Many, ProducerOptions, driver};
use crate::cluster::Cluster;
use crate::directory::Topic;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::link::Links;

/// What the handles and the driver share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) cluster: Arc<Cluster>,
    pub(super) topic: Topic,
    /// For requests that wait for replication, and so hold up what comes behind them.
    pub(super) own_links: Links,
    pub(super) options: ProducerOptions,
    pub(super) partitions: RwLock<Vec<Arc<Partition>>>,
    pub(super) partitioner: Partitioner,
    pub(super) room: Arc<Account>,
    pub(super) shares: Arc<Shares>,
    /// How many wait for room: nothing may linger then.
    pub(super) pressed: AtomicUsize,
    /// Partitions that have something to send and are not yet known to the driver.
    pub(super) dirty: Mutex<Vec<u32>>,
    /// Records of a `send_many` that were refused when it was accepted: told by the driver like all others.
    pub(super) refused: Mutex<Vec<(u32, Waiters, Error)>>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) wake: Notify,
    /// Somebody asked for a partition that is not known.
    pub(super) look_up: AtomicBool,
    /// Counts resolved batches, for those who flush.
    pub(super) progress: watch::Sender<u64>,
    pub(super) closed: AtomicBool,
    /// Set once nothing can be sent any more: the driver ends when the queues are empty.
    pub(super) ending: AtomicBool,
    /// Why nothing can be sent any more, once the topic is over.
    pub(super) over: OnceLock<Error>,
    /// Why what is unanswered is given up, once it is.
    pub(super) given_up: OnceLock<Error>,
    /// True once the driver has ended.
    pub(super) ended: watch::Sender<bool>,
}

/// Counts one who waits for room.
pub(super) struct Pressing<'a>(&'a Core);

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.pressed.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// Waits for the partitions of the topic and starts the driver.
    pub(super) async fn open(
        cluster: Arc<Cluster>,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Arc<Self>> {
        options.check()?;
        let topic = cluster.topic(topic).await?;
        let count = topic.partition_count();
        let buffers = Buffers::new(options.batch_bytes(), options.buffer_bytes, options.delivery_timeout());
        let core = Arc::new(Core {
            room: Arc::new(Account::new(options.buffer_bytes)),
            own_links: Links::new(cluster.settings.clone()),
            cluster,
            topic,
            options,
            partitions: RwLock::new((0..count).map(|index| Arc::new(Partition::new(index))).collect()),
            partitioner: Partitioner::default(),
            shares: Arc::default(),
            pressed: AtomicUsize::new(0),
            dirty: Mutex::default(),
            refused: Mutex::default(),
            buffers: Arc::new(buffers),
            wake: Notify::new(),
            look_up: AtomicBool::new(false),
            progress: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            over: OnceLock::new(),
            given_up: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(driver::run(Arc::clone(&core)));
        Ok(core)
    }

    pub(super) fn committed(&self) -> bool {
        self.options.isolation == Isolation::ReadCommitted
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if let Some(over) = self.over.get() {
            return Err(over.clone());
        }
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        // A driver that came to an end by itself says why.
        match self.given_up.get().filter(|error| error.kind() == ErrorKind::Panic) {
            Some(error) => Err(error.clone().with_outcome(Outcome::NotSent)),
            None => Err(self.is_closed()),
        }
    }

    fn is_closed(&self) -> Error {
        Error::closed("producer").with_topic(self.topic.name()).with_outcome(Outcome::NotSent)
    }

    /// Why there is no room any more.
    pub(super) fn refusal(&self) -> Error {
        self.check_open().err().unwrap_or_else(|| self.is_closed())
    }

    /// The partitions of a producer that is open. Whoever closes it waits for this lock: what is accepted under it is seen.
    fn open_partitions(&self) -> Result<RwLockReadGuard<'_, Vec<Arc<Partition>>>> {
        let partitions = self.partitions.read();
        self.check_open()?;
        Ok(partitions)
    }

    /// Like `open_partitions`; a partition that the cluster has told of is among them. If this one is not, the cluster is
    /// asked for it once, for the next attempt.
    pub(super) fn partitions_with(
        &self,
        partition: Option<u32>,
    ) -> Result<RwLockReadGuard<'_, Vec<Arc<Partition>>>> {
        let partitions = self.open_partitions()?;
        let Some(index) = partition.filter(|index| *index as usize >= partitions.len()) else {
            return Ok(partitions);
        };
        drop(partitions);
        self.grow();
        let partitions = self.open_partitions()?;
        if (index as usize) < partitions.len() {
            return Ok(partitions);
        }
        self.look_up.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        let name = self.topic.name();
        let message = format!("topic {name:?} has no partition {index}, it has {}", partitions.len());
        let error = Error::new(ErrorKind::PartitionNotFound, message);
        Err(error.with_partition(name, index).with_outcome(Outcome::NotSent))
    }

    /// Takes in partitions that were added.
    pub(super) fn grow(&self) {
        let count = self.topic.partition_count();
        let mut partitions = self.partitions.write();
        let known = partitions.len() as u32;
        partitions.extend((known..count).map(|index| Arc::new(Partition::new(index))));
    }

    /// The partition of a record.
    pub(super) fn choose(&self, key: Option<&[u8]>, partitions: &[Arc<Partition>]) -> usize {
        self.partitioner.choose(key, partitions, self.shares.are_several().then(|| self.most()))
    }

    /// The batch of this partition is full or sent: whose turn is next.
    pub(super) fn pass(&self, from: usize, partitions: &[Arc<Partition>]) -> usize {
        self.partitioner.pass(from, partitions, self.shares.are_several().then(|| self.most()))
    }

    /// The queue for a record, locked. Without a key and a partition it is the one whose turn it is.
    pub(super) fn place<'a>(
        &self,
        partitions: &'a [Arc<Partition>],
        chosen: usize,
        sticks: bool,
        record_len: usize,
    ) -> (usize, MutexGuard<'a, Queue>) {
        let queue = partitions[chosen].queue.lock();
        if !sticks || partitions.len() == 1 || !queue.is_full_for(record_len) {
            return (chosen, queue);
        }
        drop(queue);
        let next = self.pass(chosen, partitions);
        (next, partitions[next].queue.lock())
    }

    /// Appends the records, and tells how many batches they began.
    pub(super) fn append(
        &self,
        partitions: &[Arc<Partition>],
        records: Many<'_>,
        accepted: usize,
        partition: Option<u32>,
        tally: &Arc<Tally>,
    ) -> usize {
        let timestamp = now();
        // Neighbours mostly go to the same partition: its lock is kept until another one's turn comes.
        let mut current: Option<(usize, MutexGuard<'_, Queue>, usize)> = None;
        let mut refused: Vec<(u32, Waiters, Error)> = Vec::new();
        let (mut at, mut batches) = (0, 0);
        for index in 0..accepted {
            let key = records.key_length(index).map(|length| &records.arena[at..at + length]);
            at += key.map_or(0, <[u8]>::len);
            let value = &records.arena[at..at + records.value_lengths[index] as usize];
            at += value.len();
            let chosen = match partition {
                Some(partition) => partition as usize,
                None => self.choose(key, partitions),
            };
            let room = key.map_or(0, <[u8]>::len) + value.len() + MANY_OVERHEAD;
            let sticks = partition.is_none() && key.is_none();
            let record_len = max_record_len(key, value);
            let goes_on = current.as_ref().is_some_and(|(locked, queue, _)| {
                *locked == chosen && !(sticks && queue.is_full_for(record_len))
            });
            if !goes_on {
                self.let_go(partitions, current.take());
                if partitions[chosen].is_away()
                    && let Err(error) = self.has_share(&partitions[chosen], room, None)
                {
                    self.room.release(room);
                    let mut waiters = Waiters::default();
                    waiters.push_many(tally, index as u32);
                    refused.push((chosen as u32, waiters, error));
                    continue;
                }
                let (locked, queue) = self.place(partitions, chosen, sticks, record_len);
                current = Some((locked, queue, 0));
            }
            let Some((_, queue, held)) = &mut current else { continue };
            *held += room;
            if queue.push(&self.buffers, (key, value), room, timestamp) {
                batches += 1;
                *held += BATCH_OVERHEAD;
            }
            queue.open_waiters().push_many(tally, index as u32);
        }
        self.let_go(partitions, current);
        if !refused.is_empty() {
            self.refused.lock().extend(refused);
            self.wake.notify_one();
        }
        batches
    }

    fn let_go(&self, partitions: &[Arc<Partition>], current: Option<(usize, MutexGuard<'_, Queue>, usize)>) {
        if let Some((locked, queue, held)) = current {
            queue.count(held);
            self.announce(&partitions[locked], queue);
        }
    }

    /// Tells the driver of a partition that has something to send, unless it knows.
    pub(super) fn announce(&self, partition: &Partition, mut queue: MutexGuard<'_, Queue>) {
        let wake = !std::mem::replace(&mut queue.known, true)
            || (queue.has_full() && std::mem::take(&mut queue.wake_when_full));
        drop(queue);
        if wake {
            self.dirty.lock().push(partition.index);
            self.wake.notify_one();
        }
    }

    /// Waits for room with everything else in line: nothing lingers meanwhile.
    pub(super) fn press(&self) -> Pressing<'_> {
        self.pressed.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        Pressing(self)
    }

    pub(super) async fn flush(&self) {
        let mut progress = self.progress.subscribe();
        let behind = self.buffers.next();
        for partition in self.partitions.read().iter() {
            let mut queue = partition.queue.lock();
            queue.seal();
            if !queue.is_empty() {
                self.announce(partition, queue);
            }
        }
        // Once the driver has ended nothing more is told. The sender is in `self`: it cannot be gone.
        while !self.buffers.are_told(behind) && !*self.ended.borrow() && progress.changed().await.is_ok() {}
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.refuse();
        let over = *self.ended.borrow();
        let timeout = self.cluster.close_timeout;
        let flushed = tokio::time::timeout(timeout, self.flush()).await;
        let undelivered: u64 = if flushed.is_ok() { 0 } else { self.undelivered() };
        let name = self.topic.name();
        let message = format!(
            "{undelivered} records of topic {name:?} were not acknowledged within {} ms",
            timeout.as_millis()
        );
        if undelivered > 0 {
            let error = Error::new(ErrorKind::Timeout, message).with_topic(name);
            // The driver fails what waits and what is unanswered, and ends.
            let _ = self.given_up.set(error.with_detail("undelivered", undelivered));
        }
        self.end();
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
        // To all who closed it meanwhile, whichever of them gave up. Who comes later has nothing to close.
        match self.given_up.get() {
            Some(error) if error.kind() == ErrorKind::Panic => Err(error.clone()),
            // Each record was told its own outcome.
            Some(error) if !over => Err(error.clone().with_outcome(Outcome::Unknown)),
            _ => Ok(()),
        }
    }

    fn undelivered(&self) -> u64 {
        self.partitions.read().iter().map(|partition| partition.queue.lock().undelivered()).sum()
    }

    /// From here on, no record is accepted and nobody waits for room.
    pub(super) fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
        self.close_room();
        // A send that saw the producer open holds this lock: behind this line its records are in their queues.
        drop(self.partitions.write());
    }

    /// Nothing is accepted any more: whoever waits for room learns why.
    pub(super) fn close_room(&self) {
        self.room.free.close();
        self.shares.tell();
    }

    /// Lets the driver end once the queues are empty.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Tells everyone who waits for a batch. It counts as told only afterwards: whoever flushes may rely on the handlers
    /// having been called.
    pub(super) fn tell(&self, partition: &Partition, waiting: Waiting, fate: Result<i64>) {
        waiting.waiters.resolve(partition.index, fate);
        partition.queue.lock().told(waiting.records);
        self.buffers.told(waiting.number);
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

pub(super) fn now() -> i64 {
    // A clock before 1970 gives no timestamp.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |elapsed| elapsed.as_millis() as i64)
}
