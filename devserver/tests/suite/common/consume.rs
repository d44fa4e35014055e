//! A client that reads partitions from one offset to their end.

use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use wire::memory::Memory;
use wire::view::{Decoded, decode};

use super::{Arrival, Raw, SOON, ask, frame_of, framed};

/// Correlation id of acknowledgements; answers of the stream carry that of its request, which is 1.
const ACKNOWLEDGEMENT: i32 = 2;

/// Where partition 0 of a topic begins and ends.
pub async fn range(unit: &mut Raw, topic: &str) -> (i64, i64) {
    let response = ask(unit, FetchOffsetsRequest::new(topic.to_owned(), 0)).await;
    let partition = &response.topics[0].partitions[0];
    assert!(partition.error_code.is_ok(), "{topic}: {:?}", partition.error_code);
    (partition.start_offset, partition.last_stable_offset)
}

/// A stream of partition 0 of a topic.
pub struct Stream {
    pub connection: Raw,
    pub stream_id: u32,
}

impl Stream {
    /// Opens a stream on a connection of its own.
    pub async fn open(unit: &str, topic: &str, offset: i64, consumer_id: Option<&str>) -> Self {
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic(topic.to_owned()).fetch_offset(offset).max_bytes(1 << 20);
        request.consumer_id(consumer_id.map(str::to_owned));
        Stream::send(unit, request.build().expect("a request")).await
    }

    /// Opens a stream whose answers are to have at most so many bytes.
    pub async fn open_with(unit: &str, topic: &str, offset: i64, max_bytes: i32) -> Self {
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic(topic.to_owned()).fetch_offset(offset).max_bytes(max_bytes);
        Stream::send(unit, request.build().expect("a request")).await
    }

    async fn send(unit: &str, request: DefaultStreamFetchRequest) -> Self {
        let mut connection = Raw::connect(unit).await;
        connection.send(&frame_of(request)).await;
        Stream { connection, stream_id: 0 }
    }

    /// The next answer, and its batches.
    pub async fn answer(&mut self) -> (FetchablePartitionResponse<i32>, Vec<u8>) {
        self.try_answer().await.expect("an answer")
    }

    /// The next answer, unless the server goes away.
    pub async fn try_answer(&mut self) -> Option<(FetchablePartitionResponse<i32>, Vec<u8>)> {
        loop {
            let Arrival::Frame(frame) = self.connection.receive_within(SOON).await else {
                return None;
            };
            if frame[4..8] != 1_i32.to_be_bytes() {
                continue;
            }
            let mut unread = &frame[8..];
            let response = StreamFetchResponse::<i32>::decode_from(&mut unread, 25).expect("an answer");
            self.stream_id = response.stream_id;
            return Some((response.partition, unread.to_vec()));
        }
    }

    /// Lets the stream go on from `offset`.
    pub async fn acknowledge(&mut self, offset: i64) {
        let update = OffsetUpdate { offset, session_id: self.stream_id };
        let mut message = RequestMessage::new_request(UpdateOffsetsRequest::new(vec![update]));
        message.header.set_correlation_id(ACKNOWLEDGEMENT);
        let mut body = Vec::new();
        message.encode(&mut body, 0).expect("encode");
        self.connection.send(&framed(&body)).await;
    }
}

fn records_of(decoded: &Decoded, batches: &[u8]) -> Vec<(i64, String)> {
    let columns = &decoded.columns;
    let value = |at: usize| {
        let value = &batches[columns.value_starts[at] as usize..columns.value_ends[at] as usize];
        (columns.offsets[at], String::from_utf8_lossy(value).into_owned())
    };
    (0..columns.len()).map(value).collect()
}

/// All records of partition 0 of a topic from `start` to `end`, with their offsets; every checksum is checked.
pub async fn read(unit: &str, topic: &str, start: i64, end: i64) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    if start == end {
        return records;
    }
    let mut stream = Stream::open(unit, topic, start, None).await;
    let mut position = start;
    while position < end {
        let (partition, batches) = stream.answer().await;
        assert_eq!(partition.error_code, ErrorCode::None, "{topic} at {position}");
        let decoded = decode(&batches, position, true, &Memory::default());
        assert_eq!((decoded.rest, decoded.error), (None, None), "{topic} at {position}");
        position = decoded.next_offset.expect("a batch");
        records.extend(records_of(&decoded, &batches));
        stream.acknowledge(position).await;
    }
    records
}
