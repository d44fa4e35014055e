//! Encoding of answers into frames.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use fluvio_protocol::{Encoder, Version};
use wire::frame::LENGTH_PREFIX;

/// A whole frame: length, correlation id, body.
pub(crate) fn encode<B: Encoder>(correlation_id: i32, body: &B, version: Version) -> io::Result<Bytes> {
    encode_head(correlation_id, body, version, 0)
}

/// The front of a frame whose last `following` bytes are sent behind it.
pub(crate) fn encode_head<B: Encoder>(
    correlation_id: i32,
    body: &B,
    version: Version,
    following: usize,
) -> io::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(LENGTH_PREFIX + 4 + body.write_size(version));
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    body.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - LENGTH_PREFIX + following)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "answer of more than 2 GiB"))?;
    frame[..LENGTH_PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}
