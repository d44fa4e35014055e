//! Documents: JSON text that an operation gave.

use std::ffi::{CString, c_char};

use crate::boundary::boundary_or;
use crate::handle::{self, Opaque};

/// A JSON document. Immutable.
pub struct fluvio_document {
    _private: [u8; 0],
}

impl Opaque for fluvio_document {
    type Value = CString;
    const NAME: &'static str = "document";
}

/// The text, UTF-8, NUL-terminated; "" for NULL.
///
/// Ownership: borrowed until `fluvio_document_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_document_get_text(document: *const fluvio_document) -> *const c_char {
    // SAFETY: the caller passes NULL or a live document.
    boundary_or(c"".as_ptr(), || unsafe { handle::peek(document) }.map_or(c"", CString::as_c_str).as_ptr())
}

/// The length of the text in bytes, without the NUL; 0 for NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_document_get_length(document: *const fluvio_document) -> usize {
    // SAFETY: the caller passes NULL or a live document.
    boundary_or(0, || unsafe { handle::peek(document) }.map_or(0, |text| text.count_bytes()))
}

/// Frees a document. NULL is allowed.
///
/// Ownership: takes the document and ends its text.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_document_free(document: *mut fluvio_document) {
    // SAFETY: the caller passes NULL or a document that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(document) });
}
