//! Linux: eventfd, futex, pthread signal masks, pthread_atfork.
//!
//! SIGPIPE: sockets are written by library threads only, and those block it (it is always raised for the thread that
//! wrote, so it stays pending there and harms nobody). The host's own setting is left alone.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::mailbox::Descriptor;

/// A descriptor that can be made readable and be cleared again. Both are non-blocking and close on exec.
pub(crate) enum Wake {
    Event(OwnedFd),
    Socket { near: UnixStream, far: UnixStream },
}

impl Wake {
    pub(crate) fn event() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        Ok(Wake::Event(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn socket() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Wake::Socket { near, far })
    }

    /// What the host polls for readability.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Wake::Event(fd) => fd.as_raw_fd(),
            Wake::Socket { near, .. } => near.as_raw_fd(),
        }
    }
}

impl Descriptor for Wake {
    /// A full counter or buffer is readable already, so failures mean nothing.
    fn set(&self) {
        match self {
            Wake::Event(fd) => {
                let one = 1u64.to_ne_bytes();
                // SAFETY: the buffer is valid for its length.
                unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            }
            Wake::Socket { far, .. } => {
                let _ = (&*far).write(&[1]);
            }
        }
    }

    fn clear(&self) {
        match self {
            Wake::Event(fd) => {
                let mut counter = [0u8; 8];
                // SAFETY: the buffer is valid for its length.
                unsafe { libc::read(fd.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
            }
            Wake::Socket { near, .. } => {
                let mut bytes = [0u8; 64];
                while matches!((&*near).read(&mut bytes), Ok(count) if count == bytes.len()) {}
            }
        }
    }
}

/// Why [`sleep_while`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The word has changed, or may have.
    Woken,
    TimedOut,
    /// This thread has handled a signal.
    Interrupted,
}

/// Sleeps until [`wake_sleepers`], if `word` is `value`. A signal ends it, which std's condition variables would hide.
pub(crate) fn sleep_while(word: &AtomicU32, value: u32, timeout: Duration) -> Slept {
    // Always with a time: without one the kernel goes on sleeping after a handler with SA_RESTART.
    let timeout = timeout.min(Duration::from_secs(3600));
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time are valid during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, &raw const timeout) };
    if result == 0 {
        return Slept::Woken;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => Slept::TimedOut,
        Some(libc::EINTR) => Slept::Interrupted,
        _ => Slept::Woken,
    }
}

/// Wakes every thread in [`sleep_while`] on `word`.
pub(crate) fn wake_sleepers(word: &AtomicU32) {
    // SAFETY: the word is valid during the call.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)
    };
}

/// Runs `body` with signals blocked for this thread: threads that it starts inherit that, and so do theirs. Signals that
/// the kernel raises for a fault of the thread itself stay deliverable, so that crash reporters work.
pub(crate) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `blocked`, pthread_sigmask initialises `before`; both outlive the calls. None of
    // them fails with valid arguments.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS] {
            libc::sigdelset(blocked.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let result = body();
    // SAFETY: `before` was initialised above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static DETECTING: AtomicBool = AtomicBool::new(false);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between the process that loaded the library and this one: its identity, cheaper than getpid().
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts counting forks; to be called before the first handle is made.
pub(crate) fn detect_forks() -> io::Result<()> {
    if DETECTING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the handler only adds to an atomic, and the library is never unloaded (-z nodelete).
    match unsafe { libc::pthread_atfork(None, None, Some(count_fork)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
