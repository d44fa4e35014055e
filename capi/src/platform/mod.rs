//! What differs between operating systems, one file each: the wake-up descriptor, sleeping until a
//! word changes, signal masks, fork detection.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{Slept, Wake, detect_forks, forks, sleep_while, wake_sleepers, with_signals_blocked};

#[cfg(not(target_os = "linux"))]
compile_error!(
    "fluvio_cffi has no platform file for this operating system: add one beside src/platform/linux.rs"
);
