//! Room: what records take of the buffer, and how it is kept and given back.
//!
//! What is charged is what the memory of a record really is, at most: its bytes in the batch and what a growing buffer keeps
//! besides, its handler, and what the border keeps for its completion. So the resident memory of a process stays within
//! the buffer's size and 4 MiB, whatever the records.

use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::core::Core;
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

/// Reserved room in the buffer of one producer. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) owner: Weak<Core>,
}

/// Room for records that are not yet certain to be accepted. Dropping it leaves everything as it was.
#[derive(Debug)]
pub(super) struct Offer {
    /// How much of it comes from what the caller reserved.
    reserved: usize,
    /// The rest.
    fresh: Option<OwnedSemaphorePermit>,
}

impl Offer {
    /// Room for `bytes`, from what the caller reserved first; `None` if there is not enough, or never will
    /// be: whoever waits for it learns why.
    pub(super) fn find(free: &Arc<Semaphore>, room: Option<&Room>, bytes: usize) -> Option<Offer> {
        let reserved = reserved_in(room).min(bytes);
        let missing = bytes - reserved;
        if missing == 0 {
            return Some(Offer { reserved, fresh: None });
        }
        let permit = Arc::clone(free).try_acquire_many_owned(u32::try_from(missing).ok()?).ok()?;
        Some(Offer { reserved, fresh: Some(permit) })
    }

    /// The records were accepted: the caller's room is used up, and what is left of it is free again.
    pub(super) fn take(self, room: &mut Option<Room>) {
        if let Some(fresh) = self.fresh {
            fresh.forget();
        }
        if let Some(mut room) = room.take()
            && let Some(used) = room.permit.split(self.reserved)
        {
            used.forget();
        }
    }
}

/// What a `send_many` takes of the room besides its records. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct CallRoom(Arc<Semaphore>);

impl CallRoom {
    /// Of an offer that was made for it and is taken.
    pub(super) fn of(free: &Arc<Semaphore>) -> Self {
        CallRoom(Arc::clone(free))
    }
}

impl Drop for CallRoom {
    fn drop(&mut self) {
        self.0.add_permits(CALL_OVERHEAD);
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

    /// How many of the first records fit into `available` bytes, and the bytes that they and the call take.
    fn fitting(&self, available: usize) -> (usize, usize) {
        let mut needed = CALL_OVERHEAD;
        for index in 0..self.len() {
            let with = needed.saturating_add(self.length(index)).saturating_add(MANY_OVERHEAD);
            if with > available {
                return (index, needed);
            }
            needed = with;
        }
        (self.len(), needed)
    }

    /// Room for as many of the first records as there is room for; 0 only if there is none for the first.
    pub(super) fn offer(&self, free: &Arc<Semaphore>, room: Option<&Room>) -> (usize, Option<Offer>) {
        loop {
            let free_now = free.available_permits();
            let (accepted, needed) = self.fitting(reserved_in(room).saturating_add(free_now));
            if accepted == 0 || free.is_closed() {
                return (0, None);
            }
            if let Some(offer) = Offer::find(free, room, needed) {
                return (accepted, Some(offer));
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
