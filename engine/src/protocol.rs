//! How requests become frames, and the record set that is never copied.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fluvio_protocol::api::{Request, RequestMessage};
use fluvio_protocol::{Decoder, Encoder, Version};

use crate::error::{Error, ErrorKind, Result};
use crate::link::Chunks;

/// The records of a response as one piece of the frame that they came in.
#[derive(Debug, Default)]
pub(crate) struct RecordBytes(pub(crate) Bytes);

impl Decoder for RecordBytes {
    fn decode<T: Buf>(&mut self, source: &mut T, version: Version) -> io::Result<()> {
        let mut length = 0i32;
        length.decode(source, version)?;
        let length =
            usize::try_from(length).ok().filter(|length| *length <= source.remaining()).ok_or_else(|| {
                io::Error::new(io::ErrorKind::UnexpectedEof, "record set is longer than its frame")
            })?;
        // No copy when the source is `Bytes`, as every frame here is.
        self.0 = source.copy_to_bytes(length);
        Ok(())
    }
}

impl Encoder for RecordBytes {
    fn write_size(&self, _version: Version) -> usize {
        4 + self.0.len()
    }

    fn encode<T: BufMut>(&self, out: &mut T, _version: Version) -> io::Result<()> {
        out.put_i32(self.0.len() as i32);
        out.put_slice(&self.0);
        Ok(())
    }
}

/// Encodes a request and its header into one frame.
pub(crate) fn encode_request<R: Request>(
    request: R,
    version: i16,
    id: i32,
    client_id: &str,
) -> Result<Chunks> {
    let mut message = RequestMessage::new_request(request).set_client_id(client_id);
    message.get_mut_header().set_api_version(version).set_correlation_id(id);
    let mut frame = vec![0; 4];
    message.encode(&mut frame, version).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, format!("the request cannot be encoded: {error}"))
    })?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let mut chunks = Chunks::default();
    chunks.push(frame.into());
    Ok(chunks)
}

/// A batch on its way to one partition.
#[derive(Debug)]
pub(crate) struct PartitionBatch<'a> {
    pub(crate) partition: u32,
    pub(crate) batch: &'a Bytes,
}

/// Encodes a produce request (key 0) for one topic without copying the batches.
///
/// Layout: fluvio-spu-schema 0.50.1, `produce/request.rs`; a test compares with that encoder.
pub(crate) fn encode_produce(
    topic: &str,
    batches: &[PartitionBatch<'_>],
    committed: bool,
    timeout: Duration,
    version: i16,
    id: i32,
    client_id: &str,
) -> Chunks {
    let mut head = BytesMut::with_capacity(64 + topic.len() + client_id.len() + 12 * batches.len());
    head.put_i32(0); // length, patched below
    head.put_u16(0); // produce
    head.put_i16(version);
    head.put_i32(id);
    put_string(&mut head, client_id);
    head.put_u8(0); // no transactional id
    head.put_i16(if committed { -1 } else { 1 });
    head.put_i32(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    head.put_i32(1);
    put_string(&mut head, topic);
    head.put_i32(batches.len() as i32);
    let mut pieces = Vec::with_capacity(batches.len() + 1);
    let mut length = 0;
    for entry in batches {
        head.put_u32(entry.partition);
        head.put_i32(entry.batch.len() as i32);
        pieces.push(head.split());
        length += entry.batch.len();
    }
    head.put_i32(0); // no SmartModules
    pieces.push(head);
    length += pieces.iter().map(BytesMut::len).sum::<usize>() - 4;
    if let Some(first) = pieces.first_mut() {
        first[..4].copy_from_slice(&(length as i32).to_be_bytes());
    }
    let mut chunks = Chunks::default();
    for (index, piece) in pieces.into_iter().enumerate() {
        chunks.push(piece.freeze());
        if let Some(entry) = batches.get(index) {
            chunks.push(entry.batch.clone());
        }
    }
    chunks
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluvio_spu_schema::Isolation;
    use fluvio_spu_schema::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

    fn bytes_of(mut chunks: Chunks) -> Bytes {
        let length = chunks.remaining();
        chunks.copy_to_bytes(length)
    }

    #[test]
    fn produce_is_encoded_as_the_platform_does() {
        for (committed, count) in [(false, 1), (true, 3), (false, 0)] {
            let batches: Vec<Bytes> = (0..count).map(|i| Bytes::from(vec![i as u8; 10 * i + 5])).collect();
            let entries: Vec<PartitionBatch<'_>> = batches
                .iter()
                .enumerate()
                .map(|(i, batch)| PartitionBatch { partition: i as u32, batch })
                .collect();
            let timeout = Duration::from_millis(1500);
            let ours = encode_produce("orders", &entries, committed, timeout, 25, 7, "client");
            let mut topic = TopicProduceData::<RecordBytes> { name: "orders".into(), ..Default::default() };
            for (i, batch) in batches.iter().enumerate() {
                topic.partitions.push(PartitionProduceData {
                    partition_index: i as u32,
                    records: RecordBytes(batch.clone()),
                });
            }
            let theirs = ProduceRequest::<RecordBytes> {
                isolation: if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
                timeout,
                topics: vec![topic],
                ..Default::default()
            };
            let theirs = encode_request(theirs, 25, 7, "client").unwrap();
            assert_eq!(bytes_of(ours), bytes_of(theirs));
        }
    }

    #[test]
    fn a_record_set_longer_than_its_frame_is_refused() {
        let mut frame = Bytes::from_static(&[0, 0, 0, 9, 1, 2]);
        assert!(RecordBytes::decode_from(&mut frame, 0).is_err());
        let mut frame = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
        assert!(RecordBytes::decode_from(&mut frame, 0).is_err());
    }
}
