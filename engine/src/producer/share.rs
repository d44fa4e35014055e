//! The records of one SPU take half of the buffer at most, where the partitions lie on more than one: whatever becomes of an
//! SPU, records for the others find room.
//!
//! Invariants: the line holds always, because nobody knows beforehand which SPU will fall silent, and what it has taken is not
//! taken back. Whoever meets it is told that there is no room, and waits in line with all who want some ([`Shares::line_up`]):
//! until what they reserve fits into the half of every SPU, for it is not said where it goes; one that is away holds up nobody.
//! Records for one that is away are refused at the line, as long as another is not away. Records without a key go elsewhere.
//! What may pass the line: a record that meets nothing else, a batch of records without a key, and what batches take besides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::Many;
use super::core::Core;
use super::partition::Partition;
use super::room::Room;
use crate::error::{Error, ErrorKind, Outcome, Result};

/// What the records of one SPU take of the buffer.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) held: AtomicUsize,
    pub(super) away: AtomicBool,
    /// A record for it was told to wait, or it keeps the first one in line waiting: as long as there is a line, others join it.
    crowded: AtomicBool,
}

/// The shares of all SPUs that lead partitions of a producer's topic.
#[derive(Debug, Default)]
pub(super) struct Shares {
    all: RwLock<Vec<Arc<Share>>>,
    /// Whether they are more than one: else there is no line to keep.
    several: AtomicBool,
    /// Bytes that were waited for and are not used yet: they may all be meant for one SPU.
    reserved: AtomicUsize,
    /// How many stand in line.
    waiting: AtomicUsize,
    /// The first one in line has it.
    line: tokio::sync::Mutex<()>,
    changed: Notify,
}

/// Bytes that were waited for. Dropped once they are used, or no longer wanted.
#[derive(Debug)]
pub(super) struct Reserved {
    shares: Arc<Shares>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shares.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        self.shares.tell();
    }
}

/// Counts one who stands in line.
struct InLine<'a>(&'a Shares);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shares {
    /// The SPUs that lead partitions now.
    pub(super) fn set(&self, all: Vec<Arc<Share>>) {
        self.several.store(all.len() > 1, Ordering::Relaxed);
        *self.all.write() = all;
        self.tell();
    }

    /// Something was given back, or an SPU is away, or is there again.
    pub(super) fn tell(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn are_several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// Whether so much more would pass the line.
    fn is_full(&self, share: &Share, bytes: usize, most: usize) -> bool {
        let held = share.held.load(Ordering::Relaxed).saturating_add(self.reserved.load(Ordering::Relaxed));
        held > 0 && held.saturating_add(bytes) > most
    }

    /// The same for whoever has not waited.
    fn has_to_wait(&self, share: &Share, bytes: usize, most: usize) -> bool {
        let in_line = share.crowded.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) > 0;
        let wait = in_line || self.is_full(share, bytes, most);
        share.crowded.store(wait, Ordering::Relaxed);
        wait
    }

    /// Whether so much may go to whichever SPU. Where it may not, nobody passes whoever waits for it.
    fn passes(&self, bytes: usize, most: usize) -> bool {
        let mut passes = true;
        if self.are_several() {
            for share in self.all.read().iter() {
                if !share.away.load(Ordering::Relaxed) && self.is_full(share, bytes, most) {
                    share.crowded.store(true, Ordering::Relaxed);
                    passes = false;
                }
            }
        }
        passes
    }

    fn reserve(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reserved { shares: Arc::clone(self), bytes }
    }

    /// Waits, first come first served, until so much may go to whichever SPU.
    pub(super) async fn line_up(self: &Arc<Self>, core: &Core, bytes: usize) -> Reserved {
        let most = core.most();
        if self.waiting.load(Ordering::Relaxed) == 0 && self.passes(bytes, most) {
            return self.reserve(bytes);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _in_line = InLine(self);
        let _pressing = core.press();
        let _first = self.line.lock().await;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if core.room.free.is_closed() || self.passes(bytes, most) {
                return self.reserve(bytes);
            }
            changed.await;
        }
    }
}

impl Core {
    /// The most that the records of one SPU may take where there are several.
    pub(super) fn most(&self) -> usize {
        self.options.buffer_bytes / 2
    }

    /// Whether a record for this partition finds room in the share of its SPU; false: it has to wait. One that has waited
    /// passes. An error if its SPU cannot be reached and others can: then waiting may last.
    pub(super) fn has_share(&self, partition: &Partition, bytes: usize, room: Option<&Room>) -> Result<bool> {
        if !partition.is_away() {
            return Ok(room.is_some()
                || !self.shares.are_several()
                || !self.shares.has_to_wait(&partition.queue.lock().share, bytes, self.most()));
        }
        let held = partition.held();
        if held.saturating_add(bytes) <= self.most()
            || self.partitions.read_recursive().iter().all(|other| other.is_away())
        {
            return Ok(true);
        }
        let name = self.topic.name();
        let spu = self.topic.leader(partition.index);
        let who = spu
            .as_ref()
            .map_or("nobody leads it".to_owned(), |spu| format!("SPU {} cannot be reached", spu.id));
        let message = format!(
            "no room for partition {} of topic {name:?}: {who}, and {held} bytes wait for it, half of the buffer of {}",
            partition.index, self.options.buffer_bytes
        );
        let error = Error::new(ErrorKind::Connection, message).with_partition(name, partition.index);
        let error = match &spu {
            Some(spu) => error.with_spu(spu.id, &spu.address),
            None => error,
        };
        Err(error.with_outcome(Outcome::NotSent))
    }

    /// How much of a `send_many` finds room in the shares of the SPUs where its records may go, if all go to one; 0: it has to
    /// wait. Those for an SPU that is away are looked at one by one.
    pub(super) fn share_for_many(
        &self,
        records: Many<'_>,
        partition: Option<&Partition>,
        room: Option<&Room>,
    ) -> Result<usize> {
        if records.len() == 0 {
            return Ok(usize::MAX);
        }
        let (first, most) = (records.room(0), self.most());
        if let Some(partition) = partition
            && !self.has_share(partition, first, room)?
        {
            return Ok(0);
        }
        let without_keys = partition.is_none() && records.key_lengths.is_none();
        if room.is_some() || without_keys || !self.shares.are_several() {
            return Ok(usize::MAX);
        }
        let all = self.shares.all.read();
        let chosen = partition.map(|partition| Arc::clone(&partition.queue.lock().share));
        let mut found = usize::MAX;
        for share in chosen.as_ref().map_or(&all[..], std::slice::from_ref) {
            if share.away.load(Ordering::Relaxed) {
                continue;
            }
            if self.shares.has_to_wait(share, first, most) {
                return Ok(0);
            }
            let held = share.held.load(Ordering::Relaxed) + self.shares.reserved.load(Ordering::Relaxed);
            found = found.min(most.saturating_sub(held).max(first));
        }
        Ok(found)
    }
}
