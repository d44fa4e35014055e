//! What these tests share: modules, uploads, record sets, and a stream with SmartModules.

use std::collections::{BTreeMap, VecDeque};

use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{Batch, RawRecords};
use fluvio_protocol::{ByteBuf, Decoder, Encoder};
use fluvio_sc_schema::objects::{CommonCreateRequest, CreateRequest, ObjectApiCreateRequest};
use fluvio_sc_schema::smartmodule::{SmartModuleMetadata, SmartModuleSpec, SmartModuleWasm};
use fluvio_sc_schema::{Status, TryEncodableFrom};
use fluvio_smartmodule::dataplane::smartmodule::{Lookback, SmartModuleExtraParams};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::produce::{DefaultProduceRequest, PartitionProduceData, TopicProduceData};
use fluvio_spu_schema::server::smartmodule::{
    SmartModuleContextData, SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest, UpdateOffsetsResponse};
use wire::builder::BatchBuilder;

use crate::common::{Arrival, Raw, ask, create, frame_of, framed, produce, unit_of};

/// How long a connection that must stay silent is listened to.
pub const SILENCE: std::time::Duration = std::time::Duration::from_millis(200);
/// What every record was written at, in milliseconds since 1970.
pub const WRITTEN_AT: i64 = 1_700_000_000_000;
/// Correlation id of acknowledgements; answers of the stream carry that of its request, which is 1.
const ACKNOWLEDGEMENT: i32 = 2;

/// A server with the topic `t` of one partition.
pub struct Fixture {
    pub server: Server,
    pub controller: Raw,
    pub unit: String,
}

pub async fn start() -> Fixture {
    start_with(Config::default()).await
}

pub async fn start_with(config: Config) -> Fixture {
    let server = Server::start(config).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut controller).await;
    let created = create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    assert!(created.error_code.is_ok());
    Fixture { server, controller, unit }
}

impl Fixture {
    /// Writes a batch of these values to the topic `t`.
    pub async fn write(&self, values: &[&str]) {
        let mut connection = Raw::connect(&self.unit).await;
        let written = produce(&mut connection, "t", &[&batch_of(values)]).await;
        assert!(written[0].0.is_ok(), "{written:?}");
    }

    /// Everything that the topic `t` holds, unfiltered.
    pub async fn read(&self) -> Answer {
        Stream::open(&self.unit, Vec::new()).await.answer().await
    }
}

/// A module of the folder: WebAssembly text if the name says so, else a built one.
pub fn wasm(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/smartmodules");
    let file = if name.ends_with(".wat") { name.to_owned() } else { format!("{name}.wasm") };
    std::fs::read(format!("{folder}/{file}")).expect(name)
}

/// A module that travels with the request.
pub fn ad_hoc(name: &str) -> SmartModuleInvocation {
    let wasm = SmartModuleInvocationWasm::adhoc_from_bytes(&wasm(name)).expect("compress");
    invocation(wasm)
}

/// A module that was uploaded.
pub fn named(name: &str) -> SmartModuleInvocation {
    invocation(SmartModuleInvocationWasm::Predefined(name.to_owned()))
}

pub fn invocation(wasm: SmartModuleInvocationWasm) -> SmartModuleInvocation {
    let kind = SmartModuleKind::Generic(SmartModuleContextData::None);
    SmartModuleInvocation { wasm, kind, ..SmartModuleInvocation::default() }
}

pub fn with_param(mut module: SmartModuleInvocation, name: &str, value: &str) -> SmartModuleInvocation {
    module.params.insert(name.to_owned(), value.to_owned());
    module
}

pub fn looking_back(mut module: SmartModuleInvocation, look_back: Lookback) -> SmartModuleInvocation {
    module.params = SmartModuleExtraParams::new(BTreeMap::new(), Some(look_back));
    module
}

pub fn accumulating(mut module: SmartModuleInvocation, accumulator: &str) -> SmartModuleInvocation {
    let accumulator = accumulator.as_bytes().to_vec();
    module.kind = SmartModuleKind::Generic(SmartModuleContextData::Aggregate { accumulator });
    module
}

/// Uploads a module.
pub async fn upload(controller: &mut Raw, name: &str, module: &str, meta: Option<SmartModuleMetadata>) {
    let SmartModuleInvocationWasm::AdHoc(packed) = ad_hoc(module).wasm else { unreachable!() };
    let wasm = SmartModuleWasm { payload: ByteBuf::from(packed), ..SmartModuleWasm::default() };
    let common = CommonCreateRequest { name: name.to_owned(), ..CommonCreateRequest::default() };
    let request = CreateRequest::new(common, SmartModuleSpec { meta, wasm, ..SmartModuleSpec::default() });
    let request = ObjectApiCreateRequest::try_encode_from(request, 19).expect("encode");
    let status: Status = ask(controller, request).await;
    assert!(status.error_code.is_ok(), "{status:?}");
}

pub fn batch_of(values: &[&str]) -> Vec<u8> {
    let mut batch = BatchBuilder::with_capacity(1024);
    for value in values {
        batch.push(None, str::as_bytes(value), WRITTEN_AT);
    }
    batch.finish()
}

/// Produces record sets to partition 0 through SmartModules; the result of each.
pub async fn produce_through(
    connection: &mut Raw,
    modules: Vec<SmartModuleInvocation>,
    record_sets: &[Vec<u8>],
) -> Vec<(ErrorCode, i64)> {
    let entry = |records: &Vec<u8>| {
        let mut set = (records.len() as i32).to_be_bytes().to_vec();
        set.extend(records);
        let mut data = PartitionProduceData { partition_index: 0, ..PartitionProduceData::default() };
        data.records = Decoder::decode_from(&mut &set[..], 25).expect("records");
        data
    };
    let mut topic = TopicProduceData { name: "t".to_owned(), ..TopicProduceData::default() };
    topic.partitions = record_sets.iter().map(entry).collect();
    let mut request = DefaultProduceRequest { smartmodules: modules, ..DefaultProduceRequest::default() };
    request.topics.push(topic);
    let response = ask(connection, request).await;
    let entries = response.responses.into_iter().flat_map(|topic| topic.partitions);
    entries.map(|entry| (entry.error_code, entry.base_offset)).collect()
}

/// What an answer of a stream held.
#[derive(Debug)]
pub struct Answer {
    pub partition: FetchablePartitionResponse<i32>,
    pub batches: Vec<Batch>,
}

impl Answer {
    pub fn values(&self) -> Vec<String> {
        let records = self.batches.iter().flat_map(|batch| batch.records());
        records.map(|record| String::from_utf8_lossy(record.value.as_ref()).into_owned()).collect()
    }

    pub fn deltas(&self) -> Vec<i64> {
        let records = self.batches.iter().flat_map(|batch| batch.records());
        records.map(|record| record.preamble.offset_delta()).collect()
    }

    pub fn error(&self) -> &ErrorCode {
        &self.partition.error_code
    }
}

/// A connection with one stream of the topic `t`.
pub struct Stream {
    pub connection: Raw,
    /// Answers that came before the reply to an acknowledgement: the server promises no order between the two.
    early: VecDeque<Vec<u8>>,
}

impl Stream {
    pub async fn open(unit: &str, modules: Vec<SmartModuleInvocation>) -> Self {
        Self::open_at(unit, modules, 0, 1_000_000).await
    }

    pub async fn open_at(
        unit: &str,
        modules: Vec<SmartModuleInvocation>,
        offset: i64,
        max_bytes: i32,
    ) -> Self {
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic("t".to_owned()).fetch_offset(offset).max_bytes(max_bytes).smartmodules(modules);
        let mut connection = Raw::connect(unit).await;
        connection.send(&frame_of(request.build().expect("a request"))).await;
        Stream { connection, early: VecDeque::new() }
    }

    pub async fn answer(&mut self) -> Answer {
        let frame = match self.early.pop_front() {
            Some(frame) => frame,
            None => self.connection.receive().await,
        };
        let mut unread = &frame[8..];
        // The record set is an i32 length and the batches.
        let StreamFetchResponse { partition, .. } =
            StreamFetchResponse::<i32>::decode_from(&mut unread, 25).expect("an answer");
        assert_eq!(partition.records as usize, unread.len());
        let mut batches = Vec::new();
        while !unread.is_empty() {
            let batch = Batch::<RawRecords>::decode_from(&mut unread, 25).expect("a batch");
            batches.push(Batch::try_from(batch).expect("records"));
        }
        Answer { partition, batches }
    }

    pub async fn acknowledge(&mut self, offset: i64) {
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

    pub async fn assert_silent(&mut self) {
        assert!(self.early.is_empty());
        assert_eq!(self.connection.receive_within(SILENCE).await, Arrival::Nothing);
    }
}
