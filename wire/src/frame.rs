//! Frames: every request and response is an `i32` length (big-endian) followed by that many bytes.
//!
//! The stock codec has no maximum length and hangs on a negative one; here both are errors, found before anything is
//! allocated for the frame.

use bytes::{Buf, BytesMut};

/// Bytes of the length prefix.
pub const LENGTH_PREFIX: usize = 4;

/// The shortest payload: a correlation id.
pub const MIN_PAYLOAD: usize = 4;

/// The cap used where the caller has no better one: twice the largest batch that a server accepts.
pub const DEFAULT_MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// A length prefix that no peer of this protocol would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes: a length between {MIN_PAYLOAD} and {max} is expected")]
pub struct FrameError {
    /// The length that was announced.
    pub length: i32,
    /// The largest length that is accepted.
    pub max: usize,
}

/// The payload length that the prefix at the front of `buffer` announces; `None` if the prefix is not all there.
pub fn announced(buffer: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_PREFIX>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*prefix);
    match usize::try_from(length) {
        Ok(payload) if (MIN_PAYLOAD..=max).contains(&payload) => Ok(Some(payload)),
        _ => Err(FrameError { length, max }),
    }
}

/// Takes the payload of one complete frame off the front of `buffer`.
///
/// `None` means that more bytes are needed; room for them is reserved then, so that one large frame does not grow the
/// buffer in small steps. `max` bounds the payload.
pub fn split_frame(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, FrameError> {
    let Some(payload) = announced(buffer, max)? else { return Ok(None) };
    let frame = LENGTH_PREFIX + payload;
    if buffer.len() < frame {
        buffer.reserve(frame - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_PREFIX);
    Ok(Some(buffer.split_to(payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_impossible_lengths() {
        for length in [-1, 0, 3, 101, i32::MIN, i32::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(split_frame(&mut buffer, 100), Err(FrameError { length, max: 100 }));
        }
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_arrive(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 4..200), 1..8),
            step in 1usize..64,
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend_from_slice(&(payload.len() as i32).to_be_bytes());
                stream.extend_from_slice(payload);
            }
            let mut buffer = BytesMut::new();
            let mut received = Vec::new();
            for chunk in stream.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = split_frame(&mut buffer, 1000).unwrap() {
                    received.push(frame.to_vec());
                }
            }
            prop_assert_eq!(received, payloads);
            prop_assert!(buffer.is_empty());
        }
    }
}
