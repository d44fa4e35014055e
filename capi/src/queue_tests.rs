//! The wake rule and the waits of the queue.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::completion::Outcome;
use crate::error::fluvio_error_kind;

fn item(user_data: u64) -> fluvio_completion {
    Outcome::done().into_completion(user_data)
}

fn readable(fd: RawFd, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 && poll.revents & libc::POLLIN != 0 }
}

fn drain(queue: &Queue, capacity: usize) -> Vec<u64> {
    let mut got = Vec::new();
    let count = queue.mailbox.drain(capacity, |item| got.push(item.0.user_data));
    assert_eq!(count, got.len());
    got
}

fn wait(queue: &Queue, capacity: usize, timeout: Option<Duration>) -> (Vec<u64>, Waited) {
    let mut got = Vec::new();
    let waited = queue.mailbox.wait(capacity, timeout, |item| got.push(item.0.user_data));
    (got, waited)
}

/// What a wait must give that takes items.
fn items(expected: &[u64]) -> (Vec<u64>, Waited) {
    (expected.to_vec(), Waited::Items(expected.len()))
}

fn each_kind() -> [Arc<Queue>; 2] {
    [0, FLUVIO_QUEUE_SOCKET].map(|flags| Arc::new(Queue::new(flags).unwrap()))
}

#[test]
fn the_descriptor_is_readable_exactly_while_items_wait() {
    for queue in each_kind() {
        let fd = queue.mailbox.descriptor().fd();
        assert!(!readable(fd, 0));
        for round in 0..3 {
            for number in 0..5 {
                queue.push(item(number));
                assert!(readable(fd, 0), "round {round}");
            }
            assert_eq!(drain(&queue, 3), [0, 1, 2]);
            assert!(readable(fd, 0), "two are left");
            assert_eq!(drain(&queue, 3), [3, 4]);
            assert!(!readable(fd, 0), "round {round}");
        }
        assert_eq!(drain(&queue, 3), [0u64; 0]);
    }
}

#[test]
fn the_descriptor_is_written_on_the_first_item_only() {
    let queue = Queue::new(0).unwrap();
    for number in 0..100 {
        queue.push(item(number));
    }
    let Wake::Event(fd) = queue.mailbox.descriptor() else { panic!("not an eventfd") };
    let mut counter = 0u64;
    // SAFETY: the buffer holds a counter.
    let count = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(fd), (&raw mut counter).cast(), 8) };
    assert_eq!((count, counter), (8, 1));
}

#[test]
fn a_drain_of_capacity_zero_keeps_the_descriptor_readable() {
    let queue = Queue::new(0).unwrap();
    queue.push(item(1));
    assert!(drain(&queue, 0).is_empty());
    assert!(readable(queue.mailbox.descriptor().fd(), 0));
}

#[test]
fn a_wait_gets_what_is_there_and_leaves_the_rest_announced() {
    for queue in each_kind() {
        for number in 0..5 {
            queue.push(item(number));
        }
        assert_eq!(wait(&queue, 3, None), items(&[0, 1, 2]));
        assert!(readable(queue.mailbox.descriptor().fd(), 0));
        assert_eq!(wait(&queue, 3, None), items(&[3, 4]));
        assert!(!readable(queue.mailbox.descriptor().fd(), 0));
        assert_eq!(wait(&queue, 3, Some(Duration::ZERO)).1, Waited::TimedOut);
        assert_eq!(wait(&queue, 3, Some(Duration::from_millis(5))).1, Waited::TimedOut);
    }
}

/// Pollers and waiters at once, several pushers: everything arrives once, in each pusher's order.
#[test]
fn nothing_is_lost_or_doubled_between_pollers_and_waiters() {
    const PUSHERS: u64 = 2;
    const EACH: u64 = 20_000;
    for queue in each_kind() {
        let (sender, receiver) = mpsc::channel::<Vec<u64>>();
        thread::scope(|scope| {
            for pusher in 0..PUSHERS {
                let queue = &queue;
                scope.spawn(move || (0..EACH).for_each(|number| queue.push(item(pusher << 32 | number))));
            }
            for waits in [false, true, true] {
                let (queue, sender) = (&queue, sender.clone());
                scope.spawn(move || {
                    loop {
                        let got = if waits {
                            wait(queue, 7, None).0
                        } else if readable(queue.mailbox.descriptor().fd(), 100) {
                            drain(queue, 7)
                        } else {
                            Vec::new()
                        };
                        let closed = queue.mailbox.is_closed();
                        if !got.is_empty() && sender.send(got).is_err() || closed {
                            return;
                        }
                    }
                });
            }
            let mut seen = vec![0u64; usize::try_from(PUSHERS * EACH).unwrap()];
            let mut left = seen.len();
            while left > 0 {
                for number in receiver.recv_timeout(Duration::from_secs(20)).expect("a wake-up was lost") {
                    let index = usize::try_from((number >> 32) * EACH + (number & 0xffff_ffff)).unwrap();
                    seen[index] += 1;
                    left -= 1;
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
            drop(receiver);
            queue.close();
        });
    }
}

fn waiter(queue: &Arc<Queue>) -> thread::JoinHandle<(Vec<u64>, Waited)> {
    let (queue, before) = (Arc::clone(queue), queue.mailbox.waiting());
    let waiting = Arc::clone(&queue);
    let thread = thread::spawn(move || wait(&waiting, 4, None));
    while queue.mailbox.waiting() == before {
        thread::yield_now();
    }
    thread
}

#[test]
fn closing_ends_waits_now_and_later_and_frees_what_comes() {
    let queue = Arc::new(Queue::new(0).unwrap());
    let waiters = [waiter(&queue), waiter(&queue)];
    queue.close();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap().1, Waited::Closed);
    }
    queue.push(item(1));
    assert!(drain(&queue, 4).is_empty());
    assert_eq!(wait(&queue, 4, None).1, Waited::Closed);
}

#[test]
fn each_wake_ends_one_wait_and_completions_come_first() {
    let queue = Arc::new(Queue::new(0).unwrap());
    let waiting = waiter(&queue);
    queue.mailbox.wake();
    assert_eq!(waiting.join().unwrap().1, Waited::Woken);
    // Too early: kept for the next waits, one for each.
    queue.mailbox.wake();
    queue.mailbox.wake();
    assert!(!readable(queue.mailbox.descriptor().fd(), 0), "a wake is no completion");
    queue.push(item(5));
    assert_eq!(wait(&queue, 4, None), items(&[5]));
    assert_eq!(wait(&queue, 4, None).1, Waited::Woken);
    assert_eq!(wait(&queue, 4, None).1, Waited::Woken);
    assert_eq!(wait(&queue, 4, Some(Duration::ZERO)).1, Waited::TimedOut);
}

#[test]
fn bad_arguments_are_refused() {
    // SAFETY: NULL pointers, and valid ones.
    unsafe {
        let mut error = ptr::null_mut();
        assert!(fluvio_queue_new(6, &raw mut error).is_null());
        assert_eq!(crate::error::fluvio_error_get_kind(error), fluvio_error_kind::InvalidArgument);
        crate::error::fluvio_error_free(error);
        assert!(fluvio_queue_new(6, ptr::null_mut()).is_null());
        let queue = fluvio_queue_new(0, ptr::null_mut());
        let mut out = [item(0)];
        let mut count = 9;
        for (queue, out, capacity, count) in [
            (ptr::null_mut(), out.as_mut_ptr(), 1, &raw mut count),
            (queue, ptr::null_mut(), 1, &raw mut count),
            (queue, out.as_mut_ptr(), 0, &raw mut count),
            (queue, out.as_mut_ptr(), usize::MAX, &raw mut count),
            (queue, out.as_mut_ptr(), usize::MAX / size_of::<fluvio_completion>() + 2, &raw mut count),
            (queue, out.as_mut_ptr(), 1, ptr::null_mut()),
        ] {
            let status = fluvio_queue_wait(queue, out, capacity, -1, count, &raw mut error);
            assert_eq!(status, fluvio_status::Error);
            assert_eq!(crate::error::fluvio_error_get_kind(error), fluvio_error_kind::InvalidArgument);
            crate::error::fluvio_error_free(error);
        }
        assert_eq!(count, 0);
        assert_eq!(fluvio_queue_drain(queue, ptr::null_mut(), 5), 0);
        assert_eq!(fluvio_queue_drain(queue, out.as_mut_ptr(), usize::MAX), 0);
        assert_eq!(fluvio_queue_get_fd(ptr::null()), -1);
        fluvio_queue_free(queue);
        fluvio_queue_free(ptr::null_mut());
    }
}
