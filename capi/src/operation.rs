//! Pending operations: each one completes exactly once, outside every lock, on a library thread.
//!
//! Who completes is decided by the table (see [`pending`](crate::pending)); who comes too late frees what it has.
//!
//! Two shapes: a task (the engine's future against its stop signal), and a ticket alone (an acknowledgement, which the
//! engine delivers itself, because a task per record would cost more than the record).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::completion::Outcome;
use crate::error::{Failure, fluvio_error_kind};
use crate::pending::{Refused, Table};
use crate::sink::Sink;
use crate::slot_table::Slots;

/// The pending operations of one context.
pub(crate) struct Operations {
    runtime: &'static Handle,
    /// Whether an operation may complete inside the call that starts it.
    at_once: bool,
    /// What completions go into, if that is slots: they are told of what begins.
    slots: Option<Arc<Slots>>,
    table: Table<Sink, Pending>,
}

struct Pending {
    stop: Stop,
    claim: Option<Claim>,
}

/// How an operation is cancelled.
enum Stop {
    /// Tell its task, which then completes it.
    Task(oneshot::Sender<()>),
    /// Complete it for the engine, which goes on.
    Ticket,
    /// It was already.
    Requested,
}

/// What becomes of an operation's work when it is cancelled.
#[derive(Clone, Copy)]
pub(crate) enum WhenCancelled {
    /// It is dropped.
    Drop,
    /// It goes on, and nobody hears of its end: half closed helps nobody.
    GoOn,
}

/// A flag that an operation holds while it is pending: free again when it is cancelled or about to complete, so that the
/// next operation can be started at once.
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// `None` if the flag is taken.
    pub(crate) fn take(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Claim(Arc::clone(flag)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The engine's side of a pending operation. Dropping it unfinished reports a bug rather than nothing.
pub(crate) struct Ticket {
    operations: Option<Arc<Operations>>,
    user_data: u64,
    serial: u64,
}

impl Operations {
    pub(crate) fn new(runtime: &'static Handle, sink: Sink) -> Arc<Self> {
        let at_once = sink.at_once();
        let slots = match &sink {
            Sink::Slots(slots) => Some(Arc::clone(slots)),
            _ => None,
        };
        Arc::new(Operations { runtime, at_once, slots, table: Table::new(sink) })
    }

    /// Runs `work` on the runtime as the operation `user_data`.
    pub(crate) fn start<F>(
        self: &Arc<Self>,
        user_data: u64,
        claim: Option<Claim>,
        work: F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let ticket = self.register(user_data, Stop::Task(stop), claim)?;
        self.runtime.spawn(run(ticket, stopped, AssertUnwindSafe(work).catch_unwind()));
        Ok(())
    }

    /// Like `start`; `under_way` is let go once the operation has completed, so whoever counts these can wait for that.
    pub(crate) fn start_counted<F>(
        self: &Arc<Self>,
        user_data: u64,
        under_way: impl Send + 'static,
        work: F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let ticket = self.register(user_data, Stop::Task(stop), None)?;
        let operation = run(ticket, stopped, AssertUnwindSafe(work).catch_unwind());
        self.runtime.spawn(async move {
            operation.await;
            drop(under_way);
        });
        Ok(())
    }

    /// Like `start`, but `work` begins during this call: operations that queue up in the engine do so in call order, and
    /// one that changes a state has changed it when the call returns. If it is finished by then, a queue has its completion
    /// at once; a function of the host is still called from the runtime.
    pub(crate) fn start_in_order<F>(
        self: &Arc<Self>,
        user_data: u64,
        claim: Option<Claim>,
        when_cancelled: WhenCancelled,
        work: F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let ticket = self.register(user_data, Stop::Task(stop), claim)?;
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        let first = {
            let _entered = self.runtime.enter();
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        match first {
            Poll::Ready(result) if self.at_once => ticket.finish(outcome(result)),
            Poll::Ready(result) => drop(self.runtime.spawn(async move { ticket.finish(outcome(result)) })),
            Poll::Pending => match when_cancelled {
                WhenCancelled::Drop => drop(self.runtime.spawn(run(ticket, stopped, work))),
                WhenCancelled::GoOn => drop(self.runtime.spawn(run_to_the_end(ticket, stopped, work))),
            },
        }
        Ok(())
    }

    /// Registers an operation that the engine will finish.
    pub(crate) fn ticket(self: &Arc<Self>, user_data: u64) -> Result<Ticket, Failure> {
        self.register(user_data, Stop::Ticket, None)
    }

    /// Cancels what is pending under `user_data`, if anything is. The completion comes from the runtime.
    pub(crate) fn cancel(self: &Arc<Self>, user_data: u64) {
        let pending = self.table.with(user_data, |serial, pending| {
            (serial, std::mem::replace(&mut pending.stop, Stop::Requested), pending.claim.take())
        });
        let Some((serial, stop, claim)) = pending else { return };
        drop(claim);
        match stop {
            // The task may have ended; then it has found the entry, or will.
            Stop::Task(stop) => drop(stop.send(())),
            Stop::Ticket => {
                let operations = Arc::clone(self);
                self.runtime
                    .spawn(async move { operations.complete(user_data, serial, Outcome::cancelled()) });
            }
            Stop::Requested => {}
        }
    }

    /// Cancels everything and lets the sink go when the last completion has returned.
    pub(crate) fn close(self: &Arc<Self>) {
        let (sink, all) = self.table.close();
        for user_data in all {
            self.cancel(user_data);
        }
        // If nothing is pending this is the last share, and `release` is to be called on a library thread.
        self.runtime.spawn(async move { drop(sink) });
    }

    fn register(
        self: &Arc<Self>,
        user_data: u64,
        stop: Stop,
        claim: Option<Claim>,
    ) -> Result<Ticket, Failure> {
        let begin = || self.slots.as_ref().map(|slots| slots.begin(user_data));
        match self.table.register(user_data, Pending { stop, claim }, begin) {
            Ok((serial, before)) => {
                // What was in the slot is freed outside of every lock.
                drop(before);
                Ok(Ticket { operations: Some(Arc::clone(self)), user_data, serial })
            }
            Err(Refused::Closed) => Err(Failure::new(fluvio_error_kind::Closed, "the context was freed")),
            Err(Refused::Duplicate) => Err(Failure::new(
                fluvio_error_kind::Duplicate,
                format!("user_data {user_data} is already pending on this context"),
            )),
        }
    }

    /// Completes the operation, unless that has happened.
    fn complete(&self, user_data: u64, serial: u64, outcome: Outcome) {
        let Some((sink, Pending { claim, .. })) = self.table.remove(user_data, serial) else { return };
        drop(claim);
        sink.complete(outcome.into_completion(user_data));
    }
}

impl Ticket {
    pub(crate) fn finish(mut self, outcome: Outcome) {
        if let Some(operations) = self.operations.take() {
            operations.complete(self.user_data, self.serial, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(operations) = self.operations.take() else { return };
        let (user_data, serial) = (self.user_data, self.serial);
        let failure = Failure::new(
            fluvio_error_kind::Panic,
            "a bug in the library: an operation was dropped without a result",
        );
        operations.runtime.clone().spawn(async move {
            operations.complete(user_data, serial, Outcome::failed(failure));
        });
    }
}

type Caught = std::thread::Result<Result<Outcome, Failure>>;

async fn run(ticket: Ticket, stopped: oneshot::Receiver<()>, work: impl Future<Output = Caught>) {
    let outcome = {
        let work = pin!(work);
        tokio::select! {
            biased;
            _ = stopped => Outcome::cancelled(),
            result = work => outcome(result),
        }
    };
    ticket.finish(outcome);
}

async fn run_to_the_end<F>(ticket: Ticket, mut stopped: oneshot::Receiver<()>, mut work: Pin<Box<F>>)
where
    F: Future<Output = Caught> + Send + 'static,
{
    let result = tokio::select! {
        biased;
        _ = &mut stopped => None,
        result = &mut work => Some(result),
    };
    match result {
        Some(result) => ticket.finish(outcome(result)),
        None => {
            ticket.finish(Outcome::cancelled());
            drop(work.await);
        }
    }
}

fn outcome(result: Caught) -> Outcome {
    match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::failed(failure),
        Err(payload) => Outcome::failed(Failure::panic(&*payload)),
    }
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
