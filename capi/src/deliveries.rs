//! Deliveries: the fate of every record of one send_many, as columns.

use std::ptr;

use engine::producer::Deliveries;

use crate::boundary::boundary_or;
use crate::error::{Failure, fluvio_error, fluvio_error_free};
use crate::handle::{self, Opaque};

/// The fate of every record that one `fluvio_producer_send_many` accepted. Immutable.
pub struct fluvio_deliveries {
    _private: [u8; 0],
}

impl Opaque for fluvio_deliveries {
    type Value = DeliveriesHandle;
    const NAME: &'static str = "deliveries";
}

/// What is behind a `fluvio_deliveries`.
pub struct DeliveriesHandle {
    columns: Deliveries,
    errors: Vec<*mut fluvio_error>,
}

// SAFETY: the errors are owned by this value alone, and immutable.
unsafe impl Send for DeliveriesHandle {}

impl DeliveriesHandle {
    pub(crate) fn new(mut columns: Deliveries) -> Self {
        let errors = columns.distinct.drain(..).map(|error| Failure::from(error).into_raw()).collect();
        DeliveriesHandle { columns, errors }
    }
}

impl Drop for DeliveriesHandle {
    fn drop(&mut self) {
        for error in self.errors.drain(..) {
            // SAFETY: made in `new`, lent out only while this value lives.
            unsafe { fluvio_error_free(error) }
        }
    }
}

/// A view into deliveries: one entry per accepted record, in the order of sending.
#[repr(C)]
pub struct fluvio_deliveries_view {
    /// Records.
    pub count: usize,
    /// How many of them failed.
    pub failed: usize,
    /// Partition of each record.
    pub partitions: *const u32,
    /// Offset of each record, -1 where it failed.
    pub offsets: *const i64,
    /// NULL if none failed; else for each record 0, or 1 + its index for `fluvio_deliveries_get_error`.
    pub errors: *const u32,
    /// All 0: what later versions add is put here.
    pub reserved: [u64; 3],
}

/// Fills in `*view`. Nothing is written if one of the two is NULL.
///
/// Ownership: the columns are borrowed until `fluvio_deliveries_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_deliveries_get_view(
    deliveries: *const fluvio_deliveries,
    view: *mut fluvio_deliveries_view,
) {
    // SAFETY: the caller passes NULL or a live handle, and NULL or a valid pointer.
    boundary_or((), || unsafe {
        let Some(DeliveriesHandle { columns, .. }) = handle::peek(deliveries) else { return };
        if !view.is_null() {
            view.write(fluvio_deliveries_view {
                count: columns.offsets.len(),
                failed: columns.failed,
                partitions: columns.partitions.as_ptr(),
                offsets: columns.offsets.as_ptr(),
                errors: if columns.failed == 0 { ptr::null() } else { columns.errors.as_ptr() },
                reserved: [0; 3],
            });
        }
    });
}

/// One of the distinct errors; NULL if `index` is out of range.
///
/// Ownership: borrowed until `fluvio_deliveries_free`; not to be freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_deliveries_get_error(
    deliveries: *const fluvio_deliveries,
    index: usize,
) -> *const fluvio_error {
    boundary_or(ptr::null(), || {
        // SAFETY: the caller passes NULL or a live handle.
        unsafe { handle::peek(deliveries) }
            .and_then(|deliveries| deliveries.errors.get(index))
            .map_or(ptr::null(), |error| error.cast_const())
    })
}

/// Frees deliveries. NULL is allowed.
///
/// Ownership: takes the handle and ends its views and errors.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_deliveries_free(deliveries: *mut fluvio_deliveries) {
    // SAFETY: the caller passes NULL or a handle that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(deliveries) });
}
