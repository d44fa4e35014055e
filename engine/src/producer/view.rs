//! What the machine of a producer looks at: what gathers for the partitions, who leads them, and whose turn it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::partition::{Batch, Partition};
use crate::link::Turn;
use crate::session::produce::{Front, Outside};

/// What the machine looks at.
pub(super) struct View {
    pub(super) core: Arc<Core>,
    pub(super) partitions: Vec<Arc<Partition>>,
    pub(super) leaders: Vec<Option<i32>>,
    /// Of the requests that are unanswered.
    pub(super) turns: HashMap<u64, Turn>,
}

impl Outside for View {
    type Batch = Batch;

    fn look(&mut self, partition: u32) -> Option<Front> {
        let mut queue = self.partitions[partition as usize].queue.lock();
        let front = queue.front();
        queue.known = front.is_some();
        front
    }

    fn announce_when_full(&mut self, partition: u32) -> bool {
        let mut queue = self.partitions[partition as usize].queue.lock();
        queue.wake_when_full = !queue.has_full();
        queue.wake_when_full
    }

    fn take(&mut self, partition: u32) -> Option<Batch> {
        let popped = self.partitions[partition as usize].queue.lock().pop();
        let (open, was_open) = popped?;
        if was_open {
            // Records without a key go on with the next partition.
            self.core.pass(partition as usize, &self.partitions);
        }
        Some((*open).sealed())
    }

    fn leader(&self, partition: u32) -> Option<i32> {
        self.leaders.get(partition as usize).copied().flatten()
    }

    fn turn(&self, request: u64) -> Option<Instant> {
        self.turns.get(&request).map(|turn| turn.begun().into_std())
    }

    fn is_left_out(&self, request: u64) -> bool {
        self.turns.get(&request).is_some_and(Turn::is_left_out)
    }
}
