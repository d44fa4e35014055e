//! The producer: batches built while records arrive, one bounded buffer, every record's fate reported.
//!
//! What holds: a record that was accepted is sent or its error is reported, exactly once, also when the producer is
//! dropped; records of one partition keep their order, under retry too as long as `in_flight` is 1; where there is no
//! room nothing is copied. After a retry a record can be in the log twice: the server may have written a request whose
//! answer was lost. The records of one SPU take at most half of the buffer where there are several (`share.rs`).
//!
//! What is sent to servers, when and what follows is decided by a machine without I/O (`session/produce`).

mod core;
mod driver;
mod handlers;
mod options;
mod partition;
mod partitioner;
mod request;
mod room;
mod share;
mod view;

use std::sync::{Arc, Weak};

use wire::builder::max_record_len;

pub use handlers::{Ack, AckHandler, Deliveries, DeliveriesHandler};
pub use options::{Isolation, ProducerOptions};
pub use room::{BATCH_OVERHEAD, CALL_OVERHEAD, MANY_OVERHEAD, RECORD_OVERHEAD, Room};

use self::core::{Core, now};
use self::room::{CallRoom, Offer, record_room};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use handlers::Tally;

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

impl Producer {
    pub(crate) async fn open(cluster: Arc<Cluster>, topic: &str, options: ProducerOptions) -> Result<Self> {
        let core = Core::open(cluster, topic, options).await?;
        Ok(Producer { handle: Arc::new(Handle { core }) })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.handle.core.topic.name()
    }

    /// Partitions of the topic as far as they are known. Partitions that are added later are picked up.
    pub fn partition_count(&self) -> u32 {
        self.handle.core.partitions.read().len() as u32
    }

    /// Bytes that records without a fate may take: keys, values, and [`RECORD_OVERHEAD`] per record, or
    /// [`MANY_OVERHEAD`] per record and [`CALL_OVERHEAD`] per call; and [`BATCH_OVERHEAD`] per batch.
    pub fn buffer_bytes(&self) -> usize {
        self.handle.core.options.buffer_bytes
    }

    /// The most bytes that key and value of one record can have together.
    pub fn max_record_bytes(&self) -> usize {
        self.handle.core.max_record_bytes()
    }

    /// Waits, first come first served, until `bytes` are free, and what a batch takes besides, and keeps them for the caller.
    /// Dropping the future gives up the place in the queue and reserves nothing.
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
        let bytes = bytes.saturating_add(BATCH_OVERHEAD).min(core.options.buffer_bytes);
        let share = core.shares.line_up(core, bytes).await;
        let acquire = Arc::clone(&core.room.free).acquire_many_owned(bytes as u32);
        let permit = {
            let _pressing = (core.room.free.available_permits() < bytes).then(|| core.press());
            acquire.await
        };
        permit.map(|permit| Room { permit, owner, _share: share }).map_err(|_| core.refusal())
    }

    /// Hands a record over. Never blocks.
    ///
    /// `key` of `None` is no key, which is not an empty one. Without a `partition` the key's hash chooses; records without
    /// a key stay in one partition until its batch is full or sent, then go to the next that can be reached. `room` of a former [`Producer::reserve`] is used first and taken if the record is.
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
        core.check_owner(room.as_ref())?;
        let partitions = core.partitions_with(partition)?;
        let chosen = match partition {
            Some(index) => index as usize,
            None => core.choose(key, &partitions),
        };
        let bytes = record_room(key, value);
        let sticks = partition.is_none() && key.is_none();
        if !sticks && !core.has_share(&partitions[chosen], bytes, room.as_ref())? {
            return Ok(Sent::Full);
        }
        let Some(offer) = Offer::find(&core.room, room.as_ref(), bytes) else {
            return Ok(Sent::Full);
        };
        let handler = handler()?;
        let (chosen, mut queue) = core.place(&partitions, chosen, sticks, max_record_len(key, value));
        let batches = usize::from(queue.push(&core.buffers, (key, value), bytes, now()));
        queue.open_waiters().push_one(handler);
        queue.count(bytes + batches * BATCH_OVERHEAD);
        core.announce(&partitions[chosen], queue);
        offer.take(&core.room, room, batches);
        Ok(Sent::Accepted)
    }

    /// Hands over as many of the records as there is room for, in their order, and returns how many: 0 is "full".
    ///
    /// Like [`Producer::send`] otherwise, but a record takes [`MANY_OVERHEAD`] of room besides its key and value, the call
    /// [`CALL_OVERHEAD`] until all of them have their fate, and a record that is refused because its SPU cannot be reached
    /// fails by itself, not the others. `handler` gets the number accepted and is told the fate of all of them at once.
    pub fn send_many(
        &self,
        room: &mut Option<Room>,
        records: Many<'_>,
        partition: Option<u32>,
        handler: impl FnOnce(usize) -> Result<Box<dyn DeliveriesHandler>>,
    ) -> Result<usize> {
        let core = &self.handle.core;
        records.check(core)?;
        core.check_owner(room.as_ref())?;
        let partitions = core.partitions_with(partition)?;
        let most =
            core.share_for_many(records, partition.map(|index| &*partitions[index as usize]), room.as_ref())?;
        let targets = if partition.is_some() { 1 } else { partitions.len() };
        let limit = core.buffers.limit_with(targets);
        let (accepted, offer) = records.offer(&core.room, room.as_ref(), (targets, limit), most);
        let Some(offer) = offer else { return Ok(0) };
        let handler = handler(accepted)?;
        let tally = Tally::new(accepted, handler, CallRoom::of(&core.room));
        let batches = core.append(&partitions, records, accepted, partition, &tally);
        offer.take(&core.room, room, batches);
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
#[derive(Debug, Clone)]
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
