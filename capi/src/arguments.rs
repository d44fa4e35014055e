//! Checks of what comes in: every refusal names the argument and its value.

use crate::error::Failure;

/// Like `&*pointer` for `length` elements; NULL is an empty slice if `length` is 0.
///
/// # Safety
/// `pointer` is NULL or valid for `length` elements during `'a`.
pub(crate) unsafe fn slice<'a, T>(name: &str, pointer: *const T, length: usize) -> Result<&'a [T], Failure> {
    if pointer.is_null() {
        return if length == 0 {
            Ok(&[])
        } else {
            Err(Failure::invalid(format!("{name} is NULL, its length is {length}")))
        };
    }
    if length > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::invalid(format!("the length of {name} is {length}, more than memory can hold")));
    }
    if !pointer.is_aligned() {
        return Err(Failure::invalid(format!("{name} is {pointer:?}, not aligned to {}", align_of::<T>())));
    }
    // SAFETY: by this function's contract, and the checks above.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// UTF-8 text.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn text<'a>(
    name: &str,
    pointer: *const libc::c_char,
    length: usize,
) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { slice::<u8>(name, pointer.cast(), length) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::invalid(format!(
            "{name} is not UTF-8: {error}, in {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        ))
    })
}

/// UTF-8 text that must not be empty.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn name<'a>(
    name: &str,
    pointer: *const libc::c_char,
    length: usize,
) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    let text = unsafe { text(name, pointer, length) }?;
    if text.is_empty() { Err(Failure::invalid(format!("{name} is empty"))) } else { Ok(text) }
}

/// A partition, or `FLUVIO_ANY_PARTITION`.
pub(crate) fn partition(partition: i32) -> Result<Option<u32>, Failure> {
    if partition == crate::producer::FLUVIO_ANY_PARTITION {
        return Ok(None);
    }
    u32::try_from(partition).map(Some).map_err(|_| {
        Failure::invalid(format!("partition is {partition}: give 0 or more, or FLUVIO_ANY_PARTITION (-1)"))
    })
}

/// Where a call writes a result that the caller cannot do without.
///
/// # Safety
/// `pointer` is NULL or valid for writing during `'a`.
pub(crate) unsafe fn out<'a, T>(
    name: &str,
    pointer: *mut T,
) -> Result<&'a mut std::mem::MaybeUninit<T>, Failure> {
    // SAFETY: by this function's contract; the value is not read.
    unsafe { pointer.cast::<std::mem::MaybeUninit<T>>().as_mut() }
        .ok_or_else(|| Failure::invalid(format!("{name} is NULL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_argument() {
        let bad = [b'a', 0xff];
        // SAFETY: the pointers are NULL or valid for their lengths; the last is refused before it is used.
        unsafe {
            assert_eq!(text("topic", std::ptr::null(), 0).unwrap(), "");
            for (result, expected) in [
                (text("topic", std::ptr::null(), 3).map(drop), "topic is NULL, its length is 3"),
                (text("topic", bad.as_ptr().cast(), 2).map(drop), "topic is not UTF-8"),
                (
                    text("topic", bad.as_ptr().cast(), usize::MAX).map(drop),
                    "the length of topic is 18446744073709551615",
                ),
                (name("topic", std::ptr::null(), 0).map(drop), "topic is empty"),
                (
                    slice("key_lengths", bad.as_ptr().cast::<u32>().wrapping_byte_add(1), 1).map(drop),
                    "not aligned to 4",
                ),
                (partition(-2).map(drop), "partition is -2"),
                (out::<u8>("batch", std::ptr::null_mut()).map(drop), "batch is NULL"),
            ] {
                let failure = format!("{:?}", result.unwrap_err());
                assert!(failure.contains("InvalidArgument") && failure.contains(expected), "{failure}");
            }
            // SAFETY of the slice above: `bad` may be aligned to 4, so one byte on it is not.
        }
        assert_eq!(partition(-1).unwrap(), None);
        assert_eq!(partition(7).unwrap(), Some(7));
    }
}
