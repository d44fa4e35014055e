//! Where the driver puts batches and the consumer takes them: in turn, and able to say when there is something.
//!
//! What waits here is bounded by the budget: each batch carries what it was charged until it is taken, not until it is
//! freed.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Batch, Taken};
use crate::budget::Charge;
use crate::error::{Error, Result};

/// Batches that wait to be taken.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Whether there is something to take.
    filled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    partitions: HashMap<u32, Waiting>,
    /// Partitions that have something, in turn.
    turns: VecDeque<u32>,
    /// Partitions that are still fetched.
    live: usize,
    /// Whether the consumer as a whole has ended.
    ended: bool,
    /// Why; told once, after all batches.
    error: Option<Error>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<(Batch, Option<Charge>)>,
    /// Why the partition ended; told after its batches.
    error: Option<Error>,
    queued: bool,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Buffer { state: Mutex::default(), filled: watch::Sender::new(false) }
    }

    /// A partition begins.
    pub(super) fn add(&self, partition: u32) {
        let mut state = self.state.lock();
        state.live += 1;
        state.partitions.entry(partition).or_default();
        // If all others have ended, there is no longer an end to tell.
        if state.turns.is_empty() && !state.closed {
            self.filled.send_if_modified(|filled| std::mem::replace(filled, false));
        }
    }

    /// Puts a batch in.
    pub(super) fn push(&self, batch: Batch, charge: Option<Charge>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let partition = batch.partition;
        state.partitions.entry(partition).or_default().batches.push_back((batch, charge));
        self.enqueue(state, partition);
    }

    /// A partition ends with an error.
    pub(super) fn fail(&self, partition: u32, error: Error) {
        let mut state = self.state.lock();
        if state.closed || state.ended {
            return;
        }
        state.live -= 1;
        state.partitions.entry(partition).or_default().error = Some(error);
        self.enqueue(state, partition);
    }

    /// The consumer as a whole ends with an error, after what was put in before.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state.lock();
        if state.closed || std::mem::replace(&mut state.ended, true) {
            return;
        }
        state.live = 0;
        state.error = Some(error);
        self.filled.send_if_modified(|filled| !std::mem::replace(filled, true));
    }

    fn enqueue(&self, mut state: parking_lot::MutexGuard<'_, State>, partition: u32) {
        let waiting = state.partitions.entry(partition).or_default();
        if !std::mem::replace(&mut waiting.queued, true) {
            state.turns.push_back(partition);
        }
        self.filled.send_if_modified(|filled| !std::mem::replace(filled, true));
    }

    /// Completes once [`Buffer::take`] has something to tell.
    pub(super) async fn wait(&self) {
        // The sender is in `self`: it cannot be gone.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    pub(super) fn take(&self) -> Result<Taken> {
        // Dropped behind the lock: the end of a charge lets others in.
        let mut taken_charge = None;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Error::closed("consumer"));
        }
        let Some(partition) = state.turns.pop_front() else {
            return match state.error.take() {
                Some(error) => Err(error),
                None if state.live == 0 => Ok(Taken::End),
                None => Ok(Taken::Empty),
            };
        };
        let waiting = state.partitions.entry(partition).or_default();
        let outcome = match waiting.batches.pop_front() {
            Some((batch, charge)) => {
                taken_charge = charge;
                Ok(Taken::Batch(batch))
            }
            None => waiting.error.take().map_or(Ok(Taken::Empty), Err),
        };
        waiting.queued = !waiting.batches.is_empty() || waiting.error.is_some();
        if waiting.queued {
            state.turns.push_back(partition);
        } else if waiting.batches.capacity() > 0 {
            waiting.batches = VecDeque::new();
        }
        // Once all partitions have ended there is always something to tell: the end.
        if state.turns.is_empty() && state.live > 0 {
            self.filled.send_if_modified(|filled| std::mem::replace(filled, false));
        }
        drop(guard);
        drop(taken_charge);
        outcome
    }

    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.closed = true;
            state.turns.clear();
            std::mem::take(&mut state.partitions)
        };
        drop(dropped);
        self.filled.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use bytes::Bytes;
    use wire::view::RecordColumns;

    fn batch(partition: u32, bytes: usize) -> Batch {
        Batch {
            partition,
            high_watermark: 0,
            data: Bytes::from(vec![0; bytes]),
            columns: RecordColumns::default(),
        }
    }

    fn partition_of(taken: Result<Taken>) -> Option<u32> {
        match taken {
            Ok(Taken::Batch(batch)) => Some(batch.partition),
            _ => None,
        }
    }

    #[test]
    fn partitions_take_turns_and_errors_come_last() {
        let buffer = Buffer::new();
        buffer.add(0);
        buffer.add(1);
        for partition in [0, 0, 1] {
            buffer.push(batch(partition, 10), None);
        }
        buffer.fail(0, Error::new(ErrorKind::Corrupt, "bad"));
        assert_eq!(partition_of(buffer.take()), Some(0));
        assert_eq!(partition_of(buffer.take()), Some(1));
        assert_eq!(partition_of(buffer.take()), Some(0));
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(matches!(buffer.take(), Ok(Taken::Empty)));
        buffer.fail(1, Error::new(ErrorKind::OffsetEvicted, "gone"));
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::OffsetEvicted);
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        buffer.close();
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn the_end_of_all_is_told_once_and_last() {
        let buffer = Buffer::new();
        buffer.add(0);
        buffer.add(1);
        buffer.push(batch(1, 10), None);
        buffer.end(Error::new(ErrorKind::TopicDeleted, "gone"));
        buffer.end(Error::new(ErrorKind::TopicDeleted, "gone again"));
        buffer.wait().await;
        assert_eq!(partition_of(buffer.take()), Some(1));
        buffer.wait().await;
        assert_eq!(buffer.take().unwrap_err().message(), "gone");
        buffer.wait().await;
        assert!(matches!(buffer.take(), Ok(Taken::End)));
    }

    #[tokio::test]
    async fn what_is_taken_is_no_longer_charged() {
        let budget = crate::budget::Budget::new(1000);
        let buffer = Buffer::new();
        buffer.add(0);
        let mut charge = budget.admit(2000).await;
        assert!(charge.decode(0));
        buffer.push(batch(0, 1), Some(charge));
        let mut next = std::pin::pin!(budget.admit(1000));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        let taken = buffer.take();
        assert!(futures_util::poll!(next).is_ready());
        drop(taken);
    }

    #[tokio::test]
    async fn ready_is_level_triggered() {
        let buffer = Buffer::new();
        buffer.add(0);
        buffer.push(batch(0, 1), None);
        buffer.wait().await;
        buffer.wait().await;
        buffer.take().unwrap();
        let timeout = tokio::time::timeout(std::time::Duration::from_millis(1), buffer.wait());
        assert!(timeout.await.is_err());
        buffer.close();
        buffer.wait().await;
    }

    #[tokio::test]
    async fn a_partition_that_comes_after_the_end_is_waited_for() {
        let buffer = Buffer::new();
        buffer.add(0);
        buffer.fail(0, Error::new(ErrorKind::Corrupt, "bad"));
        buffer.take().unwrap_err();
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        buffer.add(1);
        let wait = buffer.wait();
        tokio::pin!(wait);
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
        buffer.push(batch(1, 10), None);
        wait.await;
    }
}
