//! Closing a client: whatever was started with it completes first, each with what became of it.
#![allow(missing_docs)]

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use fluvio_cffi::*;
use fluvio_devserver::{Config, Fault, Server};

/// What every wait is bounded by.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls that the engine has under way at a time.
const AT_A_TIME: usize = 16;

const CALLS: u64 = 200;
const CONNECT: u64 = 1000;
const CLOSE: u64 = 1001;

struct Host {
    queue: *mut fluvio_queue,
    context: *mut fluvio_context,
}

impl Host {
    fn new() -> Self {
        // SAFETY: valid arguments; both are freed at the end.
        unsafe {
            let queue = fluvio_queue_new(0, null_mut());
            Host { queue, context: fluvio_context_new_on_queue(queue, null_mut()) }
        }
    }

    /// The next completion.
    fn next(&self) -> fluvio_completion {
        let mut out = std::mem::MaybeUninit::<fluvio_completion>::uninit();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // SAFETY: room for one completion.
            unsafe {
                if fluvio_queue_drain(self.queue, out.as_mut_ptr(), 1) == 1 {
                    return out.assume_init();
                }
            }
            std::thread::yield_now();
        }
        panic!("nothing completes");
    }
}

fn options(document: &str) -> *mut fluvio_options {
    // SAFETY: a valid document.
    unsafe { fluvio_options_new(document.as_ptr().cast(), document.len(), null_mut()) }
}

#[test]
fn closing_completes_after_what_was_under_way() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(Config::default())).unwrap();
    let host = Host::new();
    // SAFETY: every handle is live, and freed once.
    unsafe {
        let document = options(&format!(r#"{{"endpoint": "{}"}}"#, server.endpoint()));
        assert_eq!(fluvio_connect(host.context, document, CONNECT, null_mut()), fluvio_status::Ok);
        fluvio_options_free(document);
        let connected = host.next();
        assert_eq!((connected.user_data, connected.kind), (CONNECT, fluvio_value_kind::Client as u32));
        let client = connected.value.cast::<fluvio_client>();
        server.inject(Fault::from_json(r#"{"kind": "never-answer", "request": "create"}"#).unwrap()).unwrap();
        for number in 0..CALLS {
            let document = options(&format!(r#"{{"name": "new-{number}"}}"#));
            let object = fluvio_object_kind::Topic as u32;
            let started = fluvio_admin_create(client, host.context, object, document, number, null_mut());
            assert_eq!(started, fluvio_status::Ok);
            fluvio_options_free(document);
        }
        let sent = || server.counters().controller.requests_of("create") as usize;
        let begun = Instant::now();
        while sent() < AT_A_TIME {
            assert!(begun.elapsed() < PATIENCE, "{} were sent", sent());
            std::thread::yield_now();
        }
        assert_eq!(fluvio_client_close(client, host.context, CLOSE, null_mut()), fluvio_status::Ok);
        let (mut unknown, mut not_sent) = (0, 0);
        for _ in 0..CALLS {
            let completion = host.next();
            assert_ne!(completion.user_data, CLOSE, "{unknown} and {not_sent} calls had completed");
            assert_eq!(completion.status, fluvio_status::Error as u32);
            let error = completion.value.cast::<fluvio_error>();
            assert_eq!(fluvio_error_get_kind(error), fluvio_error_kind::Closed);
            match fluvio_error_get_outcome(error) {
                fluvio_outcome::Unknown => unknown += 1,
                fluvio_outcome::NotSent => not_sent += 1,
                outcome => panic!("{outcome:?}"),
            }
            fluvio_error_free(error);
        }
        assert_eq!(host.next().user_data, CLOSE);
        assert_eq!((unknown, not_sent), (sent(), CALLS as usize - sent()));
        fluvio_client_free(client);
        fluvio_context_free(host.context);
        fluvio_queue_free(host.queue);
    }
    runtime.block_on(server.shutdown());
}
