//! Every answer of a real server that was recorded (tests/data/exchanges.jsonl, README beside it) is decoded by the same
//! functions that decode them in operation, and yields what the recording says.

use bytes::{Buf, Bytes, BytesMut};
use fluvio_controlplane_metadata::mirror::MirrorSpec;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::smartmodule::SmartModuleSpec;
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::tableformat::TableFormatSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::Decoder;
use fluvio_protocol::link::versions::ApiVersionsResponse;
use fluvio_sc_schema::customspu::CustomSpuSpec;
use fluvio_sc_schema::objects::{ListResponse, ObjectApiListResponse, ObjectApiWatchResponse, WatchResponse};
use fluvio_sc_schema::{AdminSpec, Status, TryEncodableFrom};
use fluvio_spu_schema::produce::ProduceResponse;
use fluvio_spu_schema::server::consumer_offset::{
    DeleteConsumerOffsetResponse, FetchConsumerOffsetsResponse, UpdateConsumerOffsetResponse,
};
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsResponse;
use fluvio_spu_schema::server::stream_fetch::StreamFetchResponse;
use fluvio_spu_schema::server::update_offset::UpdateOffsetsResponse;
use serde::Deserialize;
use wire::frame::{DEFAULT_MAX_PAYLOAD, split_frame};

use crate::link::decode_body;
use crate::protocol::RecordBytes;

#[derive(Deserialize)]
struct Exchange {
    name: String,
    plane: String,
    api_key: u16,
    api_version: i16,
    responses: Vec<String>,
    decoded: Option<String>,
}

fn exchanges() -> Vec<Exchange> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/exchanges.jsonl");
    let text = std::fs::read_to_string(path).expect("the recorded exchanges are there");
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded exchange")).collect()
}

fn body(hex: &str) -> Bytes {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    let mut buffer = BytesMut::from(&bytes[..]);
    let mut frame =
        split_frame(&mut buffer, DEFAULT_MAX_PAYLOAD).expect("a frame").expect("a whole frame").freeze();
    assert!(buffer.is_empty());
    frame.advance(4);
    frame
}

fn decoded<T: Decoder>(exchange: &Exchange, mut body: Bytes) -> T {
    let value = decode_body(&mut body, exchange.api_version)
        .unwrap_or_else(|error| panic!("{}: {error}", exchange.name));
    assert!(body.is_empty(), "{}: {} bytes are left", exchange.name, body.len());
    value
}

fn shown<T: Decoder + std::fmt::Debug>(exchange: &Exchange, body: Bytes) -> String {
    format!("{:?}", decoded::<T>(exchange, body))
}

fn holds<S>(list: &ObjectApiListResponse) -> bool
where
    S: AdminSpec,
    S::Status: fluvio_protocol::Encoder + Decoder + std::fmt::Debug,
{
    let objects: Option<ListResponse<S>> = list.downcast().expect("the objects are decoded");
    objects.is_some()
}

fn changes<S>(update: &ObjectApiWatchResponse) -> bool
where
    S: AdminSpec,
    S::Status: fluvio_protocol::Encoder + Decoder,
{
    let objects: Option<WatchResponse<S>> = update.downcast().expect("the changes are decoded");
    objects.is_some()
}

#[test]
fn every_recorded_answer_is_decoded() {
    let exchanges = exchanges();
    assert_eq!(exchanges.len(), 104);
    let mut answers = 0;
    for exchange in &exchanges {
        let multiple = exchange.responses.len() > 1;
        for response in &exchange.responses {
            answers += 1;
            let body = body(response);
            let text = match (exchange.plane.as_str(), exchange.api_key) {
                (_, 18) => shown::<ApiVersionsResponse>(exchange, body),
                ("sc", 1001 | 1002 | 1006) => shown::<Status>(exchange, body),
                ("sc", 1003) => {
                    let list: ObjectApiListResponse = decoded(exchange, body);
                    let known = holds::<TopicSpec>(&list)
                        || holds::<PartitionSpec>(&list)
                        || holds::<SpuSpec>(&list)
                        || holds::<CustomSpuSpec>(&list)
                        || holds::<SpuGroupSpec>(&list)
                        || holds::<SmartModuleSpec>(&list)
                        || holds::<TableFormatSpec>(&list)
                        || holds::<MirrorSpec>(&list);
                    assert!(known, "{}", exchange.name);
                    format!("{list:?}")
                }
                ("sc", 1004) => {
                    let update: ObjectApiWatchResponse = decoded(exchange, body);
                    let known = changes::<TopicSpec>(&update)
                        || changes::<PartitionSpec>(&update)
                        || changes::<SpuSpec>(&update);
                    assert!(known, "{}", exchange.name);
                    format!("{update:?}")
                }
                ("spu", 0) => shown::<ProduceResponse>(exchange, body),
                ("spu", 1002) => shown::<FetchOffsetsResponse>(exchange, body),
                ("spu", 1003) => {
                    let answer: StreamFetchResponse<RecordBytes> = decoded(exchange, body);
                    let records = wire::view::decode(
                        &answer.partition.records.0,
                        0,
                        true,
                        &wire::memory::Memory::default(),
                    );
                    assert_eq!(records.error, None, "{}", exchange.name);
                    continue;
                }
                ("spu", 1005) => shown::<UpdateOffsetsResponse>(exchange, body),
                ("spu", 1006) => shown::<UpdateConsumerOffsetResponse>(exchange, body),
                ("spu", 1007) => shown::<DeleteConsumerOffsetResponse>(exchange, body),
                ("spu", 1008) => shown::<FetchConsumerOffsetsResponse>(exchange, body),
                (plane, key) => panic!("{}: no decoder for {plane} {key}", exchange.name),
            };
            if let Some(recorded) = exchange.decoded.as_deref().filter(|text| !text.is_empty() && !multiple) {
                assert_eq!(text, recorded, "{}", exchange.name);
            }
        }
    }
    assert!(answers > 100);
}

/// Answers with damaged bytes are decoded or refused, but never end the task that reads them.
#[test]
fn damaged_metadata_never_panics() {
    for exchange in exchanges().iter().filter(|exchange| exchange.plane == "sc") {
        for response in &exchange.responses {
            let whole = body(response);
            for _ in 0..200 {
                let mut damaged = BytesMut::from(&whole[..]);
                for _ in 0..rand::random_range(1..4) {
                    if !damaged.is_empty() {
                        let at = rand::random_range(0..damaged.len());
                        damaged[at] = rand::random();
                    }
                }
                let mut damaged = damaged.freeze();
                match exchange.api_key {
                    1003 => {
                        if let Ok(list) =
                            decode_body::<ObjectApiListResponse>(&mut damaged, exchange.api_version)
                        {
                            let _ = list.downcast().map(|_: Option<ListResponse<TopicSpec>>| ());
                            let _ = list.downcast().map(|_: Option<ListResponse<PartitionSpec>>| ());
                            let _ = list.downcast().map(|_: Option<ListResponse<SpuSpec>>| ());
                        }
                    }
                    1004 => {
                        if let Ok(update) =
                            decode_body::<ObjectApiWatchResponse>(&mut damaged, exchange.api_version)
                        {
                            let _ = update.downcast().map(|_: Option<WatchResponse<TopicSpec>>| ());
                            let _ = update.downcast().map(|_: Option<WatchResponse<PartitionSpec>>| ());
                            let _ = update.downcast().map(|_: Option<WatchResponse<SpuSpec>>| ());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
