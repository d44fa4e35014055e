//! Checks of what comes in: every refusal names the argument and its value.

use crate::error::Failure;

/// Like `&*pointer` for `length` elements; NULL is an empty slice if `length` is 0.
///
/// # Safety
/// `pointer` is NULL or valid for `length` elements during `'a`.
pub(crate) unsafe fn slice<'a, T>(name: &str, pointer: *const T, length: usize) -> Result<&'a [T], Failure> {
    check_extent(name, pointer, length)?;
    // SAFETY: by this function's contract, and the checks.
    Ok(if pointer.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(pointer, length) } })
}

/// [`slice`], to write into.
///
/// # Safety
/// As for [`slice`], and nobody else uses the elements during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(
    name: &str,
    pointer: *mut T,
    length: usize,
) -> Result<&'a mut [T], Failure> {
    check_extent(name, pointer, length)?;
    // SAFETY: by this function's contract, and the checks.
    Ok(if pointer.is_null() { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(pointer, length) } })
}

/// Refuses what cannot be an array of `length` elements.
fn check_extent<T>(name: &str, pointer: *const T, length: usize) -> Result<(), Failure> {
    let problem = if pointer.is_null() {
        (length != 0).then(|| format!("{name} is NULL, its length is {length}"))
    } else if length > isize::MAX as usize / size_of::<T>()
        || pointer.addr().checked_add(length * size_of::<T>()).is_none()
    {
        Some(format!("the length of {name} is {length}, more than memory can hold"))
    } else if !pointer.is_aligned() {
        Some(format!("{name} is {pointer:?}, not aligned to {}", align_of::<T>()))
    } else {
        None
    };
    problem.map_or(Ok(()), |problem| Err(Failure::invalid(problem)))
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
pub(crate) fn partition(partition: u32) -> Option<u32> {
    (partition != crate::producer::FLUVIO_ANY_PARTITION).then_some(partition)
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
                (
                    text("topic", std::ptr::without_provenance(usize::MAX - 2), 4).map(drop),
                    "the length of topic is 4, more than memory can hold",
                ),
                (name("topic", std::ptr::null(), 0).map(drop), "topic is empty"),
                (
                    slice("key_lengths", bad.as_ptr().cast::<u32>().wrapping_byte_add(1), 1).map(drop),
                    "not aligned to 4",
                ),
                (out::<u8>("batch", std::ptr::null_mut()).map(drop), "batch is NULL"),
            ] {
                let failure = format!("{:?}", result.unwrap_err());
                assert!(failure.contains("InvalidArgument") && failure.contains(expected), "{failure}");
            }
            // SAFETY of the slice above: `bad` may be aligned to 4, so one byte on it is not.
        }
        assert_eq!(partition(crate::producer::FLUVIO_ANY_PARTITION), None);
        assert_eq!(partition(7), Some(7));
    }
}
