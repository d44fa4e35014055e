//! Where the fetch loops put batches and the consumer takes them: bounded, in turn, and able to say when there is
//! something.
//!
//! A batch counts against its partition's share until it is taken, not until it is freed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Batch, Taken};
use crate::error::{Error, Result};

/// What one answer of the server may hold.
const MIN_ANSWER: usize = 64 * 1024;
const MAX_ANSWER: usize = 1024 * 1024;

/// Batches that wait to be taken.
#[derive(Debug)]
pub(super) struct Buffer {
    prefetch: usize,
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
    closed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Why the partition ended; told after its batches.
    error: Option<Error>,
    queued: bool,
    /// Wakes the fetch loop when a batch was taken.
    taken: Arc<Notify>,
}

impl Buffer {
    pub(super) fn new(prefetch: usize) -> Self {
        Buffer { prefetch, state: Mutex::default(), filled: watch::Sender::new(false) }
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

    /// The most that the next answer of one partition should hold, in bytes.
    pub(super) fn answer_bytes(&self) -> usize {
        let live = self.state.lock().live.max(1);
        (self.prefetch / live).clamp(MIN_ANSWER, MAX_ANSWER)
    }

    /// Puts a batch in.
    pub(super) fn push(&self, batch: Batch) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let partition = batch.partition;
        let waiting = state.partitions.entry(partition).or_default();
        waiting.bytes += batch.data.len();
        waiting.batches.push_back(batch);
        self.enqueue(state, partition);
    }

    /// A partition ends with an error.
    pub(super) fn fail(&self, partition: u32, error: Error) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.live -= 1;
        state.partitions.entry(partition).or_default().error = Some(error);
        // The shares of the others have grown.
        for waiting in state.partitions.values() {
            waiting.taken.notify_one();
        }
        self.enqueue(state, partition);
    }

    fn enqueue(&self, mut state: parking_lot::MutexGuard<'_, State>, partition: u32) {
        let waiting = state.partitions.entry(partition).or_default();
        if !std::mem::replace(&mut waiting.queued, true) {
            state.turns.push_back(partition);
        }
        self.filled.send_if_modified(|filled| !std::mem::replace(filled, true));
    }

    /// Waits until the partition may receive another answer of `answer` bytes.
    pub(super) async fn room(&self, partition: u32, answer: usize) {
        let taken = Arc::clone(&self.state.lock().partitions.entry(partition).or_default().taken);
        while !self.has_room(partition, answer) {
            // Keeps a permit if the batch is taken between the check and the wait.
            taken.notified().await;
        }
    }

    fn has_room(&self, partition: u32, answer: usize) -> bool {
        self.has_room_for(partition, 0, answer)
    }

    /// Whether the partition may receive another answer of `answer` bytes when `coming` bytes are about to be put in:
    /// its share is not used up, or nothing waits.
    pub(super) fn has_room_for(&self, partition: u32, coming: usize, answer: usize) -> bool {
        let state = self.state.lock();
        let share = self.prefetch / state.live.max(1);
        let bytes = coming + state.partitions.get(&partition).map_or(0, |waiting| waiting.bytes);
        bytes == 0 || bytes + answer <= share
    }

    /// Completes once [`Buffer::take`] has something to tell.
    pub(super) async fn wait(&self) {
        // The sender is in `self`: it cannot be gone.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    pub(super) fn take(&self) -> Result<Taken> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Error::closed("consumer"));
        }
        let Some(partition) = state.turns.pop_front() else {
            return Ok(if state.live == 0 { Taken::End } else { Taken::Empty });
        };
        let waiting = state.partitions.entry(partition).or_default();
        let outcome = match waiting.batches.pop_front() {
            Some(batch) => {
                waiting.bytes -= batch.data.len();
                Ok(Taken::Batch(batch))
            }
            None => waiting.error.take().map_or(Ok(Taken::Empty), Err),
        };
        waiting.taken.notify_one();
        waiting.queued = !waiting.batches.is_empty() || waiting.error.is_some();
        if waiting.queued {
            state.turns.push_back(partition);
        }
        // Once all partitions have ended there is always something to tell: the end.
        if state.turns.is_empty() && state.live > 0 {
            self.filled.send_if_modified(|filled| std::mem::replace(filled, false));
        }
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
        let buffer = Buffer::new(1 << 20);
        buffer.add(0);
        buffer.add(1);
        for partition in [0, 0, 1] {
            buffer.push(batch(partition, 10));
        }
        buffer.fail(0, Error::new(ErrorKind::Corrupt, "bad"));
        assert_eq!(partition_of(buffer.take()), Some(0));
        assert_eq!(partition_of(buffer.take()), Some(1));
        assert_eq!(partition_of(buffer.take()), Some(0));
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(matches!(buffer.take(), Ok(Taken::Empty)));
        buffer.fail(1, Error::new(ErrorKind::TopicDeleted, "gone"));
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::TopicDeleted);
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        buffer.close();
        assert_eq!(buffer.take().unwrap_err().kind(), ErrorKind::Closed);
    }

    #[test]
    fn room_is_shared_and_one_answer_always_fits() {
        let buffer = Buffer::new(1000);
        buffer.add(0);
        buffer.add(1);
        assert!(buffer.has_room(0, 5000));
        buffer.push(batch(0, 300));
        assert!(buffer.has_room(0, 200));
        assert!(!buffer.has_room(0, 201));
        assert!(buffer.has_room(1, 500));
        buffer.take().unwrap();
        assert!(buffer.has_room(0, 5000));
    }

    #[tokio::test]
    async fn ready_is_level_triggered() {
        let buffer = Buffer::new(1000);
        buffer.add(0);
        buffer.push(batch(0, 1));
        buffer.wait().await;
        buffer.wait().await;
        buffer.take().unwrap();
        let timeout = tokio::time::timeout(std::time::Duration::from_millis(1), buffer.wait());
        assert!(timeout.await.is_err());
        buffer.close();
        buffer.wait().await;
    }

    #[tokio::test]
    async fn an_end_of_one_partition_is_room_for_another() {
        let buffer = Buffer::new(1000);
        buffer.add(0);
        buffer.add(1);
        buffer.push(batch(0, 400));
        let room = buffer.room(0, 300);
        tokio::pin!(room);
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        buffer.fail(1, Error::new(ErrorKind::TopicDeleted, "gone"));
        tokio::time::timeout(std::time::Duration::from_secs(10), room).await.expect("room is noticed");
    }

    #[tokio::test]
    async fn a_partition_that_comes_after_the_end_is_waited_for() {
        let buffer = Buffer::new(1000);
        buffer.add(0);
        buffer.fail(0, Error::new(ErrorKind::Corrupt, "bad"));
        buffer.take().unwrap_err();
        assert!(matches!(buffer.take(), Ok(Taken::End)));
        buffer.add(1);
        let wait = buffer.wait();
        tokio::pin!(wait);
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
        buffer.push(batch(1, 10));
        wait.await;
    }
}
