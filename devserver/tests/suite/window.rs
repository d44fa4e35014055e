//! The window: how many answers of a stream are in flight, and what acknowledgements do to them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::{Arrival, Raw, batch_of, create, frame_of, framed, produce, unit_of};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::record::{RawRecords, RecordSet};
use fluvio_protocol::{Decoder, Encoder};
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest, UpdateOffsetsResponse};

/// How long a stream that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);

/// The correlation id of the stream; every other request has 1.
const ANSWERS: i32 = 7;

/// A stream over ten batches of one record, one per answer.
struct Stream {
    server: Server,
    unit: Raw,
    id: u32,
    /// Answers that were faster than the response to an acknowledgement.
    early: VecDeque<Vec<u8>>,
}

impl Stream {
    async fn open(window: usize) -> (Self, i64) {
        let server = Server::start(Config { window, ..Config::default() }).await.expect("start");
        let mut controller = Raw::connect(&server.endpoint()).await;
        create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
        let mut unit = Raw::connect(&unit_of(&mut controller).await).await;
        let batch = batch_of(b"x", 1);
        produce(&mut unit, "t", &[&batch[..]; 10]).await;
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic("t".to_owned()).max_bytes(1);
        let mut message = RequestMessage::new_request(request.build().expect("a request"));
        message.header.set_correlation_id(ANSWERS);
        let mut body = Vec::new();
        message.encode(&mut body, 0).expect("encode");
        unit.send(&framed(&body)).await;
        let mut stream = Stream { server, unit, id: 0, early: VecDeque::new() };
        let first = stream.next().await;
        (stream, first)
    }

    /// The offset of the next answer's record.
    async fn next(&mut self) -> i64 {
        let frame = match self.early.pop_front() {
            Some(frame) => frame,
            None => self.unit.receive().await,
        };
        let answer = StreamFetchResponse::<RecordSet<RawRecords>>::decode_from(&mut &frame[8..], 25);
        let answer = answer.expect("an answer");
        assert!(answer.partition.error_code.is_ok());
        self.id = answer.stream_id;
        answer.partition.records.batches[0].base_offset
    }

    async fn acknowledge(&mut self, offset: i64) {
        let update = OffsetUpdate { offset, session_id: self.id };
        self.unit.send(&frame_of(UpdateOffsetsRequest::new(vec![update]))).await;
        loop {
            let frame = self.unit.receive().await;
            if frame[4..8] == ANSWERS.to_be_bytes() {
                self.early.push_back(frame);
                continue;
            }
            let response = UpdateOffsetsResponse::decode_from(&mut &frame[8..], 0).expect("a response");
            return assert!(response.status[0].error.is_ok());
        }
    }

    async fn is_silent(&mut self) {
        assert!(self.early.is_empty());
        assert_eq!(self.unit.receive_within(SILENCE).await, Arrival::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_is_in_flight_as_on_the_real_server() {
    let (mut stream, first) = Stream::open(1).await;
    assert_eq!(first, 0);
    stream.is_silent().await;
    stream.acknowledge(1).await;
    assert_eq!(stream.next().await, 1);
    stream.is_silent().await;
    stream.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wider_window_is_filled_and_an_acknowledgement_frees_its_answers() {
    let (mut stream, first) = Stream::open(3).await;
    assert_eq!([first, stream.next().await, stream.next().await], [0, 1, 2]);
    stream.is_silent().await;
    // One acknowledgement may stand for several answers.
    stream.acknowledge(2).await;
    assert_eq!([stream.next().await, stream.next().await], [3, 4]);
    stream.is_silent().await;
    stream.acknowledge(3).await;
    assert_eq!(stream.next().await, 5);
    stream.is_silent().await;
    stream.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_goes_back_rewinds() {
    let (mut stream, _) = Stream::open(2).await;
    assert_eq!(stream.next().await, 1);
    stream.acknowledge(2).await;
    assert_eq!([stream.next().await, stream.next().await], [2, 3]);
    stream.acknowledge(0).await;
    assert_eq!([stream.next().await, stream.next().await], [0, 1]);
    stream.is_silent().await;
    // And one that goes ahead skips.
    stream.acknowledge(9).await;
    assert_eq!(stream.next().await, 9);
    stream.is_silent().await;
    stream.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_cannot_be_is_refused() {
    for (window, cut_batches, text) in
        [(0, false, "1 to 8"), (9, false, "1 to 8"), (2, true, "whole batches")]
    {
        let config = Config { window, cut_batches, ..Config::default() };
        let error = Server::start(config).await.err().expect("an error").to_string();
        assert!(error.contains(text), "{error}");
    }
}
