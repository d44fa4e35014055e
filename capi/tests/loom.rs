//! The queue's wake rule and the table of pending operations, under every order of their threads (up to three forced
//! switches): no wake-up is lost, nothing is lost or doubled, every operation completes once, the sink goes last.
//!
//! The files are compiled once more here, with loom's locks in the place of those of std. A thread that waits for ever is a
//! deadlock to loom, which fails the test.
#![allow(dead_code)] // Both files have more than these tests use.

#[path = "../src/mailbox.rs"]
mod mailbox;
#[path = "../src/pending.rs"]
mod pending;
mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
}

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use mailbox::{Descriptor, Mailbox, Waited};
use pending::{Refused, Table};

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

/// A descriptor whose readability is a flag.
struct Flag(AtomicBool);

impl Descriptor for Flag {
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

type Numbers = Arc<Mailbox<u32, Flag>>;

fn numbers() -> Numbers {
    Arc::new(Mailbox::new(Flag(AtomicBool::new(false))))
}

fn readable(mailbox: &Numbers) -> bool {
    mailbox.descriptor().0.load(Ordering::SeqCst)
}

/// One wait, on a thread of its own.
fn waiter(mailbox: &Numbers, capacity: usize) -> thread::JoinHandle<(Waited, u32)> {
    let mailbox = Arc::clone(mailbox);
    thread::spawn(move || {
        let mut sum = 0;
        let waited = mailbox.wait(capacity, None, |number| sum += number);
        (waited, sum)
    })
}

#[test]
fn two_waiters_get_two_items() {
    model(|| {
        let mailbox = numbers();
        let waiters = [waiter(&mailbox, 1), waiter(&mailbox, 1)];
        mailbox.push(1).unwrap();
        mailbox.push(10).unwrap();
        let sum: u32 = waiters.into_iter().map(|waiter| waiter.join().unwrap().1).sum();
        assert_eq!(sum, 11);
    });
}

#[test]
fn what_a_waiter_leaves_is_announced() {
    model(|| {
        let mailbox = numbers();
        let waiter = waiter(&mailbox, 1);
        mailbox.push(1).unwrap();
        mailbox.push(10).unwrap();
        assert_eq!(waiter.join().unwrap(), (Waited::Items(1), 1));
        assert!(readable(&mailbox), "an item is there, and nobody waits");
        assert_eq!(mailbox.drain(5, |number| assert_eq!(number, 10)), 1);
        assert!(!readable(&mailbox));
    });
}

#[test]
fn a_poller_sees_every_item() {
    model(|| {
        let mailbox = numbers();
        let pushers: Vec<_> = [1, 10]
            .into_iter()
            .map(|number| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || mailbox.push(number).unwrap())
            })
            .collect();
        let mut sum = 0;
        mailbox.drain(1, |number| sum += number);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        // Nothing but the descriptor tells of what is left.
        assert!(sum == 11 || readable(&mailbox));
        mailbox.drain(5, |number| sum += number);
        assert_eq!(sum, 11);
        assert!(!readable(&mailbox));
    });
}

#[test]
fn a_waiter_and_a_poller_together_miss_nothing() {
    model(|| {
        let mailbox = numbers();
        let waiter = waiter(&mailbox, 1);
        let poller = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let mut sum = 0;
                mailbox.drain(1, |number| sum += number);
                sum
            })
        };
        mailbox.push(1).unwrap();
        let polled = poller.join().unwrap();
        if polled == 1 {
            mailbox.push(10).unwrap();
        }
        let waited = waiter.join().unwrap().1;
        assert_eq!(polled + waited, if polled == 1 { 11 } else { 1 });
    });
}

#[test]
fn one_item_and_one_wake_end_two_waits() {
    model(|| {
        let mailbox = numbers();
        let waiters = [waiter(&mailbox, 4), waiter(&mailbox, 4)];
        mailbox.push(1).unwrap();
        mailbox.wake();
        let mut ends: Vec<Waited> = waiters.into_iter().map(|waiter| waiter.join().unwrap().0).collect();
        ends.sort_by_key(|end| *end == Waited::Woken);
        assert_eq!(ends, [Waited::Items(1), Waited::Woken]);
    });
}

#[test]
fn closing_ends_all_waits_and_every_item_has_one_owner() {
    model(|| {
        let mailbox = numbers();
        let waiters = [waiter(&mailbox, 1), waiter(&mailbox, 1)];
        let pusher = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.push(1).err().unwrap_or(0))
        };
        let left: u32 = mailbox.close().into_iter().sum();
        let refused = pusher.join().unwrap();
        let taken: u32 = waiters.into_iter().map(|waiter| waiter.join().unwrap().1).sum();
        assert_eq!(left + refused + taken, 1);
    });
}

/// A sink that counts: completions by serial number, and that none comes after its end.
struct Counters {
    completed: [AtomicUsize; 2],
    released: AtomicUsize,
}

struct CountingSink(Arc<Counters>);

impl Drop for CountingSink {
    fn drop(&mut self) {
        self.0.released.fetch_add(1, Ordering::SeqCst);
    }
}

/// Completes an operation, if it is still there.
fn complete(table: &Table<CountingSink, ()>, user_data: u64, serial: u64) {
    if let Some((sink, ())) = table.remove(user_data, serial) {
        assert_eq!(sink.0.released.load(Ordering::SeqCst), 0, "released before the last call");
        sink.0.completed[usize::try_from(serial).unwrap()].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn result_cancel_and_close_complete_an_operation_once() {
    model(|| {
        let counters = Arc::new(Counters {
            completed: [AtomicUsize::new(0), AtomicUsize::new(0)],
            released: AtomicUsize::new(0),
        });
        let table = Arc::new(Table::new(CountingSink(Arc::clone(&counters))));
        let (serial, ()) = table.register(7, (), || ()).unwrap();
        assert_eq!(table.register(7, (), || ()), Err(Refused::Duplicate));
        let result = {
            let table = Arc::clone(&table);
            thread::spawn(move || complete(&table, 7, serial))
        };
        let cancel = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                if let Some(serial) = table.with(7, |serial, ()| serial) {
                    complete(&table, 7, serial);
                }
            })
        };
        let (sink, pending) = table.close();
        for user_data in pending {
            if let Some(serial) = table.with(user_data, |serial, ()| serial) {
                complete(&table, user_data, serial);
            }
        }
        drop(sink);
        result.join().unwrap();
        cancel.join().unwrap();
        assert_eq!(counters.completed[0].load(Ordering::SeqCst), 1);
        assert_eq!(counters.released.load(Ordering::SeqCst), 1);
        assert_eq!(table.register(8, (), || ()), Err(Refused::Closed));
    });
}

#[test]
fn a_late_cancel_does_not_hit_a_later_operation_of_the_same_user_data() {
    model(|| {
        let counters = Arc::new(Counters {
            completed: [AtomicUsize::new(0), AtomicUsize::new(0)],
            released: AtomicUsize::new(0),
        });
        let table = Arc::new(Table::new(CountingSink(Arc::clone(&counters))));
        let (first, ()) = table.register(7, (), || ()).unwrap();
        let cancel = {
            let table = Arc::clone(&table);
            // The cancel was asked for while the first operation was pending, and comes late.
            thread::spawn(move || complete(&table, 7, first))
        };
        complete(&table, 7, first);
        let (second, ()) = table.register(7, (), || ()).unwrap();
        cancel.join().unwrap();
        assert_eq!(counters.completed[0].load(Ordering::SeqCst), 1);
        assert_eq!(counters.completed[1].load(Ordering::SeqCst), 0);
        complete(&table, 7, second);
        assert_eq!(counters.completed[1].load(Ordering::SeqCst), 1);
    });
}

/// A cancel that comes while an operation is being started finds it not there, or begun: what it completes is not taken for
/// what was there before.
#[test]
fn an_operation_has_begun_before_anyone_completes_it() {
    model(|| {
        const BEGUN: usize = 1;
        const COMPLETE: usize = 2;
        let table = Arc::new(Table::new(()));
        let slot = Arc::new(AtomicUsize::new(0));
        let cancel = {
            let (table, slot) = (Arc::clone(&table), Arc::clone(&slot));
            thread::spawn(move || {
                let serial = table.with(7, |serial, ()| serial);
                serial.and_then(|serial| table.remove(7, serial)).is_some_and(|_| {
                    slot.store(COMPLETE, Ordering::SeqCst);
                    true
                })
            })
        };
        table.register(7, (), || slot.store(BEGUN, Ordering::SeqCst)).unwrap();
        let cancelled = cancel.join().unwrap();
        assert_eq!(slot.load(Ordering::SeqCst), if cancelled { COMPLETE } else { BEGUN });
    });
}
