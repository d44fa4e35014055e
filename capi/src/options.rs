//! Options: a JSON document and named blobs, for everything that takes more than a few plain arguments.
//!
//! A new option, also one that is not text, never needs another function. What a document may hold is decided where it is
//! used; `abi/0/options.json` records it, generated from the engine's structs.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use crate::boundary::{boundary, boundary_or, boundary_pointer};
use crate::completion::fluvio_status;
use crate::error::{Failure, fluvio_error, fluvio_error_kind};
use crate::handle::{self, Opaque};
use crate::{arguments, platform};

/// Options of an operation: a document and named blobs. They may be used for any number of operations.
pub struct fluvio_options {
    _private: [u8; 0],
}

impl Opaque for fluvio_options {
    type Value = Options;
    const NAME: &'static str = "options";
}

/// What is behind a `fluvio_options`.
pub struct Options {
    document: String,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// The document of options that an operation is given; `{}` for NULL. No operation of this version asks for a blob.
///
/// # Safety
/// `options` is NULL, or live during `'a`.
pub(crate) unsafe fn document<'a>(options: *const fluvio_options) -> Result<&'a str, Failure> {
    if options.is_null() {
        return Ok("{}");
    }
    // SAFETY: by this function's contract.
    let options = unsafe { handle::get(options) }?;
    match options.blobs.lock().unwrap_or_else(PoisonError::into_inner).keys().next() {
        None => Ok(&options.document),
        Some(name) => Err(Failure::invalid(format!("options: nothing asks for the blob {name:?}"))),
    }
}

/// The options of this version: what `fluvio_options_describe` gives.
const DESCRIPTION: &str = concat!(include_str!("../abi/0/options.json"), "\0");

/// Makes options.
///
/// Parameters: `document` is a JSON object in UTF-8, `document_len` bytes (NULL and 0: `{}`). Its keys are those of the
///   function that gets the options, which refuses others by name.
/// Ownership: the document is copied. The caller frees the options with `fluvio_options_free`.
/// Completion: none.
/// Threads: any.
/// Errors: NULL is returned, and `*error` says why: INVALID_ARGUMENT (not UTF-8, not a JSON object), SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_options_new(
    document: *const c_char,
    document_len: usize,
    error: *mut *mut fluvio_error,
) -> *mut fluvio_options {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary_pointer(error, || {
            let text = arguments::text("document", document, document_len)?;
            let text = if text.is_empty() { "{}" } else { text };
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
                .map_err(|error| Failure::invalid(format!("document is not a JSON object: {error}")))?;
            platform::detect_forks().map_err(|error| {
                Failure::new(fluvio_error_kind::System, format!("pthread_atfork: {error}"))
            })?;
            Ok(handle::into_raw(Options { document: text.to_owned(), blobs: Mutex::default() }))
        })
    }
}

/// Adds a blob: bytes that a document cannot hold, such as a key or a SmartModule. What an operation does not ask for is
/// refused by name; in this version no operation asks for any.
///
/// Parameters: `name` is UTF-8, `name_len` bytes, not empty and not there yet. `data` may be NULL if `data_len` is 0.
/// Ownership: everything is copied.
/// Completion: none.
/// Threads: any.
/// Errors: INVALID_ARGUMENT, FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_options_add_blob(
    options: *mut fluvio_options,
    name: *const c_char,
    name_len: usize,
    data: *const u8,
    data_len: usize,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    use std::collections::btree_map::Entry;
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let options = handle::get(options)?;
            let name = arguments::name("name", name, name_len)?;
            let data = arguments::slice("data", data, data_len)?;
            let mut blobs = options.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            match blobs.entry(name.to_owned()) {
                Entry::Occupied(_) => {
                    Err(Failure::invalid(format!("the options have a blob {name:?} already")))
                }
                Entry::Vacant(entry) => {
                    entry.insert(data.to_vec());
                    Ok(fluvio_status::Ok)
                }
            }
        })
    }
}

/// Frees options; operations that were started with them do not need them any more. NULL is allowed.
///
/// Ownership: takes the options.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_options_free(options: *mut fluvio_options) {
    // SAFETY: the caller passes NULL or options that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(options) });
}

/// All options of this version as a JSON object, for bindings and for tests: for each function that takes options the
/// names, with type and default of each.
///
/// Ownership: the string is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_options_describe() -> *const c_char {
    DESCRIPTION.as_ptr().cast()
}
