//! Produce and streams, seen frame by frame: offsets, whole and cut answers, one answer in flight, live records, the end
//! of a topic.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::{Arrival, Raw, SOON, ask, batch_of, create, frame_of, framed, produce, unit_of};
use bytes::Buf;
use fluvio_controlplane_metadata::topic::{TopicSpec, TopicStorageConfig};
use fluvio_devserver::{Config, Server};
use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{DeleteRequest, ObjectApiDeleteRequest};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest, UpdateOffsetsResponse};
use wire::batch::{Batches, Rest};

/// How long a connection that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);

struct Fixture {
    server: Server,
    controller: Raw,
    unit: String,
}

async fn start(cut_batches: bool, spec: TopicSpec) -> Fixture {
    let server = Server::start(Config { cut_batches, ..Config::default() }).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut controller).await;
    assert!(create(&mut controller, "t", spec).await.error_code.is_ok());
    Fixture { server, controller, unit }
}

fn one_partition() -> TopicSpec {
    TopicSpec::new_computed(1, 1, None)
}

/// Correlation id of acknowledgements; answers of the stream carry that of its request, which is 1.
const ACKNOWLEDGEMENT: i32 = 2;

/// A connection with one stream of topic `t`.
struct Stream {
    connection: Raw,
    /// Answers that came before the reply to an acknowledgement: the server promises no order between the two.
    early: VecDeque<Vec<u8>>,
}

impl Stream {
    async fn open(unit: &str, offset: i64, max_bytes: usize) -> Self {
        let mut connection = Raw::connect(unit).await;
        connection.send(&open_frame(offset, max_bytes)).await;
        Stream { connection, early: VecDeque::new() }
    }

    /// The next answer, and its records.
    async fn answer(&mut self) -> (FetchablePartitionResponse<i32>, Vec<u8>) {
        let frame = match self.early.pop_front() {
            Some(frame) => frame,
            None => self.connection.receive().await,
        };
        let mut unread = &frame[8..];
        // The record set is an i32 length and the batches.
        let response = StreamFetchResponse::<i32>::decode_from(&mut unread, 25).expect("an answer");
        assert_eq!(response.partition.records as usize, unread.len());
        (response.partition, unread.to_vec())
    }

    async fn acknowledge(&mut self, offset: i64) {
        let update = OffsetUpdate { offset, session_id: 1 };
        let mut message = RequestMessage::new_request(UpdateOffsetsRequest::new(vec![update]));
        message.header.set_correlation_id(ACKNOWLEDGEMENT);
        let mut body = Vec::new();
        message.encode(&mut body, 0).expect("encode");
        self.connection.send(&framed(&body)).await;
        loop {
            let frame = self.connection.receive().await;
            if frame[4..8] == ACKNOWLEDGEMENT.to_be_bytes() {
                let response = UpdateOffsetsResponse::decode_from(&mut &frame[8..], 0).expect("a reply");
                assert!(response.status[0].error.is_ok());
                return;
            }
            self.early.push_back(frame);
        }
    }

    async fn assert_silent(&mut self) {
        assert!(self.early.is_empty());
        assert_eq!(self.connection.receive_within(SILENCE).await, Arrival::Nothing);
    }
}

fn open_frame(offset: i64, max_bytes: usize) -> Vec<u8> {
    let mut request = DefaultStreamFetchRequest::builder();
    request.topic("t".to_owned()).fetch_offset(offset).max_bytes(max_bytes as i32);
    frame_of(request.build().expect("a request"))
}

/// Base offsets and ends of the complete batches.
fn offsets(records: &[u8]) -> Vec<(i64, i64)> {
    Batches::new(records).map(|(_, header)| (header.base_offset, header.next_offset())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_batches_and_repairs_checksums() {
    let Fixture { server, unit, .. } = start(false, one_partition()).await;
    let mut client = Raw::connect(&unit).await;
    let small = batch_of(b"small", 3);
    let mut wrong = batch_of(&[b'w'; 5000], 2).to_vec();
    wrong[17] ^= 0xff;
    let two: Vec<u8> = [&small[..], &wrong[..]].concat();
    let results = produce(&mut client, "t", &[&small, &wrong, &two, &[], &small]).await;
    let ok = |offset| (ErrorCode::None, offset);
    // An entry without records is accepted and has no offset.
    assert_eq!(results, [ok(0), ok(3), ok(5), ok(0), ok(10)]);

    let (partition, records) = Stream::open(&unit, 0, 1 << 20).await.answer().await;
    assert_eq!((partition.high_watermark, partition.log_start_offset), (13, 0));
    assert_eq!(offsets(&records), [(0, 3), (3, 5), (5, 8), (8, 10), (10, 13)]);
    let mut walk = Batches::new(&records);
    for (range, header) in walk.by_ref() {
        header.verify_crc(&records[range]).expect("a repaired checksum");
    }
    assert_eq!(walk.rest(), Rest::Nothing);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_batches_one_answer_in_flight() {
    let Fixture { server, unit, .. } = start(false, one_partition()).await;
    let mut client = Raw::connect(&unit).await;
    let batch = batch_of(&[b'x'; 1000], 10);
    produce(&mut client, "t", &[&batch, &batch, &batch, &batch]).await;

    let mut consumer = Stream::open(&unit, 0, batch.len() * 2 + 1).await;
    assert_eq!(offsets(&consumer.answer().await.1), [(0, 10), (10, 20)]);
    // Neither time nor new records bring a second answer.
    produce(&mut client, "t", &[&batch]).await;
    consumer.assert_silent().await;
    consumer.acknowledge(20).await;
    assert_eq!(offsets(&consumer.answer().await.1), [(20, 30), (30, 40)]);
    // An acknowledgement within an answer goes back to its batch.
    consumer.acknowledge(35).await;
    assert_eq!(offsets(&consumer.answer().await.1), [(30, 40), (40, 50)]);
    consumer.acknowledge(50).await;
    consumer.assert_silent().await;
    // Live records come at once.
    produce(&mut client, "t", &[&batch]).await;
    assert_eq!(offsets(&consumer.answer().await.1), [(50, 60)]);

    // A batch that is larger than the limit comes whole.
    let mut narrow = Stream::open(&unit, 10, 100).await;
    assert_eq!(offsets(&narrow.answer().await.1), [(10, 20)]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_where_the_limit_is() {
    let Fixture { server, unit, .. } = start(true, one_partition()).await;
    let mut client = Raw::connect(&unit).await;
    for len in [100, 1000] {
        // Small batches are sent in one piece, large ones each in its own: both are cut alike.
        let batch = batch_of(&vec![b'x'; len], 10);
        produce(&mut client, "t", &[&batch, &batch]).await;
    }
    let all = Stream::open(&unit, 0, 1 << 20).await.answer().await.1;
    assert_eq!(offsets(&all), [(0, 10), (10, 20), (20, 30), (30, 40)]);
    let third = Batches::new(&all).nth(2).expect("four batches").0.start;
    for limit in [1, 60, 500, 2000, 4000, 15_000] {
        let mut consumer = Stream::open(&unit, 0, limit).await;
        assert_eq!(consumer.answer().await.1, all[..limit]);
        // What is acknowledged is where the next answer begins.
        consumer.acknowledge(20).await;
        assert_eq!(consumer.answer().await.1, all[third..third + limit]);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_batches_that_fit_no_segment() {
    let mut spec = one_partition();
    spec.set_storage(TopicStorageConfig { segment_size: Some(2000), max_partition_size: None });
    let Fixture { server, unit, .. } = start(false, spec).await;
    let mut client = Raw::connect(&unit).await;
    let (fits, too_large) = (batch_of(&[b'x'; 100], 10), batch_of(&[b'x'; 100], 30));
    let results = produce(&mut client, "t", &[&fits, &too_large, &fits]).await;
    let expected = [(ErrorCode::None, 0), (ErrorCode::MessageTooLarge, 0), (ErrorCode::None, 10)];
    assert_eq!(results, expected);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_ends_every_stream_of_the_topic() {
    let Fixture { server, mut controller, unit } = start(false, one_partition()).await;
    let mut client = Raw::connect(&unit).await;
    produce(&mut client, "t", &[&batch_of(b"x", 1)]).await;
    let mut waiting = Stream::open(&unit, 1, 1000).await;
    let mut behind = Stream::open(&unit, 0, 1000).await;
    behind.answer().await;
    let delete = DeleteRequest::<TopicSpec>::new("t".to_owned());
    let request = ObjectApiDeleteRequest::try_encode_from(delete, 19).expect("encode");
    assert!(ask(&mut controller, request).await.error_code.is_ok());
    for stream in [&mut waiting, &mut behind] {
        assert_eq!(stream.answer().await.0.error_code, ErrorCode::TopicDeleted);
    }
    // A topic of the same name begins anew.
    assert!(create(&mut controller, "t", one_partition()).await.error_code.is_ok());
    let results = produce(&mut client, "t", &[&batch_of(b"y", 1)]).await;
    assert_eq!(results, [(ErrorCode::None, 0)]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_gets_everything_in_order() {
    let Fixture { server, unit, .. } = start(false, one_partition()).await;
    let mut client = Raw::connect(&unit).await;
    // More than sockets and the server hold: the server has to stop reading requests, and go on later.
    let batch = batch_of(&[b'x'; 1000], 1000);
    for _ in 0..4 {
        produce(&mut client, "t", &[&batch]).await;
    }
    let mut late = Raw::connect(&unit).await;
    for _ in 0..16 {
        late.send(&open_frame(0, i32::MAX as usize)).await;
    }
    late.send(&crate::common::produce_frame("t", &[&batch_of(b"last", 1)])).await;
    let mut streams = 0;
    let mut produced = 0;
    while streams < 16 || produced < 1 {
        let Arrival::Frame(frame) = late.receive_within(SOON).await else {
            panic!("{streams} answers of streams, {produced} of produce");
        };
        if frame.len() < 100 {
            produced += 1;
        } else {
            let mut unread = &frame[8..];
            StreamFetchResponse::<i32>::decode_from(&mut unread, 25).expect("an answer");
            assert_eq!(offsets(unread.chunk())[..4], [(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000)]);
            streams += 1;
        }
    }
    server.shutdown().await;
}
