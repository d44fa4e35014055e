//! Batches: records as columns over one buffer.

use engine::consumer::Batch;

use crate::boundary::boundary_or;
use crate::handle::{self, Opaque};

/// Records of one partition, as they came from the server. Immutable.
pub struct fluvio_batch {
    _private: [u8; 0],
}

impl Opaque for fluvio_batch {
    type Value = Batch;
    const NAME: &'static str = "batch";
}

/// A view into a batch: columns with one entry per record, and the buffer that they point into. Record `i` has the value
/// `data[value_starts[i]]` up to, not including, `data[value_ends[i]]`; its key likewise.
#[repr(C)]
pub struct fluvio_batch_view {
    /// Holds all keys and values; less than 2 GiB.
    pub data: *const u8,
    /// Bytes of data.
    pub data_len: usize,
    /// Records.
    pub count: usize,
    /// Offset of each record in the partition.
    pub offsets: *const i64,
    /// Milliseconds since 1970, -1 where there is none.
    pub timestamps: *const i64,
    /// Where each key starts in data, `FLUVIO_NO_KEY` for a record without a key.
    pub key_starts: *const u32,
    /// Where each key ends; 0 for a record without a key.
    pub key_ends: *const u32,
    /// Where each value starts.
    pub value_starts: *const u32,
    /// Where each value ends.
    pub value_ends: *const u32,
    /// The partition's high watermark when the batch was sent.
    pub high_watermark: i64,
    /// The partition.
    pub partition: u32,
    /// All 0: what later versions add is put here.
    pub reserved: [u32; 9],
}

pub(crate) fn view_of(batch: &Batch) -> fluvio_batch_view {
    let columns = batch.columns();
    fluvio_batch_view {
        data: batch.data().as_ptr(),
        data_len: batch.data().len(),
        count: columns.len(),
        offsets: columns.offsets.as_ptr(),
        timestamps: columns.timestamps.as_ptr(),
        key_starts: columns.key_starts.as_ptr(),
        key_ends: columns.key_ends.as_ptr(),
        value_starts: columns.value_starts.as_ptr(),
        value_ends: columns.value_ends.as_ptr(),
        high_watermark: batch.high_watermark(),
        partition: batch.partition(),
        reserved: [0; 9],
    }
}

/// Fills in `*view`. Nothing is written if one of the two is NULL.
///
/// Ownership: the view is borrowed until `fluvio_batch_free`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_batch_get_view(batch: *const fluvio_batch, view: *mut fluvio_batch_view) {
    // SAFETY: the caller passes NULL or a live batch, and NULL or a valid pointer.
    boundary_or((), || unsafe {
        let Some(batch) = handle::peek(batch) else { return };
        if !view.is_null() {
            view.write(view_of(batch));
        }
    });
}

/// Frees the batch at `*batch` and sets that to NULL: for a place that a `fluvio_consumer_take` may have filled, and as the one
/// step that a host's garbage collector can do. NULL is allowed for both.
///
/// Ownership: takes the batch and ends its views.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_batch_clear(batch: *mut *mut fluvio_batch) {
    // SAFETY: the caller passes NULL or a place with NULL or a batch that it owns and does not use again.
    boundary_or((), || unsafe {
        if let Some(batch) = batch.as_mut() {
            handle::free(std::mem::replace(batch, std::ptr::null_mut()));
        }
    });
}

/// Frees a batch. NULL is allowed.
///
/// Ownership: takes the batch and ends its views.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_batch_free(batch: *mut fluvio_batch) {
    // SAFETY: the caller passes NULL or a batch that it owns and does not use again.
    boundary_or((), || unsafe { handle::free(batch) });
}
