//! Slots, filled by operations that the tests finish by hand; waiting threads, signals, and what is left behind.

use std::ptr;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::completion::Outcome;
use crate::error::{Failure, fluvio_error_free, fluvio_error_get_message, fluvio_error_kind};
use crate::operation::Ticket;
use crate::slot_table::KEPT_FAILURES;

const LONG: i64 = 20_000;

struct Fixture(*mut fluvio_slots);

// SAFETY: slots may be used by any thread.
unsafe impl Sync for Fixture {}

impl Fixture {
    fn new() -> Self {
        let mut error = ptr::null_mut();
        // SAFETY: `error` is valid.
        let slots = unsafe { fluvio_slots_new(&raw mut error) };
        assert!(!slots.is_null());
        Fixture(slots)
    }

    fn set(&self) -> &Set {
        // SAFETY: alive until dropped.
        unsafe { handle::get(self.0) }.unwrap()
    }

    fn slot(&self, flags: u32) -> OwnedSlot {
        // SAFETY: the set is alive.
        OwnedSlot(unsafe { fluvio_slot_new(self.0, flags) })
    }

    fn start(&self, slot: &OwnedSlot) -> Ticket {
        self.set().operations.ticket(slot.user_data()).unwrap()
    }

    fn failed(&self) -> u64 {
        // SAFETY: the set is alive.
        unsafe { fluvio_slots_get_failed(self.0) }
    }

    fn known(&self) -> usize {
        self.set().slots.known()
    }

    fn failures(&self) -> Vec<String> {
        // SAFETY: the set is alive, and each error is freed once.
        (0..)
            .map(|index| unsafe { fluvio_slots_get_failure(self.0, index) })
            .take_while(|error| !error.is_null())
            .map(|error| unsafe {
                let text =
                    std::ffi::CStr::from_ptr(fluvio_error_get_message(error)).to_str().unwrap().to_owned();
                fluvio_error_free(error);
                text
            })
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { fluvio_slots_free(self.0) }
    }
}

struct OwnedSlot(*mut fluvio_slot);

// SAFETY: slots may be used by any thread.
unsafe impl Send for OwnedSlot {}
// SAFETY: as above.
unsafe impl Sync for OwnedSlot {}

impl OwnedSlot {
    fn user_data(&self) -> u64 {
        // SAFETY: alive until dropped.
        unsafe { (*self.0).user_data }
    }

    fn wait(&self, timeout_ms: i64) -> Result<fluvio_completion, fluvio_status> {
        let mut out = std::mem::MaybeUninit::uninit();
        // SAFETY: alive until dropped; OK says that it was written.
        unsafe {
            match fluvio_slot_wait(self.0, timeout_ms, out.as_mut_ptr()) {
                fluvio_status::Ok => Ok(out.assume_init()),
                status => Err(status),
            }
        }
    }
}

impl Drop for OwnedSlot {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { fluvio_slot_free(self.0) }
    }
}

fn failure(text: &str) -> Outcome {
    Outcome::failed(Failure::new(fluvio_error_kind::Server, text))
}

#[test]
fn a_slot_is_filled_read_and_used_again() {
    let slots = Fixture::new();
    let slot = slots.slot(0);
    assert_eq!(slot.wait(LONG).unwrap_err(), fluvio_status::End, "nothing was started");
    for offset in [7, 8] {
        let ticket = slots.start(&slot);
        assert_eq!(slot.wait(0).unwrap_err(), fluvio_status::Empty);
        assert_eq!(slot.wait(5).unwrap_err(), fluvio_status::Empty);
        ticket.finish(Outcome::acked(3, offset));
        for _ in 0..2 {
            let completion = slot.wait(LONG).unwrap();
            assert_eq!((completion.user_data, completion.partition), (slot.user_data(), 3));
            assert_eq!(completion.offset, offset);
        }
    }
    drop(slot);
    assert_eq!(slots.known(), 0);
}

#[test]
fn every_thread_that_waits_wakes_whenever_the_completion_comes() {
    let slots = Fixture::new();
    for round in 0..500 {
        let slot = slots.slot(0);
        let ticket = slots.start(&slot);
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| slot.wait(LONG).unwrap().offset)).collect();
            for _ in 0..round % 50 {
                thread::yield_now();
            }
            ticket.finish(Outcome::acked(0, round));
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), round);
            }
        });
    }
}

#[test]
fn a_slot_that_is_freed_cancels_what_is_pending_and_frees_what_has_come() {
    let slots = Fixture::new();
    let slot = slots.slot(0);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let work = async move {
        // Dropped when the operation is cancelled: so the other end hears of it.
        let _held = sender;
        std::future::pending::<Result<Outcome, Failure>>().await
    };
    slots.set().operations.start(slot.user_data(), None, work).unwrap();
    drop(slot);
    assert!(receiver.blocking_recv().is_err());
    let slot = slots.slot(0);
    slots.start(&slot).finish(failure("never read"));
    drop(slot);
    assert_eq!((slots.known(), slots.failed()), (0, 0));
}

#[test]
fn failures_of_counted_slots_count_until_they_are_seen() {
    let slots = Fixture::new();
    let counted: Vec<_> = (0..4).map(|_| slots.slot(FLUVIO_SLOT_COUNTED)).collect();
    let tickets: Vec<_> = counted.iter().map(|slot| slots.start(slot)).collect();
    // SAFETY: the set is alive.
    assert_eq!(unsafe { fluvio_slots_get_pending(slots.0) }, 4);
    // One that fails when its owner is gone, and one that nobody had started.
    let gone = slots.slot(FLUVIO_SLOT_COUNTED);
    let late = slots.start(&gone);
    drop(gone);
    drop(slots.slot(FLUVIO_SLOT_COUNTED));
    late.finish(failure("late"));
    for (number, ticket) in tickets.into_iter().enumerate() {
        ticket.finish(if number == 1 { Outcome::done() } else { failure(&format!("number {number}")) });
    }
    assert_eq!(slots.failed(), 4);
    assert_eq!(slots.failures(), ["number 0", "number 2", "number 3", "late"]);
    for _ in 0..2 {
        // SAFETY: the slots are alive.
        counted.iter().take(3).for_each(|slot| unsafe { fluvio_slot_see(slot.0) });
        assert_eq!(slots.failures(), ["number 3", "late"]);
        assert_eq!(slots.failed(), 2);
    }
    // SAFETY: the set and the slots are alive.
    unsafe {
        fluvio_slots_see_all(slots.0);
        counted.iter().for_each(|slot| fluvio_slot_see(slot.0));
    }
    drop(counted);
    assert_eq!((slots.known(), slots.failed(), slots.failures().len()), (0, 0, 0));
}

/// Using a slot again is no word on its last failure: each is counted, and told, by itself.
#[test]
fn a_failure_outlives_the_use_of_its_slot() {
    let slots = Fixture::new();
    let slot = slots.slot(FLUVIO_SLOT_COUNTED);
    for text in ["first", "second"] {
        slots.start(&slot).finish(failure(text));
        slot.wait(LONG).unwrap();
    }
    assert_eq!((slots.failed(), slots.failures()), (2, vec!["first".to_owned(), "second".to_owned()]));
    // SAFETY: alive.
    unsafe { fluvio_slot_see(slot.0) };
    assert_eq!((slots.failed(), slots.failures()), (1, vec!["first".to_owned()]));
    // SAFETY: alive.
    unsafe { fluvio_slots_see_all(slots.0) };
    assert_eq!((slots.failed(), slots.failures().len()), (0, 0));
}

#[test]
fn many_failures_are_counted_in_bounded_memory() {
    let slots = Fixture::new();
    for _ in 0..1000 {
        let slot = slots.slot(FLUVIO_SLOT_COUNTED);
        let ticket = slots.start(&slot);
        drop(slot);
        ticket.finish(failure("again"));
    }
    assert_eq!((slots.failed(), slots.failures().len(), slots.known()), (1000, KEPT_FAILURES, 0));
}

/// As long as a failure counts there is an error that tells of one.
#[test]
fn there_is_an_error_when_those_that_were_kept_are_seen() {
    let slots = Fixture::new();
    let kept: Vec<_> = (0..KEPT_FAILURES + 3).map(|_| slots.slot(FLUVIO_SLOT_COUNTED)).collect();
    for (number, slot) in kept.iter().enumerate() {
        slots.start(slot).finish(failure(&format!("number {number}")));
    }
    // SAFETY: alive.
    kept[..KEPT_FAILURES].iter().for_each(|slot| unsafe { fluvio_slot_see(slot.0) });
    assert_eq!((slots.failed(), slots.failures()), (3, vec![format!("number {}", KEPT_FAILURES + 2)]));
    // SAFETY: alive.
    kept[KEPT_FAILURES..].iter().for_each(|slot| unsafe { fluvio_slot_see(slot.0) });
    assert_eq!((slots.failed(), slots.failures().len()), (0, 0));
}

#[test]
fn freeing_the_set_ends_waits() {
    let slots = Fixture::new();
    let slot = slots.slot(0);
    let ticket = slots.start(&slot);
    let waiting = thread::spawn(move || slot.wait(LONG).unwrap().status);
    drop(slots);
    assert_eq!(waiting.join().unwrap(), fluvio_status::Cancelled as u32);
    ticket.finish(Outcome::done());
}

#[test]
fn a_signal_ends_a_wait_and_takes_nothing() {
    extern "C" fn handle_signal(_: libc::c_int) {}
    // SAFETY: a handler that does nothing, with SA_RESTART, which must not matter.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
    }
    let slots = Fixture::new();
    for timeout in [-1, LONG] {
        let slot = slots.slot(0);
        let ticket = slots.start(&slot);
        let interrupted = AtomicBool::new(false);
        thread::scope(|scope| {
            // SAFETY: no arguments.
            let (sender, receiver) = std::sync::mpsc::channel();
            let (slot, interrupted) = (&slot, &interrupted);
            let waiting = scope.spawn(move || {
                // SAFETY: no arguments.
                sender.send(unsafe { libc::pthread_self() } as usize).unwrap();
                assert_eq!(slot.wait(timeout).unwrap_err(), fluvio_status::Interrupted);
                interrupted.store(true, Ordering::SeqCst);
                slot.wait(timeout).unwrap().offset
            });
            let thread = receiver.recv().unwrap() as libc::pthread_t;
            // Again and again: the first ones may come before it sleeps.
            while !interrupted.load(Ordering::SeqCst) {
                // SAFETY: the thread is running.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                thread::yield_now();
            }
            // One that was sent late may end the second wait too; the completion is there by then or waited for.
            ticket.finish(Outcome::acked(0, 11));
            assert_eq!(waiting.join().unwrap_or(11), 11);
        });
    }
}
