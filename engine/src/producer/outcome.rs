//! Who is told the fate of a record, and how: one handler per record, or one for all records of a `send_many`.
//!
//! Every handler is called exactly once. That holds by construction: a list of waiters that is dropped unresolved tells
//! them that the records are lost.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
}

/// Is told the fate of one record: once, on a runtime thread, outside all locks. Must not block.
pub trait AckHandler: Send + 'static {
    /// The record is in the log, or `result` says why not.
    fn acked(self: Box<Self>, result: Result<Ack>);
}

/// The fate of the records of one `send_many`, as columns in their order.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Partition of each record.
    pub partitions: Vec<u32>,
    /// Offset of each record, -1 where it failed.
    pub offsets: Vec<i64>,
    /// Empty if none failed; else 0 for a delivered record, 1 + index into `distinct` for a failed one.
    pub errors: Vec<u32>,
    /// The errors.
    pub distinct: Vec<Error>,
    /// How many failed.
    pub failed: usize,
}

/// Is told the fate of many records: once, on a runtime thread, outside all locks. Must not block.
pub trait DeliveriesHandler: Send + 'static {
    /// Every record has its fate.
    fn delivered(self: Box<Self>, deliveries: Deliveries);
}

/// Collects the outcomes of one `send_many` until all are there.
pub(crate) struct Tally {
    state: Mutex<TallyState>,
}

struct TallyState {
    deliveries: Deliveries,
    missing: usize,
    handler: Option<Box<dyn DeliveriesHandler>>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("missing", &self.state.lock().missing).finish()
    }
}

impl Tally {
    pub(crate) fn new(records: usize, handler: Box<dyn DeliveriesHandler>) -> Arc<Self> {
        let deliveries =
            Deliveries { partitions: vec![0; records], offsets: vec![-1; records], ..Deliveries::default() };
        Arc::new(Tally {
            state: Mutex::new(TallyState { deliveries, missing: records, handler: Some(handler) }),
        })
    }

    fn resolve(&self, run: &Run, partition: u32, result: &Result<i64>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let deliveries = &mut state.deliveries;
        let failure = match result {
            Ok(_) => 0,
            Err(error) => deliveries.failure(error),
        };
        for step in 0..run.count {
            let index = (run.index + step * run.stride) as usize;
            deliveries.partitions[index] = partition;
            match result {
                Ok(base) => deliveries.offsets[index] = base + i64::from(run.delta + step),
                Err(_) => deliveries.errors[index] = failure,
            }
        }
        if result.is_err() {
            deliveries.failed += run.count as usize;
        }
        state.missing -= run.count as usize;
        if state.missing == 0
            && let Some(handler) = state.handler.take()
        {
            let deliveries = std::mem::take(deliveries);
            drop(guard);
            handler.delivered(deliveries);
        }
    }
}

impl Deliveries {
    /// The number that stands for `error` in the column, which is made when the first error comes.
    fn failure(&mut self, error: &Error) -> u32 {
        if self.errors.is_empty() {
            self.errors = vec![0; self.offsets.len()];
        }
        let known = self.distinct.iter().position(|other| other.message() == error.message());
        let index = known.unwrap_or_else(|| {
            self.distinct.push(error.clone());
            self.distinct.len() - 1
        });
        index as u32 + 1
    }
}

/// Records of one `send_many` that follow each other in a batch.
#[derive(Debug)]
struct Run {
    /// Position of the first in the batch.
    delta: u32,
    /// Position of the first in the `send_many`.
    index: u32,
    /// How many.
    count: u32,
    /// Distance of two neighbours in the `send_many`.
    stride: u32,
}

enum Waiter {
    One { delta: u32, handler: Box<dyn AckHandler> },
    Many { tally: Arc<Tally>, run: Run },
}

/// Everyone who waits for the records of one batch, in their order.
#[derive(Default)]
pub(crate) struct Waiters {
    list: Vec<Waiter>,
    records: u32,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").field("records", &self.records).finish()
    }
}

impl Waiters {
    /// Adds the waiter for the next record.
    pub(crate) fn push_one(&mut self, handler: Box<dyn AckHandler>) {
        self.list.push(Waiter::One { delta: self.records, handler });
        self.records += 1;
    }

    /// Adds the next record, which has `index` in its `send_many`.
    pub(crate) fn push_many(&mut self, tally: &Arc<Tally>, index: u32) {
        let delta = self.records;
        self.records += 1;
        if let Some(Waiter::Many { tally: last, run }) = self.list.last_mut()
            && Arc::ptr_eq(last, tally)
            && (run.count == 1 || run.index + run.count * run.stride == index)
        {
            if run.count == 1 {
                run.stride = index - run.index;
            }
            run.count += 1;
            return;
        }
        let run = Run { delta, index, count: 1, stride: 1 };
        self.list.push(Waiter::Many { tally: Arc::clone(tally), run });
    }

    /// Tells everyone: the batch starts at this offset, or why it failed.
    pub(crate) fn resolve(mut self, partition: u32, result: Result<i64>) {
        self.tell(partition, result);
    }

    fn tell(&mut self, partition: u32, result: Result<i64>) {
        for waiter in std::mem::take(&mut self.list) {
            match waiter {
                Waiter::One { delta, handler } => {
                    let result =
                        result.as_ref().map(|base| Ack { partition, offset: base + i64::from(delta) });
                    handler.acked(result.map_err(Error::clone));
                }
                Waiter::Many { tally, run } => tally.resolve(&run, partition, &result),
            }
        }
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            let lost = Error::new(ErrorKind::Closed, "the producer ended before the record was acknowledged");
            self.tell(0, Err(lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Tell(mpsc::Sender<Deliveries>);

    impl DeliveriesHandler for Tell {
        fn delivered(self: Box<Self>, deliveries: Deliveries) {
            self.0.send(deliveries).unwrap();
        }
    }

    #[test]
    fn columns_follow_the_order_of_the_call() {
        let (sender, receiver) = mpsc::channel();
        let tally = Tally::new(7, Box::new(Tell(sender)));
        let (mut even, mut odd) = (Waiters::default(), Waiters::default());
        for index in 0..7 {
            if index % 2 == 0 { even.push_many(&tally, index) } else { odd.push_many(&tally, index) }
        }
        assert_eq!((even.list.len(), odd.list.len()), (1, 1));
        even.resolve(0, Ok(10));
        assert!(receiver.try_recv().is_err());
        odd.resolve(1, Err(Error::new(ErrorKind::Timeout, "late")));
        let deliveries = receiver.try_recv().unwrap();
        assert_eq!(deliveries.offsets, [10, -1, 11, -1, 12, -1, 13]);
        assert_eq!(deliveries.partitions, [0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(deliveries.errors, [0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(deliveries.failed, 3);
    }

    #[test]
    fn whoever_is_dropped_is_told() {
        let (sender, receiver) = mpsc::channel();
        let mut waiters = Waiters::default();
        waiters.push_many(&Tally::new(1, Box::new(Tell(sender))), 0);
        drop(waiters);
        assert_eq!(receiver.try_recv().unwrap().distinct[0].kind(), ErrorKind::Closed);
    }
}
