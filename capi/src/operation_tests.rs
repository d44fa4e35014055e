//! The state machine of pending operations, driven by fake futures through a sink that records what it gets.

use std::collections::HashSet;
use std::ffi::c_void;
use std::future::{pending, ready};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::*;
use crate::completion::{fluvio_completion, fluvio_status, fluvio_value_free, fluvio_value_kind};
use crate::document::fluvio_document;
use crate::error::{fluvio_error, fluvio_error_get_kind};
use crate::runtime;
use crate::sink::{CheckedSink, fluvio_sink};

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Event {
    /// user_data, status, error kind, thread
    Completed(u64, u32, Option<fluvio_error_kind>, ThreadId),
    Released,
}

unsafe extern "C" fn complete(context: *mut c_void, completion: *const fluvio_completion) {
    // SAFETY: `Recorder` passes a sender that `release` frees; the completion is valid.
    unsafe {
        let sender = &*context.cast::<Sender<Event>>();
        let completion = &*completion;
        let error = (completion.kind == fluvio_value_kind::Error as u32)
            .then(|| fluvio_error_get_kind(completion.value.cast::<fluvio_error>()));
        fluvio_value_free(completion.kind, completion.value);
        let event = Event::Completed(completion.user_data, completion.status, error, thread::current().id());
        drop(sender.send(event));
    }
}

unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: made by `Recorder`, released once.
    let sender = unsafe { Box::from_raw(context.cast::<Sender<Event>>()) };
    drop(sender.send(Event::Released));
}

/// Operations whose sink records; ends with a check that `release` was called, once and last.
struct Recorder {
    operations: Arc<Operations>,
    events: Receiver<Event>,
    released: bool,
}

impl Recorder {
    fn new() -> Self {
        let (sender, events) = mpsc::channel::<Event>();
        let sink = fluvio_sink {
            size: size_of::<fluvio_sink>(),
            complete: Some(complete),
            release: Some(release),
            context: Box::into_raw(Box::new(sender)).cast(),
        };
        let operations = Operations::new(runtime::get().unwrap(), CheckedSink::new(&sink).unwrap().bind());
        Recorder { operations, events, released: false }
    }

    fn next(&self) -> (u64, u32, Option<fluvio_error_kind>) {
        match self.events.recv_timeout(LONG).expect("a completion") {
            Event::Completed(user_data, status, error, on) => {
                assert_ne!(on, thread::current().id(), "on the caller's thread");
                (user_data, status, error)
            }
            Event::Released => panic!("released early"),
        }
    }

    fn expect(&self, user_data: u64, status: fluvio_status) {
        assert_eq!(self.next(), (user_data, status as u32, None));
    }

    fn close(&mut self) {
        self.operations.close();
        self.released = true;
    }

    /// Everything until `release`, which ends the channel.
    fn rest(mut self) -> Vec<(u64, u32)> {
        if !self.released {
            self.close();
        }
        let mut rest = Vec::new();
        while let Event::Completed(user_data, status, ..) = self.events.recv_timeout(LONG).expect("release") {
            rest.push((user_data, status));
        }
        assert!(self.events.recv_timeout(LONG).is_err(), "something after release");
        rest
    }
}

type Work = Result<Outcome, Failure>;

#[test]
fn results_errors_and_panics_complete() {
    let recorder = Recorder::new();
    let operations = &recorder.operations;
    for in_order in [false, true] {
        let start = |user_data, work: Work| match in_order {
            false => operations.start(user_data, None, ready(work)),
            true => operations.start_in_order(user_data, None, WhenCancelled::Drop, ready(work)),
        };
        start(1, Ok(Outcome::done())).unwrap();
        recorder.expect(1, fluvio_status::Ok);
        start(2, Err(Failure::new(fluvio_error_kind::Timeout, "late"))).unwrap();
        assert_eq!(recorder.next(), (2, fluvio_status::Error as u32, Some(fluvio_error_kind::Timeout)));
        let panics = async { panic!("on purpose") };
        match in_order {
            false => operations.start(3, None, panics).unwrap(),
            true => operations.start_in_order(3, None, WhenCancelled::Drop, panics).unwrap(),
        }
        assert_eq!(recorder.next(), (3, fluvio_status::Error as u32, Some(fluvio_error_kind::Panic)));
    }
    // A panic after the first poll, too.
    operations
        .start_in_order(4, None, WhenCancelled::Drop, async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        })
        .unwrap();
    assert_eq!(recorder.next(), (4, fluvio_status::Error as u32, Some(fluvio_error_kind::Panic)));
    assert!(recorder.rest().is_empty());
}

#[test]
fn a_pending_user_data_is_refused_and_a_completed_one_is_free() {
    let recorder = Recorder::new();
    let operations = &recorder.operations;
    operations.start(7, None, pending::<Work>()).unwrap();
    for refused in [
        operations.start(7, None, ready(Ok(Outcome::done()))),
        operations.start_in_order(7, None, WhenCancelled::Drop, ready(Ok(Outcome::done()))),
        operations.ticket(7).map(|_| unreachable!()),
    ] {
        assert!(format!("{:?}", refused.unwrap_err()).contains("Duplicate"));
    }
    operations.cancel(7);
    recorder.expect(7, fluvio_status::Cancelled);
    operations.start(7, None, ready(Ok(Outcome::done()))).unwrap();
    recorder.expect(7, fluvio_status::Ok);
    assert!(recorder.rest().is_empty());
}

#[test]
fn cancelling_drops_the_work_and_frees_a_late_value() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let recorder = Recorder::new();
    let operations = &recorder.operations;
    let drops = Arc::new(AtomicUsize::new(0));
    let held = Dropped(Arc::clone(&drops));
    let work = async move {
        let _held = held;
        pending::<Work>().await
    };
    operations.start(1, None, work).unwrap();
    operations.cancel(1);
    operations.cancel(1);
    operations.cancel(99);
    recorder.expect(1, fluvio_status::Cancelled);
    assert_eq!(drops.load(Ordering::SeqCst), 1, "dropped before the completion");

    let ticket = operations.ticket(2).unwrap();
    operations.cancel(2);
    recorder.expect(2, fluvio_status::Cancelled);
    // The same user_data again: the late end of the first must not touch the second.
    let second = operations.ticket(2).unwrap();
    ticket.finish(Outcome::value::<fluvio_document>(c"late".to_owned()));
    runtime::get().unwrap().spawn(async move { second.finish(Outcome::acked(3, 4)) });
    recorder.expect(2, fluvio_status::Ok);
    assert!(recorder.rest().is_empty());
}

#[test]
fn closing_cancels_everything_and_releases_last() {
    let mut recorder = Recorder::new();
    for user_data in 0..50 {
        recorder.operations.start(user_data, None, pending::<Work>()).unwrap();
    }
    let tickets: Vec<_> = (50..100).map(|user_data| recorder.operations.ticket(user_data).unwrap()).collect();
    recorder.close();
    let refused = recorder.operations.start(100, None, pending::<Work>()).unwrap_err();
    assert!(format!("{refused:?}").contains("Closed"));
    let completed = recorder.rest();
    // The engine still holds its tickets: release did not wait for them, and using them is harmless.
    tickets.into_iter().for_each(|ticket| ticket.finish(Outcome::acked(0, 1)));
    assert!(completed.iter().all(|&(_, status)| status == fluvio_status::Cancelled as u32));
    assert_eq!(completed.len(), 100);
    assert_eq!(completed.iter().map(|&(user_data, _)| user_data).collect::<HashSet<_>>().len(), 100);
}

#[test]
fn a_dropped_ticket_is_reported() {
    let recorder = Recorder::new();
    drop(recorder.operations.ticket(5).unwrap());
    assert_eq!(recorder.next(), (5, fluvio_status::Error as u32, Some(fluvio_error_kind::Panic)));
    assert!(recorder.rest().is_empty());
}

#[test]
fn work_started_in_order_has_begun_when_the_call_returns() {
    let recorder = Recorder::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..20 {
        let begun = Arc::clone(&order);
        recorder
            .operations
            .start_in_order(number, None, WhenCancelled::Drop, async move {
                begun.lock().unwrap().push(number);
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(Outcome::done())
            })
            .unwrap();
        assert_eq!(order.lock().unwrap().last(), Some(&number));
    }
    assert_eq!(order.lock().unwrap().len(), 20);
    for _ in 0..20 {
        assert_eq!(recorder.next().1, fluvio_status::Ok as u32);
    }
    assert!(recorder.rest().is_empty());
}

#[test]
fn a_claim_is_free_before_its_completion_and_at_once_after_a_cancel() {
    let recorder = Recorder::new();
    let flag = Arc::new(AtomicBool::new(false));
    let claim = Claim::take(&flag).unwrap();
    assert!(Claim::take(&flag).is_none());
    recorder.operations.start(1, Some(claim), pending::<Work>()).unwrap();
    assert!(Claim::take(&flag).is_none());
    recorder.operations.cancel(1);
    let again = Claim::take(&flag).expect("free when cancel returns");
    recorder.expect(1, fluvio_status::Cancelled);
    assert!(Claim::take(&flag).is_none(), "the cancelled one must not free the new claim");
    recorder.operations.start(2, Some(again), ready(Ok(Outcome::done()))).unwrap();
    recorder.expect(2, fluvio_status::Ok);
    assert!(Claim::take(&flag).is_some());
    assert!(recorder.rest().is_empty());
}

/// Cancels around the instant of completion, for tasks and for tickets: one completion each, whoever wins.
#[test]
fn a_cancel_race_completes_exactly_once() {
    const ROUNDS: u64 = 3_000;
    let recorder = Recorder::new();
    let operations = Arc::clone(&recorder.operations);
    let (to_finish, tickets) = mpsc::channel::<Ticket>();
    let finisher = thread::spawn(move || {
        for ticket in tickets {
            ticket.finish(Outcome::value::<fluvio_document>(c"value".to_owned()));
        }
    });
    for round in 0..ROUNDS {
        let (task, acked) = (round * 2, round * 2 + 1);
        let (go, gone) = oneshot::channel::<()>();
        operations
            .start(task, None, async move {
                let _ = gone.await;
                Ok(Outcome::value::<fluvio_document>(c"value".to_owned()))
            })
            .unwrap();
        to_finish.send(operations.ticket(acked).unwrap()).unwrap();
        drop(go);
        for _ in 0..(round % 50) * 20 {
            std::hint::spin_loop();
        }
        operations.cancel(task);
        operations.cancel(acked);
    }
    drop(to_finish);
    finisher.join().unwrap();
    let mut seen = HashSet::new();
    let mut cancelled = 0;
    for _ in 0..ROUNDS * 2 {
        let (user_data, status, _) = recorder.next();
        assert!(seen.insert(user_data), "{user_data} twice");
        cancelled += u64::from(status == fluvio_status::Cancelled as u32);
    }
    assert!(recorder.rest().is_empty());
    eprintln!("{cancelled} of {} were cancelled", ROUNDS * 2);
}

#[test]
fn work_that_must_end_goes_on_after_a_cancel() {
    let recorder = Recorder::new();
    for (when_cancelled, goes_on) in [(WhenCancelled::GoOn, true), (WhenCancelled::Drop, false)] {
        let (go, gone) = oneshot::channel::<()>();
        let (end, ended) = mpsc::channel::<()>();
        let work = async move {
            let _ = gone.await;
            let _ = end.send(());
            Ok(Outcome::value::<fluvio_document>(c"late".to_owned()))
        };
        recorder.operations.start_in_order(1, None, when_cancelled, work).unwrap();
        recorder.operations.cancel(1);
        recorder.expect(1, fluvio_status::Cancelled);
        assert_eq!(go.send(()).is_ok(), goes_on);
        assert_eq!(ended.recv_timeout(LONG).is_ok(), goes_on);
    }
    assert!(recorder.rest().is_empty());
}

#[test]
fn a_queue_has_what_is_finished_at_once() {
    use crate::queue::{Queue, fluvio_queue, fluvio_queue_drain, fluvio_queue_free};
    let shared = Arc::new(Queue::new(0).unwrap());
    let operations = Operations::new(runtime::get().unwrap(), Sink::Queue(Arc::clone(&shared)));
    let queue = crate::handle::into_raw::<fluvio_queue>(shared);
    let done = ready(Ok(Outcome::done()));
    operations.start_in_order(7, None, WhenCancelled::Drop, done).unwrap();
    let mut out = std::mem::MaybeUninit::<fluvio_completion>::uninit();
    // SAFETY: valid arguments; the queue is freed last.
    unsafe {
        assert_eq!(fluvio_queue_drain(queue, out.as_mut_ptr(), 1), 1);
        assert_eq!(out.assume_init().user_data, 7);
        // The same user_data is free again.
        operations.start_in_order(7, None, WhenCancelled::Drop, ready(Ok(Outcome::done()))).unwrap();
        operations.close();
        fluvio_queue_free(queue);
    }
}
