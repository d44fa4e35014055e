//! Room: what records take of the buffer, and how it is kept and given back.
//!
//! What is charged is what the memory of a record really is, at most: its bytes in the batch and what a growing buffer keeps
//! besides, its handler, and what the border keeps for its completion; and of a batch what it takes however little is in it.
//! So the resident memory of a process stays within the buffer's size and 4 MiB, whatever the records, and however they are
//! spread over batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::core::Core;
use super::share::Reserved;
use super::{Many, NO_KEY};
use crate::error::{Error, ErrorKind, Result};

/// Room that a record takes at most besides its key and value: one that is sent by itself takes it, because its handler
/// and its completion take more memory than a short record does. A record of [`super::Producer::send_many`] takes less
/// ([`MANY_OVERHEAD`]).
pub const RECORD_OVERHEAD: usize = 288;

/// Room that a record of [`super::Producer::send_many`] takes besides its key and value.
pub const MANY_OVERHEAD: usize = 64;

/// Room that a [`super::Producer::send_many`] takes besides its records, until all of them have their fate: its handler, its
/// completion and its columns. With one record it takes what that record by itself does, so room for one is enough.
pub const CALL_OVERHEAD: usize = RECORD_OVERHEAD - MANY_OVERHEAD;

/// Room that a batch takes besides its records, from its first record until nothing refers to it any more: its header, its
/// place in line, who is told, and what blocks are rounded up by. Reserved room has it besides for one batch.
pub const BATCH_OVERHEAD: usize = 320;

/// The room of one producer.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) free: Arc<Semaphore>,
    /// What batches took that was not free: whether a record begins one is known only when it is too late to refuse it.
    /// Paid back before anything is free again, so it never grows beyond what those take who are in the middle of a call.
    owed: AtomicUsize,
}

impl Account {
    pub(super) fn new(bytes: usize) -> Self {
        Account { free: Arc::new(Semaphore::new(bytes)), owed: AtomicUsize::new(0) }
    }

    /// Takes so much, whether it is there or not.
    pub(super) fn charge(&self, bytes: usize) {
        let missing = bytes - self.free.forget_permits(bytes);
        self.owed.fetch_add(missing, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        let pays = |owed: usize| Some(owed.saturating_sub(bytes));
        // It never refuses: the former value comes either way.
        let (Ok(owed) | Err(owed)) = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pays);
        self.free.add_permits(bytes.saturating_sub(owed));
    }

    /// So much was taken for batches, and this is what they take.
    fn settle(&self, taken: usize, needed: usize) {
        match taken.checked_sub(needed) {
            Some(rest) => self.release(rest),
            None => self.charge(needed - taken),
        }
    }
}

/// Reserved room in the buffer of one producer. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) owner: Weak<Core>,
    /// It may go to whichever SPU.
    pub(super) _share: Reserved,
}

/// Room for records that are not yet certain to be accepted. Dropping it leaves everything as it was.
#[derive(Debug)]
pub(super) struct Offer {
    /// How much of it comes from what the caller reserved.
    reserved: usize,
    /// The rest.
    fresh: Option<OwnedSemaphorePermit>,
    /// How much of all is for batches that the records may begin.
    batches: usize,
}

impl Offer {
    /// Room for `bytes`, from what the caller reserved first; `None` if there is not enough, or never will
    /// be: whoever waits for it learns why.
    pub(super) fn find(account: &Account, room: Option<&Room>, bytes: usize) -> Option<Offer> {
        let reserved = reserved_in(room).min(bytes);
        let missing = bytes - reserved;
        if missing == 0 {
            return Some(Offer { reserved, fresh: None, batches: 0 });
        }
        let permit = Arc::clone(&account.free).try_acquire_many_owned(u32::try_from(missing).ok()?).ok()?;
        Some(Offer { reserved, fresh: Some(permit), batches: 0 })
    }

    /// The records were accepted and began so many batches: the caller's room is used up, and what is left of it is free again.
    pub(super) fn take(self, account: &Account, room: &mut Option<Room>, batches: usize) {
        let needed = batches * BATCH_OVERHEAD;
        let mut taken = self.batches;
        if let Some(fresh) = self.fresh {
            fresh.forget();
        }
        if let Some(mut room) = room.take() {
            // Before what is left becomes free for others.
            let more = needed.saturating_sub(taken).min(room.permit.num_permits() - self.reserved);
            if let Some(used) = room.permit.split(self.reserved + more) {
                used.forget();
                taken += more;
            }
        }
        account.settle(taken, needed);
    }
}

/// What a `send_many` takes of the room besides its records. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct CallRoom(Arc<Account>);

impl CallRoom {
    /// Of an offer that was made for it and is taken.
    pub(super) fn of(account: &Arc<Account>) -> Self {
        CallRoom(Arc::clone(account))
    }
}

impl Drop for CallRoom {
    fn drop(&mut self) {
        self.0.release(CALL_OVERHEAD);
    }
}

pub(super) fn reserved_in(room: Option<&Room>) -> usize {
    room.map_or(0, |room| room.permit.num_permits())
}

/// What a record that is sent by itself takes.
pub(super) fn record_room(key: Option<&[u8]>, value: &[u8]) -> usize {
    key.map_or(0, <[u8]>::len).saturating_add(value.len()).saturating_add(RECORD_OVERHEAD)
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

    /// What a record takes.
    pub(super) fn room(&self, index: usize) -> usize {
        self.length(index).saturating_add(MANY_OVERHEAD)
    }

    /// Bytes of key and value; what does not fit into a length is too long for everything.
    fn length(&self, index: usize) -> usize {
        (self.value_lengths[index] as usize).saturating_add(self.key_length(index).unwrap_or(0))
    }

    pub(super) fn check(&self, core: &Core) -> Result<()> {
        if let Some(keys) = self.key_lengths
            && keys.len() != self.len()
        {
            return Err(Error::invalid(format!("{} key lengths for {} values", keys.len(), self.len())));
        }
        if u32::try_from(self.len()).is_err() {
            return Err(Error::invalid(format!("{} records: 4294967295 at a time are the most", self.len())));
        }
        let mut total = 0usize;
        for index in 0..self.len() {
            let length = self.length(index);
            core.check_length(length).map_err(|error| error.with_detail("record", index))?;
            total = total
                .checked_add(length)
                .ok_or_else(|| Error::invalid("the lengths add up to more than there can be"))?;
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

    /// How many of the first records fit into `available` bytes, the bytes that they and the call take, and how many of these
    /// are for batches. They may go to so many partitions, in batches of this limit, and take the `most` themselves.
    fn fitting(
        &self,
        available: usize,
        (partitions, limit): (usize, usize),
        most: usize,
    ) -> (usize, usize, usize) {
        let mut fitting = (0, 0, 0);
        let mut needed = CALL_OVERHEAD;
        for index in 0..self.len() {
            needed = needed.saturating_add(self.room(index));
            // One for each partition; and two of one partition that follow each other hold more than the limit.
            let batches = (partitions + needed / limit * 2).min(index + 1) * BATCH_OVERHEAD;
            // Room for one record is enough for one, even if it is all that there is.
            let batches = if index == 0 { batches.min(available.saturating_sub(needed)) } else { batches };
            if needed.saturating_add(batches) > available || needed - CALL_OVERHEAD > most {
                break;
            }
            fitting = (index + 1, needed + batches, batches);
        }
        fitting
    }

    /// Room for as many of the first records as there is room for; 0 only if there is none for the first.
    pub(super) fn offer(
        &self,
        account: &Account,
        room: Option<&Room>,
        (partitions, limit): (usize, usize),
        most: usize,
    ) -> (usize, Option<Offer>) {
        loop {
            let available = reserved_in(room).saturating_add(account.free.available_permits());
            let (accepted, needed, batches) = self.fitting(available, (partitions, limit), most);
            if accepted == 0 || account.free.is_closed() {
                return (0, None);
            }
            if let Some(offer) = Offer::find(account, room, needed) {
                return (accepted, Some(Offer { batches, ..offer }));
            }
            // Someone else was faster: plans anew with what is left.
        }
    }
}

impl Core {
    /// Room of one producer is none of another.
    pub(super) fn check_owner(&self, room: Option<&Room>) -> Result<()> {
        match room {
            Some(room) if !std::ptr::eq(room.owner.as_ptr(), self) => {
                Err(Error::invalid("the room was reserved at another producer"))
            }
            _ => Ok(()),
        }
    }

    /// The most that key and value of one record can have together.
    pub(super) fn max_record_bytes(&self) -> usize {
        let around = wire::builder::EMPTY_LEN + wire::builder::max_record_len(None, &[]);
        let request = self.options.max_request_size_bytes.saturating_sub(around);
        request.min(self.options.buffer_bytes.saturating_sub(RECORD_OVERHEAD))
    }

    pub(super) fn check_size(&self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        self.check_length(key.map_or(0, <[u8]>::len).saturating_add(value.len()))
    }

    pub(super) fn check_length(&self, length: usize) -> Result<()> {
        let batch = wire::builder::EMPTY_LEN
            .saturating_add(wire::builder::max_record_len(None, &[]))
            .saturating_add(length);
        let (request, buffer) = (self.options.max_request_size_bytes, self.options.buffer_bytes);
        if batch > request {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {length} bytes needs {batch} in a request, {request} are allowed: raise max_request_size_bytes"
                ),
            ));
        }
        let room = length.saturating_add(RECORD_OVERHEAD);
        if room > buffer {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {length} bytes takes {room} of the buffer, which has {buffer}: raise buffer_bytes"
                ),
            ));
        }
        Ok(())
    }
}
