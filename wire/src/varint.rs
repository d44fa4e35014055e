//! Zigzag varints, as records use them.
//!
//! The platform's own encoder is only right for values that fit in 31 bits (`fluvio-protocol`, `core/varint.rs`): larger
//! ones are never written here.

/// The longest encoding of an `i64`.
pub const MAX_LEN: usize = 10;

/// Appends `value`.
#[inline]
pub fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The bytes that [`put`] appends for `value`.
#[inline]
pub fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads a value at `*at` and moves `*at` behind it; `None` if it is cut or longer than ten bytes.
#[inline]
pub fn get(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(unzigzag(u64::from(first)));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(unzigzag(value));
        }
    }
    None
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluvio_protocol::core::DecoderVarInt;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value in any::<i64>()) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let mut at = 0;
            prop_assert_eq!(get(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(get(&out[..out.len() - 1], &mut 0), None);
        }

        #[test]
        fn the_platform_reads_ours(value in -(1i64 << 30)..(1i64 << 30)) {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut read = 0i64;
            read.decode_varint(&mut &out[..]).unwrap();
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn endless_varint_is_refused() {
        assert_eq!(get(&[0xff; 16], &mut 0), None);
    }
}
