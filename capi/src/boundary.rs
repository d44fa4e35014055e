//! No panic crosses into C: every exported function runs inside one of these.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::completion::fluvio_status;
use crate::error::{Failure, fluvio_error};

/// For functions with a status and an error parameter.
///
/// # Safety
/// `error` is NULL or valid for writing a pointer.
pub(crate) unsafe fn boundary(
    error: *mut *mut fluvio_error,
    body: impl FnOnce() -> Result<fluvio_status, Failure>,
) -> fluvio_status {
    match catch(body) {
        Ok(status) => status,
        Err(failure) => {
            // SAFETY: by this function's contract.
            unsafe { report(error, failure) };
            fluvio_status::Error
        }
    }
}

/// For functions that give a pointer, or NULL and an error.
///
/// # Safety
/// `error` is NULL or valid for writing a pointer.
pub(crate) unsafe fn boundary_pointer<C>(
    error: *mut *mut fluvio_error,
    body: impl FnOnce() -> Result<*mut C, Failure>,
) -> *mut C {
    match catch(body) {
        Ok(pointer) => pointer,
        Err(failure) => {
            // SAFETY: by this function's contract.
            unsafe { report(error, failure) };
            std::ptr::null_mut()
        }
    }
}

/// For functions that cannot report: `fallback` stands for a panic.
pub(crate) fn boundary_or<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // A panic may leave a value half changed behind a lock; every lock of this crate recovers from that, and the engine
    // closes what it can no longer trust.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)))
}

/// # Safety
/// `error` is NULL or valid for writing a pointer.
unsafe fn report(error: *mut *mut fluvio_error, failure: Failure) {
    if !error.is_null() {
        // SAFETY: by this function's contract.
        unsafe { error.write(failure.into_raw()) };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr;

    use super::*;
    use crate::error::{
        fluvio_error_free, fluvio_error_get_kind, fluvio_error_get_message, fluvio_error_kind,
    };

    #[test]
    fn a_panic_becomes_an_error() {
        let mut error = ptr::null_mut();
        // SAFETY: `error` is valid, and freed once.
        unsafe {
            assert_eq!(boundary(&raw mut error, || panic!("number {}", 7)), fluvio_status::Error);
            assert_eq!(fluvio_error_get_kind(error), fluvio_error_kind::Panic);
            let message = CStr::from_ptr(fluvio_error_get_message(error)).to_str().unwrap();
            assert!(message.contains("number 7"), "{message}");
            fluvio_error_free(error);
            assert_eq!(boundary(ptr::null_mut(), || panic!("unheard")), fluvio_status::Error);
            assert!(boundary_pointer::<u8>(ptr::null_mut(), || panic!("unheard")).is_null());
        }
        assert_eq!(boundary_or(5, || panic!("unheard")), 5);
    }
}
