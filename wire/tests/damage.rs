//! Batches whose checksum is right and whose records are not.
#![allow(missing_docs)]

use wire::batch::{BatchError, set_base_offset, set_crc};
use wire::builder::{BatchBuilder, EMPTY_LEN};
use wire::memory::Memory;
use wire::view::decode;

/// Nothing of a batch is handed out if one of its records cannot be decoded; what stands in front of it is.
#[test]
fn half_a_batch_is_never_handed_out() {
    let built = |base_offset| {
        let mut builder = BatchBuilder::with_capacity(100);
        builder.push(None, b"first", 1);
        builder.push(None, b"second", 1);
        let mut batch = builder.finish();
        set_base_offset(&mut batch, base_offset);
        batch
    };
    let mut damaged = built(2);
    // The second record begins behind the first: its length byte, then as many bytes as it says (twice, zigzag).
    let second = EMPTY_LEN + 1 + usize::from(damaged[EMPTY_LEN] / 2);
    damaged[second] = 0x7e;
    set_crc(&mut damaged);
    let set = [built(0), damaged].concat();
    let decoded = decode(&set, 0, true, &Memory::default());
    assert_eq!(decoded.error, Some(BatchError::Record { base_offset: 2, index: 1 }));
    assert_eq!(*decoded.columns.offsets, [0, 1]);
    assert_eq!(decoded.columns.value_starts.len(), 2);
    assert_eq!(decoded.next_offset, Some(2));
}
