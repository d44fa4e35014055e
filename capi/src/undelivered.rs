//! Records that were accepted and have no fate yet, in this process: what a program may wait for before it exits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use engine::producer::Producer;

use crate::boundary::boundary_or;
use crate::runtime;

/// How often [`fluvio_flush_all`] looks: completions come from many places, and it is called once in a process's life.
const LOOK: Duration = Duration::from_millis(1);

/// Part of the runtime's registration, so that a forked child starts with nothing.
#[derive(Default)]
pub(crate) struct Undelivered {
    records: AtomicU64,
    producers: Mutex<Vec<Weak<Producer>>>,
}

/// Some records on their way.
pub(crate) struct OnTheWay {
    all: Option<&'static Undelivered>,
    records: u64,
}

impl OnTheWay {
    pub(crate) fn new(records: usize) -> Self {
        let all = runtime::undelivered();
        let records = records as u64;
        if let Some(all) = all {
            all.records.fetch_add(records, Ordering::Relaxed);
        }
        OnTheWay { all, records }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if let Some(all) = self.all {
            all.records.fetch_sub(self.records, Ordering::Release);
        }
    }
}

impl Undelivered {
    /// Remembers a producer as long as it is not freed.
    pub(crate) fn add(&self, producer: &Arc<Producer>) {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        producers.retain(|known| known.strong_count() > 0);
        producers.push(Arc::downgrade(producer));
    }
}

/// Sends what every producer of this process has gathered, and waits until all accepted records have their fate, also
/// those of producers that were freed. For the end of a program that may not have closed everything.
///
/// Parameters: `timeout_ms` is milliseconds, negative: for ever.
/// Completion: none; the records' own completions come as always.
/// Threads: any but the library's; blocks. Inside `complete` and `release`, where nothing may block, it only looks.
/// Errors: returns the number of records that have no fate yet; 0 if there are none, and in a forked child.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_flush_all(timeout_ms: i64) -> u64 {
    boundary_or(0, || {
        let (Some(runtime), Some(all)) = (runtime::existing(), runtime::undelivered()) else { return 0 };
        if crate::sink::inside_host() {
            return all.records.load(Ordering::Acquire);
        }
        let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let producers = all.producers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for producer in producers.iter().filter_map(Weak::upgrade) {
            runtime.spawn(async move { producer.flush().await });
        }
        loop {
            let left = all.records.load(Ordering::Acquire);
            if left == 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return left;
            }
            std::thread::sleep(LOOK);
        }
    })
}
