//! The library's own tokio runtime: one per process, made with the first context, never shut down.
//!
//! In a forked child the threads of the parent's runtime do not exist. The child finds that the registered runtime belongs
//! to another process, leaves it alone and makes its own. The registry is one atomic pointer, so that no lock can have
//! been left locked by a thread that fork() did not copy.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Failure, fluvio_error_kind};
use crate::handle::Origin;
use crate::platform;
use crate::undelivered::Undelivered;

const WORKERS: usize = 2;
const THREAD_NAME: &str = "fluvio-cffi";

struct Registered {
    origin: Origin,
    runtime: Runtime,
    undelivered: Undelivered,
    /// The parent's, kept reachable: it is nobody's to free in this process.
    _inherited: *mut Registered,
}

static CURRENT: AtomicPtr<Registered> = AtomicPtr::new(ptr::null_mut());

/// The runtime of this process, if it has one.
pub(crate) fn existing() -> Option<&'static Handle> {
    registered().map(|registered| registered.runtime.handle())
}

/// What this process's producers have accepted and not yet delivered.
pub(crate) fn undelivered() -> Option<&'static Undelivered> {
    registered().map(|registered| &registered.undelivered)
}

fn registered() -> Option<&'static Registered> {
    // SAFETY: the pointer is NULL or a leaked box.
    let registered = unsafe { CURRENT.load(Ordering::Acquire).as_ref() }?;
    registered.origin.is_here().then_some(registered)
}

/// The runtime of this process; makes it if needed.
pub(crate) fn get() -> Result<&'static Handle, Failure> {
    loop {
        if let Some(handle) = existing() {
            return Ok(handle);
        }
        let inherited = CURRENT.load(Ordering::Acquire);
        // Without descriptors tokio panics instead of saying so.
        let built = std::panic::catch_unwind(|| platform::with_signals_blocked(build));
        let runtime = match built {
            Ok(Ok(runtime)) => runtime,
            Ok(Err(error)) => return Err(not_started(&error)),
            Err(_) => return Err(not_started(&"out of descriptors or memory")),
        };
        let new = Box::into_raw(Box::new(Registered {
            origin: Origin::here(),
            runtime,
            undelivered: Undelivered::default(),
            _inherited: inherited,
        }));
        if CURRENT.compare_exchange(inherited, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was faster.
            // SAFETY: `new` was not published.
            unsafe { Box::from_raw(new) }.runtime.shutdown_background();
        }
    }
}

fn not_started(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(fluvio_error_kind::System, format!("the library's threads cannot be started: {why}"))
}

fn build() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(WORKERS).thread_name(THREAD_NAME).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SigBlk mask and name of every thread of this process.
    fn threads() -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else { continue };
            let field = |name: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(|text| text.trim().to_owned())
                    .unwrap()
            };
            found.push((field("Name:"), u64::from_str_radix(&field("SigBlk:"), 16).unwrap()));
        }
        found
    }

    #[test]
    fn library_threads_block_signals_and_the_caller_keeps_its_mask() {
        let handle = get().unwrap();
        // A thread of the blocking pool is started by a worker.
        handle.block_on(async {
            tokio::spawn(async { tokio::task::spawn_blocking(|| ()).await }).await.unwrap().unwrap();
        });
        let ours: Vec<u64> =
            threads().into_iter().filter(|(name, _)| name == THREAD_NAME).map(|(_, mask)| mask).collect();
        assert!(ours.len() > WORKERS, "{} threads", ours.len());
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGPIPE,
            libc::SIGALRM,
            libc::SIGPROF,
            libc::SIGCHLD,
            libc::SIGHUP,
        ] {
            for mask in &ours {
                assert_ne!(mask & (1 << (signal - 1)), 0, "signal {signal} is not blocked: {mask:x}");
            }
        }
        let mut mine = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: a NULL set only queries the mask.
        let blocked = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mine.as_mut_ptr());
            libc::sigismember(mine.as_ptr(), libc::SIGINT)
        };
        assert_eq!(blocked, 0);
    }

    #[test]
    fn one_runtime_per_process() {
        let first: *const Handle = get().unwrap();
        let threads: Vec<_> =
            (0..8).map(|_| std::thread::spawn(|| ptr::from_ref(get().unwrap()) as usize)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), first as usize);
        }
    }
}
