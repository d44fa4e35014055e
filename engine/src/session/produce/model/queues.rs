//! The records that gather in the model, by partition, and who leads it: what the machine looks at.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::session::produce::{Front, Outside, Parcel};

/// Records that a batch holds at most.
pub(super) const BATCH: usize = 3;

#[derive(Debug, Clone)]
pub(in super::super) struct Batch {
    pub(super) first: u64,
    pub(super) records: Vec<u64>,
    pub(super) opened: Instant,
    pub(super) told: bool,
}

impl Parcel for Batch {
    type Waiters = Vec<u64>;

    fn first(&self) -> u64 {
        self.first
    }

    fn records(&self) -> u32 {
        self.records.len() as u32
    }

    fn len(&self) -> usize {
        100 * self.records.len()
    }

    fn opened(&self) -> Instant {
        self.opened
    }

    fn waiters(&mut self) -> Vec<u64> {
        assert!(!std::mem::replace(&mut self.told, true), "told twice");
        self.records.clone()
    }
}

/// The records that gather for one partition, and who leads it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) batches: VecDeque<Batch>,
    pub(super) known: bool,
    pub(super) wake_when_full: bool,
    pub(super) leader: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) of: Vec<Queue>,
    /// When the server got to requests whose connection knows.
    pub(super) turns: HashMap<u64, Instant>,
    /// Requests whose answer was lost while the connection went on.
    pub(super) left_out: Vec<u64>,
}

impl Outside for Queues {
    type Batch = Batch;

    fn look(&mut self, partition: u32) -> Option<Front> {
        let queue = &mut self.of[partition as usize];
        let full = queue.batches.len() > 1;
        let front = queue.batches.front().map(|batch| Front {
            opened: batch.opened,
            len: batch.len(),
            full: full || batch.records.len() == BATCH,
        });
        queue.known = front.is_some();
        front
    }

    fn announce_when_full(&mut self, partition: u32) -> bool {
        self.of[partition as usize].wake_when_full = true;
        true
    }

    fn take(&mut self, partition: u32) -> Option<Batch> {
        self.of[partition as usize].batches.pop_front()
    }

    fn leader(&self, partition: u32) -> Option<i32> {
        self.of[partition as usize].leader
    }

    fn turn(&self, request: u64) -> Option<Instant> {
        self.turns.get(&request).copied()
    }

    fn is_left_out(&self, request: u64) -> bool {
        self.left_out.contains(&request)
    }
}
