//! Which library this is.

use std::ffi::{CStr, c_char};

/// Version of this binary interface. It changes when something that exists changes its meaning or its layout; additions
/// leave it as it is. Compare it with `fluvio_abi_version()` after loading the library at run time.
pub const FLUVIO_ABI_VERSION: u32 = 0;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("the version holds a NUL"),
};

/// The `FLUVIO_ABI_VERSION` that the library was built with.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_abi_version() -> u32 {
    FLUVIO_ABI_VERSION
}

/// The version of the library, such as "0.1.0".
///
/// Ownership: the string is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_version() -> *const c_char {
    VERSION.as_ptr()
}
