//! Opaque pointers: what a C type stands for, which process made it, and how it is reached and freed.
//!
//! Every handle is a box that starts with the identity of its process. A child of fork() may read a handle's memory, but
//! the locks, threads and descriptors behind it belong to the parent: [`get`] refuses it, [`free`] leaves it alone.

use crate::error::{Failure, fluvio_error_kind};
use crate::live::Live;
use crate::platform;

/// A C type that is opaque to callers.
pub(crate) trait Opaque {
    /// What is behind the pointer.
    type Value;
    /// Its name in messages; arguments of the type have the same.
    const NAME: &'static str;
}

/// Identity of the process that made something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(u32);

impl Origin {
    pub(crate) fn here() -> Self {
        Origin(platform::forks())
    }

    pub(crate) fn is_here(self) -> bool {
        self == Self::here()
    }
}

pub(crate) struct Handle<T> {
    origin: Origin,
    _live: Live,
    value: T,
}

impl<T> Handle<T> {
    fn new(value: T) -> Self {
        Handle { origin: Origin::here(), _live: Live::new(), value }
    }
}

/// Gives `value` to the caller, who frees it with the type's free function.
pub(crate) fn into_raw<C: Opaque>(value: C::Value) -> *mut C {
    Box::into_raw(Box::new(Handle::new(value))).cast()
}

/// Reaches a handle that an operation is about to use.
///
/// # Safety
/// `pointer` is NULL, or came from [`into_raw`] for the same type and is not freed during `'a`.
pub(crate) unsafe fn get<'a, C: Opaque>(pointer: *const C) -> Result<&'a C::Value, Failure>
where
    C::Value: 'a,
{
    // SAFETY: by this function's contract.
    let Some(handle) = (unsafe { pointer.cast::<Handle<C::Value>>().as_ref() }) else {
        return Err(Failure::invalid(format!("{} is NULL", C::NAME)));
    };
    if handle.origin.is_here() { Ok(&handle.value) } else { Err(forked(C::NAME)) }
}

/// Reaches a handle for plain reading, which is harmless in a forked child too; `None` for NULL.
///
/// # Safety
/// As for [`get`].
pub(crate) unsafe fn peek<'a, C: Opaque>(pointer: *const C) -> Option<&'a C::Value>
where
    C::Value: 'a,
{
    // SAFETY: by this function's contract.
    unsafe { pointer.cast::<Handle<C::Value>>().as_ref() }.map(|handle| &handle.value)
}

/// Like [`get`], for the caller's only use of the handle.
///
/// # Safety
/// As for [`get`]; nobody else uses the handle during `'a`.
pub(crate) unsafe fn get_mut<'a, C: Opaque>(pointer: *mut C) -> Result<&'a mut C::Value, Failure>
where
    C::Value: 'a,
{
    // SAFETY: by this function's contract.
    let Some(handle) = (unsafe { pointer.cast::<Handle<C::Value>>().as_mut() }) else {
        return Err(Failure::invalid(format!("{} is NULL", C::NAME)));
    };
    if handle.origin.is_here() { Ok(&mut handle.value) } else { Err(forked(C::NAME)) }
}

/// Frees a handle; nothing happens for NULL and in a forked child.
///
/// # Safety
/// `pointer` is NULL, or came from [`into_raw`] for the same type and is not used again.
pub(crate) unsafe fn free<C: Opaque>(pointer: *mut C) {
    let handle = pointer.cast::<Handle<C::Value>>();
    // SAFETY: by this function's contract.
    if unsafe { handle.as_ref() }.is_some_and(|handle| handle.origin.is_here()) {
        // SAFETY: into_raw made the box, and this is its last use.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Frees a handle whose end the engine hears of: it may start background work then.
///
/// # Safety
/// As for [`free`].
pub(crate) unsafe fn free_in_runtime<C: Opaque>(pointer: *mut C) {
    let _entered = crate::runtime::existing().map(tokio::runtime::Handle::enter);
    // SAFETY: by this function's contract.
    unsafe { free(pointer) }
}

fn forked(name: &str) -> Failure {
    Failure::new(
        fluvio_error_kind::Forked,
        format!("the {name} was made before fork(): make a new context and connect again in this process"),
    )
}
