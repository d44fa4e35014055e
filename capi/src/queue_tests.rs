//! The wake rule, the waits and the free order of the queue.

use std::mem::MaybeUninit;
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

fn drain(queue: &Shared, capacity: usize) -> Vec<u64> {
    let mut out = vec![MaybeUninit::uninit(); capacity];
    let count = queue.drain(&mut out);
    // SAFETY: drain wrote the first `count`.
    out[..count].iter().map(|slot| unsafe { slot.assume_init_ref() }.user_data).collect()
}

fn wait(queue: &Shared, capacity: usize, timeout: Option<Duration>) -> Vec<u64> {
    let mut out = vec![MaybeUninit::uninit(); capacity];
    let count = queue.wait(&mut out, timeout);
    // SAFETY: wait wrote the first `count`.
    out[..count].iter().map(|slot| unsafe { slot.assume_init_ref() }.user_data).collect()
}

fn each_kind() -> [Arc<Shared>; 2] {
    [0, FLUVIO_QUEUE_SOCKET].map(|flags| Arc::new(Shared::new(flags).unwrap()))
}

#[test]
fn the_descriptor_is_readable_exactly_while_items_wait() {
    for queue in each_kind() {
        let fd = queue.wake.fd();
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
    let queue = Shared::new(0).unwrap();
    for number in 0..100 {
        queue.push(item(number));
    }
    let Wake::Event(fd) = &queue.wake else { panic!("not an eventfd") };
    let mut counter = 0u64;
    // SAFETY: the buffer holds a counter.
    let count = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(fd), (&raw mut counter).cast(), 8) };
    assert_eq!((count, counter), (8, 1));
}

#[test]
fn a_drain_of_capacity_zero_keeps_the_descriptor_readable() {
    let queue = Shared::new(0).unwrap();
    queue.push(item(1));
    assert!(drain(&queue, 0).is_empty());
    assert!(readable(queue.wake.fd(), 0));
    assert!(wait(&queue, 0, None).is_empty());
    assert!(readable(queue.wake.fd(), 0));
}

#[test]
fn a_wait_gets_what_is_there_and_leaves_the_rest_announced() {
    for queue in each_kind() {
        for number in 0..5 {
            queue.push(item(number));
        }
        assert_eq!(wait(&queue, 3, None), [0, 1, 2]);
        assert!(readable(queue.wake.fd(), 0));
        assert_eq!(wait(&queue, 3, None), [3, 4]);
        assert!(!readable(queue.wake.fd(), 0));
        assert!(wait(&queue, 3, Some(Duration::ZERO)).is_empty());
        assert!(wait(&queue, 3, Some(Duration::from_millis(5))).is_empty());
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
                            wait(queue, 7, None)
                        } else if readable(queue.wake.fd(), 100) {
                            drain(queue, 7)
                        } else {
                            Vec::new()
                        };
                        let closed = queue.state().closed;
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

#[test]
fn freeing_wakes_waiters_and_frees_what_comes_later() {
    let queue = Arc::new(Shared::new(0).unwrap());
    let waiting = Arc::clone(&queue);
    let waiter = thread::spawn(move || wait(&waiting, 4, None));
    while queue.state().waiting == 0 {
        thread::yield_now();
    }
    queue.close();
    assert!(waiter.join().unwrap().is_empty());
    queue.push(item(1));
    assert!(drain(&queue, 4).is_empty());
}

#[test]
fn any_order_of_freeing_is_safe() {
    // SAFETY: every pointer is valid where it is used and freed once.
    unsafe {
        let queue = fluvio_queue_new(0, ptr::null_mut());
        let mut sink = MaybeUninit::<fluvio_sink>::uninit();
        assert_eq!(fluvio_queue_sink(queue, sink.as_mut_ptr()), fluvio_status::Ok);
        let sink = sink.assume_init();
        fluvio_queue_free(queue);
        (sink.complete.unwrap())(sink.context, &raw const *Box::new(item(1)));
        (sink.release.unwrap())(sink.context);
    }
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
        assert_eq!(fluvio_queue_sink(queue, ptr::null_mut()), fluvio_status::Error);
        assert_eq!(fluvio_queue_sink(ptr::null_mut(), ptr::null_mut()), fluvio_status::Error);
        assert_eq!(fluvio_queue_drain(queue, ptr::null_mut(), 5), 0);
        assert_eq!(fluvio_queue_wait(queue, ptr::null_mut(), 5, -1), 0);
        assert_eq!(fluvio_queue_wait(ptr::null_mut(), ptr::null_mut(), 5, -1), 0);
        assert_eq!(fluvio_queue_fd(ptr::null()), -1);
        fluvio_queue_free(queue);
        fluvio_queue_free(ptr::null_mut());
    }
}
