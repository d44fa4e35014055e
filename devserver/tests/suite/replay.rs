//! The recorded exchanges with a real server (`tests/data/exchanges.jsonl`), asked again in the same order.
//!
//! Answers must be equal byte by byte. Left out are: epochs, modification times and addresses, the order of lists, and how
//! watch updates are grouped (compared is what a watcher knows in the end).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::Duration;

use crate::common::{Arrival, Raw, SOON};
use bytes::Buf;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuSpec, SpuSpec};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::message::{Message, MsgType};
use fluvio_sc_schema::objects::{
    Metadata, MetadataUpdate, ObjectApiListResponse, ObjectApiWatchResponse, WatchResponse,
};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use fluvio_spu_schema::produce::ProduceResponse;
use fluvio_spu_schema::server::consumer_offset::FetchConsumerOffsetsResponse;
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use serde::Deserialize;
use wire::builder::BatchBuilder;

/// Exchanges that need the SmartModule engine.
const NEED_ENGINE: [&str; 3] =
    ["stream-fetch-smartmodule-garbage", "stream-fetch-smartmodule-no-export", "stream-fetch-filter"];
/// How long a stream that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Exchange {
    name: String,
    plane: String,
    connection: u32,
    api_version: i16,
    request: Option<String>,
    responses: Vec<String>,
    connection_closed: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_as_the_real_server_did() {
    let server = Server::start(Config {
        cut_batches: true,
        platform_version: "0.18.2-dev-1".parse().expect("a version"),
        ..Config::default()
    })
    .await
    .expect("start");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/exchanges.jsonl");
    let recorded = std::fs::read_to_string(path).expect("the recorded exchanges");
    let exchanges: Vec<Exchange> =
        recorded.lines().map(|line| serde_json::from_str(line).expect("an exchange")).collect();
    let mut replay = Replay {
        controller: server.endpoint(),
        unit: String::new(),
        connections: HashMap::new(),
        watched: [Watched::default(), Watched::default()],
    };
    let mut served = 0;
    for exchange in &exchanges {
        if !cfg!(feature = "smartengine") && NEED_ENGINE.contains(&exchange.name.as_str()) {
            continue;
        }
        replay.run(exchange).await;
        served += 1;
    }
    let skipped = if cfg!(feature = "smartengine") { 0 } else { NEED_ENGINE.len() };
    assert_eq!((served + skipped, exchanges.len()), (104, 104));
    server.shutdown().await;
}

struct Replay {
    controller: String,
    /// Known once the SPUs were listed.
    unit: String,
    connections: HashMap<u32, Raw>,
    /// What the watcher knows, there and here.
    watched: [Watched; 2],
}

impl Replay {
    async fn run(&mut self, exchange: &Exchange) {
        let endpoint = if exchange.plane == "sc" { &self.controller } else { &self.unit };
        let connection = match self.connections.entry(exchange.connection) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Raw::connect(endpoint).await),
        };
        match &exchange.request {
            Some(request) => connection.send(&bytes_of(request)).await,
            None if exchange.name == "stream-fetch-filter" => connection.send(&filtered_fetch()).await,
            None => connection.send(&oversized_produce()).await,
        }
        let expected: Vec<Vec<u8>> = exchange.responses.iter().map(|hex| bytes_of(hex)).collect();
        if exchange.name.starts_with("watch-after-") {
            for frame in expected {
                self.watched[0].apply(&frame);
            }
            return self.watched_alike(exchange).await;
        }
        for expected in &expected {
            let got = connection.receive().await;
            if exchange.name == "list-spus" {
                self.unit = unit_address(&got);
            }
            if exchange.name.starts_with("watch-") {
                self.watched[0].apply(expected);
                self.watched[1].apply(&got);
            } else {
                compare(exchange, expected, &got);
            }
        }
        if exchange.connection_closed {
            assert_eq!(connection.receive_within(SOON).await, Arrival::Closed, "{}", exchange.name);
        } else if expected.is_empty() {
            let silent = connection.receive_within(SILENCE).await;
            assert_eq!(silent, Arrival::Nothing, "{}", exchange.name);
        }
    }

    /// Takes updates until our watcher knows what the recorded one knew.
    async fn watched_alike(&mut self, exchange: &Exchange) {
        let connection = self.connections.get_mut(&exchange.connection).expect("a watcher");
        let [theirs, ours] = &mut self.watched;
        while ours != theirs {
            match connection.receive_within(SOON).await {
                Arrival::Frame(frame) => ours.apply(&frame),
                other => panic!("{}: {other:?}\n{ours:#?}\nis not\n{theirs:#?}", exchange.name),
            }
        }
    }
}

/// What a watcher of topics, partitions and SPUs knows, as text by kind and name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Watched(BTreeMap<(&'static str, String), String>);

impl Watched {
    fn apply(&mut self, frame: &[u8]) {
        let body = &mut &frame[8..];
        let response = ObjectApiWatchResponse::decode_from(body, 19).expect("a watch response");
        self.apply_kind::<TopicSpec>(&response);
        self.apply_kind::<PartitionSpec>(&response);
        self.apply_kind::<SpuSpec>(&response);
    }

    fn apply_kind<S>(&mut self, response: &ObjectApiWatchResponse)
    where
        S: AdminSpec,
        S::Status: Encoder + Decoder + Debug,
    {
        let response: Option<WatchResponse<S>> = response.downcast().expect("a watch update");
        let Some(MetadataUpdate { changes, all, .. }) = response.map(WatchResponse::inner) else {
            return;
        };
        for object in all {
            self.0.insert(key::<S>(&object), text(&object));
        }
        for Message { header, content } in changes {
            match header {
                MsgType::UPDATE => self.0.insert(key::<S>(&content), text(&content)),
                MsgType::DELETE => self.0.remove(&key::<S>(&content)),
            };
        }
    }
}

fn key<S>(object: &Metadata<S>) -> (&'static str, String)
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    (S::LABEL, object.name.clone())
}

/// The object as text, without the ports.
fn text<S>(object: &Metadata<S>) -> String
where
    S: AdminSpec,
    S::Status: Encoder + Decoder + Debug,
{
    let text = format!("{object:?}");
    let mut parts = text.split("port: ");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rest.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    rest
}

fn compare(exchange: &Exchange, expected: &[u8], got: &[u8]) {
    let name = &exchange.name;
    if name.starts_with("list-") {
        assert_eq!(listed(got), listed(expected), "{name}");
    } else if name.starts_with("fetch-consumer-offsets") {
        assert_eq!(stored(exchange, got), stored(exchange, expected), "{name}");
    } else if name == "produce-larger-than-segment" {
        let mut body = &got[8..];
        let response = ProduceResponse::decode_from(&mut body, 25).expect("a produce response");
        let code = &response.responses[0].partitions[0].error_code;
        assert_eq!(*code, ErrorCode::CompressionError, "{name}");
    } else {
        assert_eq!(hex(got), hex(expected), "{name}");
    }
}

/// The objects of a list as text: sorted, without addresses. Kinds that have neither are compared as bytes.
fn listed(frame: &[u8]) -> Vec<String> {
    let mut body = &frame[8..];
    let response = ObjectApiListResponse::decode_from(&mut body, 19).expect("a list");
    let mut objects = listed_kind::<TopicSpec>(&response)
        .or_else(|| listed_kind::<PartitionSpec>(&response))
        .or_else(|| listed_kind::<SpuSpec>(&response))
        .or_else(|| listed_kind::<CustomSpuSpec>(&response))
        .unwrap_or_else(|| vec![hex(frame)]);
    objects.sort();
    objects
}

fn listed_kind<S>(response: &ObjectApiListResponse) -> Option<Vec<String>>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder + Debug,
{
    let list: Option<fluvio_sc_schema::objects::ListResponse<S>> = response.downcast().expect("a list");
    Some(list?.inner().iter().map(text).collect())
}

fn stored(exchange: &Exchange, frame: &[u8]) -> String {
    let mut body = &frame[8..];
    let mut response =
        FetchConsumerOffsetsResponse::decode_from(&mut body, exchange.api_version).expect("offsets");
    assert!(!body.has_remaining());
    for consumer in &mut response.consumers {
        consumer.modified_time = 0;
    }
    format!("{response:?}")
}

fn unit_address(list: &[u8]) -> String {
    let mut body = &list[8..];
    let response = ObjectApiListResponse::decode_from(&mut body, 19).expect("a list");
    let list: Option<fluvio_sc_schema::objects::ListResponse<SpuSpec>> = response.downcast().expect("a list");
    list.expect("SPUs").inner()[0].spec.public_endpoint.addr()
}

/// 1.2 MB, uncompressed, to a topic that wants zstd and segments of 1 MB; the recording leaves its bytes out.
fn oversized_produce() -> Vec<u8> {
    let mut batch = BatchBuilder::with_capacity(2_000_000);
    batch.push(None, &vec![7; 1_200_000], 0);
    let records = batch.finish();
    let mut body = Vec::new();
    for part in [
        &0_u16.to_be_bytes()[..], // produce
        &25_i16.to_be_bytes(),    // version
        &99_i32.to_be_bytes(),    // correlation id
        &0_i16.to_be_bytes(),     // client id
        &[0],                     // no transactional id
        &1_i16.to_be_bytes(),     // ReadUncommitted
        &1000_i32.to_be_bytes(),  // timeout
        &1_i32.to_be_bytes(),     // one topic
        &9_i16.to_be_bytes(),
        b"gold-full",
        &1_i32.to_be_bytes(), // one entry
        &0_i32.to_be_bytes(), // partition
        &(records.len() as i32).to_be_bytes(),
        &records,
        &0_i32.to_be_bytes(), // no SmartModules
    ] {
        body.extend_from_slice(part);
    }
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// A stream of partition 1 through a filter that keeps values with an "a"; the recording leaves the module out.
fn filtered_fetch() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/smartmodules/filter.wasm");
    let module = std::fs::read(path).expect("the module");
    let wasm = SmartModuleInvocationWasm::adhoc_from_bytes(&module).expect("compress");
    let mut request = DefaultStreamFetchRequest::builder();
    request.topic("gold-a".to_owned()).partition(1_u32).max_bytes(1_000_000);
    request.smartmodules(vec![SmartModuleInvocation { wasm, ..SmartModuleInvocation::default() }]);
    crate::common::frame_of(request.build().expect("a request"))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
