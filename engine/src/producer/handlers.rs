//! Who is told the fate of a record, and how: one handler per record, or one for all records of a `send_many`.
//!
//! Every handler is called exactly once. That holds by construction: a list of waiters that is dropped unresolved tells
//! them that the records are lost. A handler that panics harms nobody else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::room::CallRoom;
use crate::error::{Error, Outcome, Result};

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
    /// The errors, each once: those of one text that differ in outcome or place are two.
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
    /// Made when the first outcome comes: many calls may wait for it, and most of them are small.
    deliveries: Option<Box<Deliveries>>,
    records: u32,
    missing: u32,
    handler: Option<(Box<dyn DeliveriesHandler>, CallRoom)>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("missing", &self.state.lock().missing).finish()
    }
}

impl Tally {
    /// The records of one call are fewer than 2^32.
    pub(super) fn new(records: usize, handler: Box<dyn DeliveriesHandler>, room: CallRoom) -> Arc<Self> {
        let (handler, records) = (Some((handler, room)), records as u32);
        let state = TallyState { deliveries: None, records, missing: records, handler };
        Arc::new(Tally { state: Mutex::new(state) })
    }

    /// `result` has the offset of the first record of the run.
    fn resolve(&self, run: &Run, partition: u32, result: &Result<i64>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let records = state.records as usize;
        let deliveries = state.deliveries.get_or_insert_with(|| Box::new(Deliveries::of(records)));
        let failure = match result {
            Ok(_) => 0,
            Err(error) => deliveries.failure(error),
        };
        for step in 0..run.count {
            let index = (run.index + step * run.stride) as usize;
            deliveries.partitions[index] = partition;
            match result {
                Ok(base) => deliveries.offsets[index] = base + i64::from(step),
                Err(_) => deliveries.errors[index] = failure,
            }
        }
        if result.is_err() {
            deliveries.failed += run.count as usize;
        }
        state.missing -= run.count;
        if state.missing == 0
            && let Some((handler, room)) = state.handler.take()
        {
            let deliveries = std::mem::take(&mut **deliveries);
            drop(guard);
            // First: whoever is told may want to send.
            drop(room);
            contained(|| handler.delivered(deliveries));
        }
    }
}

impl Deliveries {
    /// Of so many records, none of which has its fate.
    fn of(records: usize) -> Self {
        Deliveries { partitions: vec![0; records], offsets: vec![-1; records], ..Deliveries::default() }
    }

    /// The number that stands for `error` in the column, which is made when the first error comes.
    fn failure(&mut self, error: &Error) -> u32 {
        if self.errors.is_empty() {
            self.errors = vec![0; self.offsets.len()];
        }
        // Whoever sends again what was not sent goes by all of it. The last one is the likeliest.
        let known = self.distinct.iter().rposition(|other| other == error);
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
    /// Position of the first in the `send_many`.
    index: u32,
    /// How many.
    count: u32,
    /// Distance of two neighbours in the `send_many`.
    stride: u32,
}

/// One for each record that was sent by itself, one for each run of a `send_many`.
enum Waiter {
    One(Box<dyn AckHandler>),
    Many { tally: Arc<Tally>, run: Run },
}

/// Everyone who waits for the records of one batch, in their order.
#[derive(Default)]
pub(crate) struct Waiters {
    list: Vec<Waiter>,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").field("entries", &self.list.len()).finish()
    }
}

impl Waiters {
    /// Adds the waiter for the next record.
    pub(crate) fn push_one(&mut self, handler: Box<dyn AckHandler>) {
        if self.list.is_empty() {
            // Many batches have one record.
            self.list.reserve_exact(1);
        }
        self.list.push(Waiter::One(handler));
    }

    /// Adds the next record, which has `index` in its `send_many`.
    pub(crate) fn push_many(&mut self, tally: &Arc<Tally>, index: u32) {
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
        let run = Run { index, count: 1, stride: 1 };
        self.list.push(Waiter::Many { tally: Arc::clone(tally), run });
    }

    /// No more will come: gives back what was kept for them.
    pub(crate) fn complete(&mut self) {
        if self.list.capacity() - self.list.len() > self.list.len() / 8 {
            self.list.shrink_to_fit();
        }
    }

    /// Tells everyone: the batch starts at this offset, or why it failed.
    pub(crate) fn resolve(mut self, partition: u32, result: Result<i64>) {
        self.tell(partition, result);
    }

    fn tell(&mut self, partition: u32, result: Result<i64>) {
        let mut delta = 0;
        for waiter in std::mem::take(&mut self.list) {
            let first = result.as_ref().map(|base| base + delta).map_err(Error::clone);
            match waiter {
                Waiter::One(handler) => {
                    delta += 1;
                    contained(|| handler.acked(first.map(|offset| Ack { partition, offset })));
                }
                Waiter::Many { tally, run } => {
                    delta += i64::from(run.count);
                    tally.resolve(&run, partition, &first);
                }
            }
        }
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            // Only if the task of the producer came to an end that nobody foresaw.
            self.tell(0, Err(Error::panic("the task of a producer").with_outcome(Outcome::Unknown)));
        }
    }
}

/// Calls a handler of the host. Its panic ends here: the other records are to be told too.
fn contained(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a delivery handler ended by a panic");
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::Account;
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::mpsc;

    struct Tell(mpsc::Sender<Deliveries>);

    impl DeliveriesHandler for Tell {
        fn delivered(self: Box<Self>, deliveries: Deliveries) {
            self.0.send(deliveries).unwrap();
        }
    }

    fn tally(records: usize, sender: mpsc::Sender<Deliveries>) -> Arc<Tally> {
        Tally::new(records, Box::new(Tell(sender)), CallRoom::of(&Arc::new(Account::new(0))))
    }

    #[test]
    fn columns_follow_the_order_of_the_call() {
        let (sender, receiver) = mpsc::channel();
        let tally = tally(7, sender);
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

    /// Whoever sends again what was not sent must not be told so of what may have been written.
    #[test]
    fn errors_of_one_text_stay_apart() {
        let bare = Error::new(ErrorKind::Connection, "lost");
        let errors = [
            bare.clone(),
            Error::new(ErrorKind::Timeout, "lost"),
            bare.clone().with_outcome(Outcome::Unknown),
            bare.clone().with_outcome(Outcome::NotSent),
            bare.clone().with_topic("t"),
            bare.clone().with_partition("t", 0),
            bare.clone().with_partition("t", 1),
            bare.clone().with_endpoint("there:1"),
            bare.clone().with_spu(1, "there:1"),
            bare.clone().with_detail("offset", 1),
        ];
        let mut deliveries = Deliveries { offsets: vec![-1; 10], ..Deliveries::default() };
        for _ in 0..2 {
            for (number, error) in errors.iter().enumerate() {
                // Made anew, as it is for another batch.
                let same = error.clone().with_message(error.message().to_owned());
                assert_eq!(deliveries.failure(&same) as usize, number + 1, "{error:?}");
            }
        }
        assert_eq!(deliveries.distinct, errors);
    }

    #[test]
    fn whoever_is_dropped_is_told() {
        let (sender, receiver) = mpsc::channel();
        let mut waiters = Waiters::default();
        waiters.push_many(&tally(1, sender), 0);
        drop(waiters);
        assert_eq!(receiver.try_recv().unwrap().distinct[0].kind(), ErrorKind::Panic);
    }

    struct Panics;

    impl AckHandler for Panics {
        fn acked(self: Box<Self>, _: Result<Ack>) {
            panic!("a bug of the host");
        }
    }

    #[test]
    fn a_handler_that_panics_harms_nobody_else() {
        let (sender, receiver) = mpsc::channel();
        let mut waiters = Waiters::default();
        waiters.push_one(Box::new(Panics));
        waiters.push_many(&tally(1, sender), 0);
        waiters.resolve(0, Ok(5));
        assert_eq!(receiver.try_recv().unwrap().offsets, [6]);
    }

    /// [`crate::producer::RECORD_OVERHEAD`] counts on it.
    #[test]
    fn a_waiter_is_small() {
        assert_eq!(size_of::<Waiter>(), 24);
    }
}
